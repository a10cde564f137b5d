"""An inspection as plain text: the whole costs, a table of the channel sets, what is pinned and why."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from coronet_plugin.channels.cost import human
from coronet_plugin.inspection.facts import Inspection, SetFacts
from coronet_plugin.inspection.names import first_maker, short_name

_COLUMNS = 110
_RIGHT = ("width", "MACs", "dense", "share")


def text(inspection: Inspection, full: bool = False) -> str:
    """Facts above, the table, reasons below. ``full`` writes every layer's name out, one a line."""
    parts = [_head(inspection), _table(inspection, full)]
    reasons = _reasons(inspection, full)
    return "\n\n".join([*parts, reasons] if reasons else parts)


def percent(part: float, whole: float, digits: int = 3) -> str:
    """``part`` of ``whole`` in percent, as ``46.3 %``."""
    if not whole:
        return "-"
    value = f"{100 * part / whole:.{digits}g}"
    return f"{100 * part / whole:.0f} %" if "e+" in value else f"{value} %"


# -- above the table ---------------------------------------------------------
def _head(inspection: Inspection) -> str:
    sizes = ", ".join(" x ".join(map(str, (1, *size))) for size in inspection.input_size)
    pinned = len(inspection.sets) - len(inspection.prunable)
    channels = sum(s.channels for s in inspection.prunable)
    dense, now = inspection.dense, inspection.now
    literature = _of(inspection, now.macs_literature, dense.macs_literature)
    lines = {
        "network": inspection.about,
        "input": sizes,
        "MACs": _of(inspection, now.macs, dense.macs),
        "literature": f"{literature}, with transposed convolutions counted at output resolution",
        "parameters": _of(inspection, now.parameters, dense.parameters),
        "sets": f"{len(inspection.prunable)} prunable of {channels} channels, {pinned} pinned",
    }
    if inspection.coverage is not None:
        share = percent(inspection.coverage, 1)
        lines["coverage"] = f"{share} of the MACs are in layers that can shrink"
    if not inspection.layers:
        lines["note"] = "known from the spec alone, which does not tell which layers share channels"
    return "\n".join([inspection.title, *(f"  {key:<11} {value}" for key, value in lines.items() if value)])


def _of(inspection: Inspection, now: int, dense: int) -> str:
    if not inspection.is_slim:
        return human(dense)
    return f"{human(now)} of {human(dense)} ({percent(now, dense)})"


# -- the table ---------------------------------------------------------------
def _table(inspection: Inspection, full: bool) -> str:
    lines = list(_lines(inspection, _all_names if full else _first_name))
    if not full and max(map(len, lines)) > _COLUMNS:
        lines = list(_lines(inspection, _number))
    return "\n".join(lines)


def _lines(inspection: Inspection, several: Callable[[Sequence[str]], str]) -> Iterator[str]:
    """The lines of the table with lists of names written by ``several``."""
    rows = [_row(s, inspection, several) for s in inspection.sets]
    dense, now = inspection.products
    if dense:
        rows.append({"set": "(products, as in attention)"} | _costs(now, dense, inspection))
    if inspection.layers:
        rows.append({"set": "total"} | _costs(inspection.now.macs, inspection.dense.macs, inspection))
    keys = dict.fromkeys(key for row in rows for key in row)
    header = [key for key in keys if any(row.get(key) for row in rows)]
    lines = [header, *([row.get(key, "") for key in header] for row in rows)]
    cells = [[cell.split("\n") for cell in line] for line in lines]
    return _aligned(cells, [key in _RIGHT for key in header])


def _row(s: SetFacts, inspection: Inspection, several: Callable[[Sequence[str]], str]) -> dict[str, str]:
    row = {
        "set": several([s.name]) + _mark(inspection, s),
        "width": f"{s.kept} of {s.channels}" if inspection.is_slim else str(s.channels),
        "also made by": several([maker for maker in s.makers if maker != first_maker(s.name)]),
        "read by": several(s.readers),
    }
    if s.macs is None or s.macs_kept is None:
        return row
    return row | _costs(s.macs_kept, s.macs, inspection)


def _costs(macs: int, dense: int, inspection: Inspection) -> dict[str, str]:
    """The MACs now; for a slim generator those at full size too, else their share."""
    if inspection.is_slim:
        return {"MACs": human(macs), "dense": human(dense)}
    return {"MACs": human(macs), "share": percent(macs, inspection.now.macs, 2)}


def _all_names(names: Sequence[str]) -> str:
    return "\n".join(names)


def _first_name(names: Sequence[str]) -> str:
    more = f" (+{len(names) - 1} more)" if len(names) > 1 else ""
    return short_name(names[0]) + more if names else ""


def _number(names: Sequence[str]) -> str:
    return f"{len(names)} layers" if len(names) > 1 else _first_name(names)


def _aligned(rows: Sequence[Sequence[Sequence[str]]], right: Sequence[bool]) -> Iterator[str]:
    """Lines of text of rows of cells of lines."""
    widths = [max(len(line) for cell in column for line in cell) for column in zip(*rows)]
    for row in rows:
        for line in zip_longest(*row, fillvalue=""):
            cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)]
            yield "  ".join(cells).rstrip()


# -- below the table ---------------------------------------------------------
def _why(inspection: Inspection) -> dict[str, list[SetFacts]]:
    """The pinned sets by reason, in the order of the sets."""
    found: dict[str, list[SetFacts]] = {}
    for s in inspection.sets:
        if s.pinned is not None:
            found.setdefault(_reason(s)[0], []).append(s)
    return found


def _reason(s: SetFacts) -> tuple[str, str]:
    """Why a set is pinned, and where, as far as known: ``"flip is not understood", " (in up.0)"``."""
    match = re.fullmatch(r"(.*?)( \(in [^()]+\))?", s.pinned or "", re.DOTALL)
    assert match is not None
    return match[1], match[2] or ""


def _mark(inspection: Inspection, s: SetFacts) -> str:
    return f" [pinned {list(_why(inspection)).index(_reason(s)[0]) + 1}]" if s.pinned is not None else ""


def _reasons(inspection: Inspection, full: bool) -> str:
    lines = []
    for number, (reason, sets) in enumerate(_why(inspection).items(), start=1):
        names = [(s.name if full else short_name(s.name)) + _reason(s)[1] for s in sets]
        more = [] if full or len(names) < 5 else [f"{len(names) - 3} more"]
        shown = ", ".join([*(names[:3] if more else names), *more])
        lines.append(_wrapped(f"[pinned {number}] {reason}: {shown}"))
    return "\n".join(["pinned, that is, never removed:", *lines]) if lines else ""


def _wrapped(line: str) -> str:
    wrapper = textwrap.TextWrapper(_COLUMNS, initial_indent="  ", subsequent_indent="    ")
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.fill(line)
