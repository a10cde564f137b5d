"""Know methods by name: those of this package, and those that other packages or the user's code bring.

A module defines a :class:`~coronet_plugin.methods.base.Method` and registers it::

    @method("mine", "what it does, in half a sentence")
    class Mine(Method):
        @dataclass(frozen=True)
        class Config:
            strength: float = setting(0.5, "how strongly, from 0 to 1")

From the fields of ``Config`` follow the option ``--coronet_strength`` with its help, the axis ``strength`` of
a sweep, the record in the spec and the row in the documentation. Packages name the module that does so
under the entry-point group :data:`GROUP`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from coronet_plugin.errors import OptionError
from coronet_plugin.methods.base import Method
from coronet_plugin.settings import Setting, settings_of
from coronet_plugin.user_code import load_entry_points

GROUP = "coronet.methods"
"""Entry points of this group are loaded once, when a name is looked up."""
DEFAULT = "coronet"
"""The name that stands for the default method."""

M = TypeVar("M", bound=Method)
_methods: dict[str, type[Method]] = {}
_aliases: dict[str, str] = {}
_summaries: dict[str, str] = {}


def method(name: str, summary: str, *aliases: str) -> Callable[[type[M]], type[M]]:
    """Register the decorated class as ``--coronet_method name``; ``aliases``: further names.

    Raises:
        OptionError: a name is taken, or a setting has the name of another method's and is not the same.
    """

    def register(kind: type[M]) -> type[M]:
        for each in (name, *aliases):
            if each in _methods or each in _aliases:
                raise OptionError(f"the method {each!r} is registered twice; choose another name")
        _check_settings(name, kind)
        if "Config" not in vars(kind):  # a configuration tells whose it is
            inherited = type("Config", (kind.Config,), {"__doc__": kind.Config.__doc__})
            kind.Config = dataclasses.dataclass(frozen=True)(inherited)  # type: ignore[misc]
        kind.name = name
        _methods[name] = kind
        _summaries[name] = summary
        _aliases.update(dict.fromkeys(aliases, name))
        return kind

    return register


def _check_settings(name: str, kind: type[Method]) -> None:
    own = settings_of(kind.Config)
    for other in _methods.values():
        known = {each.name: each for each in settings_of(other.Config)}
        for each in own:
            if known.get(each.name, each) != each:
                raise OptionError(
                    f"{each.name} is a setting of the method {other.name!r} too, and not the same; rename it"
                )


def forget(name: str) -> None:
    """Let the method ``name`` and its other names be unknown again."""
    _methods.pop(name, None)
    _summaries.pop(name, None)
    for alias in [alias for alias, named in _aliases.items() if named == name]:
        del _aliases[alias]


def names() -> tuple[str, ...]:
    """The names of all methods, in the order in which they were registered."""
    load_installed()
    return tuple(_methods)


def all_names() -> tuple[str, ...]:
    """The names of all methods, and all others that stand for one."""
    return (*names(), *_aliases)


def find(name: str) -> type[Method]:
    """The method called ``name``.

    Raises:
        OptionError: there is none.
    """
    load_installed()
    found = _methods.get(_aliases.get(name, name))
    if found is None:
        raise OptionError(f"method {name!r} does not exist; choose one of {', '.join(names())}")
    return found


def summary(name: str) -> str:
    """Describe the method in half a sentence."""
    return _summaries[find(name).name]


def labelled(text: str) -> str:
    """``text``, which begins with the name of a method, as tables show it: with its label, if any."""
    known = _methods.get(text.replace("+", " ").split(" ")[0])
    return f"{text} ({known.label})" if known is not None and known.label else text


def method_of(config: Any) -> type[Method]:
    """The method that ``config``, an instance of its ``Config`` class, belongs to.

    Raises:
        OptionError: it is no configuration of a method.
    """
    for kind in map(find, names()):
        if kind.Config is type(config):
            return kind
    raise OptionError(f"{type(config).__name__} is no configuration of a method")


def configure(name: str, **values: Any) -> Any:
    """The configuration of the method ``name`` with ``values`` for some of its settings.

    Raises:
        OptionError: there is no such method, or it has no such setting.
    """
    kind = find(name)
    known = [field.name for field in dataclasses.fields(kind.Config)]
    for each in values:
        if each not in known:
            has = f"has {', '.join(known)}" if known else "has no settings"
            raise OptionError(
                f"--coronet_{each} is not for the method {kind.name}, which {has}; leave it out"
            )
    return kind.Config(**values)


def settings() -> dict[str, tuple[Setting, tuple[str, ...]]]:
    """Every setting of any method, by name, and the methods that have it."""
    found: dict[str, tuple[Setting, tuple[str, ...]]] = {}
    for kind in map(find, names()):
        for each in settings_of(kind.Config):
            _, before = found.get(each.name, (each, ()))
            found[each.name] = (each, (*before, kind.name))
    return found


@functools.cache
def load_installed() -> None:
    load_entry_points(GROUP)
