"""Layers that edge runtimes handle badly, written with operations they handle well; parameters stay.

Pieces, each on its own: a transposed convolution with output padding becomes one without padding and a
crop, or an ordinary one and a pixel shuffle; a convolution of few outputs one of many; instance norm becomes
elementary arithmetic, reflection padding slices and a concatenation. They are equalities, and
:func:`rewritten` proves them in float64 on the way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from coronet_plugin.channels.cut import copy_with
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.errors import ExportError, OptionError
from coronet_plugin.export.normalisation import replace_modules_

TOLERANCE = 5e-6
"""Largest difference allowed, as a part of the output's range or tanh's. In float64 it is some 1e-13."""


class CroppedConvTranspose2d(nn.Module):
    """A transposed convolution that computes its border and cuts it off, instead of ``output_padding``.

    With padding ``p`` and output padding ``o``, which is at most ``p``, the result is rows and columns ``p``
    to ``o - p`` of the one without either.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.border = [(p, o) for _, _, p, o in _axes(layer)]
        layer.padding, layer.output_padding = (0, 0), (0, 0)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (slice(p, o - p if o < p else None) for p, o in self.border)
        return self.layer(x)[:, :, rows, columns]


class SubpixelConvTranspose2d(nn.Module):
    """A transposed convolution as an ordinary one and a pixel shuffle (Shi et al. 2016).

    Output row ``s m + r`` of stride ``s`` reads a few input rows around ``m``, with the same kernel rows for
    the same ``r``: every ``r`` is a convolution of its own, and all are one with ``s * s`` times the
    channels. Kernel places that some ``r`` has no weight for are zero. With ``crop`` the rows are counted
    from the border that padding cuts off, which takes the smallest kernel, but a cut at the end.
    """

    def __init__(self, layer: nn.ConvTranspose2d, crop: bool) -> None:
        super().__init__()
        self.stride, self.crop = int(layer.stride[0]), crop
        taps = [_taps(*axis, crop) for axis in _axes(layer)]
        (top, height), (left, width) = (_window(axis) for axis in taps)
        self.start = [int(p) if crop else 0 for p in layer.padding]
        self.longer = [k - 2 * p + o - s for k, s, p, o in _axes(layer)]
        ends = [(top, height, self.longer[0]), (left, width, self.longer[1])]
        (above, below), (before, after) = (
            (-first, length - 1 if crop else first + length - 1 + more // self.stride)
            for first, length, more in ends
        )
        self.padding = [before, after, above, below]
        weight = _shuffled(layer.weight.detach(), taps, (top, left), (height, width))
        self.convolution = nn.Conv2d(
            layer.in_channels, weight.shape[0], (height, width), bias=layer.bias is not None
        ).to(weight)
        self.convolution.weight.data = weight
        if layer.bias is not None and self.convolution.bias is not None:
            self.convolution.bias.data = layer.bias.detach().repeat_interleave(self.stride**2)
        if before == after >= 0 and above == below >= 0:
            self.convolution.padding, self.padding = (above, before), []

    def forward(self, x: Tensor) -> Tensor:
        height, width = (side * self.stride + more for side, more in zip(x.shape[2:], self.longer))
        if self.padding:
            x = nn.functional.pad(x, self.padding)
        y = nn.functional.pixel_shuffle(self.convolution(x), self.stride)
        top, left = self.start
        return y[:, :, top : top + height, left : left + width] if self.crop else y


def _paddings(layer: nn.Conv2d) -> tuple[int, int]:
    paddings: Any = layer.padding
    return int(paddings[0]), int(paddings[1])


def _axes(layer: nn.ConvTranspose2d) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, padding, output padding) of rows and columns."""
    pairs: list[Any] = [layer.kernel_size, layer.stride, layer.padding, layer.output_padding]
    return [(int(k), int(s), int(p), int(o)) for k, s, p, o in zip(*pairs)]


def _taps(kernel: int, stride: int, padding: int, _: int, crop: bool) -> list[dict[int, int]]:
    """For every remainder of an output row: its kernel rows by the input rows they read, from its own on."""
    phases = [divmod(r + (0 if crop else padding), stride) for r in range(stride)]
    return [
        {own - t: phase + stride * t for t in range(-(-(kernel - phase) // stride))} for own, phase in phases
    ]


def _window(taps: list[dict[int, int]]) -> tuple[int, int]:
    """First input row read, and how many rows."""
    rows = [row for each in taps for row in each]
    return min(rows), max(rows) - min(rows) + 1


def _shuffled(
    weight: Tensor, taps: list[list[dict[int, int]]], first: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """The weight (in, out, H, W) of a transposed convolution as that of the one before the shuffle."""
    (rows, columns), stride = taps, len(taps[0])
    incoming, outgoing = weight.shape[:2]
    new = weight.new_zeros(outgoing, stride, stride, incoming, *size)
    for i, j in itertools.product(range(stride), repeat=2):
        for (y, ky), (x, kx) in itertools.product(rows[i].items(), columns[j].items()):
            new[:, i, j, :, y - first[0], x - first[1]] = weight[:, :, ky, kx].T
    return new.reshape(outgoing * stride**2, incoming, *size)


class BlockedConv2d(nn.Module):
    """A convolution of few outputs as one of ``block * block`` times as many, and a pixel shuffle.

    All outputs of a square of ``block`` pixels are outputs of one place, whose kernel is larger by ``block -
    1`` and holds the same weights once for each pixel, moved. Runtimes calculate eight or sixteen outputs at
    once and gather the inputs for every place: three outputs cost them as much as sixteen, at ``block *
    block`` times as many places. Sizes are fixed by it.
    """

    def __init__(self, layer: nn.Conv2d, block: int) -> None:
        super().__init__()
        self.block = block
        outputs, inputs, height, width = layer.weight.shape
        bias = layer.bias is not None
        size = (height + block - 1, width + block - 1)
        self.convolution = nn.Conv2d(inputs, outputs * block**2, size, stride=block, bias=bias).to(
            layer.weight
        )
        self.convolution.padding = layer.padding
        self.longer = [2 * p - k + 1 for p, k in zip(_paddings(layer), (height, width))]
        weight = layer.weight.new_zeros(outputs, block, block, inputs, *size)
        for i, j in itertools.product(range(block), repeat=2):
            weight[:, i, j, :, i : i + height, j : j + width] = layer.weight.detach()
        self.convolution.weight.data = weight.reshape(outputs * block**2, inputs, *size)
        if layer.bias is not None and self.convolution.bias is not None:
            self.convolution.bias.data = layer.bias.detach().repeat_interleave(block**2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (int(side) + more for side, more in zip(x.shape[2:], self.longer))
        below, right = -height % self.block, -width % self.block
        if not below and not right:
            return nn.functional.pixel_shuffle(self.convolution(x), self.block)
        x = nn.functional.pad(x, [0, right, 0, below])
        return nn.functional.pixel_shuffle(self.convolution(x), self.block)[:, :, :height, :width]


class ElementaryInstanceNorm2d(nn.Module):
    """Instance norm of (N, C, H, W) by mean, difference, product and reciprocal root."""

    def __init__(self, layer: _InstanceNorm) -> None:
        super().__init__()
        self.eps = layer.eps
        self.scale = None if layer.weight is None else nn.Parameter(layer.weight.detach()[:, None, None])
        self.shift = None if layer.bias is None else nn.Parameter(layer.bias.detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        variance = (centred * centred).mean((2, 3), keepdim=True)
        y = centred * torch.rsqrt(variance + self.eps)
        return y if self.scale is None else y * self.scale + self.shift


class SlicedReflectionPad2d(nn.Module):
    """Reflection padding by slices of one row or column each, put together."""

    def __init__(self, layer: nn.ReflectionPad2d) -> None:
        super().__init__()
        self.left, self.right, self.top, self.bottom = (int(width) for width in layer.padding)

    def forward(self, x: Tensor) -> Tensor:
        columns = [x[:, :, :, i : i + 1] for i in range(self.left, 0, -1)]
        columns += [x, *(x[:, :, :, -i - 1 : -i] for i in range(1, self.right + 1))]
        x = torch.cat(columns, 3)
        rows = [x[:, :, i : i + 1] for i in range(self.top, 0, -1)]
        rows += [x, *(x[:, :, -i - 1 : -i] for i in range(1, self.bottom + 1))]
        return torch.cat(rows, 2)


def _transposed_convolution(layer: nn.ConvTranspose2d) -> nn.Module:
    paddings = [(p, o) for _, _, p, o in _axes(layer)]
    croppable = any(o for _, o in paddings) and all(o <= p for p, o in paddings)
    return CroppedConvTranspose2d(layer) if croppable else layer


def _subpixel_convolution(layer: nn.ConvTranspose2d) -> nn.Module:
    axes = _axes(layer)
    (_, stride, _, _), (_, across, _, _) = axes
    plain = layer.groups == 1 and layer.dilation == (1, 1) and stride == across > 1
    if not plain or any(kernel < stride for kernel, *_ in axes):
        return layer
    longer = [k - 2 * p + o - s for k, s, p, o in axes]
    windows = {crop: [_window(_taps(*axis, crop))[1] for axis in axes] for crop in (False, True)}
    possible = {
        False: all(more % stride == 0 for more in longer),
        True: all(p + more <= stride * (w - 1) for (_, _, p, _), more, w in zip(axes, longer, windows[True])),
    }
    choices = [crop for crop in (False, True) if possible[crop]]
    best = min(choices, key=lambda crop: math.prod(windows[crop]), default=None)
    return layer if best is None else SubpixelConvTranspose2d(layer, best)


def _blocked_convolution(layer: nn.Conv2d) -> nn.Module:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.stride == (1, 1)
    plain = plain and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    large = min(layer.kernel_size) >= BLOCKED_KERNEL and layer.out_channels <= FEW_OUTPUTS
    return BlockedConv2d(layer, BLOCK) if plain and large else layer


def _instance_norm(layer: _InstanceNorm) -> nn.Module:
    return layer if layer.running_mean is not None else ElementaryInstanceNorm2d(layer)


BLOCK, FEW_OUTPUTS, BLOCKED_KERNEL = 4, 4, 7
"""Pixels a side, the most outputs and the smallest kernel for which :class:`BlockedConv2d` pays: there the
multiply-adds get twice as many and the places a sixteenth; 3x3 kernels would take four times as many."""
PIECES: dict[str, tuple[type, Callable[..., nn.Module]]] = {
    "blocked_convolution": (nn.Conv2d, _blocked_convolution),
    "subpixel_convolution": (nn.ConvTranspose2d, _subpixel_convolution),
    "transposed_convolution": (nn.ConvTranspose2d, _transposed_convolution),
    "instance_norm": (_InstanceNorm, _instance_norm),
    "reflection_pad": (nn.ReflectionPad2d, SlicedReflectionPad2d),
}
"""By name: the type of layer, and what makes a replacement of it."""


def rewritten(generator: nn.Module, pieces: Iterable[str], example: Tensor | tuple[Tensor, ...]) -> nn.Module:
    """A copy of ``generator`` with ``pieces`` applied, proven equal on ``example``, one input or all.

    Raises:
        OptionError: there is no such piece.
        ExportError: the copy does not compute the same.
    """
    new = copy_with(generator)
    for piece in pieces:
        if piece not in PIECES:
            raise OptionError(f"rewrite {piece!r} is not known; choose from {', '.join(PIECES)}")
        new = replace_modules_(new, *PIECES[piece])
    prove_equal(generator, new, example)
    return new


@torch.no_grad()
def prove_equal(first: nn.Module, second: nn.Module, example: Tensor | tuple[Tensor, ...]) -> float:
    """The largest difference of two generators' outputs in float64, where they do not go beyond 1.

    Raises:
        ExportError: it is more than :data:`TOLERANCE` of tanh's range, or of that of larger outputs.
    """
    inputs = [x.double() if x.is_floating_point() else x for x in tensors_in(example)]
    outputs = [[*tensors_in(copy_with(net).double()(*inputs))] for net in (first, second)]
    worst = 0.0
    for one, other in zip(*outputs):
        if one.shape != other.shape:
            raise ExportError(f"the edge rewrite changed the shape {tuple(one.shape)}; please report it")
        difference = float((one - other).abs().max() / one.abs().max().clamp(min=1))
        if not difference <= 2 * TOLERANCE:
            raise ExportError(f"the edge rewrite changed the output by {difference:.1e}; please report it")
        worst = max(worst, difference)
    return worst
