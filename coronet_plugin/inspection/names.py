"""Names of layers, short enough for a table or an axis."""

from __future__ import annotations

import re
from collections.abc import Sequence

_REPEATED = re.compile(r"(?<![^.])(?:((?:[^.]+\.){2,3}?)\1+|([^.]+\.)\2{2,})")


def short_name(name: str) -> str:
    """``name`` with parts that come several times in a row written once: ``[model.3 x5]``."""

    def once(match: re.Match[str]) -> str:
        part = match[1] or match[2]
        return f"[{part[:-1]} x{len(match[0]) // len(part)}]."

    return _REPEATED.sub(once, name)


def first_maker(name: str) -> str:
    """The layer that a channel set is named after; primes tell sets of one layer apart."""
    return name.rstrip("'")


def layer_labels(names: Sequence[str]) -> list[str]:
    """Short names without what all of them begin with."""
    return [short_name(name[len(common_part(names)) :]) for name in names]


def common_part(names: Sequence[str]) -> str:
    """The modules that all names begin with, as ``"model."``; empty for a single name."""
    shared = []
    for column in zip(*(name.split(".")[:-1] for name in names)):
        if len(set(column)) > 1:
            break
        shared.append(f"{column[0]}.")
    return "".join(shared) if len(names) > 1 else ""
