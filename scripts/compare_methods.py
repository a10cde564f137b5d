"""Ways to a small generator at equal multiply-adds, steps, data and seeds, each at its best learning rate.

    python scripts/compare_methods.py --data facades=PATH horse2zebra=PATH --output methods --jobs 2

Every run is one ``coronet sweep``, so that its figures are those of ``coronet evaluate``. Of each row the
generators are trained with several multiples of the usual learning rate, the discriminators with the usual
one; the best by KID of averaged weights on held-out pictures, with the first seed, is trained with the other
seeds too and judged on the test pictures: with averaged weights, and with the plain ones of the last three
saves. Held out are pictures of ``val`` where the data has them, else training pictures; of a data set without
``test``, ``val`` is the test.

``OUTPUT/records`` has a file for every run, written as it comes; what is there is not done again. At the end,
or with ``--table`` alone, ``methods.jsonl`` and ``methods.md`` are written from them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.comparison.pareto import Point, draw_points  # noqa: E402
from coronet_plugin.comparison.quantities import KID  # noqa: E402
from coronet_plugin.drawing import new_figure, save_svg  # noqa: E402
from coronet_plugin.evaluation.pictures import ENDINGS, spread  # noqa: E402
from coronet_plugin.sweep.plan import Trial, is_dense  # noqa: E402
from scripts import records as records_of  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {
    "dense": "dense",
    "dense, multipliers": "dense+implicit",
    "uniform": "uniform",
    "uniform, multipliers": "uniform+implicit",
    "magnitude": "magnitude",
    "random": "random",
    "gates": "gates",
    "gates, linear": "gates --coronet_schedule linear",
    "published": "published",
    "implicit": "implicit",
    "gated": "gated",
    "gates, self-distilled": "gates --coronet_distill SELF",
    "gates, distilled": "gates --coronet_distill {dense}",
    "distill": "distill",
    "slimming": "slimming",
    "taylor": "taylor",
    "GAN Compression": "gan_compression --coronet_teacher {dense} --coronet_search_generations 20 "
    "--coronet_search_population 40",  # published: 500 of 100, on a GPU
    "agent gates, inspired by MGGC, equations ours": "manifold --coronet_teacher {dense}",
}
"""Rows of the tables: methods as ``coronet sweep`` calls them, with options of ``train.py`` of their own.

