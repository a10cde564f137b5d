"""How far an exported file's output is from torch's, and how far it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.errors import ExportError, describe
from coronet_plugin.export.targets import ArrayModel
from coronet_plugin.measure.machine import instruction_set


@dataclass(frozen=True)
class Tolerance:
    """The difference that is accepted: at most ``max`` and ``mean`` absolute difference, at least ``ssim``.

    Differences are in units of which the output's range has two, as tanh's has, from -1 to 1.
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
    """Largest and mean absolute difference, and mean SSIM, over ``pictures`` pictures.

    In units of which the output's range has two. ``ssim`` is None for what is no picture of 11 x 11 pixels.
    """

    pictures: int
    max: float
    mean: float
    ssim: float | None

    def within(self, tolerance: Tolerance) -> bool:
        """False for anything that is not a number, too."""
        alike = self.ssim is None or self.ssim >= tolerance.ssim
        return self.max <= tolerance.max and self.mean <= tolerance.mean and alike

    def or_worse(self, other: Difference) -> Difference:
        """These figures, each replaced by the ``other``'s where that is worse."""
        likeness = [d.ssim for d in (self, other) if d.ssim is not None]
        return Difference(
            self.pictures,
            max(self.max, other.max),
            max(self.mean, other.mean),
            min(likeness) if likeness else None,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# -- the range of an output ---------------------------------------------------------
Range = tuple[float, float]
TANH: Range = (-1.0, 1.0)
BOUNDS: dict[str, Range] = {"tanh": TANH, "sigmoid": (0.0, 1.0)}
"""Range of what a function gives, however little of it some pictures use."""


class _Bounded(TorchFunctionMode):
    """While this lasts, ``found`` gets by id what functions of :data:`BOUNDS` give, and its range."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, tuple[Tensor, Range]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        limits = BOUNDS.get(getattr(func, "__name__", "").rstrip("_"))
        if limits:
            self.found[id(out)] = out, limits
        return out


@torch.no_grad()
def bounds_of(net: nn.Module, inputs: Sequence[np.ndarray]) -> list[Range | None]:
    """For every output of ``net``, its range if it comes right out of a function of :data:`BOUNDS`."""
    with _Bounded() as bounded:
        outputs = list(tensors_in(net(*map(torch.from_numpy, inputs))))
    return [bounded.found[id(x)][1] if id(x) in bounded.found else None for x in outputs]


def range_of(values: Sequence[np.ndarray], bound: Range | None = None) -> Range:
    """From the least to the largest of all ``values``; or ``bound``, if none of them is beyond it."""
    low, high = float(min(v.min() for v in values)), float(max(v.max() for v in values))
    if bound and bound[0] <= low and high <= bound[1]:
        return bound
    half = abs(low) or 1.0  # of a constant
    return (low, high) if low != high else (low - half, high + half)


def in_tanh_units(values: np.ndarray, limits: Range) -> np.ndarray:
    """``values`` with the range ``limits`` as tanh gives them, from -1 to 1."""
    low, high = limits
    return values if limits == TANH else (values.astype(np.float64) - low) * (2 / (high - low)) - 1


# -- differences --------------------------------------------------------------------
Sample = tuple[np.ndarray, ...]
"""An array for every input, or for every output, of one picture."""


def outputs_of(run: ArrayModel, inputs: Sample) -> Sample:
    """Run ``inputs`` and give the outputs, as a tuple in any case."""
    found = run(*(np.ascontiguousarray(value) for value in inputs))
    return found if isinstance(found, tuple) else (found,)


def differences(
    run: ArrayModel, inputs: Sequence[Sample], expected: Sequence[Sample], limits: Sequence[Range]
) -> list[Difference]:
    """Compare what ``run`` gives for each of ``inputs`` with ``expected``, for every output.

    ``limits``: the outputs' ranges.

    Raises:
        ExportError: the runtime fails, or has other outputs, or of another shape.
        OptionError: scikit-image is missing.
    """
    figures: list[list[Difference]] = [[] for _ in limits]
    for given, truths in zip(inputs, expected):
        found = _run(run, given)
        shapes = [[value.shape for value in values] for values in (found, truths)]
        if shapes[0] != shapes[1]:
            ours, theirs = (", ".join(map(str, each)) for each in shapes)
            raise ExportError(f"the exported file gives the shape {ours}, torch {theirs}")
        for one, value, truth, limit in zip(figures, found, truths, limits):
            one.append(_difference(in_tanh_units(value, limit), in_tanh_units(truth, limit)))
    return list(map(_together, figures))


def difference(run: ArrayModel, reference: ArrayModel, pictures: np.ndarray) -> Difference:
    """:func:`differences` of files from one picture to one, on ``pictures`` (N, C, H, W) in [-1, 1]."""
    inputs = [(pictures[i : i + 1],) for i in range(len(pictures))]
    [found] = differences(run, inputs, [outputs_of(reference, x) for x in inputs], [TANH])
    return found


def refuse_wrong(found: Difference, dtype: str) -> None:
    """Raises ExportError for what ``coronet export`` would reject: a wrong output has no speed."""
    if not found.within(TOLERANCES[dtype]):
        likeness = "" if found.ssim is None else f", SSIM {found.ssim:.3f}"
        raise ExportError(
            f"its output is wrong on this CPU ({instruction_set()}), so it is not timed: "
            f"on average {found.mean:.2g} off{likeness}"
        )


def _difference(found: np.ndarray, expected: np.ndarray) -> Difference:
    """Of one picture, both in tanh's units."""
    from coronet_plugin.evaluation.paired import ssim

    gap = np.abs(found.astype(np.float64) - expected)
    picture = expected.ndim == 4 and min(expected.shape[2:]) >= 11
    likeness = ssim(as_pixels(found[0]), as_pixels(expected[0])) if picture else None
    return Difference(1, float(gap.max()), float(gap.mean()), likeness)


def _together(figures: Sequence[Difference]) -> Difference:
    likeness = [d.ssim for d in figures if d.ssim is not None]
    return Difference(
        len(figures),
        float(np.max([d.max for d in figures])),  # unlike max, this sees what is no number
        float(np.mean([d.mean for d in figures])),
        float(np.mean(likeness)) if likeness else None,
    )


def _run(run: ArrayModel, values: Sample) -> Sample:
    try:
        return outputs_of(run, values)
    except Exception as error:  # each runtime has its own
        raise ExportError(f"the exported file does not run: {describe(error)}") from error


def in_words(found: Difference, limits: Range) -> str:
    """The figures in the units of the output, beside its range."""
    width = limits[1] - limits[0]
    likeness = "" if found.ssim is None else f"; SSIM {found.ssim:.4f}"
    of = "tanh's range of 2" if limits == TANH else f"its range of {width:.3g}"
    return f"at most {found.max * width / 2:.1e}, on average {found.mean * width / 2:.1e} of {of}{likeness}"


def as_pixels(values: np.ndarray) -> np.ndarray:
    """(C, H, W) in [-1, 1] as a picture, (H, W, C) uint8."""
    scaled = np.nan_to_num((values.transpose(1, 2, 0) + 1) * 127.5)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
