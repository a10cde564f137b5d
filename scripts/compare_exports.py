"""Targets of ``coronet export`` by dtype, for resnet_9blocks and unet_256, dense and slim at a budget of 0.1.

    python scripts/compare_exports.py models --work FOLDER     # once: trains four generators
    python scripts/compare_exports.py convert --work FOLDER    # in every environment: what is installed there
    python scripts/compare_exports.py time --work FOLDER       # once, when all is converted
    python scripts/compare_exports.py table --work FOLDER --output docs/results

What is done is not done again: rows are files in FOLDER. Conversions run in processes of their own, so that
one that fails or runs out of time leaves the others alone. Timing is one process per file, each pinned to
one core with one thread; they take turns, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import table, write

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from coronet_plugin.errors import UserError  # noqa: E402
from coronet_plugin.export.pictures import Samples, evenly, read_picture  # noqa: E402
from coronet_plugin.export.pipeline import export_generator  # noqa: E402
from coronet_plugin.export.request import Request  # noqa: E402
from coronet_plugin.export.targets import EAGER, TARGETS  # noqa: E402
from coronet_plugin.measure.timing import Stopwatch  # noqa: E402
from coronet_plugin.runs.opener import read_generator  # noqa: E402

SIZE = 256
KINDS = {
    "resnet_9blocks": "--norm instance --no_dropout --load_size 128 --crop_size 128",
    "unet_256": "--norm batch --load_size 256 --crop_size 256",
}
"""Generators, and how they are trained as pix2pix's; inputs of exports are of SIZE all the same."""
BUDGETS = {"dense": "1.0", "slim": "0.1"}
TRAINING = (
    "--model coronet --coronet_base pix2pix --coronet_round_to 8 --coronet_search_epochs 1 --n_epochs 2"
)
TRAINING += " --n_epochs_decay 0 --max_dataset_size 60 --num_threads 0 --display_id -1 --no_html --seed 0"
DTYPES = ("fp32", "fp16", "int8")
LIMIT_S = 3600
"""Seconds of CPU time for one conversion."""
NOT_TIMED = {("torchscript", "fp16"), ("pt2", "fp16")}
"""PyTorch calculates fp16 on CPUs some twenty times slower than fp32."""
KEYS = "generator state target dtype converts runs accepted max mean ssim".split()
KEYS += "mb convert_s cpu_ms wall_ms rounds error".split()


# -- generators -------------------------------------------------------------------
def make_models(work: Path) -> None:
    """Train what is not there yet: 120 steps on the bundled emoji."""
    for netG in KINDS:
        for state, budget in BUDGETS.items():
            path = weights(work, netG, state)
            if not path.is_file():
                words = [sys.executable, str(HERE / "train.py"), *TRAINING.split(), *KINDS[netG].split()]
                words += ["--netG", netG, "--coronet_budget", budget, "--name", path.parent.name]
                words += ["--dataroot", str(HERE / "datasets" / "openmoji")]
                words += ["--checkpoints_dir", str(path.parent.parent), "--overwrite"]
                subprocess.run(words, check=True, cwd=HERE)
            print(path, flush=True)


def weights(work: Path, netG: str, state: str) -> Path:
    return work / "checkpoints" / f"{netG}_{state}" / "latest_net_G.pth"


def pictures(phase: str = "test", count: int = 2) -> Samples:
    files = evenly(sorted((HERE / "datasets" / "openmoji" / phase).glob("*.png")), count)
    values = np.stack([read_picture(path, 3, (SIZE, SIZE), half=0) for path in files])
    return Samples(values, f"{phase} pictures of openmoji")


# -- conversion -------------------------------------------------------------------
def cases() -> list[tuple[str, str, str, str]]:
    """(generator, state, target, dtype), quick ones first."""
    return [
        (netG, state, target.name, dtype)
        for state in ("slim", "dense")
        for netG in KINDS
        for target in TARGETS.values()
        for dtype in DTYPES
        if dtype in target.dtypes
    ]


def row_path(work: Path, *case: str) -> Path:
    return work / "rows" / ("-".join(case) + ".json")


