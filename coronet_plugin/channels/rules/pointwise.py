"""Functions that treat every channel alike: elementwise, spatial, reductions over positions."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from coronet_plugin.channels.facts import Call, Layout, Mixes, NotUnderstood
from coronet_plugin.channels.propagation import Propagation
from coronet_plugin.channels.rules.registry import dimensions, rule, tracked


@rule("relu relu6 sigmoid softplus exp abs square hardsigmoid")
def nonnegative(state: Propagation, call: Call) -> list[Layout]:
    state.set_nonnegative(call.out)
    return [tracked(state, call.argument(0, "input"))]


@rule(
    "__neg__ leaky_relu tanh gelu silu mish elu selu celu hardtanh "
    "hardswish logsigmoid softsign tanhshrink hardshrink softshrink rrelu threshold "
    "sin cos expm1 log log1p sqrt rsqrt neg reciprocal clamp clip sign floor round erf "
    "__invert__ data requires_grad dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout "
    "feature_alpha_dropout zeros_like ones_like rand_like randn_like empty_like full_like nan_to_num "
    "isnan isinf"
)
def unary(state: Propagation, call: Call) -> list[Layout]:
    return [tracked(state, call.argument(0, "input"))]


@rule("detach clone contiguous to float double half bfloat16 type type_as cpu cuda", moves=True)
def same(state: Propagation, call: Call) -> list[Layout]:
    return [tracked(state, call.argument(0, "input"))]


@rule(
    "add sub mul div __rsub__ rsub __radd__ __rmul__ __rdiv__ __rtruediv__ true_divide subtract multiply "
    "divide pow __rpow__ maximum minimum where lerp addcmul addcdiv gt lt ge le eq ne fmod masked_fill "
    "remainder max_unpool2d floor_divide __floordiv__ __and__ __or__ logical_and logical_or"
)
def elementwise(state: Propagation, call: Call) -> list[Layout | None]:
    operands = call.tensors()
    if _scaled_parameter(state, call, operands):
        return [None]
    activations = [t for t in operands if state.is_activation(t)]
    layouts = [(t, state.layout(t)) for t in activations or operands]
    from_right = {t.ndim - layout.axis for t, layout in layouts if layout is not None}
    if len(from_right) != 1:
        raise NotUnderstood(f"{call.name} combines channels on different axes")
    right = from_right.pop()
    axis = call.out.ndim - right
    width = call.out.shape[axis]
    ids: np.ndarray | None = None
    unknown = False
    for tensor in operands:
        size = tensor.shape[-right] if tensor.ndim >= right else 1
        if size != width:  # broadcast over the channels
            if state.is_activation(tensor):
                state.pin(tracked(state, tensor).ids, "it is broadcast over channels")
            continue
        layout = _operand(state, tensor, right)
        if layout is None:
            unknown = unknown or size > 1
            continue
        if ids is None:
            ids = layout.ids
        else:
            state.merge(ids, layout.ids)
    if ids is None:
        raise NotUnderstood(f"{call.name} with a tensor whose channels are not known")
    if unknown:
        state.doubt(ids, f"{call.name} with a tensor whose channels are not known")
    return [Layout(ids, axis)]


def _scaled_parameter(state: Propagation, call: Call, operands: list[Tensor]) -> bool:
    """A weight times a number, as for an equalised learning rate, remains that weight."""
    large = [t for t in operands if t.numel() > 1]
    if len(large) != 1 or large[0].ndim < 2 or any(state.name_of(t) is None for t in operands):
        return False
    if call.out is not large[0]:
        state.rename(call.out, large[0])
    return True


def _operand(state: Propagation, tensor: Tensor, right: int) -> Layout | None:
    if state.name_of(tensor) is not None and tensor.ndim >= right:
        return state.parameter_layout(tensor, tensor.ndim - right)
    return state.layout(tensor)


@rule("new_ones new_zeros new_full new_empty new_tensor")
def constant(state: Propagation, call: Call) -> list[Layout | None]:
    """A new tensor that has nothing of the old but its type."""
    return [None]


# -- spatial -------------------------------------------------------------
@rule(
    "interpolate upsample avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d "
    "max_pool2d_with_indices "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "lp_pool2d grid_sample"
)
def spatial(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    for other in call.tensors():  # the grid of grid_sample: its two coordinates stay
        if other is not x and state.is_activation(other):
            state.pin(tracked(state, other).ids, f"{call.name} reads it as coordinates")
    layout = tracked(state, x)
    if layout.axis > 1:
        raise NotUnderstood(f"{call.name} works along the channels")
    return [layout] * (len(call.out) if isinstance(call.out, tuple) else 1)


@rule("pad constant_pad_nd reflection_pad2d replication_pad2d")
def pad(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    sides = list(call.argument(1, "pad"))
    along_channels = 2 * (x.ndim - 1 - layout.axis)  # where the channel axis' two entries would lie
    if any(sides[along_channels : along_channels + 2]):
        raise NotUnderstood("padding adds channels")
    return [layout]


@rule("flip roll")
def moved(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    dims = call.argument(2, "dims") if call.name == "roll" else call.argument(1, "dims")
    if dims is None or layout.axis in dimensions(dims, x.ndim):
        raise NotUnderstood(f"{call.name} reorders the channels")
    return [layout]


# -- reductions and what normalises along an axis -----------------------------
@rule("mean sum amax amin var std norm linalg_vector_norm logsumexp var_mean std_mean max min median prod")
def reduction(state: Propagation, call: Call) -> list[Layout | None]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    position = 2 if call.name in ("norm", "linalg_vector_norm") else 1
    dims = call.kwargs.get("dim", call.argument(position, "dim"))
    if isinstance(dims, Tensor):  # the elementwise form of max and min
        return elementwise(state, call)
    if dims is None or isinstance(dims, (bool, str)) or layout.axis in dimensions(dims, x.ndim):
        if call.name == "sum" or (call.name in ("max", "amax") and state.is_nonnegative(x)):
            state.needs_zeros(layout.ids)  # which add nothing, and are never the only largest
            return [None] * (len(call.out) if isinstance(call.out, tuple) else 1)
        raise Mixes(f"{call.name} mixes all channels")
    first = call.out[0] if isinstance(call.out, tuple) else call.out
    gone = 0 if first.ndim == x.ndim else sum(d < layout.axis for d in dimensions(dims, x.ndim))
    found = Layout(layout.ids, layout.axis - gone)
    return [found] * (len(call.out) if isinstance(call.out, tuple) else 1)


@rule("softmax log_softmax softmin gumbel_softmax normalize cumsum cumprod")
def softmax(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    dim = call.kwargs.get("dim", call.argument(2 if call.name == "normalize" else 1, "dim"))
    if call.name == "normalize" and dim is None:
        dim = 1
    if dim is None or layout.axis in dimensions(dim, x.ndim):
        raise Mixes(f"{call.name} over channels mixes them")
    return [layout]
