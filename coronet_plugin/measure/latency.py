"""How long a generator takes for one input on this machine's CPU.

Wall-clock time of the forward pass, the way a user waits for it: in eager PyTorch (:func:`latency`) or of
any other function that runs the generator (:func:`timed`). The median is the figure to quote; the 10th and
90th percentiles say how far to trust it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.errors import OptionError

WARMUP = 5
"""Calls before the first that is timed: libraries choose and compile their kernels in them."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one forward pass, and the circumstances they hold for.

    ``runtime``: what ran it, with its version. ``warmup``: untimed calls before the ``repeats`` timed ones.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    min_ms: float
    threads: int
    repeats: int
    warmup: int
    input_size: tuple[int, ...]
    runtime: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@contextmanager
def inference(generator: nn.Module, threads: int) -> Iterator[None]:
    """Evaluation mode, no gradients and ``threads`` CPU threads; all put back as they were."""
    flags = [(module, module.training) for module in generator.modules()]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    generator.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
        for module, training in flags:
            module.training = training


def latency(
    generator: nn.Module, example: Tensor, *, threads: int = 1, repeats: int = 30, warmup: int = WARMUP
) -> Latency:
    """Time ``generator(example)`` in eager PyTorch, in evaluation mode.

    ``example``: (N, C, H, W) on the CPU, as is the generator. Training flags, gradients and the
    thread setting are left as they were. Raises OptionError for fewer than one thread or repeat.
    """
    _check(threads, repeats, warmup)
    with inference(generator, threads):
        return timed(
            partial(generator, example),
            f"torch {torch.__version__}",
            tuple(example.shape),
            threads=threads,
            repeats=repeats,
            warmup=warmup,
        )


def timed(
    run: Callable[[], Any],
    runtime: str,
    input_size: tuple[int, ...],
    *,
    threads: int = 1,
    repeats: int = 30,
    warmup: int = WARMUP,
) -> Latency:
    """Time ``run()`` ``repeats`` times after ``warmup`` untimed calls.

    ``runtime``, ``input_size`` and ``threads`` say what ``run`` does; keeping to them is its own business.
    Raises OptionError for fewer than one thread or repeat.
    """
    _check(threads, repeats, warmup)
    for _ in range(warmup):
        run()
    times_ms = [_time_ms(run) for _ in range(repeats)]
    p10, median, p90 = (float(value) for value in np.percentile(times_ms, (10, 50, 90)))
    return Latency(median, p10, p90, min(times_ms), threads, repeats, warmup, input_size, runtime)


def _check(threads: int, repeats: int, warmup: int) -> None:
    if threads < 1 or repeats < 1 or warmup < 0:
        raise OptionError(
            f"threads and repeats must be at least 1 and warmup at least 0, "
            f"got {threads}, {repeats} and {warmup}"
        )


def _time_ms(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3
