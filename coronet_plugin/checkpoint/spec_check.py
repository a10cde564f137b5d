"""Whether a spec is what it claims to be, before anything is built from it.

Specs come with downloaded checkpoints. Everything here is about form and size: types, counts, and numbers
that no generator has. That weights and spec fit each other is checked when they are loaded.
"""

from __future__ import annotations

import math
from typing import Any

from coronet_plugin.errors import OptionError
from coronet_plugin.generators.config import shorten
from coronet_plugin.generators.registry import is_registered, read_architecture

FILE_BYTES = 16 * 2**20
"""Size of a spec file at most; those of the stock generators have some 30 kB."""
SIDE = 2**20
"""Channels, pixels or entries along an axis at most."""
NUMBERS = 2**31
"""Values of all tensors together at most: 8 GB."""
ENTRIES = 100_000
"""Tensors, sets or modules at most."""
SCALARS = (str, int, float, bool, type(None))


class Unsound(ValueError):
    """Says what is wrong with a spec."""


def check(entries: dict[str, Any]) -> None:
    """Raises :class:`Unsound` for entries of a spec that cannot be those of a generator."""
    _architecture(_mapping(entries, "architecture"), _mapping(entries, "options", {}))
    for number, size in enumerate(_list(entries, "input_size")):
        _shape(f"input_size[{number}]", size)
    for name in ("dense", "slim"):
        for key, value in _mapping(entries, name).items():
            _number(f"{name}.{key}", value, 0, 2**63)
    for number, one in enumerate(_list(entries, "sets")):
        _set(f"sets[{number}]", one)
    tensors = _mapping(entries, "tensors")
    if sum(math.prod(_shape(f"tensors.{name}", shape)) for name, shape in tensors.items()) > NUMBERS:
        raise Unsound(f"tensors: more than {NUMBERS} values in all")
    for module, attributes in _mapping(entries, "widths").items():
        for name, width in _mapping({module: attributes}, module).items():
            _number(f"widths.{module}.{name}", width, 1, SIDE)
    for module, padding in _mapping(entries, "padded", {}).items():
        _padding(f"padded.{module}", padding)
    for name in ("budget", "search", "versions", "quantization"):
        _mapping(entries, name, {})


def _architecture(architecture: dict[str, Any], options: dict[str, Any]) -> None:
    for key, value in options.items():
        if not isinstance(value, SCALARS):
            raise Unsound(f"options.{key}: expected a plain value, not {shorten(value)}")
    for key, value in architecture.items():
        if not isinstance(value, SCALARS):
            raise Unsound(f"architecture.{key}: expected a plain value, not {shorten(value)}")
    if "netG" not in architecture:
        return
    if not isinstance(architecture["netG"], str):
        raise Unsound(f"architecture.netG: expected text, not {shorten(architecture['netG'])}")
    if is_registered(architecture):  # of another family it can be shown, but not built
        try:
            read_architecture(architecture)
        except OptionError as error:
            raise Unsound(str(error)) from error
    if "ngf" in architecture and options.get("ngf", architecture["ngf"]) != architecture["ngf"]:
        raise Unsound("options.ngf and architecture.ngf differ")


def _set(name: str, one: Any) -> None:
    if not isinstance(one, dict) or not {"name", "channels", "kept", "pinned"} <= one.keys():
        raise Unsound(f"{name}: expected name, channels, kept and pinned")
    channels = _number(f"{name}.channels", one["channels"], 1, SIDE)
    kept = _list(one, "kept", SIDE)
    if any(type(index) is not int or not 0 <= index < SIDE for index in kept):  # of the layer, not the set
        raise Unsound(f"{name}.kept: expected channel numbers below {SIDE}")
    if len(set(kept)) != len(kept) or not 0 < len(kept) <= channels:
        raise Unsound(f"{name}.kept: expected at least one channel and at most {channels}, each once")
    if not isinstance(one["name"], str) or not isinstance(one["pinned"], (str, type(None))):
        raise Unsound(f"{name}: name and pinned must be text")


def _padding(name: str, one: Any) -> None:
    if not isinstance(one, dict) or one.keys() != {"width", "kept", "inputs", "outputs"}:
        raise Unsound(f"{name}: expected width, kept, inputs and outputs")
    width = _number(f"{name}.width", one["width"], 1, SIDE)
    kept = [_number(f"{name}.kept", index, 0, width - 1) for index in _list(one, "kept", SIDE)]
    if kept != sorted(set(kept)) or not kept:
        raise Unsound(f"{name}.kept: expected at least one channel, each once and in order")
    for places in (_list(one, "inputs", 8), _list(one, "outputs", 8)):
        if any(len(_shape(name, place)) != 2 or place[1] > 8 for place in places):
            raise Unsound(f"{name}: expected pairs of a tensor's number and an axis")


def _shape(name: str, shape: Any) -> list[int]:
    if not isinstance(shape, list) or len(shape) > 8:
        raise Unsound(f"{name}: expected a shape, not {shorten(shape)}")
    return [_number(name, side, 0, SIDE) for side in shape]


def _number(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise Unsound(f"{name}: expected a whole number from {low} to {high}, not {shorten(value)}")
    return value


def _mapping(entries: dict[str, Any], name: str, default: Any = None) -> dict[str, Any]:
    value = entries.get(name, default)
    if not isinstance(value, dict) or len(value) > ENTRIES:
        raise Unsound(f"{name}: expected at most {ENTRIES} named values, not {shorten(value)}")
    return value


def _list(entries: dict[str, Any], name: str, most: int = ENTRIES) -> list[Any]:
    value = entries.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise Unsound(f"{name}: expected a list of at most {most}, not {shorten(value)}")
    return value
