"""How long calls take on this machine's CPU.

Calls take turns (:func:`time_in_turn`), so that what disturbs the machine disturbs them all alike. Of
:class:`Timing` the median is the figure to quote, the percentiles say how far to trust it. Wall time is what
a user waits. CPU time, of all threads of this process, is what a call costs even while other programs hold
the CPU; with one thread on a quiet machine both are the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from coronet_plugin.errors import OptionError

Key = TypeVar("Key")
Result = TypeVar("Result")
WARMUP = 5
"""Rounds before the first that is timed: libraries choose and compile their kernels in them."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call: median, 10th and 90th percentile, and minimum of ``calls`` timed calls."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    min_ms: float
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """``seconds``: of every call."""
        p10, median, p90 = (1e3 * float(value) for value in np.percentile(seconds, (10, 50, 90)))
        return cls(median, p10, p90, 1e3 * min(seconds), len(seconds))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Times(NamedTuple):
    """The same calls by the clock on the wall, and by the CPU time of this process."""

    wall: Timing
    cpu: Timing

    def as_dict(self) -> dict[str, Any]:
        return {"wall": self.wall.as_dict(), "cpu": self.cpu.as_dict()}


@dataclass
class Stopwatch:
    """Notes the seconds from every start to the next stop, by both clocks."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    started: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self.started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.wall.append(wall - self.started[0])
        self.cpu.append(cpu - self.started[1])

    def wrap(self, run: Callable[..., Result]) -> Callable[..., Result]:
        """``run``, each call of which is noted."""

        def noted(*args: Any) -> Result:
            self.start()
            output = run(*args)
            self.stop()
            return output

        return noted

    def times(self, warmup: int = 0) -> Times:
        """Of all calls but the first ``warmup``; of the last one if there are no more."""
        wall, cpu = (seconds[warmup:] or seconds[-1:] for seconds in (self.wall, self.cpu))
        return Times(Timing.of(wall), Timing.of(cpu))


def time_in_turn(
    calls: Mapping[Key, Callable[[], Any]], rounds: int, warmup: int = WARMUP
) -> dict[Key, Times]:
    """Time all ``calls`` ``rounds`` times, one of each per round, after ``warmup`` untimed rounds.

    Every other round goes backwards, so that no call always follows the same one.

    Raises:
        OptionError: there is nothing to repeat.
    """
    if rounds < 1:
        raise OptionError(f"rounds must be at least 1, not {rounds}")
    watches = {key: Stopwatch() for key in calls}
    timed = [watches[key].wrap(call) for key, call in calls.items()]
    for number in range(warmup + rounds):
        for call in timed[:: 1 if number % 2 else -1]:
            call()
    return {key: watch.times(warmup) for key, watch in watches.items()}


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch use ``threads`` CPU threads for as long as this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def inference(generator: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for as long as this lasts."""
    flags = [(module, module.training) for module in generator.modules()]
    generator.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Keep this process, and threads it starts meanwhile, on ``threads`` CPUs; gives them.

    Gives nothing, and does nothing, where the system has no such call.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    before = os.sched_getaffinity(0)
    chosen = tuple(sorted(before))[:threads]
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)
