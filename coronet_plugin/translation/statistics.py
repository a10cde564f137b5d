"""Instance norms that know the whole picture while they see a tile of it.

A norm subtracts the mean of what it is given and divides by its deviation. Of a tile both are others than of
the whole picture, so that tiles of one sky would come out in different blues. Here they are gathered from all
tiles: a first pass runs each tile as far as the first norm, a second one as far as the second, and so on, for
what a norm is given depends on all before it. The last pass makes the picture. With n norms that takes about
n / 2 times as long, in the memory of one tile; the result is that of the whole picture, up to what tiles lack
beyond their borders.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coronet_plugin.channels.cut import copy_with
from coronet_plugin.export.normalisation import replace_modules_
from coronet_plugin.translation.tiles import Tile, blended


class WholePicture:
    """A copy of ``generator`` that translates pictures in tiles, with the statistics of the whole."""

    def __init__(self, generator: nn.Module) -> None:
        def knowing(norm: nn.Module) -> nn.Module:
            return _Norm(norm, self) if norm.running_mean is None else norm

        self._network = replace_modules_(copy_with(generator), nn.InstanceNorm2d, knowing)
        self._network.train(generator.training)
        self._known: list[Moments] = []
        self._gathered: Moments | None = None
        self._call = 0
        self._weights = torch.ones(1, 1)

    @torch.no_grad()
    def translate(self, picture: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """The output of (1, C, H, W) ``picture``, on the CPU."""
        self._known = []
        while self._learn_next_norm(picture, tiles):
            pass
        size = (picture.shape[-2], picture.shape[-1])
        return blended(lambda tile: self._run(picture, tile).float().cpu(), tiles, size)

    def _learn_next_norm(self, picture: Tensor, tiles: Sequence[Tile]) -> bool:
        """Gather the statistics of the first norm that does not know them; False if all do."""
        self._gathered = None
        for tile in tiles:
            try:
                self._run(picture, tile)
            except _FarEnoughError:
                continue
            return False
        assert self._gathered is not None
        self._known.append(self._gathered)
        return True

    def _run(self, picture: Tensor, tile: Tile) -> Tensor:
        device = next(self._network.parameters()).device
        self._call, self._weights = 0, tile.weights.to(device)
        output: Tensor = self._network(tile.of(picture).to(device))
        return output

    def normalise(self, x: Tensor, norm: nn.InstanceNorm2d) -> Tensor:
        """Normalise the features (1, C, H, W) of a tile by ``norm``, if it knows the whole picture's."""
        if self._call == len(self._known):
            size = (x.shape[-2], x.shape[-1])
            here = Moments.of(x, F.adaptive_avg_pool2d(self._weights[None, None], size)[0, 0])
            self._gathered = here if self._gathered is None else self._gathered + here
            raise _FarEnoughError
        used = self._known[self._call]
        self._call += 1
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


class _FarEnoughError(Exception):
    """A tile has come to a norm whose statistics are being gathered."""
