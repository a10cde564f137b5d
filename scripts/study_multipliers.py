"""What the multipliers of the hypernetwork ``implicit`` do, one property at a time.

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
import functools
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.evaluation.evaluate import evaluate_run  # noqa: E402
from coronet_plugin.evaluation.features import load_extractor  # noqa: E402
from coronet_plugin.methods import implicit  # noqa: E402
from coronet_plugin.runs.run import find_run  # noqa: E402
from scripts import records as records_of  # noqa: E402
from scripts.compare_methods import TASKS, prepared  # noqa: E402

MEAN = 5.4
"""Mean of the published map's multipliers for Adam."""
VARIANTS: dict[str, dict[str, Any]] = {
    "as the map gives them": {},
    "constant": {"spread": implicit.CONSTANT, "mean": MEAN},
    "lognormal": {"spread": implicit.LOGNORMAL, "mean": MEAN},
    "one a filter": {"per": implicit.FILTER, "mean": MEAN},
    "one a layer": {"per": implicit.LAYER, "mean": MEAN},
    "drawn again every 50 steps": {"redraw": 50},
    "mean 1": {"mean": 1.0},
    "mean 2.5": {"mean": 2.5},
    "kept after the cut": {"after": implicit.KEEP},
    "fading after the cut": {"after": implicit.FADE},
    "other numbers": {"seed": 1},
    "still other numbers": {"seed": 2},
}
"""Arguments of ``Rates``; ``seed``: of the multipliers alone, the run's is the same."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("--output", type=Path, default=Path("multipliers"), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("--factor", default="1", help="of the generators' learning rate (default: 1)")
    parser.add_argument("--train", metavar="VARIANT", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train, options.output, options.options)
    name, path = options.data.split("=", 1)
    output = options.output.resolve()
    data = prepared(name, Path(path).resolve(), output / "data")
    for seed in options.seeds:
        for variant in options.variants:
            run(name, data, variant, seed, options.factor, output)
    write(output)
    return 0


def run(task: str, data: Path, variant: str, seed: int, factor: str, output: Path) -> None:
    """Train, translate and measure one run, unless its record is there."""
    name = f"{task}_{variant.replace(' ', '-')}_f{factor}_s{seed}"
    kept = output / "records" / f"{name}.json"
    if kept.exists():
        return
    where = ["--name", name, "--checkpoints_dir", str(output / "checkpoints")]
    words = [*TASKS[task].words(data, factor), *where, "--seed", str(seed), "--coronet_budget", "0.1"]
    base = words[words.index("--model") + 1]
    words[words.index("--model") + 1] = "coronet"
    words += ["--coronet_base", base, "--coronet_hypernetwork", implicit_name(), "--gpu_ids", "-1"]
    survival = output / "records" / f"{name}.survival"
    survival.parent.mkdir(parents=True, exist_ok=True)
    call(__file__, "--data", "-", "--output", str(survival), "--train", variant, "--", *words)
    size = str(TASKS[task].size)
    test = [
        "--model",
        "coronet",
        *where,
        "--results_dir",
        str(output / "results"),
        "--epoch",
        "latest_average",
    ]
    test += ["--dataroot", str(data), "--crop_size", size, "--load_size", size, "--num_test", "1000000"]
    call("test.py", *test, "--gpu_ids", "-1")
    torch.set_num_threads(1)
    found = find_run(name, output / "checkpoints", output / "results", epoch="latest_average")
    (evaluation, *_) = evaluate_run(found, extractor=load_extractor(), cache_dir=output / "cache")
    assert evaluation.distance is not None
    record: dict[str, Any] = {"task": task, "variant": variant, "seed": seed, "factor": factor}
    record |= {"kid": evaluation.distance.kid, "fid": evaluation.distance.fid}
    if evaluation.paired is not None:
        record |= {"ssim": evaluation.paired.ssim, "l1": evaluation.paired.l1}
    record["auc"] = json.loads(survival.read_text())
    kept.write_text(json.dumps(record, indent=1) + "\n")
    survival.unlink()
    print(json.dumps(record), flush=True)


def implicit_name() -> str:
    """The form's name among ``--coronet_hypernetwork``'s."""
    from coronet_plugin.methods import IMPLICIT

    return IMPLICIT


def call(script: str, *words: str) -> None:
    """One of the programs, on one thread; the end of what it says is shown if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


