"""Follow channels through one forward pass.

The generator is run once on an example. A ``TorchFunctionMode`` sees every
torch function with its real arguments, so Python control flow, modules called
twice and in-place activations need no special treatment. Each tensor carries a
*layout*: along its channel axis, one id per channel. Functions merge ids
(a residual sum), reorder them (concatenation, chunks) or pass them on
(activations, padding); ids that were merged live and die together.

Whatever has no rule here is *pinned*: its channels are never removed, and the
reason is kept in words. Rules know nothing of latents, budgets or hosts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

IMAGE = 0
"""The id of every channel that no layer of the generator produces."""


class Layout(NamedTuple):
    """``ids[i]`` is the id of channel ``i`` along axis ``axis`` of a tensor."""

    ids: np.ndarray
    axis: int


@dataclass(frozen=True)
class LayerCall:
    """One run of a layer with a weight: what its MACs depend on.

    ``positions``: how often each weight is used for one image (true MACs);
    ``positions_literature``: the same, counted at output resolution.
    """

    module: str
    weight: str | None
    weight_shape: tuple[int, ...]
    axis_in: int
    axis_out: int
    positions: int
    positions_literature: int
    transposed: bool
    groups: int


class NotUnderstood(Exception):
    """A rule cannot follow this call; its text is the reason for pinning."""


@dataclass
class Call:
    """A torch function call: its name, arguments and result."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def tensors(self) -> list[Tensor]:
        return list(_tensors((self.args, self.kwargs)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@dataclass
class Propagation(TorchFunctionMode):
    """What one forward pass taught about the channels of ``generator``."""

    generator: nn.Module
    origins: list[str | None] = field(default_factory=lambda: [None])
    tensors: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    norms: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    calls: list[LayerCall] = field(default_factory=list)
    consumers: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._parents = [IMAGE]
        self._pins: list[tuple[int, str]] = []
        self._layouts: dict[int, Layout] = {}
        self._alive: list[Tensor] = []  # an id() must not be reused while we run
        self._modules: list[str] = []
        named = [*self.generator.named_parameters(), *self.generator.named_buffers()]
        self._names = {id(tensor): name for name, tensor in named}

    # -- running ---------------------------------------------------------
    def run(self, inputs: tuple[Any, ...]) -> Any:
        """Run the generator on ``inputs`` and follow its channels."""
        for tensor in _tensors(inputs):
            if tensor.ndim >= 3:
                axis = tensor.ndim - 3
                self.set_layout(tensor, Layout(np.zeros(tensor.shape[axis], dtype=np.int64), axis))
        handles = []
        for name, module in self.generator.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with torch.no_grad(), self:
                out = self.generator(*inputs)
        finally:
            for handle in handles:
                handle.remove()
        for tensor in _tensors(out):
            layout = self.layout(tensor)
            if layout is not None:
                self.pin(layout.ids, "it is the generator's output")
        return out

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._modules.append(name)

        return hook

    def _leave(self, *_: Any) -> None:
        self._modules.pop()

    @property
    def module(self) -> str:
        """Name of the module that is running."""
        return self._modules[-1] if self._modules else ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        out = func(*args, **kwargs)
        results = list(_tensors(out))
        if results or name in IN_PLACE_WRITES:
            self._visit(Call(name, args, kwargs, out), results)
        return out

    def _visit(self, call: Call, results: list[Tensor]) -> None:
        self._alive.extend(results)
        tracked = [t for t in call.tensors() if self.layout(t) is not None]
        if not tracked:
            return
        rule = RULES.get(call.name.rstrip("_") if not call.name.startswith("__") else call.name)
        try:
            if rule is None:
                raise NotUnderstood(f"{call.name} is not understood")
            for result, layout in zip(results, rule(self, call)):
                self.set_layout(result, layout)
        except NotUnderstood as doubt:
            where = f" (in {self.module})" if self.module else ""
            for tensor in tracked:
                self.pin(self.layout(tensor).ids, f"{doubt}{where}")  # type: ignore[union-attr]
            for result in results:
                self._layouts.pop(id(result), None)

    # -- layouts ---------------------------------------------------------
    def layout(self, tensor: Any) -> Layout | None:
        """The layout of ``tensor``; a parameter with one axis gets one on first sight."""
        found = self._layouts.get(id(tensor))
        if found is None and id(tensor) in self._names:
            wide = [axis for axis, size in enumerate(tensor.shape) if size > 1]
            if len(wide) == 1 and tensor.is_floating_point():
                found = self.parameter_layout(tensor, wide[0])
        return found

    def is_activation(self, tensor: Tensor) -> bool:
        """True for a tensor computed on the way, whose channels are known."""
        return id(tensor) in self._layouts

    def set_layout(self, tensor: Tensor, layout: Layout | None) -> None:
        self._alive.append(tensor)
        if layout is None:
            self._layouts.pop(id(tensor), None)
        else:
            self._layouts[id(tensor)] = layout

    def parameter_layout(self, tensor: Tensor, axis: int) -> Layout:
        """Layout of a parameter or buffer along ``axis``: the same ids at every use."""
        name = self._names[id(tensor)]
        slices = self.tensors.setdefault(name, {})
        if axis not in slices:
            slices[axis] = self.fresh(tensor.shape[axis], None)
        return Layout(slices[axis], axis)

    def name_of(self, tensor: Any) -> str | None:
        """Qualified name of a parameter or buffer, None for any other tensor."""
        return self._names.get(id(tensor))

    # -- ids -------------------------------------------------------------
    def fresh(self, count: int, origin: str | None) -> np.ndarray:
        """``count`` new ids, produced by the layer ``origin``."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        self.origins.extend([origin] * count)
        return np.arange(start, start + count)

    def find(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index

    def merge(self, left: np.ndarray, right: np.ndarray) -> None:
        """Channel ``left[i]`` and channel ``right[i]`` live and die together."""
        if len(left) != len(right):
            raise NotUnderstood(f"{len(left)} channels meet {len(right)}")
        for a, b in zip(left.tolist(), right.tolist()):
            low, high = sorted((self.find(a), self.find(b)))
            self._parents[high] = low

    def merge_all(self, ids: np.ndarray) -> None:
        """All of ``ids`` live and die together."""
        self.merge(ids[1:], ids[:-1])

    def pin(self, ids: np.ndarray, reason: str) -> None:
        self._pins.extend((index, reason) for index in ids.tolist())

    def pinned(self) -> dict[int, str]:
        """Reason by root id, for every root that must never be removed."""
        reasons: dict[int, str] = {}
        for index, reason in self._pins:
            reasons.setdefault(self.find(index), reason)
        reasons.setdefault(self.find(IMAGE), "it meets the input image")
        return reasons

    def register(self, tensor: Any, axis: int, ids: np.ndarray) -> None:
        """Slice ``axis`` of a parameter or buffer together with ``ids``."""
        if isinstance(tensor, Tensor):
            if self.name_of(tensor) is None:
                raise NotUnderstood("a weight is computed from others")
            self.merge(self.parameter_layout(tensor, axis).ids, ids)


Rule = Callable[[Propagation, Call], Iterable["Layout | None"]]
RULES: dict[str, Rule] = {}
IN_PLACE_WRITES = frozenset({"__setitem__"})


def rule(*names: str) -> Callable[[Rule], Rule]:
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
