"""The rows of a comparison's table: how a figure is read off a measurement and shown, which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coronet_plugin.channels.cost import human
from coronet_plugin.comparison.measure import Measurement
from coronet_plugin.export.targets import EAGER


@dataclass(frozen=True)
class Quantity:
    """A row of the table.

    ``relative``: a run is set against the first by ratio; otherwise by difference (for likeness and
    distances, where a ratio would mean nothing). ``spread``: what to say beside the figure of how far it
    can be trusted. ``floor``: what a perfect generator would come to. ``factor``: of the figure as shown.
    """

    key: str
    label: str
    note: str
    read: Callable[[Measurement], float | None]
    show: Callable[[float], str]
    higher_is_better: bool = False
    relative: bool = True
    spread: Callable[[Measurement], str] = lambda _: ""
    floor: Callable[[Measurement], float | None] = lambda _: None
    factor: float = 1.0

    def against(self, value: float | None, first: float | None) -> float | None:
        """Ratio (or difference) to the first run; None if either is missing or it is undefined."""
        if value is None or first is None or not (math.isfinite(value) and math.isfinite(first)):
            return None
        if not self.relative:
            return value - first
        return value / first if first else None

    def best(self, values: Sequence[float | None]) -> set[int]:
        """Positions of the best values as shown; empty unless at least two are known and they differ."""
        known = [value for value in values if value is not None]
        shown = [None if value is None else self.show(value) for value in values]
        if len({text for text in shown if text is not None}) < 2:
            return set()
        best = self.show(max(known) if self.higher_is_better else min(known))
        return {position for position, text in enumerate(shown) if text == best}


def duration(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def megabytes(count: float) -> str:
    return f"{count / 1e6:.2f} MB"


def _of(*path: str) -> Callable[[Measurement], float | None]:
    """Follows attributes; None as soon as one is None."""

    def read(measurement: Measurement) -> float | None:
        value = measurement
        for attribute in path:
            value = getattr(value, attribute)
            if value is None:
                return None
        return value  # type: ignore[return-value]

    return read


def latency_in(runtime: str) -> Quantity:
    """The time of one inference in ``runtime``; ``torch``: eager PyTorch."""

    def spread(measurement: Measurement) -> str:
        found = measurement.latency_in(runtime)
        return f"p10 to p90: {found.timing.p10_ms:.1f} to {found.timing.p90_ms:.1f} ms" if found else ""

    def read(measurement: Measurement) -> float | None:
        found = measurement.latency_in(runtime)
        return found.timing.median_ms if found else None

    key, name = ("latency_ms", "eager PyTorch") if runtime == EAGER else (f"latency_ms_{runtime}", runtime)
    return Quantity(key, "CPU latency", f"{name}, median", read, lambda v: f"{v:.1f} ms", spread=spread)


def _kid_spread(measurement: Measurement) -> str:
    found = measurement.evaluation.distance if measurement.evaluation else None
    return f"subsets differ by {1000 * found.kid_std:.1f}" if found else ""


MACS = Quantity("macs", "MACs", "multiply-adds really done", _of("cost", "macs"), human)
COSTS = (
    MACS,
    Quantity(
        "macs_literature",
        "MACs, as in papers",
        "transposed convolutions counted at output resolution",
        _of("cost", "macs_literature"),
        human,
    ),
    Quantity("parameters", "Parameters", "", _of("cost", "parameters"), human),
    Quantity("file_bytes", "File size", "", _of("file_bytes"), megabytes),
    Quantity("peak_memory", "Peak memory", "one inference, with weights", _of("memory", "total"), megabytes),
)
KID = Quantity(
    "kid",
    "KID \N{MULTIPLICATION SIGN} 1000",
    "lower is better",
    _of("evaluation", "distance", "kid"),
    lambda v: f"{1000 * v:.1f}".replace("-", "\N{MINUS SIGN}"),
    relative=False,
    spread=_kid_spread,
    floor=_of("evaluation", "floor", "kid"),
    factor=1000,
)
FID = Quantity(
    "fid",
    "FID",
    "lower is better",
    _of("evaluation", "distance", "fid"),
    lambda v: f"{v:.1f}",
    relative=False,
    floor=_of("evaluation", "floor", "fid"),
)
LPIPS = Quantity(
    "lpips", "LPIPS", "lower is better", _of("evaluation", "lpips"), lambda v: f"{v:.3f}", False, False
)
SSIM = Quantity("ssim", "SSIM", "higher is better", _of("quality", "ssim"), lambda v: f"{v:.3f}", True, False)
LIKENESS = (
    SSIM,
    Quantity(
        "psnr", "PSNR", "higher is better", _of("quality", "psnr"), lambda v: f"{v:.2f} dB", True, False
    ),
    Quantity("l1", "L1", "0 to 1, lower is better", _of("quality", "l1"), lambda v: f"{v:.4f}", False, False),
)
TIME = Quantity("training_seconds", "Training time", "with a teacher's", _of("training_seconds"), duration)
TRAINING_MEMORY = Quantity(
    "training_memory", "Training memory", "at its highest point", _of("training_memory"), megabytes
)


def quantities(columns: Sequence[Measurement]) -> tuple[Quantity, ...]:
    """The rows for these measurements: one for each runtime; distances and LPIPS where they were measured."""
    runtimes = dict.fromkeys(name for column in columns for name in column.runtimes)
    distances = [q for q in (KID, FID, LPIPS) if any(q.read(column) is not None for column in columns)]
    latencies = [latency_in(runtime) for runtime in runtimes or (EAGER,)]
    known = [q for q in (TRAINING_MEMORY,) if any(q.read(column) is not None for column in columns)]
    return (*COSTS, *latencies, *distances, *LIKENESS, TIME, *known)
