"""``python -m coronet_plugin train.py ...``: a host's script with the coronet model type at hand.

The script runs as ``python train.py ...`` would run it, and finds ``models.coronet_model``
although the checkout has no such file. Worker processes that are started afresh (``spawn``)
import this module in the script's place and find the same.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import numbers
import os
import runpy
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.checkout.install import NEEDED, SHIM_TEXT
from coronet_plugin.checkout.source import mentions_imresize
from coronet_plugin.errors import UserError

MODULE = "models.coronet_model"
TEST_MODULE = "models.test_model"
SCRIPT_VARIABLE = "CORONET_SCRIPT"
"""Tells worker processes which script their parent runs."""


class ModelTypeFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds :data:`MODULE` and nothing else; asked last, so that a file of the checkout wins."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """The module's spec, or None for any other name."""
        return importlib.util.spec_from_loader(fullname, self) if fullname == MODULE else None

    def get_source(self, fullname: str) -> str:
        """The text ``coronet install`` writes."""
        return SHIM_TEXT

    def is_package(self, fullname: str) -> bool:
        """It is not."""
        return False


class TestModelFinder(importlib.abc.MetaPathFinder):
    """Finds :data:`TEST_MODULE` as ever, and lets its class take slim generators."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """The module's usual spec, or None for any other name."""
        if fullname != TEST_MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_adapt(module: types.ModuleType) -> None:
            from coronet_plugin.training.testing import test_model

            execute(module)
            if hasattr(module, "TestModel"):
                vars(module)["TestModel"] = test_model(module.TestModel)

        spec.loader.exec_module = execute_and_adapt  # type: ignore[method-assign]
        return spec


def main(arguments: Sequence[str]) -> int:
    """Run the script ``arguments[0]`` with the others as its arguments; the exit code, 2 for a user's error.

    ``CORONET_DEBUG=1`` in the environment shows where such an error comes from.
    """
    try:
        run(arguments)
    except UserError as error:
        if os.environ.get("CORONET_DEBUG", "0") != "0":
            raise
        print(f"coronet: {error}", file=sys.stderr)
        return 2
    except SystemExit as left:
        if not left.code and {"-h", "--help"} & set(arguments[1:]):
            _help(Path(arguments[0]).parent)
        raise
    return 0


def run(arguments: Sequence[str]) -> None:
    """As :func:`main`, with errors as they come.

    Raises:
        UserError: the script is not there, or anything the plug-in raises.
    """
    script = Path(arguments[0])
    if not script.is_file():
        raise UserError(f"no {script} in {Path.cwd()}; go to the checkout, or give the script's path")
    _set_path(script.resolve().parent)
    sys.argv = list(arguments)
    os.environ[SCRIPT_VARIABLE] = str(script.resolve())
    prepare(script.parent, note=True)
    _run_as_main(script)


def prepare(folder: Path, note: bool = False) -> None:
    """Make the model type, and what the sources in ``folder`` miss in newer packages, importable."""
    if not any(isinstance(finder, ModelTypeFinder) for finder in sys.meta_path):
        sys.meta_path.append(ModelTypeFinder())
        sys.meta_path.insert(0, TestModelFinder())
    if mentions_imresize(folder) and supply_imresize() and note:
        text = "coronet: a stand-in for scipy.misc.imresize, which this checkout imports, is supplied"
        print(text, file=sys.stderr)


def _set_path(folder: Path) -> None:
    """``folder`` first, as ``python train.py`` has it, in place of what ``python -m`` put there."""
    if sys.path[0] in ("", os.getcwd()) and not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    sys.path.insert(0, str(folder))
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    if not any(finder.find_spec("coronet_plugin", None) for finder in finders):
        sys.path.append(str(Path(__file__).parents[2]))  # started in a clone that is not installed


def _run_as_main(script: Path) -> None:
    """Execute ``script`` in a module ``__main__``, whose spec makes workers import this module instead."""
    module = types.ModuleType("__main__")
    module.__file__ = str(script.resolve())
    module.__spec__ = importlib.machinery.ModuleSpec(__spec__.name, None, origin=module.__file__)
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        code = compile(script.read_bytes(), module.__file__, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    finally:
        sys.modules["__main__"] = before


def _help(folder: Path) -> None:
    """The options of the model type, which upstream's ``--help`` never shows."""
    if MODULE in sys.modules or not all((folder / name).is_file() for name in NEEDED):
        return  # the host has shown them, or it is no host
    from coronet_plugin.training.options import add_coronet_options

    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    add_coronet_options(parser)
    print("\nwith --model coronet, the options of --coronet_base and these:\n")
    print(parser.format_help().strip())


def supply_imresize() -> bool:
    """Give ``scipy.misc`` an :func:`imresize` if it has none; says whether it was missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy.misc is deprecated
        scipy, misc = _module("scipy"), _module("scipy.misc")
    if hasattr(misc, "imresize"):
        return False
    scipy.misc = misc  # type: ignore[attr-defined]
    misc.imresize = imresize  # type: ignore[attr-defined]
    return True


def _module(name: str) -> types.ModuleType:
    """The module ``name``, or an empty package of that name where there is none."""
    try:
        return importlib.import_module(name)
    except ImportError:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        return sys.modules[name]


def imresize(arr: Any, size: Any, interp: str = "bilinear", mode: str | None = None) -> np.ndarray:
    """Resize an image as scipy before 1.3 did, with Pillow.

    Args:
        arr: ``(H, W)`` or ``(H, W, 3 or 4)``; values other than bytes are stretched to 0 ... 255.
        size: ``(height, width)``, a fraction (float) or a percentage (int).
        interp: ``nearest``, ``lanczos``, ``bilinear``, ``bicubic`` or ``cubic``.
        mode: Pillow's mode of the picture.
    """
    from PIL import Image

    method = {"cubic": "BICUBIC"}.get(interp, interp.upper())
    picture = Image.fromarray(_bytes(np.asarray(arr)))
    if mode is not None:
        picture = picture.convert(mode)
    if isinstance(size, numbers.Number):
        factor = float(size) / 100 if isinstance(size, numbers.Integral) else float(size)  # type: ignore[arg-type]
        width, height = (int(side * factor) for side in picture.size)
    else:
        height, width = (int(side) for side in size)
    return np.array(picture.resize((width, height), Image.Resampling[method]))


def _bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    return ((array - low) * (255 / (high - low or 1)) + 0.5).astype(np.uint8)


def _worker() -> dict[str, Any]:
    """Run the script in a worker process for the names it defines."""
    script = os.environ[SCRIPT_VARIABLE]
    prepare(Path(script).parent)
    return runpy.run_path(script, run_name="__mp_main__")


if __name__ == "__mp_main__":
    globals().update(_worker())
