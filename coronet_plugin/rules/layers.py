"""Layers with a weight, and normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from coronet_plugin.propagation import Call, LayerCall, Layout, NotUnderstood, Propagation
from coronet_plugin.rules.registry import along, rule, tracked

COMPUTED = (
    "its weight is computed, perhaps by weight or spectral norm; "
    "coronet_plugin.bake_(generator), before the optimizer is made, makes it plain"
)


@rule("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
def convolution(state: Propagation, call: Call) -> list[Layout]:
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    transposed = "transpose" in call.name
    groups = call.argument(6, "groups", 1)
    axis = call.out.ndim - weight.ndim + 1
    positions = state.per_image(call.out.numel() // call.out.shape[axis])
    layer = LayerCall(
        module=state.module,
        weight=state.name_of(weight),
        weight_shape=tuple(weight.shape),
        axis_in=0 if transposed else 1,
        axis_out=1 if transposed else 0,
        positions=state.per_image(x.numel() // x.shape[axis]) if transposed else positions,
        positions_literature=positions,
        transposed=transposed,
        groups=groups,
    )
    state.calls.append(layer)
    incoming = along(state, x, axis)
    if layer.weight is None:
        return [_computed(state, incoming, layer, axis)]
    if groups == 1:
        outgoing = _produce(state, weight, layer.axis_out, layer.module)
        _consume(state, weight, layer.axis_in, incoming)
    else:
        outgoing = _grouped(state, weight, layer, incoming)
    bias = call.argument(2, "bias")
    if bias is not None:
        state.register(bias, 0, outgoing)
    return [Layout(outgoing, axis)]


@rule("linear")
def linear(state: Propagation, call: Call) -> list[Layout]:
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    layout = dense(state, x, weight, 1, 0)
    bias = call.argument(2, "bias")
    if bias is not None:
        state.register(bias, 0, layout.ids)
    return [layout]


def dense(state: Propagation, x: Tensor, weight: Tensor, axis_in: int, axis_out: int) -> Layout:
    """The product of the last axis of ``x`` with a parameter of two axes."""
    name = state.name_of(weight)
    positions = state.per_image(x.numel() // x.shape[-1])
    shape = tuple(weight.shape)
    layer = LayerCall(state.module, name, shape, axis_in, axis_out, positions, positions, False, 1)
    state.calls.append(layer)
    incoming = along(state, x, x.ndim - 1)
    if name is None:
        return _computed(state, incoming, layer, x.ndim - 1)
    outgoing = _produce(state, weight, axis_out, state.module)
    _consume(state, weight, axis_in, incoming)
    return Layout(outgoing, x.ndim - 1)


def _computed(state: Propagation, incoming: np.ndarray, layer: LayerCall, axis: int) -> Layout:
    """A layer whose weight is no parameter: neither what it reads nor what it makes can go."""
    width = layer.weight_shape[layer.axis_out] * (layer.groups if layer.transposed else 1)
    outgoing = state.fresh(width, layer.module)
    state.doubt(np.concatenate([incoming, outgoing]), COMPUTED)
    return Layout(outgoing, axis)


@rule("embedding")
def embedding(state: Propagation, call: Call) -> list[Layout]:
    weight = call.argument(1, "weight")
    if state.name_of(weight) is None:
        raise NotUnderstood(COMPUTED)
    state.calls.append(
        LayerCall(state.module, state.name_of(weight), tuple(weight.shape), 0, 1, 0, 0, False, 1)
    )
    return [Layout(_produce(state, weight, 1, state.module), call.out.ndim - 1)]


def _produce(state: Propagation, weight: Tensor, axis: int, module: str) -> np.ndarray:
    """Ids of the channels a weight makes; the same ones if it is used again."""
    slices = state.tensors.setdefault(state.name_of(weight) or "", {})
    if axis not in slices:
        slices[axis] = state.fresh(weight.shape[axis], module)
    return slices[axis]


def _consume(state: Propagation, weight: Tensor, axis: int, incoming: np.ndarray) -> None:
    name = state.name_of(weight) or ""
    slices = state.tensors.setdefault(name, {})
    if axis in slices:
        state.merge(slices[axis], incoming)
    else:
        slices[axis] = incoming
        state.consumers[name] = incoming


def _grouped(state: Propagation, weight: Tensor, layer: LayerCall, incoming: np.ndarray) -> np.ndarray:
    """Groups live and die whole: all inputs and outputs of one are merged."""
    slices = state.tensors.setdefault(layer.weight or "", {})
    if layer.transposed:  # the weight's output axis counts within a group: it is never sliced
        state.merge(slices.setdefault(0, incoming), incoming)
        outgoing = np.repeat(incoming.reshape(layer.groups, -1)[:, 0], weight.shape[1])
    else:
        outgoing = _produce(state, weight, 0, layer.module)
    state.consumers.setdefault(layer.weight or "", incoming)
    for ins, outs in zip(np.split(incoming, layer.groups), np.split(outgoing, layer.groups)):
        state.merge_all(np.concatenate([ins, outs]))
    return outgoing


# -- normalisation -------------------------------------------------------
@rule("batch_norm instance_norm")
def channel_norm(state: Propagation, call: Call) -> list[Layout]:
    layout = _normalised(state, call.argument(0, "input"))
    for position, name in enumerate(("running_mean", "running_var", "weight", "bias"), start=1):
        state.register(call.argument(position, name), 0, layout.ids)
    state.norms.setdefault(state.module, {})["num_features"] = layout.ids
    return [layout]


@rule("group_norm")
def group_norm(state: Propagation, call: Call) -> list[Layout]:
    layout = _normalised(state, call.argument(0, "input"))
    groups = np.split(layout.ids, call.argument(1, "num_groups"))
    for ids in groups:
        state.merge_all(ids)
    for position, name in ((2, "weight"), (3, "bias")):
        state.register(call.argument(position, name), 0, layout.ids)
    norm = state.norms.setdefault(state.module, {})
    norm["num_channels"] = layout.ids
    norm["num_groups"] = np.array([ids[0] for ids in groups])
    return [layout]


@rule("layer_norm")
def layer_norm(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    if layout.axis >= x.ndim - len(call.argument(1, "normalized_shape")):
        state.doubt(layout.ids, "LayerNorm normalises over all channels together")
    return [layout]


@rule("prelu")
def prelu(state: Propagation, call: Call) -> list[Layout]:
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    layout = tracked(state, x)
    if weight.numel() > 1:
        if layout.axis != 1:
            raise NotUnderstood("PReLU reads another axis than the channels'")
        state.register(weight, 0, layout.ids)
        state.norms.setdefault(state.module, {})["num_parameters"] = layout.ids
    return [layout]


def _normalised(state: Propagation, x: Any) -> Layout:
    layout = tracked(state, x)
    if layout.axis != 1:
        raise NotUnderstood("a normalisation reads another axis than the channels'")
    return layout
