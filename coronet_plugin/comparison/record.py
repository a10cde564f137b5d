"""``comparison.json``: all numbers of a comparison as plain data. Unmeasured is null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coronet_plugin.comparison.measure import Measurement
from coronet_plugin.comparison.quantities import FID, KID, LPIPS, quantities
from coronet_plugin.comparison.runtimes import Speed
from coronet_plugin.evaluation.record import as_plain
from coronet_plugin.measure.machine import describe_machine
from coronet_plugin.runs.run import Translation
from coronet_plugin.versions import versions


def as_json(measurements: Mapping[Translation, Sequence[Measurement]]) -> dict[str, Any]:
    """Values, and what they are against the first run; circumstances beside them."""
    groups = {}
    for translation, columns in measurements.items():
        groups[translation.generator] = {
            "translation": f"{translation.source} -> {translation.output}",
            "runs": {column.run: _values(column, columns) for column in columns},
        }
    return {
        "format": "coronet-comparison",
        "version": 3,
        "versions": versions(),
        "machine": describe_machine(),
        "ratios": "value / first run",
        "differences": "value - first run",
        "generators": groups,
    }


def _values(column: Measurement, columns: Sequence[Measurement]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    ratios: dict[str, float | None] = {}
    differences: dict[str, float | None] = {}
    for quantity in dict.fromkeys((*quantities(columns), KID, FID, LPIPS)):
        value = quantity.read(column)
        values[quantity.key] = _finite(value)
        against = quantity.against(value, quantity.read(columns[0]))
        (ratios if quantity.relative else differences)[quantity.key] = against
    values["latency"] = column.latency.as_dict() if column.latency else None
    values["latencies"] = {
        name: speed.as_dict() if isinstance(speed, Speed) else {"failed": speed.reason}
        for name, speed in zip(column.runtimes, column.speeds)
    }
    values["memory"] = column.memory.as_dict() if column.memory else None
    values["test_images"] = column.quality.count if column.quality else None
    values["evaluation"] = as_plain(column.evaluation) if column.evaluation else None
    return {**values, "ratios": ratios, "differences": differences}


def _finite(value: float | None) -> float | str | None:
    """JSON has no infinity: equal pictures have a PSNR of ``"inf"``."""
    return value if value is None or math.isfinite(value) else str(value)
