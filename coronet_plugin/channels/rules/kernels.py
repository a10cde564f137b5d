"""Weights that are computed from parameters, followed through their computation axis by axis.

A modulated convolution multiplies a parameter by a style, weight norm divides it by its length, a low-rank
adapter adds a product of two: what becomes of the outputs and inputs of each is known as long as they are
moved, multiplied, added and summed. What is not listed here ends it, and the layer is pinned.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from coronet_plugin.channels.facts import Axis, Call, Grid, NotUnderstood, tensors_in
from coronet_plugin.channels.propagation import Propagation
from coronet_plugin.channels.rules.registry import RULES, dimensions

ELEMENTWISE = frozenset("add sub mul div true_divide multiply divide maximum minimum".split())
UNARY = frozenset("tanh abs neg __neg__ square sqrt rsqrt reciprocal clamp pow sign".split())
SUMS = frozenset("sum norm linalg_vector_norm amax".split())
STATISTICS = frozenset("mean var std amin max min prod".split())


def follow(state: Propagation, call: Call) -> None:
    """Say of the results of a call which channels lie along their axes, if it has weights as arguments."""
    if not any(state.is_kernel(x) for x in call.tensors()) or not isinstance(call.out, (Tensor, tuple, list)):
        return
    name = call.plain_name
    try:
        if getattr(RULES.get(name), "moves", False):
            _moved(state, call)
        elif name in ELEMENTWISE or (name == "lerp" and isinstance(call.args[-1], float)):
            _combined(state, call)
        elif name in UNARY:
            state.set_grid(call.out, state.grid(call.args[0]))
        elif name in SUMS | STATISTICS:
            _reduced(state, call)
        elif name in ("matmul", "mm", "__matmul__") and all(x.ndim == 2 for x in call.tensors()):
            _multiplied(state, call)
        elif name == "_weight_norm":
            _combined(state, call)
    except NotUnderstood as error:
        for x in call.tensors():
            for axis in state.grid(x).values() if state.is_computed(x) else ():
                state.doubt(axis.ids, str(error))


def _moved(state: Propagation, call: Call) -> None:
    """Numbers are moved in the same way, to see where they arrive."""
    x = call.args[0]
    if not isinstance(x, Tensor) or call.out is x or state.is_kernel(call.out):
        return
    grids: list[Grid] = [{} for _ in tensors_in(call.out)]
    for at, axis in state.grid(x).items():
        numbers = torch.arange(x.shape[at]).view([-1 if i == at else 1 for i in range(x.ndim)])
        moved = call.function(numbers.expand(x.shape).contiguous(), *call.args[1:], **call.kwargs)
        for grid, result in zip(grids, tensors_in(moved)):
            varies = [d for d in range(result.ndim) if (result != result.narrow(d, 0, 1)).any()]
            if len(varies) > 1 or (not varies and len(axis.ids) > 1):
                raise NotUnderstood("a computed weight takes its channels apart")
            if varies:
                (d,) = varies
                row = result.movedim(d, -1).reshape(-1, result.shape[d])[0].long().numpy()
                grid[d] = axis._replace(ids=axis.ids[row])
                state.follow_written(call, d, grid[d].ids)
    for result, grid in zip(tensors_in(call.out), grids):
        state.set_grid(result, grid)


def _combined(state: Propagation, call: Call) -> None:
    """Channels meet where axes do, counted from the right as shapes are broadcast."""
    operands, out = call.tensors(), call.out
    grid: Grid = {}
    if any(state.fills(x, y) for x in operands for y in operands if x is not y):
        return  # features, with a parameter added to them
    for x in operands:
        for at, axis in state.grid(x).items():
            d = at + out.ndim - x.ndim
            if x.shape[at] == out.shape[d]:
                known = grid.setdefault(d, axis)
                state.merge(known.ids, axis.ids)
                grid[d] = Axis(known.ids, known.parts | axis.parts)
    for x in operands:
        for d, axis in grid.items():
            at = d - out.ndim + x.ndim
            if at >= 0 and x.shape[at] > 1 and at not in state.grid(x):
                state.doubt(axis.ids, "a computed weight meets a tensor whose channels are not known")
    state.set_grid(out, grid)


def _reduced(state: Propagation, call: Call) -> None:
    x, name = call.args[0], call.plain_name
    position = 2 if "norm" in name else 1
    dims = call.kwargs.get("dim", call.argument(position, "dim"))
    if dims is None or isinstance(dims, (bool, Tensor)):
        gone = list(range(x.ndim))
    else:
        gone = dimensions(dims, x.ndim)
    first = next(iter(tensors_in(call.out)))
    grid: Grid = {}
    for at, axis in state.grid(x).items():
        if at not in gone:
            grid[at - (0 if first.ndim == x.ndim else sum(d < at for d in gone))] = axis
        elif name in STATISTICS:
            state.depart(axis.ids, f"{name} counts the channels of a weight")
    for result in tensors_in(call.out):
        state.set_grid(result, grid)


def _multiplied(state: Propagation, call: Call) -> None:
    first, second = (state.grid(x) for x in call.tensors())
    if 1 in first and 0 in second:
        state.merge(first[1].ids, second[0].ids)
    state.set_grid(call.out, {d: grid[d] for d, grid in ((0, first), (1, second)) if d in grid})


def used(
    state: Propagation, grid: Grid, incoming: np.ndarray, axes: tuple[int, int], groups: int
) -> np.ndarray:
    """Outputs of a layer that reads ``incoming`` by a computed weight with inputs and outputs on ``axes``."""
    inputs, outputs = (grid[axis].ids for axis in axes)
    for part in np.split(incoming, groups):
        state.merge(part, inputs)
    parts: Iterable[np.ndarray] = np.split(outputs, groups)
    first, *others = parts
    for part in others:
        state.merge(first, part)
    return outputs
