"""Calls of many candidates in turn, so that what disturbs the machine disturbs them all alike.

Wall time is what a user waits. CPU time, of all threads of this process, is what a call costs even while
other programs hold the CPU; with one thread on a quiet machine both are the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from coronet_plugin.errors import OptionError

Key = TypeVar("Key")
PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call: median, 10th and 90th percentile and minimum of wall and of CPU time."""

    wall_ms: float
    wall_p10_ms: float
    wall_p90_ms: float
    wall_min_ms: float
    cpu_ms: float
    cpu_p10_ms: float
    cpu_p90_ms: float
    cpu_min_ms: float
    repeats: int

    @classmethod
    def of(cls, samples: Sequence[tuple[float, float]]) -> Timing:
        """``samples``: (wall, CPU) seconds of every call."""
        values: dict[str, float] = {}
        for clock, column in zip(("wall", "cpu"), np.asarray(samples).T * 1e3):
            low, middle, high = (float(value) for value in np.percentile(column, PERCENTILES))
            values |= {f"{clock}_ms": middle, f"{clock}_p10_ms": low, f"{clock}_p90_ms": high}
            values[f"{clock}_min_ms"] = float(column.min())
        return cls(repeats=len(samples), **values)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def in_turn(calls: Mapping[Key, Callable[[], Any]], repeats: int, warmup: int) -> dict[Key, Timing]:
    """Time all ``calls`` ``repeats`` times, one of each per round, after ``warmup`` untimed rounds.

    Every other round goes backwards, so that no call always follows the same one.

    Raises:
        OptionError: there is nothing to repeat.
    """
    if repeats < 1 or warmup < 0:
        raise OptionError(f"repeats must be at least 1 and warmup at least 0, got {repeats} and {warmup}")
    samples: dict[Key, list[tuple[float, float]]] = {key: [] for key in calls}
    for number in range(warmup + repeats):
        for key in list(calls)[:: 1 if number % 2 else -1]:
            sample = _seconds(calls[key])
            if number >= warmup:
                samples[key].append(sample)
    return {key: Timing.of(values) for key, values in samples.items()}


def _seconds(call: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


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