``{dense}`` is the averaged weights of the row ``dense`` of the same rate and seed, whose training is done
first; its time counts."""
DENSE_BUDGET, TEACHER = "1.0", "{dense}"
FACTORS = ("1", "2.5", "5")
HELD_OUT = "val_latest_average"
AVERAGED, RAW = "test_latest_average", "test_latest"
SAVE_EVERY, LAST = 100, 3
"""Steps between saves, and how many of them are kept."""


@dataclass(frozen=True)
class Task:
    """A training. ``train`` and ``held_out``: how many pictures, at most, of either side."""

    options: str
    size: int
    epochs: int
    train: int
    held_out: int
    paired: bool = True
    generator: str = "G"

    @property
    def steps(self) -> int:
        return self.epochs * self.train

    def words(self, data: Path, factor: str) -> list[str]:
        """Options of ``train.py``."""
        size, decay = str(self.size), self.epochs // 2
        words = [*self.options.split(), "--dataroot", str(data), "--load_size", size, "--crop_size", size]
        words += ["--n_epochs", str(self.epochs - decay), "--n_epochs_decay", str(decay)]
        words += ["--coronet_search_epochs", str(self.epochs / 2), "--coronet_average", "0.999"]
        words += ["--coronet_lr_factor", factor, "--coronet_watch", "0", "--num_threads", "0", "--no_html"]
        words += ["--display_id", "-1", "--display_freq", "1000000", "--print_freq", "100"]
        return [*words, "--save_epoch_freq", "1000", "--save_latest_freq", str(SAVE_EVERY), "--save_by_iter"]

    def looks(self, saves: int = LAST) -> list[str]:
        """Saves that runs at the best rate are judged by: averaged weights, and so many of the plain ones."""
        earlier = range(self.steps - SAVE_EVERY, self.steps - SAVE_EVERY * saves, -SAVE_EVERY)
        return [AVERAGED, *([RAW] if saves else []), *(f"test_iter_{number}" for number in earlier)]


UNET = "--model pix2pix --netG unet_128 --norm batch --ngf 16 --ndf 16"
RESNET = "--netG resnet_6blocks --norm instance --no_dropout"
TASKS = {
    "facades": Task(f"{UNET} --direction BtoA", 128, epochs=3, train=400, held_out=100),
    "openmoji": Task(
        f"--model pix2pix {RESNET} --ngf 24 --ndf 24 --lr 0.0005", 64, epochs=1, train=1000, held_out=100
    ),
    "horse2zebra": Task(
        f"--model cycle_gan {RESNET} --ngf 16 --ndf 16 --lambda_identity 0",
        *(64, 2, 500, 100),
        paired=False,
        generator="G_A",
    ),
    "edges2shoes": Task(UNET, 128, epochs=15, train=80, held_out=20),
}


@dataclass(frozen=True)
class Job:
    """One run and what it is judged by."""

    task: str
    row: str
    budget: str
    factor: str
    seed: int
    looks: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.task}_{self.row.replace(', ', '_')}_{self.budget}_f{self.factor}_s{self.seed}"


# -- data ----------------------------------------------------------------------
def prepared(name: str, source: Path, folder: Path) -> Path:
    """The data set as links: as many training and held-out pictures as the task takes, evenly spread."""
    task, made = TASKS[name], folder / name
    for side in ("",) if task.paired else ("A", "B"):
        train, val, test = (_pictures(source / f"{phase}{side}") for phase in ("train", "val", "test"))
        if not test:
            val, test = [], val
        if not val:
            out = set(spread(len(train), task.held_out))
            val = [train[i] for i in sorted(out)]
            train = [path for i, path in enumerate(train) if i not in out]
        for phase, paths, count in (
            ("train", train, task.train),
            ("val", val, task.held_out),
            ("test", test, 10**6),
        ):
            target = made / f"{phase}{side}"
            target.mkdir(parents=True, exist_ok=True)
            for index in spread(len(paths), count):
                link = target / paths[index].name
                if not link.exists():
                    link.symlink_to(paths[index])
    return made


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path.resolve() for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


# -- runs ----------------------------------------------------------------------
@dataclass
class Comparison:
    """Runs of a comparison in ``output``. ``data``: prepared data sets by task; ``gpu``: to train on."""

    output: Path
    data: dict[str, Path]
    gpu: str = ""
    saves: int = LAST
    _teaching: Lock = field(default_factory=Lock)

    def record(self, job: Job) -> dict[str, Any]:
        path = self.output / "records" / f"{job.name}.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def done(self, job: Job) -> dict[str, Any]:
        """The record of a run that is trained and judged, now or before."""
        record = self.record(job)
        for look in job.looks:
            if look not in record.get("looks", {}):
                record = self._judged(job, look, record)
        return record

    def _judged(self, job: Job, look: str, record: dict[str, Any]) -> dict[str, Any]:
        phase, _, epoch = look.partition("_")
        task, (method, *own) = TASKS[job.task], ROWS[job.row].split()
        label = [each.strip("{}") for each in own[1:]]
        folder = self.output / "sweeps" / "_".join([job.task, f"f{job.factor}", *label])
        taught = [self._teacher(job)] if TEACHER in own else []
        own = [str(taught[0][0]) if each == TEACHER else each for each in own]
        words = [
            sys.executable,
            "-m",
            "coronet_plugin",
            "sweep",
            "--output",
            str(folder),
            "--methods",
            method,
        ]
        words += ["--budgets", job.budget, "--seeds", str(job.seed), "--phase", phase, "--epoch", epoch]
        words += [
            "--cache_dir",
            str(self.output / "cache"),
            "--",
            *task.words(self.data[job.task], job.factor),
        ]
        words += [*own, "--gpu_ids", self.gpu or "-1"]
        self.output.joinpath("cache").mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        found = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(f"{job.name} {look}: {found.stderr.strip().splitlines()[-1:]}")
        trial = Trial(method, job.budget, job.seed)
        run = json.loads((folder / "runs" / f"{trial.name}.json").read_text())
        _tidy(folder / "checkpoints" / trial.name, job)
        known = {key: getattr(job, key) for key in ("task", "row", "budget", "factor", "seed")}
        looks = {**record.get("looks", {}), look: run["figures"][look][task.generator]}
        seconds = run["seconds"] + sum(spent for _, spent in taught)
        record = {"name": job.name, **known, "seconds": seconds, "looks": looks}
        path = self.output / "records" / f"{job.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(
            json.dumps({**known, "look": look, **short(looks[look]), "s": round(run["seconds"])}), flush=True
        )
        return record

    def _teacher(self, job: Job) -> tuple[Path, float]:
        """Weights of the dense run of the same rate and seed, and the seconds it took."""
        with self._teaching:
            record = self.done(replace(job, row="dense", budget=DENSE_BUDGET, looks=(HELD_OUT,)))
        folder = self.output / "sweeps" / f"{job.task}_f{job.factor}"
        run = folder / "checkpoints" / Trial("dense", DENSE_BUDGET, job.seed).name
        return averaged(run, folder / "teachers" / run.name), float(record["seconds"])

    # -- which runs, in which order
    def row(self, task: str, row: str, budget: str, seeds: Sequence[int], factors: Sequence[str]) -> None:
        """Find the best rate with the first seed, then judge all seeds at it."""
        budget = DENSE_BUDGET if is_dense(ROWS[row]) else budget
        tried = {
            factor: self.done(Job(task, row, budget, factor, seeds[0], (HELD_OUT,))) for factor in factors
        }
        best = min(tried, key=lambda factor: float(tried[factor]["looks"][HELD_OUT]["kid"]))
        for seed in seeds:
            self.done(Job(task, row, budget, best, seed, tuple(TASKS[task].looks(self.saves))))


def averaged(run: Path, folder: Path) -> Path:
    """``run`` with its averaged weights in place of the plain ones, as links in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in run.iterdir():
        name = path.name.replace("latest_average_", "latest_")
        if not (folder / name).exists() and (name != path.name or not path.name.startswith("latest")):
            (folder / name).symlink_to(path)
    return folder


