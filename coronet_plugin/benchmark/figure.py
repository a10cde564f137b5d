"""The picture of a benchmark: how long every generator takes, by runtime, format and threads."""

from __future__ import annotations

from pathlib import Path

from coronet_plugin.benchmark.result import Benchmark, compared_ms
from coronet_plugin.drawing import COLOURS, GREY, new_figure, save_svg, style

BAR = 0.8
"""Part of a group's height that its bars fill."""


def draw(benchmark: Benchmark, path: Path) -> Path:
    """Bars on a logarithmic scale: CPU time with one thread, wall time with more; and what is realised.

    Raises OptionError without matplotlib.
    """
    timings = benchmark.timings
    groups = sorted({(c.runtime, c.dtype, c.threads): c.label for c in timings}.items(), reverse=True)
    figure = new_figure(8, 1.2 + 0.28 * max(1, len(timings)))
    axes = figure.add_subplot()
    height = BAR / len(benchmark.entries)
    for number, entry in enumerate(benchmark.entries):
        own = {(c.runtime, c.dtype, c.threads): c for c in timings if c.generator == entry.name}
        places = [(row, own[key]) for row, (key, _) in enumerate(groups) if key in own]
        positions = [row + BAR / 2 - height * (number + 0.5) for row, _ in places]
        lengths = [compared_ms(c, timings[c]) for _, c in places]
        colour = COLOURS[number % len(COLOURS)]
        axes.barh(positions, lengths, height, color=colour, label=entry.name)
        for y, x, (_, candidate) in zip(positions, lengths, places):
            realised = benchmark.realised(candidate)
            note = f" {x:.3g} ms" + (f", {realised:.0%}" if realised is not None else "")
            axes.text(x, y, note, va="center", fontsize=7, color=GREY)
    style(axes)
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_yticks(range(len(groups)), [label for _, label in groups])
    axes.set_xlabel("ms per picture; % of the MACs' reduction that comes out as speed", fontsize=9)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=GREY, fontsize=9)
    return save_svg(figure, path)
