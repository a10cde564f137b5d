"""The code that exported files are made of.

:mod:`coronet_plugin.standalone.text` copies classes and functions from here as text, so
they use nothing but torch and each other (torch from 1.8, Python from 3.9). The constants
and :func:`build` are a sample, the smallest ResNet; an exported file has its own in their
place. The generator's classes are copied from where its family has them.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.generators.by_widths import ResnetBlock, ResnetGenerator

INPUT_NC = 3
OUTPUT_NC = 3
SIDES = 4
BIT_DEPTH = 16


def build() -> nn.Module:
    """The generator with random weights; :func:`load` gives it the trained ones."""
    norm = nn.InstanceNorm2d
    return ResnetGenerator(INPUT_NC, OUTPUT_NC, 1, (1, 1), (1,), (1, 1), norm, False, ResnetBlock)


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
