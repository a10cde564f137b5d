"""The sections of a comparison page, each written into the dominate element that is open.

They arrange what they are given and measure nothing. All text, names of runs
included, goes through dominate's escaping.
"""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from coronet_plugin.comparison.figures import budget_figure, loss_figure
from coronet_plugin.comparison.measure import QUANTITIES, Measurement, Quantity
from coronet_plugin.drawing import COLOURS, save_svg
from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.run import Run, Translation
from coronet_plugin.spec import COMPACT, Spec

NUMBERS = "comparison.json"
Measurements = Mapping[Translation, Sequence[Measurement]]


def html() -> ModuleType:
    """dominate's tags. Raises OptionError without the library."""
    try:
        import dominate.tags
    except ImportError as error:
        raise OptionError('the page needs dominate: pip install "coronet-plugin[report]"') from error
    return dominate.tags


def percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


# Pictures


def shown_stems(runs: Sequence[Run], translation: Translation, count: int) -> list[str]:
    """Stems of test pictures that every run has, at most ``count``, spread evenly over the sorted names.

    Raises DataError if there is none.
    """
    common: set[str] | None = None
    for run in runs:
        assert run.images_dir is not None  # _require_results
        ending = f"_{translation.output}.png"
        found = {path.name[: -len(ending)] for path in run.images_dir.glob(f"*{ending}")}
        common = found if common is None else common & found
    stems = sorted(common or ())
    if not stems:
        names = ", ".join(run.name for run in runs)
        raise DataError(
            f"no test picture *_{translation.output}.png is common to {names}; test them on the same data"
        )
    places = np.linspace(0, len(stems) - 1, min(max(1, count), len(stems))).round().astype(int)
    return [stems[place] for place in places]


def pictures(runs: Sequence[Run], measurements: Measurements, output: Path, images: int) -> None:
    tags = html()
    tags.h2("Test pictures")
    for translation in measurements:
        stems = shown_stems(runs, translation, images)
        if len(measurements) > 1:
            tags.h3(f"{translation.generator}: {translation.source} to {translation.output}")
        tags.p("Never seen in training. Click a picture to see its row large.", cls="note")
        columns = len(runs) + (2 if translation.truth else 1)
        layout = f"grid-template-columns: repeat(auto-fit, minmax(min(100%, {columns * 7.5:g}rem), 1fr))"
        with tags.div(cls="examples", style=layout):
            for number, stem in enumerate(stems):
                _example(runs, translation, stem, number, output)


def _example(runs: Sequence[Run], translation: Translation, stem: str, number: int, output: Path) -> None:
    tags = html()
    first = runs[0]
    cells = [("input", first, translation.source), *((run.name, run, translation.output) for run in runs)]
    if translation.truth:
        cells.append(("truth", first, translation.truth))
    with tags.div(cls="example scroll"):
        for column, (label, run, visual) in enumerate(cells):
            target = f"images/{translation.generator}_{number:03d}_{column}.png"
            _copy(run, f"{stem}_{visual}.png", output / target)
            with tags.figure():
                tags.a(tags.img(src=target, alt=f"{stem}: {label}", loading="lazy"), href=target)
                tags.figcaption(label, title=f"{stem}: {label}")


def _copy(run: Run, name: str, target: Path) -> None:
    assert run.images_dir is not None  # _require_results
    try:
        shutil.copyfile(run.images_dir / name, target)
    except FileNotFoundError as error:
        raise DataError(f"{run.images_dir} has no {name}; run test.py for {run.name} again") from error


# Numbers


def numbers(runs: Sequence[Run], measurements: Measurements) -> None:
    tags = html()
    tags.h2("Numbers")
    with tags.div(cls="scroll"), tags.table(cls="numbers"):
        with tags.thead(), tags.tr():
            tags.th("")
            for index, run in enumerate(runs):
                with tags.th(scope="col"):
                    _key(index)
                    tags.span(run.name)
        for translation, columns in measurements.items():
            with tags.tbody():
                if len(measurements) > 1:
                    title = f"{translation.generator}: {translation.source} to {translation.output}"
                    tags.tr(tags.th(tags.b(title), colspan=len(runs) + 1, scope="rowgroup"))
                for quantity in QUANTITIES:
                    _row(quantity, columns)
    _protocol(measurements)


def _row(quantity: Quantity, columns: Sequence[Measurement]) -> None:
    tags = html()
    values = [quantity.read(column) for column in columns]
    best = quantity.best(values)
    with tags.tr():
        with tags.th(scope="row"):
            tags.span(quantity.label)
            if quantity.note:
                tags.small(quantity.note)
        for position, value in enumerate(values):
            if value is None:
                tags.td("not measured", cls="missing")
                continue
            with tags.td(cls="best" if position in best else ""):
                tags.b(quantity.show(value)) if position in best else tags.span(quantity.show(value))
                first = None if position == 0 else values[0]
                for remark in _remarks(quantity, columns[position], value, first):
                    tags.small(remark)


