"""A generator of the user's own, named as ``path/to/file.py:Name`` or ``package.module:Name``.

This is the one place that runs code the user points at, and only in this explicit form.
What goes wrong in that code is told in one line.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from coronet_plugin.errors import OptionError


def is_own(model: str) -> bool:
    """Whether ``model`` has the form ``where:Name``."""
    where, _, name = model.rpartition(":")
    return bool(where) and all(part.isidentifier() for part in name.split("."))


def load_own(model: str, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """The generator that ``path/to/file.py:Name`` or ``package.module:Name`` gives when called.

    Runs the user's code.

    Raises:
        OptionError: the file or the name is not there, or the code fails or gives something else.
    """
    where, _, name = model.rpartition(":")
    with _importing_from(Path(where).parent if where.endswith(".py") else Path.cwd()):
        found: Any = _attribute(_module(where), where, name)
        if isinstance(found, nn.Module):
            return found
        try:
            made = found(**(kwargs or {}))
        except Exception as error:
            raise OptionError(
                f"{name}({_arguments(kwargs)}) of {where} fails: {_line(error)}; "
                """give the arguments it needs as --kwargs '{"name": value}'"""
            ) from error
    if not isinstance(made, nn.Module):
        raise OptionError(f"{model} gives a {type(made).__name__}, expected a torch.nn.Module")
    return made


def _module(where: str) -> ModuleType:
    path = Path(where)
    if path.suffix == ".py" and not path.is_file():
        raise OptionError(f"{where} is not there; expected path/to/file.py:Name or package.module:Name")
    try:
        if path.suffix != ".py":
            return importlib.import_module(where)
        spec = importlib.util.spec_from_file_location(f"inspected_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickle look their module up
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise OptionError(
            f"{where} cannot be imported: {_line(error)}; a file of a package is named as package.module:Name"
        ) from error
    return module


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


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let the user's code import what lies beside it, as when run as a script."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder.resolve()))


def _arguments(kwargs: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in (kwargs or {}).items())


def _line(error: BaseException) -> str:
    """The kind and text of an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
