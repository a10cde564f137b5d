"""Matrix products of activations: attention."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import permutations
from string import ascii_letters

import numpy as np
from torch import Tensor

from coronet_plugin.channels.facts import Call, LayerCall, Layout, NotUnderstood, Product
from coronet_plugin.channels.propagation import Propagation
from coronet_plugin.channels.reading import power_of
from coronet_plugin.channels.rules.layers import dense
from coronet_plugin.channels.rules.registry import rule


@rule("matmul bmm mm __matmul__ __rmatmul__", counts=True)
def matmul(state: Propagation, call: Call) -> list[Layout | None]:
    left, right = call.args[0], call.argument(1, "other", call.kwargs.get("mat2"))
    if call.name == "__rmatmul__":
        left, right = right, left
    if min(left.ndim, right.ndim) < 2:
        raise NotUnderstood("a product with a vector")
    if left.ndim == right.ndim == 2 and state.is_kernel(left) and state.is_kernel(right):
        _adapter(state, left, right)
        return [None]
    if right.ndim == 2 and state.name_of(right) is not None:
        return [dense(state, left, right, 0, 1, left.ndim - 1, left.ndim - 1)]
    batch = ascii_letters[: call.out.ndim - 2]
    rows, inner, columns = tuple(ascii_letters[-3:])
    left_batch, right_batch = (batch[len(batch) + 2 - tensor.ndim :] for tensor in (left, right))
    terms = [left_batch + rows + inner, right_batch + inner + columns]
    state.same_source(call.out, left, right)
    return [contract(state, [left, right], terms, batch + rows + columns)]


def _adapter(state: Propagation, left: Tensor, right: Tensor) -> None:
    """Count the product of two weights; what it makes is followed in :mod:`.kernels`."""
    rows, columns = state.grid(left).get(0), state.grid(right).get(1)
    axes = {axis: found.ids for axis, found in enumerate((rows, columns)) if found is not None}
    shape, rank = (left.shape[0], right.shape[1]), left.shape[1]
    state.calls.append(LayerCall(state.module, None, shape, 1, 0, rank, rank, False, 1, axes))


@rule("baddbmm", counts=True)
def added_product(state: Propagation, call: Call) -> list[Layout | None]:
    """``beta * input + alpha * left @ right``, as attention with a mask is written."""
    given, left, right = (call.argument(i, name) for i, name in enumerate(("input", "batch1", "batch2")))
    if call.kwargs.get("beta", 1) and state.layout(given) is not None:
        raise NotUnderstood("baddbmm adds something with channels")
    read = power_of(call.kwargs.get("alpha", 1))
    if read is not None:
        state.depends(left, *read)
    state.same_source(call.out, left, right)
    return [contract(state, [left, right], ["abc", "acd"], "abd")]


@rule("einsum", counts=True)
def einsum(state: Propagation, call: Call) -> list[Layout | None]:
    equation, *operands = call.args
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = list(operands[0])
    if not isinstance(equation, str) or "." in equation:
        raise NotUnderstood("this form of einsum")
    terms, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow:
        raise NotUnderstood("an einsum without an arrow")
    letters = terms.split(",")
    for (x, of_x), (weight, of_weight) in permutations(zip(operands, letters), 2):
        summed = set(of_x) & set(of_weight)
        if len(operands) == 2 and weight.ndim == 2 and state.name_of(weight) and len(summed) == 1:
            (inner,), (outer,) = summed, set(of_weight) - summed or summed
            if outer in result and inner not in result:
                axes = of_weight.index(inner), of_weight.index(outer)
                return [dense(state, x, weight, *axes, of_x.index(inner), result.index(outer))]
    state.same_source(call.out, *operands)
    return [contract(state, operands, letters, result)]


@rule("scaled_dot_product_attention", counts=True)
def attention(state: Propagation, call: Call) -> list[Layout | None]:
    query, key, value = (call.argument(i, name) for i, name in enumerate(("query", "key", "value")))
    q, k = state.layout(query), state.layout(key)
    scale_follows_width = call.kwargs.get("scale") is None
    if scale_follows_width:
        width = next((x.ids for x in (q, k) if x is not None and x.axis == query.ndim - 1), None)
        if width is not None:
            _rescaled(state, (query, key), width)
    batch = ascii_letters[: query.ndim - 2]
    lengths = {"x": query.shape[-2], "y": value.shape[-2], "z": value.shape[-1]}
    _count(state, [value], [batch + "yz"], {**dict(zip(batch, value.shape)), **lengths})
    contract(state, [query, key], [batch + "xz", batch + "yz"], batch + "xy", scores=True)
    heads = [layout for layout in (q, k) if layout is not None and layout.axis < query.ndim - 2]
    v = state.layout(value)
    if heads and (v is None or v.axis != heads[0].axis):
        raise NotUnderstood("heads of queries and values differ")
    for layout in heads:
        state.merge(layout.ids, v.ids)  # type: ignore[union-attr]
    if v is None:
        return [None]
    return [Layout(v.ids, v.axis)]


def _rescaled(state: Propagation, operands: tuple[Tensor, ...], width: np.ndarray) -> None:
    """Scores are divided by the root of the number of ``width``: made good in what makes an operand."""
    for x in operands:
        with suppress(NotUnderstood):
            state.depends(x, width, -0.5)
            return
    state.depart(width, "attention is scaled by the number of channels of a head")


def contract(
    state: Propagation, operands: list[Tensor], terms: list[str], result: str, scores: bool = False
) -> Layout | None:
    """Follow channels through a sum of products in einsum's notation, and count it.

    ``scores``: the result may keep no channel axis (attention scores per head do).
    """
    sizes = {c: size for term, tensor in zip(terms, operands) for c, size in zip(term, tensor.shape)}
    if len(operands) > 1:  # einsum of one tensor moves its axes, or adds up
        _count(state, operands, terms, sizes)
    known: dict[str, list[Layout]] = {}
    for term, tensor in zip(terms, operands):
        layout = state.layout(tensor)
        if layout is not None and len(layout.ids) > 1:  # a single channel is one factor for all
            known.setdefault(term[layout.axis], []).append(layout)
    for letter, layouts in known.items():
        if len(layouts) < sum(letter in term for term in terms):
            raise NotUnderstood("a product sums channels with something else")
        for layout in layouts[1:]:
            state.merge(layouts[0].ids, layout.ids)
    kept = [letter for letter in known if letter in result]
    if len(kept) > 1:
        raise NotUnderstood("a product makes a matrix of channels by channels")
    return Layout(known[kept[0]][0].ids, result.index(kept[0])) if kept and not scores else None


def _count(state: Propagation, operands: list[Tensor], terms: list[str], sizes: dict[str, int]) -> None:
    factors: dict[str, np.ndarray] = {}
    for term, tensor in zip(terms, operands):
        layout = state.layout(tensor)
        if layout is not None:
            factors[term[layout.axis]] = layout.ids
    positions = math.prod(size for letter, size in sizes.items() if letter not in factors)
    state.products.append(Product(state.module, state.per_image(positions), tuple(factors.values())))
