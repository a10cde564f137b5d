"""Instance norms that know the whole picture while they see a tile of it.

A norm subtracts the mean of what it is given and divides by its deviation. Of a tile both are others than of
the whole picture, so that tiles of one sky would come out in different blues. Here they are gathered from all
tiles, for every norm at once, and used in the next pass over them. What a norm is given depends on the norms
before it: after n passes the first n norms have what the whole picture gives them, up to what tiles lack
beyond their borders. Passes end when nothing changes that could be seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coronet_plugin.channels.cut import copy_with
from coronet_plugin.export.normalisation import replace_modules_
from coronet_plugin.translation.tiles import Tile, blended

TOLERANCE = 0.01
"""Passes end when no mean moves, and no deviation changes, by more than this part of the deviation."""


class WholePicture:
    """A copy of ``generator`` that translates pictures in tiles, with the statistics of the whole.

    ``passes``: how many the last picture took.
    """

    def __init__(self, generator: nn.Module) -> None:
        def known(norm: nn.Module) -> nn.Module:
            return _Norm(norm, self) if norm.running_mean is None else norm

        self._network = replace_modules_(copy_with(generator), nn.InstanceNorm2d, known)
        self._network.train(generator.training)
        self._known: list[Moments] = []
        self._gathered: list[Moments] = []
        self._call = 0
        self._weights = torch.ones(1, 1)
        self.passes = 0

    @torch.no_grad()
    def translate(self, picture: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """The output of (1, C, H, W) ``picture``, on the CPU."""
        device = next(self._network.parameters()).device

        def run(tile: Tile) -> Tensor:
            self._call, self._weights = 0, tile.weights.to(device)
            return self._network(tile.of(picture).to(device)).float().cpu()  # type: ignore[no-any-return]

        self._known, self.passes = [], 0
        while True:
            self._gathered = []
            output = blended(run, tiles, (picture.shape[-2], picture.shape[-1]))
            self.passes += 1
            before, self._known = self._known, self._gathered
            if _change(before, self._known) <= TOLERANCE or self.passes > len(self._known):
                return output

    def normalise(self, x: Tensor, norm: nn.InstanceNorm2d) -> Tensor:
        """What ``norm`` makes of the features (1, C, H, W) of a tile."""
        size = (x.shape[-2], x.shape[-1])
        here = Moments.of(x, F.adaptive_avg_pool2d(self._weights[None, None], size)[0, 0])
        number, self._call = self._call, self._call + 1
        if number == len(self._gathered):
            self._gathered.append(here)
        else:
            self._gathered[number] = self._gathered[number] + here
        used = self._known[number] if self._known else Moments.of(x, torch.ones_like(x[0, 0]))
        y = (x - used.mean[:, None, None]) / (used.variance[:, None, None] + norm.eps).sqrt()
        if norm.affine:
            y = y * norm.weight[:, None, None] + norm.bias[:, None, None]
        return y.to(x.dtype)


class Moments:
    """Mean and sum of squared differences from it, by channel, of features of some ``weight`` in all."""

    def __init__(self, weight: Tensor, mean: Tensor, squares: Tensor) -> None:
        self.weight, self.mean, self.squares = weight, mean, squares

    @classmethod
    def of(cls, x: Tensor, weights: Tensor) -> Moments:
        """Of (1, C, H, W), each place with its weight."""
        weight = weights.sum()
        mean = (x[0] * weights).sum((1, 2)) / weight
        return cls(weight, mean, ((x[0] - mean[:, None, None]) ** 2 * weights).sum((1, 2)))

    def __add__(self, other: Moments) -> Moments:
        weight, apart = self.weight + other.weight, other.mean - self.mean
        mean = self.mean + apart * (other.weight / weight)
        between = apart**2 * (self.weight * other.weight / weight)
        return Moments(weight, mean, self.squares + other.squares + between)

    @property
    def variance(self) -> Tensor:
        return self.squares / self.weight


class _Norm(nn.Module):
    def __init__(self, norm: nn.Module, owner: WholePicture) -> None:
        super().__init__()
        assert isinstance(norm, nn.InstanceNorm2d)
        self.norm = norm
        self._owner = (owner,)  # a tuple, for modules in attributes become parts

    def forward(self, x: Tensor) -> Tensor:
        return self._owner[0].normalise(x, self.norm)


def _change(before: Sequence[Moments], after: Sequence[Moments]) -> float:
    """The largest change of a mean or deviation, in deviations; infinite at first, 0 without norms."""
    if not after:
        return 0.0
    if not before:
        return float("inf")
    return max(_difference(old, new) for old, new in zip(before, after))


def _difference(old: Moments, new: Moments) -> float:
    deviation = new.variance.sqrt().clamp_min(1e-3)  # channels that are all but constant decide nothing
    mean, spread = (new.mean - old.mean).abs(), (new.variance.sqrt() - old.variance.sqrt()).abs()
    return float((torch.maximum(mean, spread) / deviation).max())
