"""Study the multipliers of the method ``implicit``, one property at a time.

    python scripts/study_multipliers.py --data facades=PATH --output multipliers --seeds 0 1 2

Trains one task of scripts/compare_methods.py at a budget of 0.1, by its protocol, with multipliers that
differ in one thing: how they are distributed at equal mean, what has one, whether they are drawn again, what
becomes of them after the cut, and which numbers were drawn while everything else is the same. Of every run it
also keeps how well a unit's multiplier, the mean over what reads it, tells whether it survives (AUC; 0.5 is
chance).
``OUTPUT/records`` gets a file for every run, as it comes; ``multipliers.jsonl`` and ``multipliers.md`` are
made of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.channels.cut import readers  # noqa: E402
from coronet_plugin.channels.find import example_input, find_channels  # noqa: E402
from coronet_plugin.checkpoint.spec import Spec  # noqa: E402
from coronet_plugin.evaluation.evaluate import evaluate_run  # noqa: E402
from coronet_plugin.evaluation.features import load_extractor  # noqa: E402
from coronet_plugin.generators.stock import build_generator  # noqa: E402
from coronet_plugin.methods.implicit import Rates, draw  # noqa: E402
from coronet_plugin.runs.run import Run, find_run  # noqa: E402
from scripts import records as records_of  # noqa: E402
from scripts.method_tasks import TASKS, prepared  # noqa: E402

SEED = 1000
"""Of the multipliers of a run with seed 0, so that they can be drawn again; the next run's is one more."""
VARIANTS: dict[str, tuple[str, str]] = {
    "as the map gives them": ("", ""),
    "constant": ("--spread constant", ""),
    "lognormal": ("--spread lognormal", ""),
    "one a filter": ("--per filter", ""),
    "one a layer": ("--per layer", ""),
    "drawn again every 50 steps": ("--redraw 50", ""),
    "importance by rate": ("--discount", ""),
    "mean 1": ("", "--coronet_rate 1"),
    "mean 1, importance by rate": ("--discount", "--coronet_rate 1"),
    "mean 2.5": ("", "--coronet_rate 2.5"),
    "kept after the cut": ("", "--coronet_rate_after keep"),
    "fading after the cut": ("", "--coronet_rate_after fade"),
    "other numbers": ("--rate_seed 2000", ""),
    "still other numbers": ("--rate_seed 3000", ""),
}
"""Options of scripts/train_with_rates.py and of train.py."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("--output", type=Path, default=Path("multipliers"), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("--factor", default="1", help="of the generators' learning rate (default: 1)")
    options = parser.parse_args()
    task, path = options.data.split("=", 1)
    output = options.output.resolve()
    data = prepared(task, Path(path).resolve(), output / "data")
    torch.set_num_threads(1)
    for seed in options.seeds:
        for variant in options.variants:
            run(task, data, variant, seed, options.factor, output)
    write(output)
    return 0


def run(task: str, data: Path, variant: str, seed: int, factor: str, output: Path) -> None:
    """Train, translate and measure one run, unless its record is there."""
    name = f"{task}_{variant.replace(' ', '-')}_f{factor}_s{seed}"
    kept = output / "records" / f"{name}.json"
    if kept.exists():
        return
    rates, options = (words.split() for words in VARIANTS[variant])
    script = ["scripts/train_with_rates.py", "--rate_seed", str(SEED + seed), *rates, "--"]
    words = [*task_words(task, data, factor, seed), "--coronet_method", "implicit", *options]
    found, figures = judged(name, script, words, task, data, output)
    record = {"task": task, "variant": variant, "seed": seed, "factor": factor, **figures}
    if variant == "as the map gives them":
        record["auc"] = auc(found.specs[TASKS[task].generator], size=TASKS[task].size, seed=SEED + seed)
    records_of.keep(kept, record)


def task_words(task: str, data: Path, factor: str, seed: int) -> list[str]:
    """Options of train.py for a compressed run of a task at a budget of 0.1."""
    words = [*TASKS[task].words(data, factor), "--seed", str(seed), "--coronet_budget", "0.1"]
    base = words[words.index("--model") + 1]
    words[words.index("--model") + 1] = "coronet"
    return [*words, "--coronet_base", base]


def judged(
    name: str, script: list[str], words: list[str], task: str, data: Path, output: Path
) -> tuple[Run, dict[str, Any]]:
    """Train by ``script`` with ``words``, translate the test pictures with averaged weights, and measure."""
    where = ["--name", name, "--checkpoints_dir", str(output / "checkpoints"), "--gpu_ids", "-1"]
    call(*script, *where, *words)
    size = str(TASKS[task].size)
    test = ["--model", "coronet", *where, "--results_dir", str(output / "results")]
    test += ["--epoch", "latest_average", "--dataroot", str(data), "--num_test", "1000000"]
    call("test.py", *test, "--crop_size", size, "--load_size", size)
    found = find_run(name, output / "checkpoints", output / "results", epoch="latest_average")
    (evaluation, *_) = evaluate_run(found, extractor=load_extractor(), cache_dir=output / "cache")
    assert evaluation.distance is not None
    figures: dict[str, Any] = {"kid": evaluation.distance.kid, "fid": evaluation.distance.fid}
    if evaluation.paired is not None:
        figures |= {"ssim": evaluation.paired.ssim, "l1": evaluation.paired.l1}
    return found, figures


def call(script: str, *words: str) -> None:
    """One of the programs, on one thread; the end of what it says is shown if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def auc(spec: Spec, size: int, seed: int) -> float:
    """How well the multipliers of what reads a unit, drawn again, tell that it survives: mean over sets."""
    dense = build_generator(**spec.architecture)
    plan = find_channels(dense, (example_input(dense, size),))
    values = draw(plan, Rates(), exponent=1, seed=seed)
    total, count = np.zeros(plan.units + 1), np.zeros(plan.units + 1)
    for name, axis, units in readers(plan):
        if name in values:
            np.add.at(total, units, values[name].transpose(0, axis).flatten(1).mean(1).numpy())
            np.add.at(count, units, 1)
    kept = {entry["name"]: entry["kept"] for entry in spec.sets}
    found = []
    for channel_set in plan.prunable:
        rate = (total / np.maximum(count, 1))[channel_set.slice]
        lives = np.isin(np.arange(len(rate)), kept[channel_set.name])
        if 0 < lives.sum() < len(lives):
            found.append(float((rate[lives][:, None] > rate[~lives]).mean()))
    return statistics.mean(found)


# -- tables ----------------------------------------------------------------------
def write(output: Path) -> None:
    header = ["task", "multipliers", "seeds", "KID x 1000", "SSIM", "L1", "AUC of survival"]
    records_of.write_study(output, "multipliers", VARIANTS, header, COLUMNS)


COLUMNS = (("kid", 1000, 1), ("ssim", 1, 3), ("l1", 1, 3), ("auc", 1, 2))


if __name__ == "__main__":
    sys.exit(main())
