"""The curves of a comparison: what is left over training, losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coronet_plugin.channels.cost import Cost
from coronet_plugin.checkpoint.spec import COMPACT, Spec
from coronet_plugin.comparison.measure import is_full
from coronet_plugin.drawing import COLOURS, GREY, legend, new_figure, style
from coronet_plugin.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.8, 3.0  # inches
UNITS = {"macs": "MACs", "params": "parameters"}


@dataclass(frozen=True)
class Curve:
    """A logged quantity over optimizer steps: ``steps`` and ``values`` are (N,)."""

    name: str
    steps: np.ndarray
    values: np.ndarray


def curves(run: Run, prefix: str = "") -> tuple[Curve, ...]:
    """The logged quantities whose names begin with ``prefix``, in the order of the log."""
    names = dict.fromkeys(name for entry in run.log for name in entry.losses if name.startswith(prefix))
    found = []
    for name in names:
        points = [(entry.step, entry.losses[name]) for entry in run.log if name in entry.losses]
        steps, values = (np.array(column, dtype=float) for column in zip(*points))
        found.append(Curve(name, steps, values))
    return tuple(found)


def slimming_step(run: Run) -> int | None:
    """Optimizer step at which the generators became small, or None if they have not (yet)."""
    compact = [spec for spec in run.specs.values() if spec.phase == COMPACT]
    steps = [int(spec.search["of"]) for spec in compact if spec.search.get("of")]
    return max(steps) if steps else None


def target_fraction(spec: Spec) -> float:
    """The budget, of a kind that is counted, as a fraction of the dense cost that it is about."""
    return float(spec.budget["target"]) / Cost(**spec.dense).of_kind(spec.budget["kind"])


def budget_figure(runs: Sequence[Run]) -> Figure | None:
    """Shares of the MACs and of the channels that are left over training; None if no run logged it."""
    logged = [(index, run) for index, run in enumerate(runs) if curves(run, "macs_")]
    if not logged:
        return None
    figure, (axes,) = _figure(1)
    for index, run in logged:
        several = len(logged) > 1
        _draw_budget(axes, run, COLOURS[index % len(COLOURS)], f"{run.name}: " if several else "")
    _draw_targets(axes, [run for _, run in logged])
    axes.set_ylim(0, 112)
    axes.set_ylabel("% of the dense generator")
    axes.set_xlabel("optimizer step")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=GREY, fontsize=8)
    figure.set_figheight(HEIGHT + 0.1 * len(axes.get_legend_handles_labels()[0]))
    return figure


def _draw_budget(axes: Axes, run: Run, colour: str, label: str) -> None:
    for dashes, prefix, what in (("-", "macs_", "MACs"), (":", "width_", "channels")):
        for curve in curves(run, prefix):
            name = f"{label}{what} of {curve.name[len(prefix) :]}"
            axes.plot(curve.steps, 100 * curve.values, dashes, color=colour, lw=2, label=name)


def _draw_targets(axes: Axes, runs: Sequence[Run]) -> None:
    """A line for every budget in MACs or parameters, and for every step at which generators became small."""
    small = [run for run in runs if not is_full(run)]
    specs = [spec for run in small for spec in run.specs.values() if spec.budget["kind"] in UNITS]
    for kind, target in sorted({(s.budget["kind"], round(target_fraction(s), 4)) for s in specs}):
        text = f"target, {100 * target:.3g} % of the {UNITS[kind]}"
        axes.axhline(100 * target, color=GREY, lw=1, ls="--", label=text)
    for step in sorted({step for run in small if (step := slimming_step(run)) is not None}):
        axes.axvline(step, color=GREY, lw=1)
        axes.annotate(f" slim at step {step}", (step, 110), color=GREY, fontsize=9, va="top")


def loss_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """The generators' losses that any run logged, adversarial first; budgets and discriminators left out."""
    names = dict.fromkeys(curve.name for run in runs for curve in curves(run))
    skipped = ("macs_", "width_", "D_", "D")
    return tuple(name for name in names if not name.startswith(skipped))


def loss_figure(runs: Sequence[Run]) -> Figure | None:
    """One panel per generator loss with all runs in it, smoothed; None if nothing was logged."""
    names = loss_names(runs)
    if not names:
        return None
    figure, panels = _figure(len(names), columns=2)
    for name, axes in zip(names, panels):
        for index, run in enumerate(runs):
            _draw_loss(axes, run, name, COLOURS[index % len(COLOURS)])
        axes.set_title(name, color=GREY, fontsize=10)
        axes.set_xlabel("optimizer step")
        axes.set_ylim(bottom=0)
    legend(panels[0])
    return figure


def _draw_loss(axes: Axes, run: Run, name: str, colour: str) -> None:
    curve = next((curve for curve in curves(run) if curve.name == name), None)
    if curve is None:
        return
    axes.plot(curve.steps, curve.values, color=colour, lw=0.6, alpha=0.3)
    axes.plot(curve.steps, smooth(curve.values), color=colour, lw=2, label=run.name)
    step = slimming_step(run)
    if step is not None:
        axes.axvline(step, color=GREY, lw=0.8)


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean of (N,) over a tenth of the points; shorter windows at the ends."""
    half = max(1, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centres = np.arange(len(values))
    low, high = np.maximum(centres - half, 0), np.minimum(centres + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _figure(panels: int, columns: int = 1) -> tuple[Figure, list[Axes]]:
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = new_figure(WIDTH, HEIGHT * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[panels:]:
        axes.set_visible(False)
    for axes in grid[:panels]:
        style(axes)
    return figure, grid[:panels]
