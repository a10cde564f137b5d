"""The config of a generator: a frozen dataclass of plain values, checked wherever it comes from.

It stands in specs that strangers send, in hosts' options and in programs; a family gets it only after it
passed here. What its values may be beyond their types is for the dataclass to say, in ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from coronet_plugin.errors import OptionError

LARGEST = 2**20
"""Numbers at most: no generator has more channels or layers."""
PLAIN: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def fields_of(kind: type) -> dict[str, type]:
    """Names and types of a config's entries. Raises TypeError unless it is a frozen dataclass of PLAIN."""
    if not (dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError(f"{kind.__name__} must be a frozen dataclass")
    hints = get_type_hints(kind)
    found = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for name, entry in found.items():
        if entry not in PLAIN:
            raise TypeError(f"{kind.__name__}.{name} must be one of {', '.join(t.__name__ for t in PLAIN)}")
    return found


def checked(kind: type, values: Mapping[str, Any]) -> Any:
    """Make the config ``kind`` of ``values``, as a spec has them.

    Raises:
        OptionError: an entry is unknown, missing, of another type, or refused by the config itself.
    """
    fields = fields_of(kind)
    required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    for name in sorted((values.keys() - fields.keys()) | (required - values.keys())):
        raise OptionError(f"unusable architecture: {name} is missing or unknown")
    return _made(kind, {name: _plain(name, fields[name], value) for name, value in values.items()})


def from_text(kind: type, texts: Mapping[str, str], rest: Mapping[str, Any]) -> Any:
    """Make the config ``kind`` of options as an option file writes them; others of its entries from ``rest``.

    Raises:
        OptionError: a text does not say a value of the entry's type, or the config refuses it.
    """
    values = {name: rest[name] for name in fields_of(kind) if name in rest}
    for name, entry in fields_of(kind).items():
        if name in texts:
            values[name] = _read(name, entry, texts[name])
    return _made(kind, values)


def _made(kind: type, values: Mapping[str, Any]) -> Any:
    try:
        return kind(**values)
    except OptionError:
        raise
    except (TypeError, ValueError) as error:
        raise OptionError(f"unusable architecture: {' '.join(str(error).split())[:200]}") from error


def _plain(name: str, entry: type, value: Any) -> Any:
    number = entry in (int, float)
    fits = type(value) is entry or (entry is float and type(value) is int)
    if not fits or (number and not abs(value) <= LARGEST):  # nor is nan
        most = f" of at most {LARGEST}" if number else ""
        raise OptionError(f"architecture.{name}: expected {PLAIN[entry]}{most}, not {shorten(value)}")
    return entry(value)


def _read(name: str, entry: type, text: str) -> Any:
    if entry is bool:
        return text == "True"
    try:
        return _plain(name, entry, entry(text))
    except ValueError as error:
        raise OptionError(f"--{name} is {text!r}, expected {PLAIN[entry]}") from error


def shorten(value: Any) -> str:
    """One line of at most some fifty characters, whatever a file holds."""
    if isinstance(value, (dict, list)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 50 else text[:47] + "..."
