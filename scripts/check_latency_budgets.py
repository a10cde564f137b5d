"""Is a latency budget kept? Widths are chosen for it, the generator is cut, and both are timed anew.

    python scripts/check_latency_budgets.py --output docs/results

For every generator, runtime and budget, ten times with random scores: the budget's own code chooses
widths, timing candidates as a training does. Then the dense and the cut generator are made ready once more
and timed by themselves, on one thread, in CPU time. *Kept* is the share of the dense time that is left over
the share that was asked. *Foretold* is that of the widths which the table alone would have chosen, the first
candidate. Untrained; weights do not change times.
Writes latency_budgets.csv and latency_budgets.json, and prints the table.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin import find_channels  # noqa: E402
from coronet_plugin.budget.budget import LATENCY, Budget  # noqa: E402
from coronet_plugin.budget.goal import Goal  # noqa: E402
from coronet_plugin.budget.latency_meter import RUNTIMES, Clock, LatencyMeter  # noqa: E402
from coronet_plugin.budget.latency_table import LatencyTable  # noqa: E402
from coronet_plugin.channels.plan import ChannelPlan  # noqa: E402
from coronet_plugin.errors import BudgetError, OptionError  # noqa: E402
from coronet_plugin.generators.stock import build_generator  # noqa: E402
from coronet_plugin.measure.machine import describe_machine, load  # noqa: E402
from scripts import records  # noqa: E402

GENERATORS = {"resnet_9blocks": ("instance", 128), "unet_256": ("batch", 256)}
"""Norm and side of the picture by generator."""
CASE = ("netG", "runtime", "budget")


class RandomScores:
    """A method that knows nothing: the sets shrink about alike, which channels go is chance."""

    def __init__(self, plan: ChannelPlan, seed: int) -> None:
        self.plan, self.random = plan, np.random.default_rng(seed)
        self.worth = np.concatenate([self._of(s.units) for s in plan.prunable])

    def _of(self, units: int) -> np.ndarray:
        """Ranks over (0, 1], of some sets higher than of others."""
        return (self.random.permutation(units) + 1) / units * np.exp(self.random.normal(0, 0.2))

    def score(self) -> np.ndarray:
        return self.worth

    def alive(self) -> np.ndarray:
        return np.ones(self.plan.units, dtype=bool)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(), help="folder (default: this one)")
    parser.add_argument("--generators", nargs="+", default=list(GENERATORS), choices=GENERATORS)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "onnxruntime"], choices=RUNTIMES)
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[0.5, 0.25, 0.1], help="of the dense time"
    )
    parser.add_argument("--rounds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--ngf", type=int, default=64, help="(default: %(default)s)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for netG, runtime in itertools.product(options.generators, options.runtimes):
        try:
            case = Case(netG, runtime, options.ngf)
        except OptionError as error:
            print(error, file=sys.stderr)
            continue
        for number, budget in itertools.product(range(options.rounds), options.budgets):
            found = case.measure(budget, number)
            rows.append({"netG": netG, "runtime": runtime, "budget": budget, "round": number, **found})
            print(json.dumps(rows[-1]), flush=True)
        records.write(rows, options.output, "latency_budgets")
    print(describe_machine()["cpu"], "load", load())
    print(markdown(rows))
    return 0


class Case:
    """A generator in a runtime, with its table of a few widths."""

    def __init__(self, netG: str, runtime: str, ngf: int) -> None:
        norm, side = GENERATORS[netG]
        self.generator: nn.Module = build_generator(3, 3, ngf, netG, norm, False)
        self.inputs = (torch.rand(1, 3, side, side),)
        self.plan = find_channels(self.generator, self.inputs)
        self.clock = Clock(self.generator, self.plan, self.inputs, runtime)
        start = time.perf_counter()
        self.table: LatencyTable = self.clock.table()
        self.table_s = time.perf_counter() - start
        self.afresh = Clock(self.generator, self.plan, self.inputs, runtime)

    def measure(self, budget: float, seed: int) -> dict[str, Any]:
        """What became of a budget."""
        meter = LatencyMeter(self.plan, self.table, self.clock)
        scores = RandomScores(self.plan, seed)
        try:
            goal = Goal([self.plan], [meter], Budget.parse(budget, LATENCY), round_to=None)
        except BudgetError as error:
            return {"error": str(error)}
        goal.shares[0].method = scores
        start, known = time.perf_counter(), len(meter.table.rows)
        alive = goal.choose(0, 1.0)
        search_s, timed = time.perf_counter() - start, meter.table.rows[known:]
        dense, slim = (self.afresh.ms(each) for each in (np.ones(self.plan.units, dtype=bool), alive))
        return {
            "dense_ms": dense,
            "slim_ms": slim,
            "kept": slim / dense / budget,
            "foretold": timed[0].ms / goal.target if timed else 1.0,
            "timed": len(timed),
            "search_s": search_s,
            "table_s": self.table_s,
            "waited": self.afresh.waited,
        }


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line for each case: medians and extremes of the rounds."""
    lines = []
    for case in itertools.product(*(records.distinct(rows, key) for key in CASE)):
        mine = [row for row in rows if tuple(row[key] for key in CASE) == case and "kept" in row]
        of = functools.partial(records.values, mine)
        if mine:
            cells = [records.median_cell(of("kept"), 3), records.median_cell(of("foretold"), 2)]
            close = sum(abs(kept - 1) <= 0.05 for kept in of("kept"))
            counts = [f"{close} of {len(mine)}", records.median_cell(of("timed"), 0)]
            lines.append([*map(str, case), f"{np.median(of('slim_ms')):.1f}", *cells, *counts])
    header = ["generator", "runtime", "budget", "slim, ms", "kept", "foretold alone", "within 5 %", "timed"]
    return records.table(header, lines)


if __name__ == "__main__":
    sys.exit(main())
