"""A generator of the user's own, named as ``path/to/file.py:Name`` or ``package.module:Name``.

The user's code runs only in this explicit form; what goes wrong in it is told in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from coronet_plugin.errors import OptionError
from coronet_plugin.user_code import import_module, importing_from, in_one_line


def is_own(model: str) -> bool:
    """True if ``model`` has the form ``where:Name``."""
    where, _, name = model.rpartition(":")
    return bool(where) and all(part.isidentifier() for part in name.split("."))


def load_own(model: str, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """The generator that ``path/to/file.py:Name`` or ``package.module:Name`` gives when called.

    Runs the user's code.

    Raises:
        OptionError: the file or the name is not there, or the code fails or gives something else.
    """
    where, _, name = model.rpartition(":")
    with importing_from(Path(where).parent if where.endswith(".py") else Path.cwd()):
        found: Any = _attribute(import_module(where), where, name)
        if isinstance(found, nn.Module):
            return found
        try:
            made = found(**(kwargs or {}))
        except Exception as error:
            raise OptionError(
                f"{name}({_arguments(kwargs)}) of {where} fails: {in_one_line(error)}; "
                """give the arguments it needs as --kwargs '{"name": value}'"""
            ) from error
    if not isinstance(made, nn.Module):
        raise OptionError(f"{model} gives a {type(made).__name__}, expected a torch.nn.Module")
    return made


def _attribute(module: ModuleType, where: str, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if callable(found):
        return found
    here = (k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__)
    own = [key for key in here if callable(getattr(module, key))]
    there = f"it has {', '.join(own)}" if own else "it defines neither classes nor functions"
    raise OptionError(f"{where} has no class or function {name}; {there}")


def _arguments(kwargs: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in (kwargs or {}).items())
