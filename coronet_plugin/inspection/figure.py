"""A generator's channel sets drawn along the network, with matplotlib as SVG or PNG.

Layers stand in the order they run. Three strips share them: arcs that link layers which
make the same channels (and, dotted, layers that read channels again later on), bars as
high as the layer is wide, and its multiply-adds. Colours are for channel sets that more
than one place of the network has to do with; pinned channels are hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coronet_plugin.channels.cost import human
from coronet_plugin.drawing import COLOURS, GREY, new_figure, save_svg, style
from coronet_plugin.errors import OptionError
from coronet_plugin.inspection.facts import Inspection
from coronet_plugin.inspection.layers import LayerFacts, Share
from coronet_plugin.inspection.names import common_part, layer_labels, short_name
from coronet_plugin.inspection.table import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN = "#8ea6bf"
"""Colour of channels that one layer makes and the next one reads."""
PALETTE = (*COLOURS[1:], COLOURS[0], "#2a9ba6", "#d2698f")
"""Colours of the other sets, in the order of the network."""
FORMATS = (".svg", ".png")
SMALL = 7  # points
_LEGEND_SETS = 5


@dataclass(frozen=True)
class Link:
    """An arc between two layers, by position: ``kind`` is ``"made"`` or ``"read"``."""

    set: str
    first: int
    last: int
    kind: str


def check_output(path: Path) -> None:
    """Raise OptionError if it is plain beforehand that nothing can be drawn to ``path``."""
    new_figure(1, 1)
    if not path.parent.is_dir():
        raise OptionError(f"--output {path} cannot be written: there is no folder {path.parent}")
    if path.suffix.lower() not in FORMATS:
        raise OptionError(f"--output {path} has no known format; expected a name ending in .svg or .png")


def save_picture(inspection: Inspection, path: Path) -> Path:
    """Draw ``inspection`` to ``path``, an SVG or a PNG by its ending.

    Raises:
        OptionError: another ending, no folder, no matplotlib, or the file cannot be written.
    """
    check_output(path)
    figure = channel_figure(inspection)
    try:
        if path.suffix.lower() == ".svg":
            return save_svg(figure, path)
        figure.savefig(path, dpi=150, transparent=True)
    except OSError as error:
        raise OptionError(f"--output {path} cannot be written: {error.strerror or error}") from error
    return path


def channel_figure(inspection: Inspection) -> Figure:
    """The picture of a generator. Raises OptionError without matplotlib."""
    layers = inspection.layers or _layers_of_sets(inspection)
    arcs = links(inspection)
    colours = set_colours(inspection, arcs)
    labels = layer_labels([layer.name for layer in layers])
    heights = _strip_heights(inspection, arcs)
    below = 0.9 + 0.055 * max(map(len, labels))
    figure = new_figure(max(6.8, 1.1 + 0.29 * len(layers)), sum(heights.values()) + below)
    axes = _strips(figure, heights)
    if "links" in axes:
        _draw_links(axes["links"], arcs, layers, colours)
    _draw_widths(axes["widths"], inspection, layers, colours)
    if "macs" in axes:
        _draw_macs(axes["macs"], inspection, layers, colours)
    what = "layers in the order they run" if inspection.layers else "channel sets, by their first layer"
    _name_layers(list(axes.values())[-2], labels, what, common_part([layer.name for layer in layers]))
    figure.align_ylabels()
    _title(figure, inspection)
    _legend(axes["legend"], _handles(inspection, arcs, colours), figure.get_figwidth())
    return figure


def _strips(figure: Figure, heights: dict[str, float]) -> dict[str, Axes]:
    """One above the other, with a common horizontal axis but for the legend."""
    grid = figure.add_gridspec(len(heights), 1, height_ratios=list(heights.values()))
    axes: dict[str, Axes] = {}
    for row, name in enumerate(heights):
        first = next(iter(axes.values()), None)
        axes[name] = figure.add_subplot(grid[row], sharex=None if name == "legend" else first)
        axes[name].tick_params(labelbottom=row == len(heights) - 2)
    return axes


# -- what is drawn -----------------------------------------------------------
def links(inspection: Inspection) -> tuple[Link, ...]:
    """Arcs of all sets: between makers in their order, and to readers that are not next to a maker."""
    place = {layer.name: position for position, layer in enumerate(inspection.layers)}
    found = []
    for s in inspection.sets:
        makers = sorted(place[name] for name in s.makers if name in place)
        found += [Link(s.name, a, b, "made") for a, b in zip(makers, makers[1:])]
        for reader in sorted(place[name] for name in s.readers if name in place):
            before = [maker for maker in makers if maker < reader]
            if before and reader - before[-1] > 1:
                found.append(Link(s.name, before[-1], reader, "read"))
    return tuple(found)


def set_colours(inspection: Inspection, arcs: Sequence[Link]) -> dict[str, str]:
    """Colour of every set: one each for those with arcs, the same quiet one for all others."""
    linked = dict.fromkeys(arc.set for arc in arcs)
    palette = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(linked)}
    return {s.name: GREY if s.pinned else palette.get(s.name, OWN) for s in inspection.sets}


def _layers_of_sets(inspection: Inspection) -> tuple[LayerFacts, ...]:
    """One bar a set, for generators whose layers are not known."""
    return tuple(LayerFacts(s.name, (Share(s.name, s.channels, s.kept, 0, 0),)) for s in inspection.sets)


def _strip_heights(inspection: Inspection, arcs: Sequence[Link]) -> dict[str, float]:
    """Inches of each strip, from the top."""
    heights = {"widths": 2.1}
    if arcs:
        span = max(arc.last - arc.first for arc in arcs)
        heights = {"links": min(1.3, 0.3 + 0.1 * span), **heights}
    if inspection.layers:
        heights["macs"] = 1.2
    return {**heights, "legend": 0.1}


# -- the strips --------------------------------------------------------------
def _draw_links(axes: Axes, arcs: Sequence[Link], layers: Sequence[LayerFacts], colours: Any) -> None:
    from matplotlib.patches import Arc

    for arc in arcs:
        span = arc.last - arc.first
        dotted = arc.kind == "read"
        axes.add_patch(
            Arc(
                ((arc.first + arc.last) / 2, 0),
                span,
                2 * span**0.7,
                theta1=0,
                theta2=180,
                color=colours[arc.set],
                lw=1.2 if dotted else 2.2,
                ls=":" if dotted else "-",
            )
        )
    for position, layer in enumerate(layers):
        main = colours[max(layer.shares, key=lambda share: share.channels).set]
        inside = "none" if main == GREY else main
        axes.plot(position, 0, "o", ms=5, mec=main, mfc=inside, clip_on=False)
    axes.set_ylim(-0.4, 1.05 * max(arc.last - arc.first for arc in arcs) ** 0.7)
    axes.axis("off")


def _draw_widths(axes: Axes, inspection: Inspection, layers: Sequence[LayerFacts], colours: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    style(axes)
    top = 1.1 * max(layer.channels for layer in layers)
    axes.set_axisbelow(True)
    pinned = {s.name for s in inspection.sets if s.pinned}
    for position, layer in enumerate(layers):
        if inspection.is_slim:
            _outline(axes, position, layer.channels)
        _bar(axes, position, [(s.set, s.kept) for s in layer.shares], colours, pinned)
        room = layer.channels - layer.kept > 0.1 * top
        axes.annotate(
            str(layer.kept),
            (position, layer.kept if room else layer.channels),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            color=GREY,
        )
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylabel("channels kept" if inspection.is_slim else "channels")


def _draw_macs(axes: Axes, inspection: Inspection, layers: Sequence[LayerFacts], colours: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    style(axes)
    axes.set_axisbelow(True)
    pinned = {s.name for s in inspection.sets if s.pinned}
    for position, layer in enumerate(layers):
        if inspection.is_slim:
            _outline(axes, position, sum(s.macs for s in layer.shares))
        _bar(axes, position, [(s.set, s.macs_kept) for s in layer.shares], colours, pinned)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human(value)))
    axes.set_ylabel("MACs")
    axes.set_ylim(bottom=0)


def _bar(axes: Axes, position: int, parts: Sequence[tuple[str, int]], colours: Any, pinned: set[str]) -> None:
    """A stack of ``parts`` (set, height)."""
    bottom = 0
    for name, height in parts:
        hatched = name in pinned
        axes.bar(
            position,
            height,
            0.74,
            bottom,
            facecolor="none" if hatched else colours[name],
            edgecolor=GREY if hatched else "none",
            hatch="/////" if hatched else None,
            lw=0.8,
        )
        bottom += height


def _outline(axes: Axes, position: int, height: int) -> None:
    """The outline of what was there at full size."""
    from matplotlib.colors import to_rgba

    axes.bar(position, height, 0.74, facecolor=to_rgba(GREY, 0.14), edgecolor=to_rgba(GREY, 0.5), lw=0.6)


# -- words -------------------------------------------------------------------
def _name_layers(axes: Axes, labels: Sequence[str], what: str, cut: str) -> None:
    axes.set_xticks(range(len(labels)))
    axes.set_xticklabels(labels, rotation=90, fontsize=SMALL)
    axes.set_xlim(-0.7, len(labels) - 0.3)
    note = f" (a leading {cut} left out)" if cut else ""
    axes.set_xlabel(what + note, fontsize=9)


def _title(figure: Figure, inspection: Inspection) -> None:
    sizes = ", ".join(" x ".join(map(str, size)) for size in inspection.input_size)
    dense, now = inspection.dense, inspection.now
    macs, parameters = f"{human(dense.macs)} MACs", f"{human(dense.parameters)} parameters"
    if inspection.is_slim:
        macs = f"{human(now.macs)} of {macs} ({percent(now.macs, dense.macs)})"
        parameters = f"{human(now.parameters)} of {parameters}"
    figure.suptitle(
        f"{inspection.title}\n{sizes} input, {macs}, {parameters}", color=GREY, fontsize=9, x=0.02, ha="left"
    )


def _handles(inspection: Inspection, arcs: Sequence[Link], colours: dict[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def note(text: str) -> Any:
        return Line2D([], [], ls="", label=text)

    handles: list[Any] = []
    shared = [s for s in inspection.sets if any(a.set == s.name and a.kind == "made" for a in arcs)]
    for s in shared[:_LEGEND_SETS]:
        width = f"{s.kept} of {s.channels}" if inspection.is_slim else f"{s.channels}"
        label = f"{short_name(s.name)}: the same {width} channels made by {len(s.makers)} layers"
        handles.append(Line2D([], [], color=colours[s.name], lw=2.2, marker="o", ms=5, label=label))
    if len(shared) > _LEGEND_SETS:
        handles.append(note(f"and {len(shared) - _LEGEND_SETS} more shared sets"))
    if any(arc.kind == "read" for arc in arcs):
        handles.append(Line2D([], [], color=GREY, lw=1.2, ls=":", label="read by a layer further on"))
    if OWN in colours.values() and inspection.layers:
        handles.append(Patch(facecolor=OWN, label="made by one layer, read by the next"))
    if any(s.pinned for s in inspection.sets):
        handles.append(Patch(facecolor="none", edgecolor=GREY, hatch="/////", label="pinned: never removed"))
    if inspection.is_slim:
        handles.append(Patch(facecolor=GREY, alpha=0.3, label="removed"))
    if inspection.products[0]:
        macs = human(inspection.products[1])
        handles.append(note(f"in no layer: {macs} MACs of products, as in attention"))
    return handles


def _legend(axes: Axes, handles: Sequence[Any], width: float) -> None:
    axes.axis("off")
    longest = max((len(handle.get_label()) for handle in handles), default=1)
    columns = 2 if 2 * (0.062 * longest + 0.6) < width else 1
    axes.legend(handles=handles, loc="upper left", ncol=columns, frameon=False, labelcolor=GREY, fontsize=8)