def _tidy(folder: Path, job: Job) -> None:
    """Remove what is not looked at: the state of the training, early saves, discriminators."""
    wanted = {look.partition("_")[2] for look in (*TASKS[job.task].looks(), HELD_OUT)}
    for path in folder.glob("*.pth"):
        epoch, _, net = path.stem.partition("_net_")
        if epoch not in wanted or not net.startswith("G"):
            path.unlink()


def short(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(figures[key], 5)
        for key in ("macs_share", "kid", "ssim", "l1")
        if figures.get(key) is not None
    }


# -- tables ----------------------------------------------------------------------
FIGURES = (("kid", 1000, 1, "KID x 1000"), ("ssim", 1, 3, "SSIM"), ("l1", 1, 3, "L1"))
Records = list[dict[str, Any]]


def chosen(records: Records) -> Iterator[tuple[tuple[str, str, str], Records]]:
    """By (task, budget, row): the runs at the best rate that were judged on test pictures, by seed."""
    groups: dict[tuple[str, str, str], Records] = {}
    for record in records:
        groups.setdefault((record["task"], record["budget"], record["row"]), []).append(record)
    order = {name: index for index, name in enumerate((*TASKS, *ROWS))}
    for key in sorted(groups, key=lambda k: (order[k[0]], -float(k[1]), order[k[2]])):
        found = [r for r in groups[key] if AVERAGED in r["looks"]]
        if found:
            factor = best_factor(groups[key])
            found = [r for r in found if r["factor"] == factor]
            yield key, sorted(found, key=lambda r: int(r["seed"]))


def best_factor(records: Records) -> str:
    tried = [r for r in records if HELD_OUT in r["looks"]]
    return str(min(tried, key=lambda r: float(r["looks"][HELD_OUT]["kid"]))["factor"])


def value(record: dict[str, Any], key: str, plain: bool = False) -> float | None:
    """A figure with averaged weights, or the mean over the last saves of the plain ones."""
    looks = record["looks"]
    names = [n for n in looks if n.startswith(RAW) and n != AVERAGED or n.startswith("test_iter")]
    found = [looks[n].get(key) for n in (names if plain else [AVERAGED])]
    return None if None in found or not found else float(np.mean(found))


def against(default: Records, rows: Records, key: str) -> list[float]:
    """Differences to the default, of the seeds that both have."""
    mine, theirs = ({r["seed"]: value(r, key) for r in group} for group in (rows, default))
    pairs = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
    return [a - b for a, b in pairs if a is not None and b is not None]


def markdown(records: Records, default: str) -> str:
    """A table for each task and budget, and the grid of learning rates."""
    found = dict(chosen(records))
    parts = []
    for task, budget in dict.fromkeys((task, budget) for task, budget, _ in found):
        if budget == DENSE_BUDGET:
            continue  # in every table of its task
        rows = {row: r for (t, b, row), r in found.items() if t == task and b in (budget, DENSE_BUDGET)}
        parts.append(_table(task, budget, rows, rows.get(default, []), default))
    return "\n".join([*parts, _grid(records)])


def _table(task: str, budget: str, rows: dict[str, Records], base: Records, default: str) -> str:
    kinds = [f for f in FIGURES if f[0] == "kid" or TASKS[task].paired]
    header = [f"{task}, {budget}", "rate", "seeds", "MACs, %"]
    header += [label for *_, label in kinds] + ["KID, plain weights", f"KID less that of {default}, paired"]
    lines = []
    for row, runs in rows.items():
        shares = [100 * r["looks"][AVERAGED]["macs_share"] for r in runs]
        cells = [row, runs[0]["factor"], str(len(runs)), f"{statistics.mean(shares):.1f}"]
        cells += [_cell([value(r, key) for r in runs], factor, digits) for key, factor, digits, _ in kinds]
        cells.append(_cell([value(r, "kid", plain=True) for r in runs], 1000, 1))
        cells.append("" if row == default else _difference(against(base, runs, "kid")))
        lines.append(cells)
    return records_of.table(header, lines) + "\n"


