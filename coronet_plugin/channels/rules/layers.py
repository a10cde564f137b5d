"""Layers with a weight, and normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm

from coronet_plugin.channels.baking import NORM_HOOKS, hooks_of
from coronet_plugin.channels.facts import Call, LayerCall, Layout, Mixes, NotUnderstood, Product
from coronet_plugin.channels.propagation import Propagation
from coronet_plugin.channels.rules import kernels
from coronet_plugin.channels.rules.registry import along, rule, tracked

COMPUTED = "its weight is computed from other tensors"
NORMALISED = (
    "its weight is under weight norm, spectral norm or another parametrization; "
    "coronet_plugin.bake_(generator), before the optimizer is made, makes it plain"
)


@rule("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", counts=True)
def convolution(state: Propagation, call: Call) -> list[Layout]:
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    transposed = "transpose" in call.name
    groups = call.argument(6, "groups", 1)
    axis = call.out.ndim - weight.ndim + 1
    positions = state.per_image(call.out.numel() // call.out.shape[axis])
    layer = LayerCall(
        module=state.layer_of(weight),
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
        made = _computed(state, weight, incoming, layer, axis)
        bias = call.argument(2, "bias")
        if bias is not None:
            state.register(bias, 0, made.ids)
        return [made]
    if groups == 1:
        outgoing = produce(state, weight, layer.axis_out, layer.module)
        consume(state, weight, layer.axis_in, incoming)
    else:
        outgoing = _grouped(state, weight, layer, incoming)
    _biased(state, call, weight, layer.axis_out, Layout(outgoing, axis))
    return [Layout(outgoing, axis)]


@rule("linear", counts=True)
def linear(state: Propagation, call: Call) -> list[Layout]:
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    layout = dense(state, x, weight, 1, 0, x.ndim - 1, x.ndim - 1)
    if layout.axis == x.ndim - 1:
        _biased(state, call, weight, 0, layout)
    return [layout]


def _biased(state: Propagation, call: Call, weight: Tensor, axis_out: int, made: Layout) -> None:
    """The bias of a layer belongs to the channels it makes; both together can be multiplied."""
    bias = call.argument(2, "bias")
    if bias is not None:
        state.register(bias, 0, made.ids)
    if weight.shape[axis_out] == len(made.ids):
        sliced = [(weight, axis_out), *([] if bias is None else [(bias, 0)])]
        state.set_source(call.out, sliced, made.axis)


def dense(
    state: Propagation, x: Tensor, weight: Tensor, axis_in: int, axis_out: int, x_axis: int, out_axis: int
) -> Layout:
    """A parameter of two axes sums over ``x_axis`` of ``x``; the result has its outputs on ``out_axis``."""
    positions = state.per_image(x.numel() // x.shape[x_axis])
    shape = tuple(weight.shape)
    read = state.layout(x)
    if read is not None and read.axis != x_axis and state.name_of(weight) is not None:
        # it mixes positions, of every channel in the same way
        work = positions * weight.numel() // len(read.ids)
        state.products.append(Product(state.layer_of(weight), work, (read.ids,)))
        return read
    name, made_by = state.name_of(weight), state.layer_of(weight)
    layer = LayerCall(made_by, name, shape, axis_in, axis_out, positions, positions, False, 1)
    state.calls.append(layer)
    incoming = along(state, x, x_axis)
    if name is None:
        return _computed(state, weight, incoming, layer, out_axis)
    outgoing = produce(state, weight, axis_out, made_by)
    consume(state, weight, axis_in, incoming)
    return Layout(outgoing, out_axis)


def _computed(
    state: Propagation, weight: Tensor, incoming: np.ndarray, layer: LayerCall, axis: int
) -> Layout:
    """A layer whose weight is no parameter: if its computation is not known, all it reads and makes stays."""
    grid = state.grid(weight) if state.is_computed(weight) else {}
    module = state.generator.get_submodule(layer.module)
    if layer.axis_in in grid and layer.axis_out in grid and not layer.transposed and not _spectral(module):
        axes = layer.axis_in, layer.axis_out
        outgoing = kernels.used(state, grid, incoming, axes, layer.groups)
        layer = replace(layer, module=_maker(grid[layer.axis_out].parts, layer.module))
        state.name_origin(outgoing, layer.module)
        followed = {d: grid[d].ids for d in axes}
        state.calls[-1] = replace(layer, axes=followed, reads=grid[layer.axis_in].parts)
        for name, _ in sorted(grid[layer.axis_in].parts):
            state.consumers.setdefault(name, followed[layer.axis_in])
        return Layout(outgoing, axis)
    width = layer.weight_shape[layer.axis_out] * (layer.groups if layer.transposed else 1)
    outgoing = state.fresh(width, layer.module)
    normalised = is_parametrized(module) or any(isinstance(h, NORM_HOOKS) for h in hooks_of(module))
    state.doubt(np.concatenate([incoming, outgoing]), NORMALISED if normalised else COMPUTED)
    return Layout(outgoing, axis)


def _maker(parts: frozenset[tuple[str, int]], module: str) -> str:
    """Name a layer with a computed weight: after the first parameter that its outputs are in."""
    name = min((name for name, _ in parts), default=module).partition(".parametrizations.")[0]
    for ending in (".weight", ".weight_g", ".weight_v"):
        name = name[: -len(ending)] if name.endswith(ending) else name
    return name


def _spectral(module: nn.Module) -> bool:
    """Whether its weight is divided by what two vectors of its whole size make of it."""
    inside = is_parametrized(module) and any(isinstance(part, _SpectralNorm) for part in module.modules())
    return inside or any(isinstance(hook, SpectralNorm) for hook in hooks_of(module))


@rule("_weight_norm")
def weight_norm(state: Propagation, call: Call) -> list[Layout | None]:
    """Directions and lengths of a weight: see :mod:`.kernels`."""
    return [None]


@rule("embedding")
def embedding(state: Propagation, call: Call) -> list[Layout]:
    weight = call.argument(1, "weight")
    if state.name_of(weight) is None:
        raise NotUnderstood(COMPUTED)
    layer, name = state.layer_of(weight), state.name_of(weight)
    state.calls.append(LayerCall(layer, name, tuple(weight.shape), 0, 1, 0, 0, False, 1))
    return [Layout(produce(state, weight, 1, layer), call.out.ndim - 1)]


def produce(state: Propagation, weight: Tensor, axis: int, module: str) -> np.ndarray:
    """Ids of the channels a weight makes; the same ones if it is used again."""
    slices = state.tensors.setdefault(state.name_of(weight) or "", {})
    if axis not in slices:
        slices[axis] = state.fresh(weight.shape[axis], module)
    state.name_origin(slices[axis], module)
    return slices[axis]


def consume(state: Propagation, weight: Tensor, axis: int, incoming: np.ndarray) -> None:
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
        outgoing = produce(state, weight, 0, layer.module)
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
    if len(groups) == 1:
        raise Mixes("GroupNorm of one group normalises over all channels together")
    if any(len({state.origins[i] for i in ids.tolist()}) > 1 for ids in groups):
        raise Mixes("a group of GroupNorm has channels of several layers")
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
        raise Mixes("LayerNorm normalises over all channels together")
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