def _remarks(quantity: Quantity, column: Measurement, value: float, first: float | None) -> Iterator[str]:
    against = quantity.against(value, first)
    if against is not None:
        yield percent(against) if quantity.relative else _signed(against)
    if quantity.key == "latency_ms" and column.latency:
        yield f"p10 to p90: {column.latency.p10_ms:.1f} to {column.latency.p90_ms:.1f} ms"


def _signed(difference: float) -> str:
    digits = max(0, 3 - math.ceil(math.log10(abs(difference)))) if difference else 0
    return f"{difference:+.{min(digits, 5)}f}".replace("-", "\N{MINUS SIGN}")


def _protocol(measurements: Measurements) -> None:
    tags = html()
    columns = [column for group in measurements.values() for column in group]
    speed = next((column.latency for column in columns if column.latency), None)
    quality = next((column.quality for column in columns if column.quality), None)
    tags.p("Small print: ratio to the first run, or difference from it for likeness.", cls="note")
    if speed:
        size = " x ".join(map(str, speed.input_size))
        threads = "1 thread" if speed.threads == 1 else f"{speed.threads} threads"
        tags.p(
            f"MACs and latency for an input of {size}. Latency: eager PyTorch {speed.torch_version} "
            f"on the CPU, {threads}, {speed.repeats} runs after warm-up.",
            cls="note",
        )
    if quality:
        tags.p(
            f"Likeness to the truth: means over {quality.count} test pictures as saved (8-bit RGB). "
            f"SSIM: Gaussian window, sigma 1.5. L1: mean absolute difference of values in [0, 1].",
            cls="note",
        )
    if any(column.training_seconds is None for column in columns):
        tags.p("Training time is read from loss_log.jsonl, which not every run has.", cls="note")


def _key(index: int) -> None:
    html().span(cls="key", style=f"background: {COLOURS[index % len(COLOURS)]}")


# Curves, widths, commands


def _curve(figure: Any, target: Path, description: str) -> None:
    tags = html()
    save_svg(figure, target)
    with tags.div(cls="scroll"):
        tags.img(src=f"images/{target.name}", alt=description, cls="curve")


def budget(runs: Sequence[Run], output: Path) -> None:
    tags = html()
    if all(run.is_dense for run in runs):
        return
    tags.h2("Budget over training")
    figure = budget_figure(runs)
    if figure is None:
        tags.p("Not recorded: no compressed run has a loss_log.jsonl with its budget.", cls="note")
        return
    _curve(figure, output / "images" / "budget.svg", "MACs and channels left over training")


def losses(runs: Sequence[Run], output: Path) -> None:
    tags = html()
    tags.h2("Losses of the generators")
    figure = loss_figure(runs)
    if figure is None:
        tags.p("Not recorded: no run has a loss_log.jsonl.", cls="note")
        return
    _curve(figure, output / "images" / "losses.svg", "losses over training")
    silent = [run.name for run in runs if not run.log]
    if silent:
        tags.p(f"Without a loss_log.jsonl: {', '.join(silent)}.", cls="note")


def widths(runs: Sequence[Run]) -> None:
    tags = html()
    compressed = [(run, name, spec) for run in runs for name, spec in run.specs.items()]
    if not compressed:
        return
    tags.h2("Channels kept in every set")
    tags.p("A set is named after the first layer that makes its channels. Grey: never removed.", cls="note")
    for run, name, spec in compressed:
        tags.h3(f"{run.name}, {name}" if len(run.specs) > 1 or len(compressed) > 1 else run.name)
        if spec.phase != COMPACT:
            tags.p("Still searching: nothing has been removed yet.", cls="note")
        _width_table(spec)


def _width_table(spec: Spec) -> None:
    tags = html()
    with tags.div(cls="scroll"), tags.table(cls="widths"):
        with tags.thead(), tags.tr():
            for label in ("set", "", "kept", "of", "share"):
                tags.th(label, scope="col")
        with tags.tbody():
            for entry in spec.sets:
                kept, total = len(entry["kept"]), entry["channels"]
                with tags.tr(cls="pinned" if entry["pinned"] else "", title=entry["pinned"] or ""):
                    tags.th(entry["name"], scope="row")
                    tags.td(tags.span(tags.i(style=f"width: {100 * kept / total:.1f}%")), cls="bar")
                    for text in (kept, total, f"{100 * kept / total:.0f} %"):
                        tags.td(str(text))


def commands(runs: Sequence[Run]) -> None:
    tags = html()
    tags.h2("How these runs were trained")
    for run in runs:
        tags.h3(run.name)
        tags.pre(one_option_a_line(run.command))
    tags.p(tags.a("All numbers as JSON", href=NUMBERS))


def one_option_a_line(command: str) -> str:
    """The same shell command with a continued line for every option; as it is if that is not safe."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    if "\n" in command or shlex.join(words) != command:
        return command
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines)
