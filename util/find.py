"""Classes by name: ``NAME`` is the class NameKind in ``package/NAME_kind.py``."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from coronet_plugin.errors import OptionError


def find_class(name: str, package: str, kind: str, base: type, option: str) -> type:
    """The subclass of ``base`` in ``package/NAME_kind.py``; upper case and underscores do not matter.

    ``option``: the one that ``name`` came from, for messages.

    Raises:
        OptionError: there is no such file, or no such class in it; lists those that exist.
    """
    if not name.isidentifier():
        raise OptionError(f"{option} {name!r} is no name; it is one such as {_known(package, kind)}")
    module_name = f"{package}.{name}_{kind}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:  # the file is there but needs something that is not
            raise
        raise OptionError(f"{option} {name} is not known; there are {_known(package, kind)}") from error
    wanted = name.replace("_", "").lower() + kind
    for attribute, found in vars(module).items():
        if attribute.lower() == wanted and isinstance(found, type) and issubclass(found, base):
            return found
    raise OptionError(f"{package}/{name}_{kind}.py has no subclass of {base.__name__} whose name is {wanted}")


def _known(package: str, kind: str) -> str:
    files = {m.name for m in pkgutil.iter_modules(sys.modules[package].__path__)} - {f"base_{kind}"}
    return ", ".join(sorted(f[: -len(kind) - 1] for f in files if f.endswith(f"_{kind}")))
