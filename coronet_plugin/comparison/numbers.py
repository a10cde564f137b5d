"""The table of a comparison page, and below it in words how its figures were made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from coronet_plugin.comparison.measure import Measurement
from coronet_plugin.comparison.page import Measurements, html, percent
from coronet_plugin.comparison.quantities import Quantity, quantities
from coronet_plugin.drawing import COLOURS
from coronet_plugin.evaluation.protocols import PROTOCOLS
from coronet_plugin.evaluation.record import Evaluation
from coronet_plugin.measure.timing import WARMUP
from coronet_plugin.runs.run import Run


def table(runs: Sequence[Run], measurements: Measurements, remarks: Sequence[str] = ()) -> None:
    """The table, and below it how its figures were made; ``remarks``: what was left out, and why."""
    tags = html()
    tags.h2("Numbers")
    with tags.div(cls="scroll"), tags.table(cls="numbers", style=f"--runs: {len(runs)}"):
        with tags.thead(), tags.tr():
            tags.th("")
            for index, run in enumerate(runs):
                with tags.th(scope="col"):
                    _key(index)
                    _breakable(run.name)
        for translation, columns in measurements.items():
            with tags.tbody():
                if len(measurements) > 1:
                    title = f"{translation.generator}: {translation.source} to {translation.output}"
                    tags.tr(tags.th(tags.b(title), colspan=len(runs) + 1, scope="rowgroup"))
                for quantity in quantities(columns):
                    _row(quantity, columns)
    for remark in remarks:
        tags.p(remark, cls="note")
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
            floors = dict.fromkeys(quantity.show(f) for c in columns if (f := quantity.floor(c)) is not None)
            if floors:
                tags.small(f"floor {' or '.join(floors)}", cls="floor")
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
        yield percent(against) if quantity.relative else _signed(quantity.factor * against)
    if spread := quantity.spread(column):
        yield spread


def _signed(difference: float) -> str:
    digits = max(0, 3 - math.ceil(math.log10(abs(difference)))) if difference else 0
    return f"{difference:+.{min(digits, 5)}f}".replace("-", "\N{MINUS SIGN}")


def _protocol(measurements: Measurements) -> None:
    """Say how the figures were made."""
    tags = html()
    columns = [column for group in measurements.values() for column in group]
    tags.p("Small print: ratio to the first run, or difference from it for quality.", cls="note")
    for line in dict.fromkeys((*_about_cost(columns), *_about_quality(columns))):
        tags.p(line, cls="note")
    if any(column.training_seconds is None for column in columns):
        tags.p("Training time is read from loss_log.jsonl, which not every run has.", cls="note")


def _about_cost(columns: Sequence[Measurement]) -> Iterator[str]:
    speeds = [latency for c in columns for name in c.runtimes if (latency := c.latency_in(name))]
    if speeds:
        size, first = " x ".join(map(str, speeds[0].input_size)), speeds[0]
        threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
        runtimes = ", ".join(dict.fromkeys(speed.runtime for speed in speeds))
        yield (
            f"MACs, memory and latency for an input of {size}. Latency: fp32 on the CPU, {threads}, "
            f"the runs taking turns for {first.timing.calls} rounds after {WARMUP} for warm-up; {runtimes}."
        )
    if any(column.memory for column in columns):
        yield (
            "Peak memory: weights, and by how much the resident memory of a fresh process rises while it "
            "runs the generator once more in eager PyTorch; PyTorch's own memory is not in it."
        )
    elif columns:
        yield "Peak memory was not measured; it needs Linux."
    for column in columns:
        for failure in column.failures:
            yield f"{column.run} {column.generator} was not timed in {failure.runtime}: {failure.reason}"


def _about_quality(columns: Sequence[Measurement]) -> Iterator[str]:
    evaluations = [column.evaluation for column in columns if column.evaluation]
    for evaluation in evaluations:
        yield from _about_distance(evaluation)
    quality = next((evaluation.paired for evaluation in evaluations if evaluation.paired), None)
    if quality:
        yield (
            f"Likeness to the truth: means over {quality.count} test pictures as saved (8-bit RGB). "
            f"SSIM: Gaussian window, sigma 1.5. L1: mean absolute difference of values in [0, 1]."
        )
    for evaluation in evaluations:
        yield from evaluation.notes


def _about_distance(evaluation: Evaluation) -> Iterator[str]:
    found, floor, doubles = evaluation.distance, evaluation.floor, evaluation.duplicates
    if found:
        yield (
            f"FID and KID by the protocol {evaluation.protocol!r}: {PROTOCOLS[evaluation.protocol]}, here "
            f"{found.count} against {found.reference} pictures of {evaluation.size}; "
            f"features of {evaluation.extractor}, resize {evaluation.resize}. KID: mean and standard "
            f"deviation of {found.subsets} subsets of {found.subset_size} a side, seed {found.seed}."
        )
    if floor:
        yield (
            f"Floor: real against real, {floor.count} test against {floor.reference} training pictures; "
            "what a perfect generator would come to."
        )
    if doubles and (doubles.exact or doubles.near):
        yield (
            f"Test pictures that are also in the training data: {len(doubles.exact)} exactly, "
            f"{len(doubles.near)} nearly ({evaluation.output})."
        )


def _breakable(name: str) -> None:
    """A name that may go on in the next line behind any underscore."""
    tags = html()
    parts = name.split("_")
    for part in parts[:-1]:
        tags.span(f"{part}_")
        tags.wbr()
    tags.span(parts[-1])


def _key(index: int) -> None:
    html().span(cls="key", style=f"background: {COLOURS[index % len(COLOURS)]}")
