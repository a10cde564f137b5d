"""What each torch function does to the channels: one rule per kind of function.

A rule gets the running :class:`~coronet_plugin.propagation.Propagation` and a call,
merges, reorders or passes on channel ids, and returns the layouts of the results.
It raises :class:`~coronet_plugin.propagation.NotUnderstood` rather than guess. Rules
know nothing of latents, budgets or hosts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from coronet_plugin.propagation import Call, LayerCall, Layout, NotUnderstood, Propagation, Rule

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule for the torch functions ``names``."""

    def add(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return add


# -- layers with a weight ------------------------------------------------
@rule("conv2d", "conv_transpose2d")
def convolution(state: Propagation, call: Call) -> list[Layout]:
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    transposed = call.name == "conv_transpose2d"
    groups = call.argument(6, "groups", 1)
    positions_in, positions_out = math.prod(x.shape[-2:]), math.prod(call.out.shape[-2:])
    layer = LayerCall(
        module=state.module,
        weight=state.name_of(weight),
        weight_shape=tuple(weight.shape),
        axis_in=0 if transposed else 1,
        axis_out=1 if transposed else 0,
        positions=positions_in if transposed else positions_out,
        positions_literature=positions_out,
        transposed=transposed,
        groups=groups,
    )
    state.calls.append(layer)
    axis = call.out.ndim - 3
    if layer.weight is None:
        raise NotUnderstood("a convolution's weight is computed from other parameters")
    incoming = _incoming(state, x, axis)
    if groups == 1:
        outgoing = _weight_ids(state, weight, layer.axis_out, layer.module)
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
    positions = math.prod(x.shape[1:-1])
    name = state.name_of(weight)
    state.calls.append(
        LayerCall(state.module, name, tuple(weight.shape), 1, 0, positions, positions, False, 1)
    )
    if name is None:
        raise NotUnderstood("a linear layer's weight is computed from other parameters")
    incoming = _incoming(state, x, x.ndim - 1)
    outgoing = _weight_ids(state, weight, 0, state.module)
    _consume(state, weight, 1, incoming)
    bias = call.argument(2, "bias")
    if bias is not None:
        state.register(bias, 0, outgoing)
    return [Layout(outgoing, call.out.ndim - 1)]


def _incoming(state: Propagation, x: Tensor, axis: int) -> np.ndarray:
    layout = state.layout(x)
    if layout is None:
        return np.zeros(x.shape[axis], dtype=np.int64)
    if layout.axis != axis:
        raise NotUnderstood("a layer reads another axis than the channels'")
    return layout.ids


def _weight_ids(state: Propagation, weight: Tensor, axis: int, module: str) -> np.ndarray:
    """Ids of the channels a weight produces; the same ones if it is used again."""
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
        outgoing = _weight_ids(state, weight, 0, layer.module)
    state.consumers.setdefault(layer.weight or "", incoming)
    for ins, outs in zip(np.split(incoming, layer.groups), np.split(outgoing, layer.groups)):
        state.merge_all(np.concatenate([ins, outs]))
    return outgoing


# -- normalisation -------------------------------------------------------
@rule("batch_norm", "instance_norm")
def channel_norm(state: Propagation, call: Call) -> list[Layout]:
    layout = _channels(state, call.argument(0, "input"))
    for position, name in enumerate(("running_mean", "running_var", "weight", "bias"), start=1):
        state.register(call.argument(position, name), 0, layout.ids)
    state.norms.setdefault(state.module, {})["num_features"] = layout.ids
    return [layout]


@rule("group_norm")
def group_norm(state: Propagation, call: Call) -> list[Layout]:
    layout = _channels(state, call.argument(0, "input"))
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
    layout = _tracked(state, x)
    if layout.axis >= x.ndim - len(call.argument(1, "normalized_shape")):
        raise NotUnderstood("LayerNorm normalises over all channels together")
    return [layout]


def _tracked(state: Propagation, x: Any) -> Layout:
    layout = state.layout(x)
    if layout is None:
        raise NotUnderstood("its channels are not known")
    return layout


def _channels(state: Propagation, x: Tensor) -> Layout:
    layout = _tracked(state, x)
    if layout.axis != 1:
        raise NotUnderstood("a normalisation reads another axis than the channels'")
    return layout


# -- elementwise ---------------------------------------------------------
@rule(
    *"relu relu6 leaky_relu tanh sigmoid gelu silu mish elu selu celu softplus hardtanh hardsigmoid".split(),
    *"hardswish logsigmoid softsign tanhshrink threshold sin cos exp log sqrt rsqrt abs neg square".split(),
    *"reciprocal clamp clip sign detach clone contiguous to float double half bfloat16 type cpu cuda".split(),
    *"requires_grad dropout dropout2d alpha_dropout feature_dropout feature_alpha_dropout".split(),
    *"zeros_like ones_like rand_like randn_like empty_like full_like nan_to_num floor round erf".split(),
)
def unary(state: Propagation, call: Call) -> list[Layout]:
    return [_tracked(state, call.argument(0, "input"))]


@rule(
    *"add sub mul div __rsub__ rsub __rdiv__ __rtruediv__ true_divide subtract multiply divide".split(),
    *"pow __rpow__ maximum minimum where lerp addcmul addcdiv prelu gt lt ge le eq ne fmod".split(),
)
def elementwise(state: Propagation, call: Call) -> list[Layout]:
    operands = call.tensors()
    if call.name.startswith("prelu"):
        return [_prelu(state, call)]
    activations = [t for t in operands if state.is_activation(t)]
    layouts = [(t, state.layout(t)) for t in activations or operands]
    from_right = {t.ndim - layout.axis for t, layout in layouts if layout is not None}
    if len(from_right) != 1:
        raise NotUnderstood(f"{call.name} combines channels on different axes")
    right = from_right.pop()
    axis = call.out.ndim - right
    width = call.out.shape[axis]
    ids: np.ndarray | None = None
    for tensor in operands:
        size = tensor.shape[-right] if tensor.ndim >= right else 1
        if size != width:  # broadcast over the channels
            if state.is_activation(tensor):
                state.pin(_tracked(state, tensor).ids, "it is broadcast over channels")
            continue
        if state.name_of(tensor) is not None:
            layout = state.parameter_layout(tensor, tensor.ndim - right)
        else:
            layout = state.layout(tensor)
        if layout is None:
            if size > 1:
                raise NotUnderstood(f"{call.name} with a tensor whose channels are not known")
            continue
        if ids is None:
            ids = layout.ids
        else:
            state.merge(ids, layout.ids)
    if ids is None:
        raise NotUnderstood(f"{call.name} with a tensor whose channels are not known")
    return [Layout(ids, axis)]


def _prelu(state: Propagation, call: Call) -> Layout:
    x, weight = call.argument(0, "input"), call.argument(1, "weight")
    layout = _channels(state, x)
    if weight.numel() > 1:
        state.register(weight, 0, layout.ids)
        state.norms.setdefault(state.module, {})["num_parameters"] = layout.ids
    return layout


# -- spatial -------------------------------------------------------------
@rule(
    *"interpolate upsample avg_pool2d max_pool2d adaptive_avg_pool2d adaptive_max_pool2d".split(),
    *"lp_pool2d grid_sample pixel_norm".split(),
)
def spatial(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = _tracked(state, x)
    if layout.axis != x.ndim - 3:
        raise NotUnderstood(f"{call.name} works along the channels")
    return [layout]


@rule("pad")
def pad(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = _tracked(state, x)
    if layout.axis >= x.ndim - len(call.argument(1, "pad")) // 2:
        raise NotUnderstood("padding adds channels")
    return [layout]


@rule("pixel_shuffle")
def pixel_shuffle(state: Propagation, call: Call) -> list[Layout]:
    layout = _tracked(state, call.argument(0, "input"))
    blocks = layout.ids.reshape(-1, call.argument(1, "upscale_factor") ** 2)
    for block in blocks:
        state.merge_all(block)
    return [Layout(blocks[:, 0], layout.axis)]


@rule("pixel_unshuffle")
def pixel_unshuffle(state: Propagation, call: Call) -> list[Layout]:
    layout = _tracked(state, call.argument(0, "input"))
    return [Layout(np.repeat(layout.ids, call.argument(1, "downscale_factor") ** 2), layout.axis)]


# -- joining and taking apart --------------------------------------------
@rule("cat", "concat", "concatenate")
def concatenate(state: Propagation, call: Call) -> list[Layout]:
    parts = call.argument(0, "tensors")
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % call.out.ndim
    layouts = [state.layout(part) for part in parts]
    axes = {layout.axis for layout in layouts if layout is not None}
    if len(axes) != 1:
        raise NotUnderstood("a concatenation joins channels on different axes")
    axis = axes.pop()
    if dim == axis:
        pieces = [
            layout.ids if layout is not None else np.zeros(part.shape[axis], dtype=np.int64)
            for part, layout in zip(parts, layouts)
        ]
        return [Layout(np.concatenate(pieces), axis)]
    if any(layout is None for layout in layouts):
        raise NotUnderstood("a concatenation with a tensor whose channels are not known")
    for layout in layouts[1:]:
        state.merge(layouts[0].ids, layout.ids)  # type: ignore[union-attr]
    return [layouts[0]]  # type: ignore[list-item]


@rule("chunk", "split", "tensor_split", "unsafe_chunk")
def chunks(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input", call.kwargs.get("tensor"))
    layout = _tracked(state, x)
    dim = call.argument(2, "dim", 0) % x.ndim
    if dim != layout.axis:
        return [layout for _ in call.out]
    sizes = [piece.shape[dim] for piece in call.out]
    if len(set(sizes)) != 1:
        raise NotUnderstood("channels are split into pieces of different size")
    pieces = np.split(layout.ids, len(sizes))
    for piece in pieces[1:]:  # the code splits in equal parts, so equal parts must remain
        state.merge(pieces[0], piece)
    return [Layout(piece, layout.axis) for piece in pieces]


@rule("__getitem__")
def index(state: Propagation, call: Call) -> list[Layout]:
    x, key = call.args
    layout = _tracked(state, x)
    keys = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(k, (int, slice)) or k is None or k is Ellipsis for k in keys):
        raise NotUnderstood("advanced indexing")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        missing = x.ndim - sum(k is not None and k is not Ellipsis for k in keys)
        keys = (*keys[:at], *[slice(None)] * missing, *keys[at + 1 :])
    axis_in = axis_out = 0
    for k in keys:
        if k is None:
            axis_out += 1
            continue
        if axis_in == layout.axis:
            if k != slice(None):
                raise NotUnderstood("channels are picked by index")
            return [Layout(layout.ids, axis_out)]
        axis_in += 1
        axis_out += 0 if isinstance(k, int) else 1
    return [Layout(layout.ids, axis_out + layout.axis - axis_in)]


# -- shapes --------------------------------------------------------------
@rule("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def reshape(state: Propagation, call: Call) -> list[Layout]:
    x, out = call.args[0], call.out
    layout = _tracked(state, x)
    before = math.prod(x.shape[: layout.axis])
    after = math.prod(x.shape[layout.axis + 1 :])
    channels = x.shape[layout.axis]
    found: Layout | None = None
    for axis, size in enumerate(out.shape):
        tail = math.prod(out.shape[axis + 1 :])
        if math.prod(out.shape[:axis]) != before or size * tail != channels * after:
            continue
        if tail <= after and after % tail == 0:  # positions are folded into the channel axis
            candidate = np.repeat(layout.ids, after // tail)
        elif tail % after == 0:  # the channel axis is split; its pieces become one unit each
            candidate = layout.ids.reshape(size, -1)
        else:
            continue
        if found is None or len(candidate) > len(found.ids) or size == channels:
            found = Layout(candidate, axis)
    if found is None:
        raise NotUnderstood(f"{call.name} mixes channels with another axis")
    if found.ids.ndim == 2:
        for unit in found.ids:
            state.merge_all(unit)
        found = Layout(found.ids[:, 0], found.axis)
    return [found]


@rule("permute", "transpose", "swapaxes", "swapdims", "movedim", "t", "expand", "expand_as")
def move_axes(state: Propagation, call: Call) -> list[Layout]:
    x = call.args[0]
    layout = _tracked(state, x)
    if call.name.startswith("expand"):
        axis = layout.axis + call.out.ndim - x.ndim
        if call.out.shape[axis] != len(layout.ids):
            state.pin(layout.ids, "it is broadcast over channels")
            raise NotUnderstood("it is broadcast over channels")
        return [Layout(layout.ids, axis)]
    if call.name == "permute":
        order = call.args[1:] if isinstance(call.args[1], int) else call.args[1]
        order = [d % x.ndim for d in order]
        return [Layout(layout.ids, order.index(layout.axis))]
    if call.name == "movedim":
        raise NotUnderstood("movedim is not understood")
    first, second = (0, 1) if call.name == "t" else (call.args[1] % x.ndim, call.args[2] % x.ndim)
    axis = {first: second, second: first}.get(layout.axis, layout.axis)
    return [Layout(layout.ids, axis)]


@rule("mean", "sum", "amax", "amin", "var", "std", "norm", "logsumexp")
def reduction(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = _tracked(state, x)
    dims = call.argument(1, "dim")
    if dims is None or isinstance(dims, bool):
        raise NotUnderstood(f"{call.name} mixes all channels")
    reduced = {d % x.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    if layout.axis in reduced:
        raise NotUnderstood(f"{call.name} mixes all channels")
    if call.out.ndim == x.ndim:
        return [layout]
    return [Layout(layout.ids, layout.axis - sum(d < layout.axis for d in reduced))]


@rule("softmax", "log_softmax")
def softmax(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = _tracked(state, x)
    dim = call.argument(1, "dim")
    if dim is None or dim % x.ndim == layout.axis:
        raise NotUnderstood("softmax over channels mixes them")
    return [layout]
