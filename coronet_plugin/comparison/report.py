"""The comparison page: one HTML file that shows runs side by side, and ``comparison.json`` beside it.

Pictures are copied into the page's folder and everything else is inline, so the
folder can be opened without a server, zipped and sent. Numbers come from
``measure.py``, curves from ``figures.py``; this module only arranges them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coronet_plugin.comparison import sections
from coronet_plugin.comparison.measure import Measurement, as_json, comparable, measure_all
from coronet_plugin.comparison.page import SCRIPT, STYLE
from coronet_plugin.comparison.sections import NUMBERS, Measurements, html, percent
from coronet_plugin.errors import DataError
from coronet_plugin.run import Run

PAGE = "index.html"


def write_comparison(
    runs: Sequence[Run],
    output: Path | str,
    *,
    images: int = 12,
    threads: int = 1,
    repeats: int = 30,
    title: str = "",
) -> Path:
    """Measure ``runs`` and write the page into the folder ``output``; gives the path of the page.

    Dense runs come first and the first run is what the others are set against. ``images``: test
    pictures to show, spread evenly over those all runs have. ``threads``, ``repeats``: for the
    latency. Raises DataError if a run has no test results or the runs do not fit together,
    CheckpointError if weights cannot be loaded, OptionError if a library is missing.
    """
    html()  # refuse before anything is measured
    runs = comparable(runs)
    for run in runs:
        _require_results(run)
    measurements = measure_all(runs, threads=threads, repeats=repeats)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output / "images", ignore_errors=True)
    (output / "images").mkdir()
    numbers = json.dumps(as_json(dict(measurements)), indent=2, allow_nan=False)
    (output / NUMBERS).write_text(numbers + "\n", encoding="utf-8")
    page = output / PAGE
    page.write_text(_page(runs, measurements, output, images, title), encoding="utf-8")
    return page


def _require_results(run: Run) -> None:
    if run.images_dir is None:
        raise DataError(
            f"{run.name} has no test results; run test.py --name {run.name} first, or set --results_dir"
        )


def _page(runs: Sequence[Run], measurements: Measurements, output: Path, images: int, title: str) -> str:
    import dominate

    tags = html()
    heading = title or " and ".join(run.name for run in runs)
    document = dominate.document(title=heading)
    with document.head:
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(_raw(STYLE))
    with document:
        tags.h1(heading)
        for line in summary(measurements):
            tags.p(line, cls="summary")
        sections.pictures(runs, measurements, output, images)
        sections.numbers(runs, measurements)
        sections.budget(runs, output)
        sections.widths(runs)
        sections.losses(runs, output)
        sections.commands(runs)
        _raw("<dialog></dialog>")
        tags.script(_raw(SCRIPT))
    return str(document.render()) + "\n"


def _raw(text: str) -> Any:
    """Our own constants only; everything else goes through dominate's escaping."""
    from dominate.util import raw

    return raw(text)


# What it comes to, in words


def summary(measurements: Measurements) -> list[str]:
    """A plain sentence per compared run and generator: what is left of the first run's cost and likeness."""
    several = len(measurements) > 1
    return [
        _sentence(column, columns[0], several) for columns in measurements.values() for column in columns[1:]
    ]


def _sentence(column: Measurement, first: Measurement, several: bool) -> str:
    name = f"{column.run}, {column.generator}" if several else column.run
    parts = []
    if column.cost and first.cost:
        parts.append(f"{percent(column.cost.macs / first.cost.macs)} of the MACs")
        parts.append(f"{percent(column.cost.parameters / first.cost.parameters)} of the parameters")
    if column.latency and first.latency:
        times = first.latency.median_ms / column.latency.median_ms
        parts.append(f"{times:.2g} times as fast on this CPU")
    if column.quality and first.quality:
        parts.append(f"SSIM {column.quality.ssim:.3f} against {first.quality.ssim:.3f}")
    return f"{name}: {', '.join(parts) or 'nothing could be measured'} (set against {first.run})."
