"""Quality against cost: which runs are beaten by another one in both, and which are not.

Quality is KID where it is known for all runs shown, else SSIM; cost is true multiply-adds, and latency in
eager PyTorch. The Pareto front joins the runs that no other run beats in one without losing in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coronet_plugin.channels.cost import human
from coronet_plugin.comparison.measure import Measurement
from coronet_plugin.comparison.quantities import KID, MACS, SSIM, Quantity, latency_in
from coronet_plugin.drawing import COLOURS, GREY, new_figure, style
from coronet_plugin.export.targets import EAGER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.8, 3.4  # inches a panel
LINE, LETTER = 0.17, 0.09
"""Height of a label, and width of a letter in it, in inches."""
GAP = 0.02
"""Between a point and its label, as a share of the panel's width."""


@dataclass(frozen=True)
class Point:
    """A run: its place in the order of runs, cost, quality, and the spread of the quality (0: not known)."""

    run: str
    index: int
    cost: float
    quality: float
    spread: float = 0.0


def quality_of(columns: Sequence[Measurement]) -> Quantity | None:
    """The quantity by which the runs can be ranked: KID if all have it, else SSIM, else nothing."""
    for quantity in (KID, SSIM):
        if all(quantity.read(column) is not None for column in columns):
            return quantity
    return None


def points(columns: Sequence[Measurement], cost: Quantity, quality: Quantity) -> tuple[Point, ...]:
    """The runs whose cost is known, in their order; KID in thousandths."""
    found = []
    for index, column in enumerate(columns):
        x, y = cost.read(column), quality.read(column)
        if x is not None and y is not None:
            distance = column.evaluation.distance if column.evaluation else None
            spread = quality.factor * distance.kid_std if distance and quality is KID else 0.0
            found.append(Point(column.run, index, x, quality.factor * y, spread))
    return tuple(found)


def front(given: Sequence[Point], higher_is_better: bool) -> tuple[Point, ...]:
    """The points that no other beats in cost or quality without being worse in the other, by rising cost."""
    sign = -1 if higher_is_better else 1
    best, kept = float("inf"), []
    for point in sorted(given, key=lambda p: (p.cost, sign * p.quality)):
        if sign * point.quality < best:
            best = sign * point.quality
            kept.append(point)
    return tuple(kept)


def pareto_figure(columns: Sequence[Measurement]) -> Figure | None:
    """Two panels, against MACs and against latency; None for fewer than two runs or without a quality."""
    quality = quality_of(columns)
    if quality is None or len(columns) < 2:
        return None
    costs = [(MACS, "multiply-adds (MACs)"), (latency_in(EAGER), "CPU latency in eager PyTorch, ms")]
    panels = [(found, label) for cost, label in costs if len(found := points(columns, cost, quality)) > 1]
    if not panels:
        return None
    figure = new_figure(WIDTH, HEIGHT * len(panels))
    for axes, (found, label) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels):
        draw_points(axes, found, quality, _floor(columns, quality))
        axes.set_xlabel(label)
        if label.startswith("multiply"):
            axes.xaxis.set_major_formatter(lambda value, _: human(value))
    return figure


def _floor(columns: Sequence[Measurement], quality: Quantity) -> float | None:
    floors = [floor for column in columns if (floor := quality.floor(column)) is not None]
    return quality.factor * floors[0] if floors else None


def draw_points(
    axes: Axes, found: Sequence[Point], quality: Quantity, floor: float | None = None, log: bool = False
) -> None:
    """The points with their names, the front that joins the best, and the ``floor`` of the quality.

    ``log``: costs by their logarithm, for such as differ by factors.
    """
    style(axes)
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    best = front(found, quality.higher_is_better)
    axes.plot([p.cost for p in best], [p.quality for p in best], color=GREY, lw=1, ls="--", zorder=1)
    for point in found:
        axes.errorbar(
            point.cost,
            point.quality,
            point.spread or None,
            fmt="o",
            ms=7,
            capsize=3,
            elinewidth=1,
            color=COLOURS[point.index % len(COLOURS)],
        )
    if floor is not None:
        axes.axhline(floor, color=GREY, lw=1, ls=":")
        axes.annotate("floor", (1, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                      color=GREY, fontsize=9)  # fmt: skip
    axes.margins(y=0.15)
    last = max(found, key=lambda p: p.cost)
    room = min(0.5, LETTER * len(last.run) / _inches(axes)[0] + 2 * GAP)  # for the last label, of the width
    if log:
        left = min(p.cost for p in found) / 1.2
        axes.set_xscale("log", subs=(2, 5))
        for level in ("major", "minor"):
            axes.tick_params(axis="x", which=level, labelsize=9, labelcolor=GREY)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlim(left, last.cost * (last.cost / left) ** (room / (1 - room)))
    else:
        axes.set_xlim(0, last.cost / (1 - room))
    better = "higher" if quality.higher_is_better else "lower"
    axes.set_ylabel(f"{quality.label} ({better} is better)")
    _label(axes, found)


def _inches(axes: Axes) -> tuple[float, float]:
    """Width and height of the panel."""
    figure = axes.get_figure()
    assert figure is not None
    return axes.bbox.width / figure.dpi, axes.bbox.height / figure.dpi


def _label(axes: Axes, found: Sequence[Point]) -> None:
    """Names to the right of the points, moved to the nearest height where they cover none of the others."""
    width, height = _inches(axes)
    line, letter = LINE / height, LETTER / width
    places = axes.transData + axes.transAxes.inverted()
    taken: list[tuple[float, float, float]] = []
    for point in sorted(found, key=lambda p: -p.quality):
        x, beside = places.transform((point.cost, point.quality))
        end = x + letter * len(point.run)
        near = [(len(taken) + 1) * line * part / 20 * sign for part in range(21) for sign in (-1, 1)]
        heights = [y for move in near if line / 2 <= (y := beside + move) <= 1 - line / 2] or [beside]
        free = [
            y
            for y in heights
            if not any(abs(y - other) < line and x < right and left < end for left, right, other in taken)
        ]
        y = (free or heights)[0]
        taken.append((x, end, y))
        axes.annotate(
            point.run,
            (point.cost, point.quality),
            xytext=(x + GAP, y),
            textcoords="axes fraction",
            va="center",
            color=COLOURS[point.index % len(COLOURS)],
            fontsize=9,
        )
