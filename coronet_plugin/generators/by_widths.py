"""Upstream's generators by the width of every layer, as slim ones have them.

Files that rebuild a generator with torch alone (:mod:`coronet_plugin.standalone`) hold copies of these
classes, so they use nothing but torch and each other (torch from 1.8, Python from 3.9). State_dict keys are
upstream's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class ResnetGenerator(nn.Module):
    """Halvings, residual blocks, doublings: (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1].

    ``stem``: width after the first convolution; ``down`` and ``up``: after each halving and
    doubling, the last of ``down`` being what all blocks add to; ``blocks``: inside each ``block``.
    ``shrink`` and ``grow``: layers of a width that halve and double beside convolutions of stride 1, in
    place of convolutions of stride 2.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        stem: int,
        down: tuple[int, ...],
        blocks: tuple[int, ...],
        up: tuple[int, ...],
        norm: Callable[[int], nn.Module],
        dropout: bool,
        block: Callable[..., nn.Module],
        shrink: Callable[[int], nn.Module] | None = None,
        grow: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, stem, 7, bias=bias), norm(stem), nn.ReLU(True)]
        width = stem
        for wider in down:
            halve = nn.Conv2d(width, wider, 3, stride=1 if shrink else 2, padding=1, bias=bias)
            layers += [halve, norm(wider), nn.ReLU(True), *([shrink(wider)] if shrink else [])]
            width = wider
        layers += [block(width, inside, norm, dropout) for inside in blocks]
        for narrower in up:
            if grow:
                layers += [grow(width), nn.Conv2d(width, narrower, 3, padding=1, bias=bias)]
            else:
                layers += [nn.ConvTranspose2d(width, narrower, 3, 2, padding=1, output_padding=1, bias=bias)]
            layers += [norm(narrower), nn.ReLU(True)]
            width = narrower
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class ResnetBlock(nn.Module):
    """``x`` plus two 3x3 convolutions of it, ``inside`` channels between them; the shape stays."""

    def __init__(self, width: int, inside: int, norm: Callable[[int], nn.Module], dropout: bool) -> None:
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        first = [nn.ReflectionPad2d(1), nn.Conv2d(width, inside, 3, bias=bias), norm(inside), nn.ReLU(True)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(inside, width, 3, bias=bias), norm(width)]
        between = [nn.Dropout(0.5)] if dropout else []  # it moves the keys of what follows by one
        self.conv_block = nn.Sequential(*first, *between, *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class MobileResnetBlock(nn.Module):
    """``x`` plus two separable 3x3 convolutions of it, ``inside`` channels between; the shape stays."""

    def __init__(self, width: int, inside: int, norm: Callable[[int], nn.Module], dropout: bool) -> None:
        super().__init__()
        first = [nn.ReflectionPad2d(1), SeparableConv2d(width, inside, norm), norm(inside), nn.ReLU(True)]
        second = [nn.ReflectionPad2d(1), SeparableConv2d(inside, width, norm), norm(width)]
        between = nn.Dropout(0.5) if dropout else nn.Identity()  # the keys of what follows count it always
        self.conv_block = nn.Sequential(*first, between, *second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class SeparableConv2d(nn.Module):
    """A 3x3 convolution of each channel alone, a norm, and a 1x1 convolution.

    (N, ``narrow``, H, W) to (N, ``wide``, H - 2, W - 2).
    """

    def __init__(self, narrow: int, wide: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        each = nn.Conv2d(narrow, narrow, 3, groups=narrow, bias=bias)
        self.conv = nn.Sequential(each, norm(narrow), nn.Conv2d(narrow, wide, 1, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class UnetGenerator(nn.Module):
    """Halvings and doublings with a skip at every level: (N, input_nc, H, W) to (N, output_nc, H, W).

    ``down``: width after each halving, outermost level first. ``up``: width that comes back up to
    each level, where it is joined to that level's ``down``. ``dropout``: levels that have it, of
    0 (outermost) to the number of halvings.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        down: tuple[int, ...],
        up: tuple[int, ...],
        norm: Callable[[int], nn.Module],
        dropout: tuple[int, ...],
    ) -> None:
        super().__init__()
        above, back = (input_nc, *down), (output_nc, *up)  # what each level takes and gives
        last = len(down) - 1
        level = UnetLevel(above[last], down[last], back[last], norm, None, joined=down[last])
        for i in range(last - 1, -1, -1):
            level = UnetLevel(
                above[i], down[i], back[i], norm, level, down[i] + up[i], i in dropout, outermost=i == 0
            )
        self.model = level

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class UnetLevel(nn.Module):
    """Halve ``above`` channels, run the level ``below``, double; all but the outermost append it to ``x``.

    ``inside``: width after halving, ``joined``: what the doubling reads, ``back``: what it gives.
    """

    def __init__(
        self,
        above: int,
        inside: int,
        back: int,
        norm: Callable[[int], nn.Module],
        below: UnetLevel | None,
        joined: int,
        dropout: bool = False,
        outermost: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        bias = norm is nn.InstanceNorm2d
        halve = nn.Conv2d(above, inside, 4, stride=2, padding=1, bias=bias)
        double = nn.ConvTranspose2d(joined, back, 4, stride=2, padding=1, bias=bias or outermost)
        if outermost:
            layers: list[Any] = [halve, below, nn.ReLU(True), double, nn.Tanh()]
        elif below is None:
            layers = [nn.LeakyReLU(0.2, True), halve, nn.ReLU(True), double, norm(back)]
        else:
            layers = [nn.LeakyReLU(0.2, True), halve, norm(inside), below]
            layers += [nn.ReLU(True), double, norm(back), *([nn.Dropout(0.5)] if dropout else [])]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(x)  # its first layer activates x in place: the skip carries that, as in training
        return y if self.outermost else torch.cat([x, y], 1)
