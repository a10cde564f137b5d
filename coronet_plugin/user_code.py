"""Modules of the user's own and of other packages: the only places from which the package imports code.

A module is imported when the user names it on the command line, as ``package.module`` or ``path/to/file.py``,
or when an installed package announces it by an entry point; never because a file that is read says so.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from coronet_plugin.errors import OptionError, describe


def import_module(where: str) -> ModuleType:
    """Import ``package.module`` or ``path/to/file.py``; a file that was imported already is not run again.

    Raises:
        OptionError: it is not there, or its code fails.
    """
    path = Path(where)
    if path.suffix == ".py" and not path.is_file():
        raise OptionError(f"{where} is not there; expected path/to/file.py or package.module")
    try:
        with importing_from(path.parent if path.suffix == ".py" else Path.cwd()):
            return _import_file(path) if path.suffix == ".py" else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise OptionError(
            f"{where} cannot be imported: {in_one_line(error)}; name a file of a package as package.module"
        ) from error


def _import_file(path: Path) -> ModuleType:
    name = f"coronet_user_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path.resolve()):
        return known
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Let the user's code import what lies beside it, as when run as a script."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder.resolve()))


def load_entry_points(group: str) -> list[Any]:
    """Import what installed packages announce in ``group``; one that fails is left out with a warning."""
    found = metadata.entry_points()
    points = found.select(group=group) if hasattr(found, "select") else found.get(group, ())
    loaded = []
    for point in points:
        try:
            loaded.append(point.load())
        except Exception as error:
            warnings.warn(
                f"the entry point {point.name} = {point.value} of {group} cannot be imported: "
                f"{in_one_line(error)}; update or uninstall its package",
                RuntimeWarning,
                stacklevel=2,
            )
    return loaded


def in_one_line(error: BaseException) -> str:
    """The kind and text of an error in one line."""
    kind, text = type(error).__name__, describe(error)
    return text if text == kind else f"{kind}: {text}"
