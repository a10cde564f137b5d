"""How far an exported file's output is from torch's, and how far it may be."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from coronet_plugin.errors import ExportError
from coronet_plugin.export.targets import Runner, one_line


@dataclass(frozen=True)
class Tolerance:
    """What is accepted: at most ``max`` and ``mean`` absolute difference, at least ``ssim``.

    Differences are in units of tanh's output, which goes from -1 to 1.
    """

    max: float
    mean: float
    ssim: float


TOLERANCES = {
    # One grey level at worst. Where a picture is flat, norms enlarge the last digit up to 300 times.
    "fp32": Tolerance(max=1e-2, mean=5e-4, ssim=0.999),
    "fp16": Tolerance(max=1e-1, mean=4e-3, ssim=0.99),  # half a grey level on average
    "int8": Tolerance(max=2.0, mean=8e-2, ssim=0.9),  # ten grey levels; single pixels may be far off
}


@dataclass(frozen=True)
class Difference:
    """Largest and mean absolute difference, and mean SSIM, over ``pictures`` pictures."""

    pictures: int
    max: float
    mean: float
    ssim: float

    def within(self, tolerance: Tolerance) -> bool:
        """False for anything that is not a number, too."""
        return self.max <= tolerance.max and self.mean <= tolerance.mean and self.ssim >= tolerance.ssim

    def or_worse(self, other: Difference) -> Difference:
        """These figures, each replaced by the ``other``'s where that is worse."""
        worse = (max(self.max, other.max), max(self.mean, other.mean), min(self.ssim, other.ssim))
        return Difference(self.pictures, *(float(figure) for figure in worse))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def torch_runner(net: nn.Module) -> Runner:
    """``net`` as a function of arrays, as it is: neither its mode nor its threads are changed."""

    def run(values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            output: np.ndarray = net(torch.from_numpy(values)).numpy()
            return output

    return run


@dataclass
class Stopwatch:
    """``run``, which notes the wall-clock seconds of every call."""

    run: Runner
    seconds: list[float] = field(default_factory=list)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        output = self.run(values)
        self.seconds.append(time.perf_counter() - start)
        return output

    def as_dict(self) -> dict[str, Any]:
        """Median of a call in milliseconds; the first is left out if there are others."""
        counted = self.seconds[1:] or self.seconds
        return {"median_ms": 1e3 * statistics.median(counted), "calls": len(counted), "threads": 1}


def difference(run: Runner, reference: Runner, pictures: np.ndarray) -> Difference:
    """Compare ``run`` with ``reference`` on ``pictures`` (N, C, H, W), one at a time.

    Raises:
        ExportError: the runtime fails, or its output has another shape.
        OptionError: scikit-image is missing.
    """
    from coronet_plugin.evaluation.paired import ssim

    largest, means, likeness = [], [], []
    for i in range(len(pictures)):
        one = np.ascontiguousarray(pictures[i : i + 1])
        expected, found = reference(one), _run(run, one)
        if found.shape != expected.shape:
            raise ExportError(f"the exported file gives the shape {found.shape}, torch {expected.shape}")
        gap = np.abs(found.astype(np.float64) - expected)
        largest.append(gap.max())
        means.append(gap.mean())
        likeness.append(ssim(as_pixels(found[0]), as_pixels(expected[0])))
    return Difference(len(pictures), float(np.max(largest)), float(np.mean(means)), float(np.mean(likeness)))


def _run(run: Runner, values: np.ndarray) -> np.ndarray:
    try:
        return run(values)
    except Exception as error:  # each runtime has its own
        raise ExportError(f"the exported file does not run: {one_line(error)}") from error


def as_pixels(values: np.ndarray) -> np.ndarray:
    """(C, H, W) in [-1, 1] as a picture, (H, W, C) uint8."""
    scaled = np.nan_to_num((values.transpose(1, 2, 0) + 1) * 127.5)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
