"""The code that exported files are made of.

:mod:`coronet_plugin.standalone.text` copies classes and functions from here as text, so
they use nothing but torch and each other (torch from 1.8, Python from 3.9). The constants
and :func:`build` are a sample, the smallest ResNet; an exported file has its own in their
place. State_dict keys are upstream's.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

INPUT_NC = 3
OUTPUT_NC = 3
SIDES = 4
BIT_DEPTH = 16


class ResnetGenerator(nn.Module):
    """Halvings, residual blocks, doublings: (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1].

    ``stem``: width after the first convolution; ``down`` and ``up``: after each halving and
    doubling, the last of ``down`` being what all blocks add to; ``blocks``: inside each block.
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
    ) -> None:
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, stem, 7, bias=bias), norm(stem), nn.ReLU(True)]
        width = stem
        for wider in down:
            halve = nn.Conv2d(width, wider, 3, stride=2, padding=1, bias=bias)
            layers += [halve, norm(wider), nn.ReLU(True)]
            width = wider
        layers += [ResnetBlock(width, inside, norm, dropout) for inside in blocks]
        for narrower in up:
            double = nn.ConvTranspose2d(width, narrower, 3, stride=2, padding=1, output_padding=1, bias=bias)
            layers += [double, norm(narrower), nn.ReLU(True)]
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


def build() -> nn.Module:
    """The generator with random weights; :func:`load` gives it the trained ones."""
    return ResnetGenerator(INPUT_NC, OUTPUT_NC, 1, (1, 1), (1,), (1, 1), nn.InstanceNorm2d, False)


def load(path: str | Path | None = None, eval: bool = False) -> nn.Module:
    """The trained generator on the CPU, with the weights of ``path`` or those beside this file.

    It is in train mode, as upstream's test.py runs generators; ``eval=True`` takes dropout out and
    makes batch norm use running statistics.
    """
    path = Path(__file__).with_suffix(".pth") if path is None else path
    known = inspect.signature(torch.load).parameters
    safely = {"weights_only": True} if "weights_only" in known else {}  # torch before 1.13 lacks it
    generator = build()
    generator.load_state_dict(torch.load(path, map_location="cpu", **safely))
    return generator.train(not eval)


# -- pictures ------------------------------------------------------------
def pillow() -> Any:
    """Pillow's Image module, needed for pictures alone."""
    try:
        from PIL import Image
    except ImportError:
        sys.exit("reading and writing pictures needs Pillow (pip install pillow); load() works without it")
    return Image


def read_picture(path: str) -> Tensor:
    """A picture as (1, INPUT_NC, H, W) in [-1, 1], resized if a side is no multiple of SIDES."""
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if INPUT_NC not in modes:
        sys.exit(f"pictures have 1, 3 or 4 channels, this one takes {INPUT_NC}; use load() from Python")
    image = pillow().open(path)
    if image.mode.startswith("I"):  # gray of 16 bits, which Pillow would clip to 8
        image = image.convert("I").point(lambda value: value * (1 / 2 ** (BIT_DEPTH - 8)) + 0).convert("L")
    image = image.convert(modes[INPUT_NC])
    width, height = (max(SIDES, round(side / SIDES) * SIDES) for side in image.size)
    if (width, height) != image.size:
        print(f"{path}: resized from {image.width}x{image.height} to {width}x{height}", file=sys.stderr)
        image = image.resize((width, height), pillow().BICUBIC)
    pixels = torch.tensor(list(image.tobytes()), dtype=torch.float32).view(height, width, INPUT_NC)
    return ((pixels / 255 - 0.5) / 0.5).permute(2, 0, 1).unsqueeze(0).contiguous()


def write_picture(output: Tensor, path: str) -> None:
    """Write (1, OUTPUT_NC, H, W) in [-1, 1] as a picture, rounded down as upstream does."""
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if OUTPUT_NC not in modes:
        sys.exit(f"pictures have 1, 3 or 4 channels, this one gives {OUTPUT_NC}; use load() from Python")
    pixels = ((output[0].permute(1, 2, 0) + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
    height, width, _ = pixels.shape
    pillow().frombytes(modes[OUTPUT_NC], (width, height), bytes(pixels.flatten().tolist())).save(path)


def main() -> None:
    """Translate one picture, from the command line."""
    parser = argparse.ArgumentParser(description="Translate a picture with the generator of this file.")
    parser.add_argument("input", help="picture to read")
    parser.add_argument("output", help="picture to write, such as out.png")
    parser.add_argument("--eval", action="store_true", help="running statistics and no dropout")
    options = parser.parse_args()
    try:
        with torch.no_grad():
            output = load(eval=options.eval)(read_picture(options.input))
        write_picture(output, options.output)
    except (OSError, ValueError) as error:  # a missing file; an ending that is no picture's
        sys.exit(str(error))
