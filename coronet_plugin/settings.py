"""Say once what can be chosen: a field of a frozen dataclass with its default, its help and its values.

Options of the command line, the axes of a sweep, records and documentation are made from these fields.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

PREFIX = "coronet_"
"""Beginning of option names."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Something that can be chosen. ``type`` makes a value of a text; ``choices``: the only values, if so."""

    name: str
    type: type
    default: Any
    help: str
    choices: Sequence[Any] | None
    metavar: str | None

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return f"--{PREFIX}{self.name}"

    def parse(self, text: str) -> Any:
        """The value that ``text`` names. Raises ValueError where it names none."""
        value = self.type(text)
        if self.choices and value not in self.choices:
            raise ValueError(f"choose one of {', '.join(map(str, self.choices))}")
        return value


def setting(
    default: Any,
    help: str,
    *,
    type: type | None = None,
    choices: Sequence[Any] | None = None,
    metavar: str | None = None,
) -> Any:
    """A field of a frozen dataclass that can be chosen.

    ``help``: unit and effect. ``type``: of a given value, by default that of ``default``.
    """
    kind = type or default.__class__
    return dataclasses.field(default=default, metadata={"setting": (kind, help, choices, metavar)})


def settings_of(kind: Any) -> tuple[Setting, ...]:
    """The settings of a dataclass, in the order of its fields; other fields are left out."""
    found = []
    for field in dataclasses.fields(kind):
        if "setting" in field.metadata:
            type, help, choices, metavar = field.metadata["setting"]
            found.append(Setting(field.name, type, field.default, help, choices, metavar))
    return tuple(found)


def add_options(group: Any, settings: Iterable[Setting]) -> None:
    """Give a parser, or a group of its options, an option for each of ``settings``."""
    for each in settings:
        add_option(group, each, each.option)


def add_option(group: Any, each: Setting, name: str) -> None:
    """Give a parser, or a group of its options, one for ``each`` setting that is called ``name``."""
    if each.type is bool:
        group.add_argument(name, action="store_true", help=each.help)
    else:
        # what has no default is not set unless it is given; the help says what that means
        default = argparse.SUPPRESS if each.default is None else each.default
        known: dict[str, Any] = {"default": default, "help": each.help, "choices": each.choices}
        group.add_argument(name, type=each.type, metavar=each.metavar, **known)


def values_of(options: argparse.Namespace, settings: Iterable[Setting]) -> dict[str, Any]:
    """The values that ``options`` has for each of ``settings``, by name."""
    return {each.name: getattr(options, PREFIX + each.name, each.default) for each in settings}
