"""Functions that move channels: joining, taking apart, reshaping, reordering axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coronet_plugin.channels.facts import IMAGE, Call, Layout, NotUnderstood
from coronet_plugin.channels.propagation import Propagation
from coronet_plugin.channels.reading import Width
from coronet_plugin.channels.rules.registry import rule, tracked


# -- joining and taking apart --------------------------------------------
@rule("cat concat concatenate")
def concatenate(state: Propagation, call: Call) -> list[Layout]:
    parts = call.argument(0, "tensors")
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % call.out.ndim
    layouts = [state.layout(part) for part in parts]
    known = [layout for layout in layouts if layout is not None]
    if len({layout.axis for layout in known}) != 1:
        raise NotUnderstood("a concatenation joins channels on different axes")
    axis = known[0].axis
    if dim == axis:
        pieces = [
            layout.ids if layout is not None else np.full(part.shape[axis], IMAGE)
            for part, layout in zip(parts, layouts)
        ]
        return [Layout(np.concatenate(pieces), axis)]
    if len(known) < len(layouts):
        raise NotUnderstood("a concatenation with a tensor whose channels are not known")
    for layout in known[1:]:
        state.merge(known[0].ids, layout.ids)
    return [known[0]]


@rule("stack")
def stack(state: Propagation, call: Call) -> list[Layout]:
    layouts = [tracked(state, part) for part in call.argument(0, "tensors")]
    if len({layout.axis for layout in layouts}) != 1:
        raise NotUnderstood("stack joins channels on different axes")
    for layout in layouts[1:]:
        state.merge(layouts[0].ids, layout.ids)
    dim = call.argument(1, "dim", 0) % call.out.ndim
    return [Layout(layouts[0].ids, layouts[0].axis + (dim <= layouts[0].axis))]


@rule("chunk split tensor_split unsafe_chunk split_with_sizes", moves=True)
def chunks(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input", call.kwargs.get("tensor"))
    layout = tracked(state, x)
    dim = call.argument(2, "dim", 0) % x.ndim
    if dim != layout.axis:
        return [layout for _ in call.out]
    sizes = [piece.shape[dim] for piece in call.out]
    written = call.argument(1, "split_size_or_sections", call.kwargs.get("split_size", 0))
    if len(set(sizes)) == 1:
        pieces = _equal_parts(state, layout.ids, len(sizes))
        if "split" in call.name and isinstance(written, int) and call.name != "tensor_split":
            _follow_size(state, written, pieces[0], layout.ids)
        return [Layout(piece, layout.axis) for piece in pieces]
    if not isinstance(written, (list, tuple)) or len(written) != len(sizes) or call.name == "tensor_split":
        raise NotUnderstood("channels are split into pieces of different size")
    pieces = np.split(layout.ids, np.cumsum(sizes)[:-1])
    for size, piece in zip(written, pieces):
        if not _follow_size(state, size, piece, layout.ids):
            raise NotUnderstood("channels are split into pieces of different size")
    return [Layout(piece, layout.axis) for piece in pieces]


def _follow_size(state: Propagation, size: int, piece: np.ndarray, whole: np.ndarray) -> bool:
    """Whether the written size of ``piece`` of the channels ``whole`` can follow what is left of it."""
    if isinstance(size, Width):
        mine = {state.find(i) for i in whole.tolist()}
        own = all(state.find(i) in mine for i in size.ids.tolist())
        if own and len(whole) % len(piece):
            return False
        other = whole if own else size.ids
        count = max(len(other), len(piece))
        state.merge(np.resize(other, count), np.resize(piece, count))
        return True
    name = state.attribute(size)
    if name:
        state.set_attribute(name, piece)
    return bool(name)


@rule("glu")
def gated(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    if call.argument(1, "dim", -1) % x.ndim != layout.axis:
        return [layout]
    return [Layout(_equal_parts(state, layout.ids, 2)[0], layout.axis)]


def _equal_parts(state: Propagation, ids: np.ndarray, count: int) -> list[np.ndarray]:
    """``ids`` in parts that stay equally long: channel ``i`` of all parts is one unit."""
    parts = np.split(ids, count)
    for part in parts[1:]:
        state.merge(parts[0], part)
    return parts


@rule("unbind", moves=True)
def unbind(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    dim = call.argument(1, "dim", 0) % x.ndim
    if dim == layout.axis:
        raise NotUnderstood("channels are taken one by one")
    return [Layout(layout.ids, layout.axis - (dim < layout.axis)) for _ in call.out]


@rule("select narrow index_select", moves=True)
def pick(state: Propagation, call: Call) -> list[Layout]:
    x = call.argument(0, "input")
    layout = tracked(state, x)
    dim = call.argument(1, "dim") % x.ndim
    if dim == layout.axis:
        raise NotUnderstood("channels are picked by index")
    return [Layout(layout.ids, layout.axis - (call.name == "select" and dim < layout.axis))]


def _are_positions(key: Any) -> bool:
    """Whether ``key`` picks some of an axis, in its place."""
    return isinstance(key, Tensor) and key.ndim == 1 and key.dtype == torch.long


@rule("__getitem__", moves=True)
def index(state: Propagation, call: Call) -> list[Layout]:
    x, key = call.args
    layout = tracked(state, x)
    keys = key if isinstance(key, tuple) else (key,)
    positions = [k for k in keys if _are_positions(k)]
    if len(positions) > 1 or positions and any(isinstance(k, int) for k in keys):
        raise NotUnderstood("advanced indexing")  # axes move
    if not all(isinstance(k, (int, slice)) or k is None or k is Ellipsis or _are_positions(k) for k in keys):
        raise NotUnderstood("advanced indexing")
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
    if at is not None:
        missing = x.ndim - sum(k is not None and k is not Ellipsis for k in keys)
        keys = (*keys[:at], *[slice(None)] * missing, *keys[at + 1 :])
    axis_in = axis_out = 0
    for k in keys:
        if k is None:
            axis_out += 1
            continue
        if axis_in == layout.axis:
            return [Layout(_sliced(state, layout.ids, k), axis_out)]
        axis_in += 1
        axis_out += 0 if isinstance(k, int) else 1
    return [Layout(layout.ids, axis_out + layout.axis - axis_in)]


def _sliced(state: Propagation, ids: np.ndarray, key: Any) -> np.ndarray:
    """Channels from one place to another, if both places can follow what is left."""
    if not isinstance(key, slice) or key.step not in (None, 1):
        raise NotUnderstood("channels are picked by index")
    for place in (key.start, key.stop):
        if place in (None, 0) or place >= len(ids):
            continue
        if place < 0 or not _follow_size(state, place, ids[:place], ids):
            raise NotUnderstood("channels are picked by index")
    return ids[key]


@rule("__setitem__")
def write(state: Propagation, call: Call) -> list[Layout]:
    """Positions are overwritten: what is put there has the same channels."""
    x, key, value = call.args
    (target,) = index(state, Call("__getitem__", (x, key), {}, None))
    if not isinstance(value, Tensor) or value.numel() == 1:
        return []
    source = state.layout(value)
    if source is None:
        state.doubt(target.ids, "values whose channels are not known are written into it")
    elif x[key].ndim - target.axis != value.ndim - source.axis:
        raise NotUnderstood("channels are written along another axis")
    else:
        state.merge(target.ids, source.ids)
    return []


# -- channels into positions and back ---------------------------------------------
@rule("pixel_shuffle")
def pixel_shuffle(state: Propagation, call: Call) -> list[Layout]:
    layout = tracked(state, call.argument(0, "input"))
    blocks = layout.ids.reshape(-1, call.argument(1, "upscale_factor") ** 2)
    for block in blocks:
        state.merge_all(block)
    return [Layout(blocks[:, 0], layout.axis)]


@rule("pixel_unshuffle")
def pixel_unshuffle(state: Propagation, call: Call) -> list[Layout]:
    layout = tracked(state, call.argument(0, "input"))
    return [Layout(np.repeat(layout.ids, call.argument(1, "downscale_factor") ** 2), layout.axis)]


@rule("channel_shuffle native_channel_shuffle")
def channel_shuffle(state: Propagation, call: Call) -> list[Layout]:
    layout = tracked(state, call.argument(0, "input"))
    groups = call.argument(1, "groups")
    first = _equal_parts(state, layout.ids, groups)[0]
    return [Layout(np.repeat(first, groups), layout.axis)]


@rule("view reshape flatten unflatten squeeze unsqueeze view_as reshape_as _unsafe_view", moves=True)
def reshape(state: Propagation, call: Call) -> list[Layout]:
    """Split or fold the channel axis.

    The channels can land on several axes of the result; one of them stays the channel axis,
    and along the others channels become one unit: the axis whose size the code reads from a width or left
    open (``-1``), or for which the module has an attribute; otherwise the longest.
    """
    x, out = call.args[0], call.out
    layout = tracked(state, x)
    candidates = [(axis, share) for axis in range(out.ndim) if (share := _share(x, layout.axis, out, axis))]
    if not candidates or math.prod(part for _, (_, _, part, _, _) in candidates) != len(layout.ids):
        raise NotUnderstood(f"{call.name} mixes channels with another axis")
    sizes = _written_sizes(call)
    sizes = sizes + (0,) * (out.ndim - len(sizes))

    def freedom(axis: int) -> int:
        size = sizes[axis]
        return 3 if isinstance(size, Width) else 2 if size == -1 else bool(state.attribute(size))

    axis, share = max(candidates, key=lambda c: (freedom(c[0]) if c[1][2] > 1 else 0, c[1][2], c[0]))
    above, before, part, below, after = share
    blocks = layout.ids.reshape(before, part, after)
    for unit in range(part):
        state.merge_all(blocks[:, unit].ravel())
    found = Layout(np.tile(np.repeat(blocks[0, :, 0], below), above), axis)
    _tie(state, layout, found, sizes[axis])
    return [found]


def _tie(state: Propagation, before: Layout, after: Layout, size: int) -> None:
    """The size of the channel axis is written as a number: what that is read from has to shrink as well."""
    if isinstance(size, Width):
        mine = {state.find(i) for i in before.ids.tolist()}
        if any(state.find(i) not in mine for i in size.ids.tolist()):
            count = max(len(size.ids), len(after.ids))
            state.merge(np.resize(size.ids, count), np.resize(after.ids, count))
    elif size > 1 and (name := state.attribute(size)):
        state.set_attribute(name, after.ids)


def _share(x: Tensor, axis_in: int, out: Tensor, axis: int) -> tuple[int, int, int, int, int] | None:
    """Which part of the channel axis of ``x`` lands on ``axis`` of ``out``; None for none of it.

    Axis ``axis`` is ``(above, part, below)`` and the channel axis ``(before, part, after)``,
    row-major; returned as ``(above, before, part, below, after)``.
    """
    low = math.prod(x.shape[axis_in + 1 :])
    high = low * x.shape[axis_in]
    bottom = math.prod(out.shape[axis + 1 :])
    top = bottom * out.shape[axis]
    start, end = max(low, bottom), min(high, top)
    if x.shape[axis_in] == 1:  # a single channel: an axis of size one at the same place
        return (1, 1, 1, 1, 1) if low == bottom and top == bottom else None
    if start >= end:
        return None
    if end % start or start % low or start % bottom or high % end or top % end:
        raise NotUnderstood("a reshape mixes channels with another axis")
    return top // end, high // end, end // start, start // bottom, start // low


def _written_sizes(call: Call) -> tuple[int, ...]:
    """The sizes a reshape was called with, ``-1`` where the code left one open."""
    if call.name == "unflatten":
        given: tuple[Any, ...] = (call.argument(2, "sizes"),)
    elif call.name in ("view", "reshape"):
        given = call.args[1:] or (call.kwargs.get("shape", call.kwargs.get("size", ())),)
    else:
        return ()
    sizes = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    if not all(isinstance(size, int) for size in sizes):
        return ()
    at = call.argument(1, "dim", 0) % call.args[0].ndim if call.name == "unflatten" else 0
    return (*call.args[0].shape[:at], *sizes)


# -- order of axes -------------------------------------------------------
@rule("permute transpose swapaxes swapdims movedim moveaxis t adjoint T mT H mH numpy_T", moves=True)
def move_axes(state: Propagation, call: Call) -> list[Layout]:
    x = call.args[0]
    layout = tracked(state, x)
    order = _order(call, x.ndim)
    return [Layout(layout.ids, order.index(layout.axis))]


def _order(call: Call, ndim: int) -> list[int]:
    """Axis ``i`` of the result is axis ``order[i]`` of the argument."""
    order = list(range(ndim))
    if call.name == "permute":
        given = call.kwargs.get("dims", call.args[1:])
        given = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
        return [d % ndim for d in given]
    if call.name in ("movedim", "moveaxis"):
        source, target = ([d % ndim for d in ([v] if isinstance(v, int) else v)] for v in call.args[1:3])
        rest = iter(d for d in order if d not in source)
        return [source[target.index(d)] if d in target else next(rest) for d in order]
    if call.name in ("T", "t", "H"):
        return order[::-1]
    first, second = (ndim - 2, ndim - 1) if call.name in ("mT", "mH", "adjoint") else call.args[1:3]
    order[first], order[second] = order[second], order[first]
    return order


@rule("expand expand_as broadcast_to", moves=True)
def expand(state: Propagation, call: Call) -> list[Layout]:
    x = call.args[0]
    layout = tracked(state, x)
    axis = layout.axis + call.out.ndim - x.ndim
    if call.out.shape[axis] != len(layout.ids):
        raise NotUnderstood("it is broadcast over channels")
    return [Layout(layout.ids, axis)]


@rule("repeat_interleave")
def repeat_each(state: Propagation, call: Call) -> list[Layout]:
    x, times = call.argument(0, "input"), call.argument(1, "repeats")
    layout = tracked(state, x)
    dim = call.argument(2, "dim")
    if dim is None or not isinstance(times, int):
        raise NotUnderstood("repeat_interleave in this form")
    return [Layout(np.repeat(layout.ids, times), layout.axis) if dim % x.ndim == layout.axis else layout]


@rule("repeat tile", moves=True)
def repeat(state: Propagation, call: Call) -> list[Layout]:
    x = call.args[0]
    layout = tracked(state, x)
    axis = layout.axis + call.out.ndim - x.ndim
    return [Layout(np.tile(layout.ids, call.out.shape[axis] // len(layout.ids)), axis)]
