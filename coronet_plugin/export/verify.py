"""How far an exported file's output is from torch's, and how far it may be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coronet_plugin.errors import ExportError, describe
from coronet_plugin.export.targets import ArrayModel


@dataclass(frozen=True)
class Tolerance:
    """The difference that is accepted: at most ``max`` and ``mean`` absolute difference, at least ``ssim``.

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


def difference(run: ArrayModel, reference: ArrayModel, pictures: np.ndarray) -> Difference:
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


def _run(run: ArrayModel, values: np.ndarray) -> np.ndarray:
    try:
        return run(values)
    except Exception as error:  # each runtime has its own
        raise ExportError(f"the exported file does not run: {describe(error)}") from error


def as_pixels(values: np.ndarray) -> np.ndarray:
    """(C, H, W) in [-1, 1] as a picture, (H, W, C) uint8."""
    scaled = np.nan_to_num((values.transpose(1, 2, 0) + 1) * 127.5)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