# -- the training, in a process of its own -------------------------------------
def train(variant: str, survival: Path, words: list[str]) -> int:
    """``train.py`` with the variant's multipliers; writes how well they tell who survives."""
    import train as host
    from coronet_plugin import compression
    from coronet_plugin.training import options

    arguments = dict(VARIANTS[variant])
    seed = arguments.pop("seed", None)
    options.Rates = functools.partial(_rates, arguments)  # type: ignore[misc,assignment]
    made: list[tuple[Any, Any]] = []

    class Watched(implicit.StepMultipliers):
        def __init__(self, generator: Any, plan: Any, *rest: Any) -> None:
            super().__init__(generator, plan, *rest)
            if seed is not None:
                self._seed = seed
            made.append((self, None))

        def attach(self, optimizer: torch.optim.Optimizer) -> implicit.StepMultipliers:
            super().attach(optimizer)
            made[-1] = (self, {name: value.clone() for name, value in self.values.items()})
            return self

    compression.StepMultipliers = Watched  # type: ignore[misc]
    code = host.main(words)
    (multipliers, first), *_ = made
    survival.write_text(json.dumps(_auc(multipliers, first)))
    return code


def _rates(arguments: dict[str, Any], **asked: Any) -> implicit.Rates:
    return replace(implicit.Rates(**asked), **arguments)


def _auc(multipliers: Any, first: dict[str, torch.Tensor]) -> float | None:
    """How well a unit's first multipliers tell its survival, mean over sets; None if all are equal."""
    from coronet_plugin.channels.cut import readers

    dense, present = multipliers.dense, multipliers._plan
    total, count = np.zeros(dense.units + 1), np.zeros(dense.units + 1)
    for name, axis, units in readers(dense):
        if name in first:
            values = first[name].transpose(0, axis).flatten(1).mean(1).numpy()
            np.add.at(total, units, values)
            np.add.at(count, units, 1)
    rate = total / np.maximum(count, 1)
    alive = np.zeros(dense.units + 1, dtype=bool)
    for axes in present.slices.values():
        for units in axes.values():
            alive[units] = True
    found = []
    for channel_set in dense.prunable:
        lives, values = alive[channel_set.slice], rate[channel_set.slice]
        if 0 < lives.sum() < len(lives) and np.ptp(values) > 0:
            found.append(float((values[lives][:, None] > values[~lives]).mean()))
    return statistics.mean(found) if found else None


# -- tables ----------------------------------------------------------------------
def write(output: Path) -> None:
    records = [json.loads(path.read_text()) for path in sorted((output / "records").glob("*.json"))]
    (output / "multipliers.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    header = ["task", "multipliers", "seeds", "KID x 1000", "SSIM", "L1", "AUC of survival"]
    lines = []
    for task in records_of.distinct(records, "task"):
        for variant in VARIANTS:
            rows = [r for r in records if (r["task"], r["variant"]) == (task, variant)]
            if rows:
                lines.append([task, variant, str(len(rows)), *(_cell(rows, *column) for column in COLUMNS)])
    (output / "multipliers.md").write_text(records_of.table(header, lines) + "\n")
    print((output / "multipliers.md").read_text())


COLUMNS = (("kid", 1000, 1), ("ssim", 1, 3), ("l1", 1, 3), ("auc", 1, 2))


def _cell(rows: list[dict[str, Any]], key: str, factor: float, digits: int) -> str:
    values = [factor * row[key] for row in rows if row.get(key) is not None]
    return records_of.mean_cell(values, digits) if values else ""


if __name__ == "__main__":
    sys.exit(main())
