"""Time whole generators in the runtime they are for, and predict the times of others from that.

Times are CPU time of this process on one thread, kept on one core, so that what other programs take does not
count. What they slow down does, so every generator takes turns with one that stays the same, each for as
long, and only the ratio counts.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from coronet_plugin.budget.latency_table import (
    FRACTIONS,
    LatencyTable,
    Prediction,
    Row,
    first_units,
    narrowed,
    widths_of,
)
from coronet_plugin.channels.cut import copy_with, on_device, slim
from coronet_plugin.channels.facts import Runner, call
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.distributed import agreed
from coronet_plugin.errors import OptionError
from coronet_plugin.measure.timing import inference, pinned, time_in_turn, torch_threads

RUNTIMES = ("torch", "onnxruntime", "openvino", "ncnn", "mnn", "litert", "executorch")
"""Eager PyTorch, ONNX Runtime, and targets of ``coronet export`` by name."""
PREPARE = "coronet_plugin.export.runnable"
"""The module that makes a call of a generator in a runtime; imported when it is used, as targets are."""
IT, REFERENCE = "it", "reference"
REFERENCE_WIDTH = 0.25
"""Of the generator that all others are timed beside."""
ENOUGH_S, FEWEST, MOST = 1.0, 3, 40
"""Generators are timed for so many seconds, and between so many times."""
CLOSE = 0.05
"""Two timings that differ by more say that the machine was too busy."""


class Clock:
    """Times ``generator``, cut to any width, in ``runtime``. It keeps a copy on the CPU.

    ``inputs``: of one image. ``run``: how it is run in eager PyTorch.

    Raises:
        OptionError: there is no such runtime, or it is not installed.
    """

    def __init__(
        self,
        generator: nn.Module,
        plan: ChannelPlan,
        inputs: tuple[Any, ...],
        runtime: str = "torch",
        run: Runner = call,
    ) -> None:
        if runtime not in RUNTIMES:
            known = ", ".join(RUNTIMES)
            raise OptionError(f"runtime {runtime!r} does not exist; choose one of {known}")
        self.plan, self.runtime, self._run = plan, runtime, run
        self._generator, self._inputs = copy_with(generator).cpu(), on_device(inputs, "cpu")
        self._folder = tempfile.TemporaryDirectory(prefix="coronet-latency-")
        self._reference = self._call(narrowed(plan, [REFERENCE_WIDTH] * len(plan.prunable)), REFERENCE)
        self._reference_ms = 0.0
        self.waited = 1.0
        """Wall time over CPU time, the last time: above 1 where other programs held the core."""

    def ms(self, alive: np.ndarray) -> float:
        """Milliseconds of one image when only the units ``alive`` (bool, ``(units,)``) remain."""
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            calls = {IT: self._call(alive, folder), REFERENCE: self._reference}
            with inference(self._generator), torch_threads(1), pinned(1):
                once = {key: times.cpu.min_ms for key, times in time_in_turn(calls, 1, warmup=1).items()}
                longer = max(once.values())
                times = {key: max(1, round(longer / ms)) for key, ms in once.items()}
                batches = {key: partial(_repeat, calls[key], times[key]) for key in calls}
                rounds = round(ENOUGH_S / 2e-3 / longer)
                found = time_in_turn(batches, min(MOST, max(FEWEST, rounds)), warmup=0)
        self.waited = found[IT].wall.median_ms / found[IT].cpu.median_ms
        mine, other = (found[key].cpu.median_ms / times[key] for key in (IT, REFERENCE))
        self._reference_ms = self._reference_ms or found[REFERENCE].cpu.min_ms / times[REFERENCE]
        return mine / other * self._reference_ms

    def _call(self, alive: np.ndarray, folder: str) -> Callable[[], Any]:
        place = Path(self._folder.name, folder)
        place.mkdir(exist_ok=True)
        smaller = slim(self._generator, self.plan, alive)
        made: Callable[[], Any] = importlib.import_module(PREPARE).runnable(
            smaller, self._inputs, self.runtime, place, self._run
        )
        return made

    def table(self, uneven: int = 0) -> LatencyTable:
        """Time the :func:`choices`."""
        widths = choices(self.plan, uneven)
        return LatencyTable(
            self.runtime, tuple(Row(widths_of(self.plan, alive), self.ms(alive)) for alive in widths)
        )


def _repeat(run: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        run()


def choices(plan: ChannelPlan, uneven: int = 0) -> list[np.ndarray]:
    """Units (bool, ``(units,)``) of the dense generator and of some that are narrower everywhere.

    ``uneven``: of so many more, the sets of which are not alike; the same ones every time.
    """
    sets, random = len(plan.prunable), np.random.default_rng(0)
    found = [first_units(plan, [s.units for s in plan.prunable])]
    found += [narrowed(plan, [fraction] * sets) for fraction in FRACTIONS[1:]]
    for fraction in np.geomspace(0.15, 0.7, uneven):
        found.append(narrowed(plan, np.minimum(1, fraction * np.exp(random.normal(0, 0.25, sets)))))
    return list({alive.tobytes(): alive for alive in found}.values())


@dataclass
class LatencyMeter:
    """Predicts the milliseconds of one image of the living units of ``plan`` from its ``table``.

    ``clock``: times what was chosen, for a row more; None for a table from elsewhere.
    """

    plan: ChannelPlan
    table: LatencyTable
    clock: Clock | None = None
    predict: Prediction = field(init=False)

    def __post_init__(self) -> None:
        self.predict = Prediction(self.plan, self.table)

    def __call__(self, alive: np.ndarray | None = None) -> float:
        return self.predict(alive)

    def go_on_with_(self, table: LatencyTable) -> None:
        self.table, self.predict = table, Prediction(self.plan, table)

    def measure_(self, alive: np.ndarray, anew: bool = False) -> float:
        """Time the generator of the units ``alive``, unless that was done, and predict better from then on.

        In a distributed training the first process's time counts in all.
        """
        widths = widths_of(self.plan, alive)
        known = [row.ms for row in self.table.rows if row.widths == widths]
        if self.clock is not None and (anew or not known):
            ms = agreed(self.clock.ms(alive))
            self.go_on_with_(self.table.with_row(Row(widths, ms)))
            return float(ms)
        return known[-1] if known else self(alive)

    def promise(self, alive: np.ndarray) -> str:
        """Time the units ``alive`` once more, and say what they take and how far that can be trusted."""
        if self.clock is None:
            return f"it is foretold {self(alive):.4g} ms by a table from elsewhere, not timed here"
        first, then = self.measure_(alive), self.measure_(alive, anew=True)
        said = f"it takes {then:.4g} ms in {self.table.runtime}, CPU time of one thread"
        if abs(first - then) > CLOSE * min(first, then) or self.clock.waited > 1 + CLOSE:
            apart, waited = abs(first / then - 1), max(0.0, 1 - 1 / self.clock.waited)
            said += (
                f"; this machine is too busy to promise it within {CLOSE:.0%}: two timings are {apart:.0%} "
                f"apart, and {waited:.0%} of the time went to other programs"
            )
        return said
