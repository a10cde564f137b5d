"""Pictures of any size through a generator that takes multiples of something: mirrored out, and cut back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def padded_side(side: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``side``; ``side`` itself for 0 and 1."""
    return -(-side // multiple) * multiple if multiple > 1 else side


def pad(images: Tensor, multiple: int) -> Tensor:
    """(N, C, H, W) with both sides brought to multiples, by mirroring at all borders alike.

    As often as it takes: a picture may be smaller than what is added. What fits is returned as it is.
    """
    height, width = images.shape[-2:]
    return pad_to(images, padded_side(height, multiple), padded_side(width, multiple))


def pad_to(images: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) brought to ``height`` x ``width`` pixels, which are no fewer, as by :func:`pad`."""
    for axis, wanted in ((-2, height), (-1, width)):
        side = images.shape[axis]
        if wanted != side:
            places = _mirrored(side, wanted).to(images.device)
            images = images.index_select(axis, places)
    return images


def cut(images: Tensor, height: int, width: int) -> Tensor:
    """The middle of ``height`` x ``width`` pixels of (N, C, H, W), which :func:`pad` put there."""
    top, left = ((have - want) // 2 for have, want in zip(images.shape[-2:], (height, width)))
    return images[..., top : top + height, left : left + width]


def pad_inputs_(network: nn.Module, multiple: int) -> None:
    """From now on ``network`` pads its first input (N, C, H, W) and cuts its output back, in place.

    An output of another size than the padded input is left as it is.
    """
    forward = network.forward

    def padding(images: Tensor, *rest: Any, **named: Any) -> Any:
        padded = pad(images, multiple)
        output = forward(padded, *rest, **named)
        same = isinstance(output, Tensor) and output.shape[-2:] == padded.shape[-2:]
        return cut(output, *images.shape[-2:]) if same else output

    network.forward = padding  # type: ignore[method-assign]


def _mirrored(side: int, wanted: int) -> Tensor:
    """Places 0 to ``side`` - 1 in the middle of ``wanted``, going back and forth; borders are not doubled."""
    places = torch.arange(wanted) - (wanted - side) // 2
    period = max(1, 2 * (side - 1))
    places = places.remainder(period)
    return torch.minimum(places, (period - places) if side > 1 else torch.zeros_like(places))