def convert_all(work: Path, targets: list[str]) -> None:
    """All ``targets`` that this environment can convert and that have no row yet, one process each."""
    (work / "rows").mkdir(parents=True, exist_ok=True)
    for case in cases():
        target = TARGETS[case[2]]
        missing = target.missing or (case[3] == "int8" and target.missing_for_int8)
        if target.name not in targets or missing or row_path(work, *case).is_file():
            continue
        command = [sys.executable, __file__, "one", "--work", str(work), "--case", *case]
        done = subprocess.run(command, capture_output=True, text=True)
        if not row_path(work, *case).is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            failed(work, case, f"exit code {done.returncode}: {(lines or ['nothing said'])[-1][:200]}")
        print(row_path(work, *case).read_text()[:300].replace("\n", ""), flush=True)


def failed(work: Path, case: tuple[str, ...], error: str) -> None:
    row = dict(zip(("generator", "state", "target", "dtype"), case))
    write_row(work, {**row, "converts": False, "runs": False, "accepted": False, "error": error})


def write_row(work: Path, row: dict[str, Any]) -> None:
    path = row_path(work, *(row[key] for key in ("generator", "state", "target", "dtype")))
    path.write_text(json.dumps(row, indent=1) + "\n")


def convert_one(work: Path, netG: str, state: str, target: str, dtype: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
    stored = read_generator(netG, weights(work, netG, state))
    request = Request(TARGETS[target], dtype, (SIZE, SIZE), multiple=stored.multiple)
    row: dict[str, Any] = {"generator": netG, "state": state, "target": target, "dtype": dtype}
    start = time.perf_counter()
    try:
        calibration = pictures("train", 32) if dtype == "int8" else None
        name = f"{netG}_{state}"
        result = export_generator(
            stored.generator, request, work / "files" / target, name, pictures(), calibration
        )
    except UserError as error:
        failed(work, (netG, state, target, dtype), str(error))
        return
    found = result.difference
    row |= {"converts": True, "runs": found is not None, "accepted": result.accepted}
    row |= {} if found is None else {"max": found.max, "mean": found.mean, "ssim": found.ssim}
    row["mb"] = sum(result.record["files"].values()) / 1e6
    row["convert_s"] = time.perf_counter() - start
    row |= {"record": dict(result.record), "file": str(result.path), "python": sys.executable}
    write_row(work, row)


# -- timing -----------------------------------------------------------------------
def time_all(work: Path, rounds: int, core: int) -> None:
    """Time all files in turns, one generator at a time; a row that has times is not timed again."""
    rows = [json.loads(path.read_text()) for path in sorted((work / "rows").glob("*.json"))]
    for netG in KINDS:
        for state in BUDGETS:
            mine = [r for r in rows if (r["generator"], r["state"]) == (netG, state) and r["target"] != EAGER]
            timed = [r for r in mine if r["runs"] and (r["target"], r["dtype"]) not in NOT_TIMED]
            ready = [r for r in timed if "cpu_ms" not in r]
            if ready:
                eager = {
                    "generator": netG,
                    "state": state,
                    "target": EAGER,
                    "dtype": "fp32",
                    "converts": True,
                }
                eager |= {"runs": True, "accepted": True, "python": sys.executable}
                eager["file"] = str(weights(work, netG, state))
                time_together(work, [eager, *ready], rounds, core)


def time_together(work: Path, rows: list[dict[str, Any]], rounds: int, core: int) -> None:
    workers = [Worker(row, core) for row in rows]
    for _ in range(rounds):
        for worker in workers:
            worker.once()
    for row, worker in zip(rows, workers):
        worker.close()
        if worker.times:
            wall, cpu = zip(*worker.times)
            row |= {"wall_ms": statistics.median(wall), "cpu_ms": statistics.median(cpu), "rounds": rounds}
            write_row(work, row)
        print(row["generator"], row["state"], row["target"], row["dtype"], row.get("cpu_ms"), flush=True)


class Worker:
    """A process that has loaded one file and runs it once for every line it is sent."""

    def __init__(self, row: dict[str, Any], core: int) -> None:
        command = [row["python"], __file__, "serve", "--file", row["file"], "--core", str(core)]
        command += ["--target", row["target"], "--generator", row["generator"]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.DEVNULL,
        }
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self.times: list[tuple[float, float]] = []
        self._answer()

    def once(self) -> None:
        """Ask for one run; a process that has died gives none."""
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
            answer = self._answer()
            if answer:
                self.times.append((answer[0], answer[1]))

    def _answer(self) -> list[float]:
        """The next line that is ours: runtimes print, too."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ms "):
                return [float(word) for word in line.split()[1:]]
        return []

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def serve(file: Path, target: str, netG: str, core: int) -> None:
    """Load and warm up, say so, then answer every line by wall and CPU milliseconds of one run."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    watch = Stopwatch()
    run = watch.wrap(eager(file, netG) if target == EAGER else TARGETS[target].load(file, threads=1))
    values = pictures().values[:1]
    for _ in range(2):
        run(values)
    print("\nms 0 0", flush=True)
    for _ in sys.stdin:
        run(values)
        print(f"\nms {1e3 * watch.wall[-1]} {1e3 * watch.cpu[-1]}", flush=True)


def eager(file: Path, netG: str) -> Any:
    from coronet_plugin.export.pytorch import as_array_model

    return as_array_model(read_generator(netG, file).generator.eval())


# -- table ------------------------------------------------------------------------
ABOUT = """\
# Exports by target and dtype

Made by `scripts/compare_exports.py`; all figures are in exports.csv, all records in exports.json.
Generators of 64 channels at 256x256, dense and searched to a tenth of the MACs (widths in multiples of 8),
trained for 120 steps on the bundled emoji, which is short. Differences are to torch, over two test pictures,
in units of tanh's output (-1 to 1); int8 files are calibrated with 32 training pictures. Times are medians
of one picture on one pinned thread, files taking turns; CPU time is what the machine's other work disturbs
least. PyTorch's fp16 is not timed: on CPUs it is some twenty times slower. "not here": Core ML runs on macOS
alone.

"""


def write_table(work: Path, output: Path) -> str:
    """``exports.json``, ``.csv`` and ``.md`` in ``output``; gives the table."""
    rows = [json.loads(path.read_text()) for path in sorted((work / "rows").glob("*.json"))]
    order = [EAGER, *TARGETS]
    rows.sort(
        key=lambda r: (r["generator"], r["state"], order.index(r["target"]), r["dtype"] != "fp32", r["dtype"])
    )
    for row in rows:
        row.pop("file", None)
        row.pop("python", None)
    write(rows, output, "exports", KEYS)
    header = (
        "generator|state|target|dtype|converts|runs|largest difference|mean|SSIM|MB|CPU ms|wall ms".split("|")
    )
    text = table(header, [cells(row) for row in rows])
    done = sum(row_path(work, *case).is_file() for case in cases())
    note = ""
    if done < len(cases()):
        note = f"{done} of {len(cases())} combinations; the others were not run yet.\n\n"
    (output / "exports.md").write_text(ABOUT + note + text + "\n", encoding="utf-8")
    return text


def cells(row: dict[str, Any]) -> list[str]:
    def figure(key: str, form: str) -> str:
        return format(row[key], form) if row.get(key) is not None else ""

    runs = {True: "yes", False: "not here" if row["converts"] else "no"}[row["runs"]]
    if row["runs"] and not row["accepted"]:
        runs = "rejected"
    names = [
        row["generator"],
        row["state"],
        row["target"],
        row["dtype"],
        "yes" if row["converts"] else "no",
        runs,
    ]
    figures = [figure("max", ".1e"), figure("mean", ".1e"), figure("ssim", ".4f"), figure("mb", ".1f")]
    return [*names, *figures, figure("cpu_ms", ".0f"), figure("wall_ms", ".0f")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("models", "convert", "one", "time", "serve", "table"))
    parser.add_argument("--work", type=Path, help="folder of everything that is made")
    parser.add_argument("--output", type=Path, default=HERE / "docs" / "results")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), help="which to convert for")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--core", type=int, default=0, help="CPU core to time on")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--generator", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.step == "models":
        make_models(options.work)
    elif options.step == "convert":
        convert_all(options.work, options.targets)
    elif options.step == "one":
        convert_one(options.work, *options.case)
    elif options.step == "time":
        time_all(options.work, options.rounds, options.core)
    elif options.step == "serve":
        serve(options.file, options.target, options.generator, options.core)
    else:
        print(write_table(options.work, options.output))


if __name__ == "__main__":
    main()
