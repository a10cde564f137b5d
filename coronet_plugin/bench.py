"""How long a generator takes for one input on this machine's CPU, in eager PyTorch.

Wall-clock time of the forward pass in evaluation mode, the way a user waits for it.
The median is the figure to quote; the 10th and 90th percentiles say how far to trust it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.errors import OptionError


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one forward pass, and the circumstances they hold for."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    min_ms: float
    threads: int
    repeats: int
    input_size: tuple[int, ...]
    torch_version: str

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
    generator: nn.Module, example: Tensor, *, threads: int = 1, repeats: int = 30, warmup: int = 5
) -> Latency:
    """Time ``generator(example)`` ``repeats`` times after ``warmup`` untimed calls.

    ``example``: (N, C, H, W) on the CPU, as is the generator. Training flags, gradients and the
    thread setting are left as they were. Raises OptionError for fewer than one thread or repeat.
    """
    if threads < 1 or repeats < 1 or warmup < 0:
        raise OptionError(
            f"threads and repeats must be at least 1 and warmup at least 0, "
            f"got {threads}, {repeats} and {warmup}"
        )
    with inference(generator, threads):
        for _ in range(warmup):
            generator(example)
        times_ms = [_time_ms(generator, example) for _ in range(repeats)]
    p10, median, p90 = (float(value) for value in np.percentile(times_ms, (10, 50, 90)))
    return Latency(
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        min_ms=min(times_ms),
        threads=threads,
        repeats=repeats,
        input_size=tuple(example.shape),
        torch_version=torch.__version__,
    )


def _time_ms(generator: nn.Module, example: Tensor) -> float:
    start = time.perf_counter()
    generator(example)
    return (time.perf_counter() - start) * 1e3
