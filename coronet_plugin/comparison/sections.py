"""The sections of a comparison page, each written into the dominate element that is open.

They arrange what they are given and measure nothing. All text, names of runs
included, goes through dominate's escaping.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coronet_plugin.checkpoint.spec import COMPACT, Spec
from coronet_plugin.comparison.figures import budget_figure, loss_figure
from coronet_plugin.comparison.measure import is_full
from coronet_plugin.comparison.page import Measurements, html
from coronet_plugin.comparison.pareto import pareto_figure
from coronet_plugin.drawing import save_svg
from coronet_plugin.runs.run import Run
from coronet_plugin.training import provenance

NUMBERS = "comparison.json"


def pareto(measurements: Measurements, output: Path) -> None:
    """Quality against cost, a figure for each translation; nothing for a single run."""
    tags = html()
    if all(len(columns) < 2 for columns in measurements.values()):
        return
    tags.h2("Quality against cost")
    for translation, columns in measurements.items():
        if len(measurements) > 1:
            tags.h3(f"{translation.generator}: {translation.source} to {translation.output}")
        figure = pareto_figure(columns)
        if figure is None:
            tags.p("Not shown: there is neither KID nor a truth to rank the runs by.", cls="note")
            continue
        name = f"pareto_{translation.generator}.svg"
        _curve(figure, output / "images" / name, "quality against MACs and latency, a point for every run")
        tags.p(
            "The dashed line joins the runs that no other run beats in both. Bars: how much KID differs "
            "between random subsets of the pictures.",
            cls="note",
        )


def _curve(figure: Any, target: Path, description: str) -> None:
    tags = html()
    save_svg(figure, target)
    with tags.div(cls="scroll"):
        tags.img(src=f"images/{target.name}", alt=description, cls="curve")


def budget(runs: Sequence[Run], output: Path) -> None:
    tags = html()
    if all(is_full(run) for run in runs):
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
    compressed = [(run, name, spec) for run in runs if not is_full(run) for name, spec in run.specs.items()]
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


def commands(runs: Sequence[Run], own: str = "") -> None:
    """Show command, seed, versions, code, data and machine of each run. ``own``: the page's command."""
    tags = html()
    tags.h2("How these runs were trained")
    records = {run.name: provenance.read(run.folder) for run in runs}
    for run in runs:
        tags.h3(run.name)
        written = [one["command"] for one in records[run.name] if one["command"]]
        for command in written or [run.command]:
            tags.pre(one_option_a_line(command))
    if any(records.values()):
        _records(records)
    silent = [name for name, record in records.items() if not record]
    if silent:
        text = f"Without a {provenance.FILE}, command rebuilt from the options: {', '.join(silent)}."
        tags.p(text, cls="note")
    if own:
        tags.h3("This page")
        tags.pre(one_option_a_line(own))
    tags.p(tags.a("All numbers as JSON", href=NUMBERS))


def _records(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The ingredients of every training; a continued run has a column for every time."""
    tags = html()
    tags.h3("What they were made of")
    said = [(name, provenance.in_words(one)) for name, record in records.items() for one in record]
    with tags.div(cls="scroll"), tags.table(cls="made"):
        with tags.thead(), tags.tr():
            for label in ("", *(name for name, _ in said)):
                tags.th(label, scope="col")
        with tags.tbody():
            for key in said[0][1]:
                with tags.tr():
                    tags.th(key, scope="row")
                    for _, words in said:
                        tags.td(words[key])
    data = {words["data"] for _, words in said}
    if len(data) > 1:
        tags.p("These runs saw different training data: their figures do not compare.", cls="warning")


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