def _cell(values: Sequence[float | None], factor: float, digits: int) -> str:
    known = [factor * v for v in values if v is not None]
    return records_of.mean_cell(known, digits) if known else ""


def _difference(values: Sequence[float]) -> str:
    """Mean and standard error, x 1000."""
    if len(values) < 2:
        return f"{1000 * values[0]:+.1f}" if values else ""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{1000 * statistics.mean(values):+.1f} ± {1000 * error:.1f}"


def _grid(records: Records) -> str:
    """KID x 1000 of the first seed on held-out pictures by learning rate."""
    tried: dict[tuple[str, str, str], dict[str, float]] = {}
    for record in records:
        if HELD_OUT in record["looks"]:
            key = (record["task"], record["budget"], record["row"])
            tried.setdefault(key, {})[record["factor"]] = 1000 * record["looks"][HELD_OUT]["kid"]
    factors = sorted({factor for row in tried.values() for factor in row}, key=float)
    lines = [[*key, *(f"{row[f]:.0f}" if f in row else "" for f in factors)] for key, row in tried.items()]
    return records_of.table(["held out", "budget", "row", *(f"x {f}" for f in factors)], lines) + "\n"


COSTS = {
    "time": ("seconds of training, teacher and search included", lambda r: float(r["seconds"])),
    "macs": ("multiply-adds, % of the dense generator's", lambda r: 100 * value_of(r, "macs_share")),
}


def pareto(records: Records, cost: str) -> Figure:
    """Mean KID of every row on test pictures against its cost, a panel for each task.

    Against time the rows of one budget, 0.1, and dense; against multiply-adds all budgets.
    """
    label, read = COSTS[cost]
    found = [
        (key, runs) for key, runs in chosen(records) if cost == "macs" or key[1] in ("0.1", DENSE_BUDGET)
    ]
    tasks = list(dict.fromkeys(task for (task, *_), _ in found))
    figure = new_figure(8, 5 * len(tasks))
    for axes, task in zip(figure.subplots(len(tasks), 1, squeeze=False)[:, 0], tasks):
        points = []
        for (_, budget, row), runs in (item for item in found if item[0][0] == task):
            kids = [1000 * value_of(r, "kid") for r in runs]
            spread = statistics.stdev(kids) if len(kids) > 1 else 0.0
            name = row if cost == "time" or budget == DENSE_BUDGET else f"{row} {budget}"
            at = statistics.mean(map(read, runs))
            points.append(Point(name, list(ROWS).index(row), at, statistics.mean(kids), spread))
        draw_points(axes, points, KID)
        axes.set_title(task)
        axes.set_xlabel(label)
    return figure


def value_of(record: dict[str, Any], key: str) -> float:
    """A figure on test pictures, with averaged weights."""
    return float(record["looks"][AVERAGED][key])


def write(output: Path, folder: Path, default: str) -> None:
    """Everything from the records there are."""
    records = [json.loads(path.read_text()) for path in sorted((output / "records").glob("*.json"))]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "methods.jsonl").write_text(lines)
    (folder / "methods.md").write_text(markdown(records, default))
    for cost in COSTS if any(AVERAGED in record["looks"] for record in records) else ():
        save_svg(pareto(records, cost), folder / f"methods_{cost}.svg")
    print((folder / "methods.md").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME=PATH", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--output", type=Path, default=Path("methods"), help="folder (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--budgets", nargs="+", default=["0.1"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--factors", nargs="+", default=list(FACTORS), help="of the generators' learning rate"
    )
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time (default: %(default)s)")
    parser.add_argument(
        "--saves",
        type=int,
        default=LAST,
        choices=range(LAST + 1),
        help="also judge so many of the last saves of the plain weights (default: %(default)s)",
    )
    parser.add_argument("--default", default="gates", help="the row that others are compared with")
    parser.add_argument("--gpu", default="", metavar="ID", help="train on this GPU (default: the CPU)")
    parser.add_argument(
        "--table", type=Path, metavar="FOLDER", help="only write the tables, into this folder"
    )
    options = parser.parse_args()
    output = options.output.resolve()
    if options.table:
        write(output, options.table, options.default)
        return 0
    pairs = (item.split("=", 1) for item in options.data)
    data = {name: prepared(name, Path(path).resolve(), output / "data") for name, path in pairs}
    comparison, failed = Comparison(output, data, options.gpu, options.saves), []

    def one(task: str, budget: str, row: str) -> None:
        try:
            comparison.row(task, row, budget, options.seeds, options.factors)
        except RuntimeError as error:
            failed.append(str(error))
            print(error, file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        for task in data:
            for budget in options.budgets:
                for row in options.rows:
                    pool.submit(one, task, budget, row)
    write(output, output, options.default)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
