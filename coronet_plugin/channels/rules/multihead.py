"""``nn.MultiheadAttention``: one function with weights of its own."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from coronet_plugin.channels.facts import Call, LayerCall, Layout, Product
from coronet_plugin.channels.propagation import Propagation
from coronet_plugin.channels.rules.layers import consume, produce
from coronet_plugin.channels.rules.registry import rule

FIXED = "nn.MultiheadAttention fixes its width"


@rule("multi_head_attention_forward", counts=True)
def multi_head_attention(state: Propagation, call: Call) -> list[Layout | None]:
    """The module has one width for what it is given, its heads together and what it gives.

    So channel ``i`` of every head goes with channel ``i`` of every such part of the others: the heads stay,
    and get narrower. Scores are divided by the root of a head's width, which the queries' weights make good.
    """
    query, key, value, width, heads = call.args[:5]
    packed, bias = call.argument(5, "in_proj_weight"), call.argument(6, "in_proj_bias")
    out, out_bias = call.argument(11, "out_proj_weight"), call.argument(12, "out_proj_bias")
    queries, keys = (state.per_image(math.prod(tensor.shape[:-1])) for tensor in (query, key))
    known = [state.layout(x) for x in (query, key, value)]
    mine = [layout.ids for layout in known if layout is not None and layout.axis == query.ndim - 1]
    added = [x for x in (call.argument(7, "bias_k"), call.argument(8, "bias_v")) if x is not None]
    names = [state.name_of(x) for x in (packed, out, *(x for x in (bias, out_bias) if x is not None))]
    if len(mine) < 3 or added or None in names:
        return _pinned(state, call, known, queries, keys)
    ids = mine[0]
    for other in mine[1:]:
        state.merge(ids, other)
    for head in ids.reshape(heads, -1)[1:]:
        state.merge(head, ids[: width // heads])
    layer, module = state.layer_of(packed), state.module
    made = produce(state, packed, 0, layer)
    consume(state, packed, 1, ids)
    state.merge(made, np.tile(ids, 3))
    given = produce(state, out, 0, state.layer_of(out))
    consume(state, out, 1, made[:width])
    state.merge(given, ids)
    for tensor, indices in ((bias, made), (out_bias, given)):
        state.register(tensor, 0, indices)
    fewer, more = sorted((queries, keys))
    for weight, count in ((packed, fewer), (out, queries)):
        name, shape = state.name_of(weight), tuple(weight.shape)
        state.calls.append(LayerCall(state.layer_of(weight), name, shape, 1, 0, count, count, False, 1))
    if more > fewer:  # a third of the weights makes queries, two thirds keys and values
        rest = (more - fewer) * (1 if queries > keys else 2)
        state.products.append(Product(module, rest, (ids, made[:width])))
    scores = state.per_image(_pairs(query, key))
    state.products += [Product(module, scores, (made[:width],))] * 2
    state.norms.setdefault(module, {}).update(
        {**dict.fromkeys(("embed_dim", "kdim", "vdim"), ids), "head_dim": ids[: width // heads]}
    )
    for tensor in (packed, bias):
        if tensor is not None:
            state.correct(tensor, 0, np.arange(width), ids, 0.5)
    return [Layout(given, query.ndim - 1), None]


def _pairs(query: Tensor, key: Tensor) -> int:
    """Pairs of a query and a key, over the batch."""
    return query.shape[0] * key.shape[0] * (query.shape[1] if query.ndim == 3 else 1)


def _pinned(
    state: Propagation, call: Call, known: list[Layout | None], queries: int, keys: int
) -> list[Layout | None]:
    """Counted, and nothing of it can go: keys of another width, or projections that are no parameters."""
    query, key, _, width = call.args[:4]
    for layout in known:
        if layout is not None:
            state.doubt(layout.ids, FIXED)
    _projections(state, call, queries, keys)
    scores = state.per_image(_pairs(query, key) * width)
    state.products += [Product(state.module, scores, ()), Product(state.module, scores, ())]
    outgoing = state.fresh(width, f"{state.module}.out_proj")
    state.doubt(outgoing, FIXED)
    return [Layout(outgoing, query.ndim - 1), None]


def _projections(state: Propagation, call: Call, queries: int, keys: int) -> None:
    packed, out = call.argument(5, "in_proj_weight"), call.argument(11, "out_proj_weight")
    if packed is not None:  # a third of it for each of query, key and value
        width = packed.shape[0] // 3
        weights: list[tuple[str | None, tuple[int, ...], int]] = [
            (None, (width, width), queries),
            (None, (2 * width, width), keys),
        ]
        layer = state.layer_of(packed)
    else:
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        separate = [call.kwargs[name] for name in names]
        weights = [(state.name_of(w), tuple(w.shape), n) for w, n in zip(separate, (queries, keys, keys))]
        layer = state.layer_of(separate[0])
    for name, shape, positions in weights:
        state.calls.append(LayerCall(layer, name, shape, 1, 0, positions, positions, False, 1))
    shape, name = tuple(out.shape), state.name_of(out)
    state.calls.append(LayerCall(state.layer_of(out), name, shape, 1, 0, queries, queries, False, 1))
