"""The look that all our matplotlib pictures share: colours, frame, and how they are written.

Nothing here touches matplotlib's global state, so it is safe in a program that
plots for itself. Backgrounds are transparent and text is a grey that can be read
on white and on black, for pages in light and dark mode.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coronet_plugin.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#7b818b"
COLOURS = ("#3f7fd0", "#d9822b", "#2f9e6e", "#b35ab8", "#c8504b", "#8a7a2f")
"""Of the first run, the second and so on; readable on white and on black."""


def save_svg(figure: Figure, path: Path) -> Path:
    """Write the figure; the same figure gives the same file."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "coronet"}):
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    return path


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches. Raises OptionError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError('drawing needs matplotlib: pip install "coronet-plugin[report]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def style(axes: Axes) -> None:
    """Grey frame at the left and bottom, grey text, faint horizontal lines."""
    axes.tick_params(colors=GREY, labelsize=9)
    for part in (axes.xaxis.label, axes.yaxis.label):
        part.set_color(GREY)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)
    axes.margins(x=0.01)


def legend(axes: Axes) -> None:
    """A legend without a frame, if anything has a label."""
    handles: Iterable[Any] = axes.get_legend_handles_labels()[0]
    if handles:
        axes.legend(frameon=False, labelcolor=GREY, fontsize=9)
