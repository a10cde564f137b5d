"""Ways to a small generator at equal multiply-adds, steps, data and seeds, each at its best learning rate.

    python scripts/compare_methods.py --data facades=PATH horse2zebra=PATH --output methods --jobs 2

Every run is one ``coronet sweep``, so that its figures are those of ``coronet evaluate``. Of each row the
generators are trained with several multiples of the usual learning rate, the discriminators with the usual
one; the best by KID of averaged weights on held-out pictures, with the first seed, is trained with the other
seeds too and judged on the test pictures: with averaged weights, and with the plain ones of the last three
saves. Held out are pictures of ``val`` where the data has them, else training pictures; of a data set without
``test``, ``val`` is the test. Calls with other seeds first judge their first one at all rates, too: tables
show the rate that is best on average over the seeds that were judged so.

``OUTPUT/records`` has a file for every run, written as it comes; what is there is not done again. At the end,
or with ``--table`` alone, ``methods.jsonl`` and ``methods.md`` are written from them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.sweep.plan import Trial, is_dense  # noqa: E402
from scripts.method_tables import write  # noqa: E402
from scripts.method_tasks import (  # noqa: E402
    DENSE_BUDGET,
    FACTORS,
    HELD_OUT,
    LAST,
    PARTS,
    ROWS,
    TASKS,
    TEACHER,
    Job,
    prepared,
)


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
        values = {name: str(task.epochs * part) for name, part in PARTS.items()}
        values[TEACHER] = str(taught[0][0]) if taught else ""
        own = [values.get(each, each) for each in own]
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
        whole = looks[look].get("training_seconds") or 0.0
        # of a run that was continued the sweep knows the last part alone
        seconds = max(run["seconds"], whole) + sum(spent for _, spent in taught)
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
        folder = self.output / "sweeps" / f"{job.task}_f{job.factor}"
        run = folder / "checkpoints" / Trial("dense", DENSE_BUDGET, job.seed).name
        dense = replace(job, row="dense", budget=DENSE_BUDGET, looks=(HELD_OUT,))
        with self._teaching:
            record = self.done(dense)
            if not run.is_dir():  # its record came from another machine
                record = self._judged(dense, HELD_OUT, record)
        return averaged(run, folder / "teachers" / run.name), float(record["seconds"])

    # -- which runs, in which order
    def row(self, task: str, row: str, budget: str, seeds: Sequence[int], factors: Sequence[str]) -> None:
        """Find the best rate with the first seed, if there are several, then judge all seeds at it."""
        budget = DENSE_BUDGET if is_dense(ROWS[row]) else budget

        def held_out(factor: str) -> float:
            record = self.done(Job(task, row, budget, factor, seeds[0], (HELD_OUT,)))
            return float(record["looks"][HELD_OUT]["kid"])

        best = min(factors, key=held_out) if len(factors) > 1 else factors[0]
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
