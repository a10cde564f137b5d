"""How near is the time that the latency table foretells to the time of the slim generator?

    python scripts/predict_latency.py --output latency_prediction

For every generator, runtime and clock, in every round anew: time the layers, cut the untrained generator
to the widths that the method *uniform* finds for each latency budget, and time the whole slim generator
by the same clock, at 128x128 on one CPU thread (:mod:`coronet_plugin.budget.latency_table`). The clock
*wall* is the one that training uses; *cpu* is the processor's time of the thread, without what
other programs took.
Writes latency_prediction.csv, latency_prediction.json and latency_prediction.png.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin import find_channels, slim  # noqa: E402
from coronet_plugin.budget.budget import LATENCY, Budget  # noqa: E402
from coronet_plugin.budget.goal import Goal  # noqa: E402
from coronet_plugin.budget.latency_table import RUNTIMES, Clock, LatencyMeter, LatencyTable  # noqa: E402
from coronet_plugin.errors import BudgetError  # noqa: E402
from coronet_plugin.generators.stock import build_generator  # noqa: E402
from coronet_plugin.methods import Task, uniform  # noqa: E402
from scripts import records  # noqa: E402

GENERATORS = {"resnet_6blocks": "instance", "unet_128": "batch"}
"""Norms by generator, the host's defaults in CycleGAN and pix2pix."""
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
CASE = ("netG", "runtime", "clock")
SIZE = 128


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("latency_prediction"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--generators", nargs="+", default=list(GENERATORS), choices=GENERATORS)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--clocks", nargs="+", default=list(CLOCKS), choices=CLOCKS)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.25, 0.1], help="of the dense one")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--ngf", type=int, default=32, help="(default: %(default)s)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(options.rounds):
        for case in itertools.product(options.generators, options.runtimes, options.clocks):
            for found in measure(*case, options.budgets, options.ngf):
                rows.append({"round": number, **dict(zip(CASE, case)), **found})
                print(json.dumps(rows[-1]), flush=True)
        records.write(rows, options.output, "latency_prediction")
    print(markdown(rows))
    plot(rows, options.output / "latency_prediction.png")
    return 0


def measure(netG: str, runtime: str, clock: str, budgets: list[float], ngf: int) -> Iterator[dict[str, Any]]:
    """By budget: milliseconds of the dense generator, and of the slim one as predicted and as measured."""
    generator, x = build_generator(3, 3, ngf, netG, GENERATORS[netG], False), torch.rand(1, 3, SIZE, SIZE)
    timer, plan = Clock(runtime, now=CLOCKS[clock]), find_channels(generator, x)
    meter = LatencyMeter(plan, LatencyTable.measure(generator, plan, (x,), clock=timer))
    for budget in budgets:
        try:
            goal = Goal([plan], [meter], Budget.parse(budget, LATENCY))
        except BudgetError as error:  # what does not shrink with the widths may take longer
            print(error, flush=True)
            continue
        alive = uniform.Uniform(Task(generator, (x,), plan, goal.shares[0], 1), None).chosen()
        times = {"predicted_ms": meter(alive), "measured_ms": timer.ms(slim(generator, plan, alive), (x,))}
        ratio = times["predicted_ms"] / times["measured_ms"]
        yield {"budget": budget, "dense_ms": meter(None), **times, "ratio": ratio}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Medians over rounds; of predicted over measured time, by budget, the extremes too."""
    budgets, rounds, lines = records.distinct(rows, "budget"), len(records.distinct(rows, "round")), []
    for case in itertools.product(*(records.distinct(rows, key) for key in CASE)):
        of = functools.partial(records.values, rows, **dict(zip(CASE, case)))
        ratios = [of("ratio", budget=budget) for budget in budgets]
        cells = [cell(found, rounds) for found in ratios]
        lines.append([*case, f"{statistics.median(of('dense_ms')):.1f}", *cells])
    header = ["generator", "runtime", "clock", "dense, ms", *(f"at {budget}" for budget in budgets)]
    return records.table(header, lines)


def cell(ratios: list[float], rounds: int) -> str:
    """The budget may lie below what the floors can reach, in some rounds or in all."""
    if not ratios:
        return "not reached"
    return records.median_cell(ratios, 2) + (f" in {len(ratios)} of {rounds}" if len(ratios) < rounds else "")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    generators = records.distinct(rows, "netG")
    with records.figure(path, len(generators), (4.5 * len(generators), 4)) as axes:
        for axis, netG in zip(axes, generators):
            for runtime, clock in itertools.product(*(records.distinct(rows, key) for key in CASE[1:])):
                of = functools.partial(records.values, rows, netG=netG, runtime=runtime, clock=clock)
                label = f"{runtime}, {clock}"
                axis.plot(of("measured_ms"), of("predicted_ms"), "o", alpha=0.6, label=label)
            axis.axline((1, 1), (10, 10), color="black", linewidth=1)  # as predicted
            axis.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", title=netG)
        axes[0].legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
