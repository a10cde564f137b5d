"""The comparison page: one HTML file that shows runs side by side, and ``comparison.json`` beside it.

Pictures are copied into the page's folder and everything else is inline, so the
folder can be opened without a server, zipped and sent. Numbers come from
``measure.py``, curves from ``figures.py``; this module only arranges them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from coronet_plugin.comparison import numbers, pictures, sections
from coronet_plugin.comparison.measure import DEFAULT, Measurement, Measuring, in_order, measure_all
from coronet_plugin.comparison.page import SCRIPT, STYLE, Measurements, html, percent
from coronet_plugin.comparison.quantities import KID
from coronet_plugin.comparison.record import as_json
from coronet_plugin.comparison.sections import NUMBERS
from coronet_plugin.errors import DataError
from coronet_plugin.export.normalisation import NORM_MODES
from coronet_plugin.runs.run import Run

PAGE = "index.html"


def write_comparison(
    runs: Sequence[Run],
    output: Path | str,
    measuring: Measuring = DEFAULT,
    *,
    images: int = 12,
    worst: int = pictures.WORST,
    title: str = "",
    remarks: Sequence[str] = (),
    command: str = "",
) -> Path:
    """Measure ``runs`` and write the page into the folder ``output``; gives the path of the page.

    Dense runs come first and the first run is what the others are set against. ``images``: test pictures to
    show of those all runs have, ``worst`` of them those that differ most, the others spread evenly.
    ``remarks``: sentences to print below the numbers. ``command``: what wrote the page. Raises DataError if a
    run has no test results or the runs do not fit together, CheckpointError if weights cannot be loaded,
    OptionError if a library is missing.
    """
    html()  # refuse before anything is measured
    runs = in_order(runs)
    for run in runs:
        _require_results(run)
    measurements = measure_all(runs, measuring)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(output / "images", ignore_errors=True)
    (output / "images").mkdir()
    data = json.dumps(as_json(measurements), indent=2, allow_nan=False)
    (output / NUMBERS).write_text(data + "\n", encoding="utf-8")
    heading = title or " and ".join(run.name for run in runs)
    with _document(heading) as document:
        for line in summary(measurements):
            html().p(line, cls="summary")
        pictures.pictures(runs, measurements, output, images, worst)
        numbers.table(runs, measurements, (*remarks, _about_norms(measuring)))
        sections.pareto(measurements, output)
        sections.budget(runs, output)
        sections.widths(runs)
        sections.losses(runs, output)
        sections.commands(runs, command)
    page = output / PAGE
    page.write_text(str(document.render()) + "\n", encoding="utf-8")
    return page


def _require_results(run: Run) -> None:
    if run.images_dir is None:
        raise DataError(
            f"{run.name} has no test results; run test.py --name {run.name} first, or set --results_dir"
        )


@contextlib.contextmanager
def _document(heading: str) -> Iterator[Any]:
    """A page with our style, heading and script, open to be written into."""
    import dominate

    tags = html()
    document = dominate.document(title=heading)
    with document.head:
        tags.meta(charset="utf-8")
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(_raw(STYLE))
    with document:
        tags.h1(heading)
        yield document
        _raw("<dialog></dialog>")
        tags.script(_raw(SCRIPT))


def _raw(text: str) -> Any:
    """Our own constants only; everything else goes through dominate's escaping."""
    from dominate.util import raw

    return raw(text)


def _about_norms(measuring: Measuring) -> str:
    mode = measuring.norm_mode
    return f"Cost, memory and latency with --norm_mode {mode}: {NORM_MODES[mode]}; dropout is off."


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
        times = first.latency.timing.median_ms / column.latency.timing.median_ms
        parts.append(f"{times:.2g} times as fast on this CPU")
    ours, theirs = KID.read(column), KID.read(first)
    if ours is not None and theirs is not None:
        parts.append(f"{KID.label} {KID.show(ours)} against {KID.show(theirs)}")
    if column.quality and first.quality:
        parts.append(f"SSIM {column.quality.ssim:.3f} against {first.quality.ssim:.3f}")
    return f"{name}: {', '.join(parts) or 'nothing could be measured'} (set against {first.run})."
