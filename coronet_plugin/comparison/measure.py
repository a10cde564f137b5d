"""The numbers of several runs side by side: cost, size, speed, likeness and training time.

Every run is measured the same way, on inputs of the first run's size, so that what
differs is the run. What could not be measured is None, here and in the JSON; no
figure is taken over from another place. Showing them is the report's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from coronet_plugin.bench import Latency, latency
from coronet_plugin.cost import Cost, cost_of, human
from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.paired import PairedMetrics, paired_metrics
from coronet_plugin.run import Run, Translation


@dataclass(frozen=True)
class Measurement:
    """One generator of one run. Units: bytes, seconds, and those of the classes named."""

    run: str
    generator: str
    cost: Cost | None
    file_bytes: int
    latency: Latency | None
    quality: PairedMetrics | None
    training_seconds: float | None


@dataclass(frozen=True)
class Quantity:
    """A row of the table: how to read it off a measurement, show it, and which way is better.

    ``relative``: a run is set against the first by ratio; otherwise by difference (for
    likeness, where a ratio of decibels would mean nothing).
    """

    key: str
    label: str
    note: str
    read: Callable[[Measurement], float | None]
    show: Callable[[float], str]
    higher_is_better: bool = False
    relative: bool = True

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


def _of(part: str, attribute: str) -> Callable[[Measurement], float | None]:
    def read(measurement: Measurement) -> float | None:
        owner = getattr(measurement, part)
        value: float | None = None if owner is None else getattr(owner, attribute)
        return value

    return read


def duration(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


QUANTITIES = (
    Quantity("macs", "MACs", "multiply-adds really done", _of("cost", "macs"), human),
    Quantity(
        "macs_literature",
        "MACs, as in papers",
        "transposed convolutions counted at output resolution",
        _of("cost", "macs_literature"),
        human,
    ),
    Quantity("parameters", "Parameters", "", _of("cost", "parameters"), human),
    Quantity("file_bytes", "File size", "", lambda m: m.file_bytes, lambda value: f"{value / 1e6:.2f} MB"),
    Quantity(
        "latency_ms", "CPU latency", "median", _of("latency", "median_ms"), lambda value: f"{value:.1f} ms"
    ),
    Quantity("ssim", "SSIM", "higher is better", _of("quality", "ssim"), lambda v: f"{v:.3f}", True, False),
    Quantity(
        "psnr", "PSNR", "higher is better", _of("quality", "psnr"), lambda v: f"{v:.2f} dB", True, False
    ),
    Quantity("l1", "L1", "0 to 1, lower is better", _of("quality", "l1"), lambda v: f"{v:.4f}", False, False),
    Quantity("training_seconds", "Training time", "", lambda m: m.training_seconds, duration),
)


def measure(
    run: Run, translation: Translation, size: tuple[int, int, int], *, threads: int = 1, repeats: int = 30
) -> Measurement:
    """Everything about one generator of a run, for one input of ``size`` (C, H, W).

    Raises CheckpointError if the weights cannot be loaded, DataError if test pictures are damaged.
    """
    cost, speed = None, None
    if run.can_rebuild(translation.generator):
        net = run.load_generator(translation.generator)
        noise = torch.Generator().manual_seed(0)
        example = torch.rand((1, *size), generator=noise) * 2 - 1
        cost, speed = cost_of(net, example), latency(net, example, threads=threads, repeats=repeats)
    quality = None
    if translation.truth is not None and run.images_dir is not None:
        quality = paired_metrics(run.images_dir, translation.output, translation.truth)
    return Measurement(
        run=run.name,
        generator=translation.generator,
        cost=cost,
        file_bytes=run.weights[translation.generator].stat().st_size,
        latency=speed,
        quality=quality,
        training_seconds=run.training_seconds,
    )


def comparable(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs in the order to show them: dense ones first, else as given.

    Raises DataError if there are none, a name comes twice, or they translate between different things.
    """
    if not runs:
        raise DataError("there are no runs to compare; name at least one")
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"run {twice[0]!r} is named twice")
    ordered = tuple(sorted(runs, key=lambda run: not run.is_dense))
    for run in ordered[1:]:
        if run.translations != ordered[0].translations:
            raise DataError(
                f"{run.name} and {ordered[0].name} cannot be compared: one has {_outputs(run)}, "
                f"the other {_outputs(ordered[0])}; compare runs of the same kind of model and data"
            )
    return ordered


def measure_all(
    runs: Sequence[Run], *, threads: int = 1, repeats: int = 30
) -> dict[Translation, tuple[Measurement, ...]]:
    """Measurements of all ``runs`` (see :func:`comparable`) by translation, in the order of the runs."""

    def row(translation: Translation) -> tuple[Measurement, ...]:
        size = runs[0].input_size(translation.generator)
        return tuple(measure(run, translation, size, threads=threads, repeats=repeats) for run in runs)

    return {translation: row(translation) for translation in runs[0].translations}


def as_json(measurements: dict[Translation, tuple[Measurement, ...]]) -> dict[str, Any]:
    """All numbers as plain data: values, and what they are against the first run. Unmeasured is null."""
    groups = {}
    for translation, columns in measurements.items():
        groups[translation.generator] = {
            "translation": f"{translation.source} -> {translation.output}",
            "runs": {column.run: _values(column, columns[0]) for column in columns},
        }
    return {
        "format": "coronet-comparison",
        "version": 1,
        "torch": torch.__version__,
        "ratios": "value / first run",
        "differences": "value - first run",
        "generators": groups,
    }


def _values(column: Measurement, first: Measurement) -> dict[str, Any]:
    values: dict[str, Any] = {}
    ratios: dict[str, float | None] = {}
    differences: dict[str, float | None] = {}
    for quantity in QUANTITIES:
        value = quantity.read(column)
        values[quantity.key] = _finite(value)
        against = quantity.against(value, quantity.read(first))
        (ratios if quantity.relative else differences)[quantity.key] = against
    values["latency"] = column.latency.as_dict() if column.latency else None
    values["test_images"] = column.quality.count if column.quality else None
    return {**values, "ratios": ratios, "differences": differences}


def _finite(value: float | None) -> float | str | None:
    """JSON has no infinity: equal pictures have a PSNR of ``"inf"``."""
    return value if value is None or math.isfinite(value) else str(value)


def _outputs(run: Run) -> str:
    return ", ".join(
        f"{t.generator}: {t.source} -> {t.output}{'' if t.truth else ' without truth'}"
        for t in run.translations
    )
