"""The table of rules and what several of them need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from coronet_plugin.channels.facts import IMAGE, Layout, Mixes, NotUnderstood
from coronet_plugin.channels.propagation import Propagation, Rule

AnyRule = TypeVar("AnyRule", bound=Rule)

RULES: dict[str, Rule] = {}
"""Rule by name of the torch function, without the underscore of its in-place form."""


def rule(names: str, counts: bool = False, moves: bool = False) -> Callable[[AnyRule], AnyRule]:
    """Register a function as the rule for the torch functions ``names``, separated by spaces.

    ``counts``: it is asked even where no channels are known, because the function costs MACs.
    ``moves``: the function moves the values of its first argument and computes nothing.
    """

    def add(function: AnyRule) -> AnyRule:
        function.counts = counts  # type: ignore[attr-defined]
        function.moves = moves  # type: ignore[attr-defined]
        for name in names.split():
            RULES[name] = function
        return function

    return add


def tracked(state: Propagation, x: Any) -> Layout:
    """The layout of ``x``, which must have one."""
    layout = state.layout(x)
    if layout is None:
        raise NotUnderstood("its channels are not known")
    return layout


def along(state: Propagation, x: Tensor, axis: int) -> np.ndarray:
    """The ids along ``axis`` of ``x``: those of the image if its channels were never made by a layer."""
    layout = state.layout(x)
    if layout is None and state.is_kernel(x) and axis in state.grid(x):  # a learned image
        return state.grid(x)[axis].ids
    if layout is None:
        return np.full(x.shape[axis], IMAGE)
    if layout.axis != axis:
        raise Mixes("a layer reads another axis than the channels'")
    return layout.ids


def dimensions(value: Any, ndim: int) -> list[int]:
    """A ``dim`` argument, an int or several, as axes counted from the left."""
    return [d % ndim for d in ([value] if isinstance(value, int) else value)]
