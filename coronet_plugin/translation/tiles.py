"""Pictures in overlapping tiles, whose outputs fade into each other.

Every pixel of a picture belongs to one or more tiles by weights that sum to 1 (:func:`grid`). By them outputs
are blended, and by them the statistics of a whole picture are gathered from its tiles
(:mod:`~coronet_plugin.translation.statistics`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coronet_plugin.pictures.padding import padded_side


@dataclass(frozen=True)
class Tile:
    """A part of a picture: where it begins, its (H, W) and its ``weights``, a tensor of that shape."""

    top: int
    left: int
    size: tuple[int, int]
    weights: Tensor

    def of(self, images: Tensor) -> Tensor:
        """The part of (..., H, W)."""
        height, width = self.size
        return images[..., self.top : self.top + height, self.left : self.left + width]


def grid(picture: tuple[int, int], tile: tuple[int, int], overlap: int, multiple: int = 1) -> list[Tile]:
    """Tiles over a ``picture`` of (H, W), at least ``overlap`` pixels of each shared with the next.

    The overlap is smaller than a tile, and a tile is no larger than the picture. They begin at multiples of
    ``multiple``, as far as they are larger than that and the picture is of such, so that a generator
    of strides sees the same grid of pixels as in the whole picture.
    """
    axes = [_axis(side, length, overlap, multiple) for side, length in zip(picture, tile)]
    rows, columns = axes
    return [
        Tile(top, left, tile, torch.outer(vertical, horizontal))
        for top, vertical in rows
        for left, horizontal in columns
    ]


def blended(run: Callable[[Tile], Tensor], tiles: Sequence[Tile], picture: tuple[int, int]) -> Tensor:
    """The output (1, C, H, W) for a ``picture`` of (H, W), of what ``run`` gives of each tile.

    A generator may enlarge: then weights and places are enlarged alike.
    """
    whole: Tensor | None = None
    for tile in tiles:
        output = run(tile)
        scale = output.shape[-1] // tile.size[1]
        weights = tile.weights
        if scale != 1:
            weights = weights.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        if whole is None:
            whole = torch.zeros(1, output.shape[1], *(side * scale for side in picture))
        top, left = tile.top * scale, tile.left * scale
        whole[..., top : top + output.shape[-2], left : left + output.shape[-1]] += output * weights
    assert whole is not None
    return whole


def usual_overlap(tile: tuple[int, int], multiple: int) -> int:
    """A quarter of a tile, in multiples if they are small enough."""
    quarter = min(tile) // 4
    return min(padded_side(quarter, multiple), min(tile) // 2)


def _axis(side: int, length: int, overlap: int, multiple: int) -> list[tuple[int, Tensor]]:
    """Where tiles of ``length`` begin along a ``side``, each with its weights."""
    if length == side:
        return [(0, torch.ones(side))]
    assert 0 <= overlap < length <= side
    step = length - overlap
    step = step // multiple * multiple or step
    starts = [*range(0, side - length, step), side - length]
    ramps = [_ramp(length, overlap, first=start == 0, last=start == side - length) for start in starts]
    total = torch.zeros(side)
    for start, ramp in zip(starts, ramps):
        total[start : start + length] += ramp
    return [(start, ramp / total[start : start + length]) for start, ramp in zip(starts, ramps)]


def _ramp(length: int, overlap: int, first: bool, last: bool) -> Tensor:
    """Rises over the overlap with the tile before and falls over that with the next; never zero."""
    rise = (torch.arange(length) + 1) / (overlap + 1)
    ramp = torch.ones(length)
    if not first:
        ramp = torch.minimum(ramp, rise)
    if not last:
        ramp = torch.minimum(ramp, rise.flip(0))
    return ramp
