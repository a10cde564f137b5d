"""The files of examples/ as the command line imports them, their families forgotten afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from conftest import ROOT

from coronet_plugin.generators.registry import FAMILIES
from coronet_plugin.user_code import import_module


@contextlib.contextmanager
def example(name: str) -> Iterator[ModuleType]:
    """The module ``examples/NAME.py``, as ``--coronet_family`` imports it."""
    before = dict(FAMILIES)
    try:
        yield import_module(str(ROOT / "examples" / f"{name}.py"))
    finally:
        FAMILIES.clear()
        FAMILIES.update(before)
        sys.modules.pop(f"coronet_user_{name}", None)


class Killed(BaseException):
    """As from the outside, at any time."""


@contextlib.contextmanager
def killed_after(step: int) -> Iterator[None]:
    """The training inside dies when it has made optimizer step number ``step``."""
    import common  # of examples/, which is imported by then

    made = common.Training.step

    def step_or_die(self, **losses):
        made(self, **losses)
        if self.steps == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr(common.Training, "step", step_or_die)
        yield
