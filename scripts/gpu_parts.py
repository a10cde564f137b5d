"""What scripts/gpu_check.py runs, each part in a process of its own; measurements are kept as they come.

A part is cells by their names and what measures them. What has a row already is not measured again, a cell
that fails costs itself alone, and none is begun when the part's time is up.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from coronet_plugin.errors import UserError  # noqa: E402
from scripts import gpu_measure  # noqa: E402
from scripts.gpu_check import Check  # noqa: E402
from scripts.gpu_measure import BUDGET, TOY, Bench, Cell, Scale, step_key, time_step  # noqa: E402

RUNS = ("dense", "uniform", "coronet")


def work(bench: Bench, part: str) -> str:
    """Measure what has no row yet; what is missing in the end and why, nothing if all is there."""
    done = {row["key"] for row in bench.check.rows(part) if "failed" not in row}
    cells = list(CELLS[part](bench))
    missing = []
    with bench.check.lines(part).open("a", encoding="utf-8") as file:
        file.write("\n")  # the last line of a killed process may be half a line
        for cell in cells:
            if cell.key in done:
                continue
            row = figures(cell) if bench.left > cell.least else {"failed": "no time was left"}
            file.write(json.dumps({"key": cell.key, **row}) + "\n")
            file.flush()
            if "failed" in row:
                missing.append(f"{cell.key}: {row['failed']}")
    return f"{len(missing)} of {len(cells)} missing, the first: {missing[0]}" if missing else ""


def figures(cell: Cell) -> dict[str, Any]:
    """The figures of a cell, or ``failed``: the first line of what went wrong."""
    try:
        return cell.measure()
    except (UserError, RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        return {"failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    finally:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


# -- tests ---------------------------------------------------------------------
def tests(bench: Bench) -> Iterator[Cell]:
    yield Cell("pytest", partial(run_tests, bench))


def run_tests(bench: Bench) -> dict[str, Any]:
    """Counts of the tests marked ``gpu``, and the names of those that failed."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    marked = [str(path) for path, text in texts.items() if "mark.gpu" in text or "DEVICES" in text]
    if not marked:
        raise RuntimeError("no test is marked gpu")
    report = bench.check.output / "parts" / "tests.xml"
    words = [sys.executable, "-m", "pytest", "-m", "gpu and not slow", "-p", "no:cacheprovider"]
    words.append(f"--junitxml={report}")
    subprocess.run([*words, *marked], cwd=ROOT, timeout=bench.left, check=False)
    if not report.is_file():
        raise RuntimeError("pytest did not run; its words are in tests.log")
    cases = list(ElementTree.parse(report).iter("testcase"))
    ended = {name: [c for c in cases if c.find(name) is not None] for name in ("failure", "error", "skipped")}
    failed = [str(case.get("name")) for name in ("failure", "error") for case in ended[name]]
    counts = {"tests": len(cases), "skipped": len(ended["skipped"]), "failures": failed}
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(cases)} tests: {', '.join(failed)}")
    return {**counts, "passed": len(cases) - len(ended["skipped"])}


# -- facades -------------------------------------------------------------------
def facades(bench: Bench) -> Iterator[Cell]:
    yield Cell("sweep", partial(run_sweep, bench))


def run_sweep(bench: Bench) -> dict[str, Any]:
    """Train, test and measure all runs at a time, by ``coronet sweep``; those that got through."""
    folder, scale, check = bench.check.output / "sweep", bench.scale, bench.check
    words = [sys.executable, "-m", "coronet_plugin", "sweep", "--output", str(folder), "--seeds", "0"]
    words += ["--methods", *RUNS, "--budgets", BUDGET, "--jobs", str(len(RUNS)), "--device", check.device]
    words += ["--num_test", str(scale.test_pictures), "--cache_dir", str(check.output / "cache")]
    (check.output / "cache").mkdir(exist_ok=True)
    plan = planned(bench, folder)
    child = subprocess.Popen([*words, *["--no_fid"] * check.dry, "--", *plan["options"]], cwd=ROOT)
    try:
        child.wait(max(1.0, bench.left - 5))
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)  # trainings save, and the same command goes on
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
    runs = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*.json"))}
    rows = {name: run["figures"]["test_latest"]["G"] for name, run in runs.items() if "figures" in run}
    found = {"steps": plan["steps"], "ngf": plan["ngf"], "runs": rows}
    return found if len(rows) == len(RUNS) else {**found, "failed": f"{len(rows)} of {len(RUNS)} runs ended"}


def planned(bench: Bench, folder: Path) -> dict[str, Any]:
    """How long the trainings are, which an interrupted comparison keeps; and their options."""
    path = bench.check.output / "parts" / "facades_plan.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    pictures = sum(1 for each in (bench.check.data / "train").iterdir() if each.is_file())
    seconds = min(bench.scale.training, max(0.0, bench.left - 60))  # then there are tests and figures
    steps = 8 if bench.check.dry else int(seconds / (len(RUNS) * step_seconds(bench)))
    epochs = max(2, -(-steps // pictures))
    each = max(1, min(pictures, steps // epochs))
    words = ["--model", "pix2pix", "--dataroot", str(bench.check.data), "--direction", bench.check.direction]
    words += [*bench.scale.facades, "--ngf", str(bench.scale.ngf), "--ndf", str(bench.scale.ngf)]
    words += ["--n_epochs", str(epochs - epochs // 2), "--n_epochs_decay", str(epochs // 2)]
    words += ["--max_dataset_size", str(each), "--num_threads", str(bench.scale.workers), "--no_html"]
    words += ["--gpu_ids", "0" if bench.on_gpu else "-1", "--display_id", "-1", "--coronet_watch", "0"]
    words += ["--save_epoch_freq", "1000000", "--save_latest_freq", "1000000000"]
    plan = {"steps": epochs * each, "ngf": bench.scale.ngf, "options": words}
    path.write_text(json.dumps(plan) + "\n", encoding="utf-8")
    return plan


def step_seconds(bench: Bench) -> float:
    """Of plain training, as measured before or now."""
    key = step_key("pix2pix", "plain")
    known = {row["key"]: row for row in bench.check.rows("steps")}.get(key, {})
    row = known if "seconds" in known else time_step(bench, "pix2pix", "plain", 1, "fp32")
    return float(row["seconds"])


CELLS: dict[str, Callable[[Bench], Iterator[Cell]]] = {
    "tests": tests,
    "steps": gpu_measure.steps,
    "curves": gpu_measure.curves,
    "latency": gpu_measure.latency,
    "facades": facades,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", choices=CELLS)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--direction", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(argv)
    until = time.monotonic() + options.seconds
    check = Check(options.output, options.data, options.direction, options.device, options.dry)
    missing = work(Bench(check, TOY if options.dry else Scale(), until), options.part)
    if missing:
        print(missing, file=sys.stderr, flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
