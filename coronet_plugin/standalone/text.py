"""The text of an exported file: what it says of the generator, its widths as data, its code.

Code is copied from :mod:`coronet_plugin.standalone.parts`; nothing here computes.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from coronet_plugin._version import __version__
from coronet_plugin.channels.cost import human
from coronet_plugin.generators.stock import RESNET_BLOCKS, UNET_DOWNS, build_generator, sides
from coronet_plugin.standalone import parts

if TYPE_CHECKING:
    from coronet_plugin.runs.opener import StoredGenerator

LAYERS = {"batch": "nn.BatchNorm2d", "instance": "nn.InstanceNorm2d", "none": "nn.Identity"}
IMPORTS = """\
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026, the coronet-plugin developers

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
"""
BUILD = '''
def build() -> nn.Module:
    """The generator with random weights; :func:`load` gives it the trained ones."""
    return {call}
'''


def file_text(exported: StoredGenerator, stem: str) -> str:
    """The whole file ``stem.py``, which loads ``stem.pth``."""
    if exported.architecture["netG"] in RESNET_BLOCKS:
        classes: list[Any] = [parts.ResnetGenerator, parts.ResnetBlock]
        call = "ResnetGenerator(INPUT_NC, OUTPUT_NC, STEM, DOWN, BLOCKS, UP, NORM, DROPOUT)"
    else:
        classes = [parts.UnetGenerator, parts.UnetLevel]
        call = "UnetGenerator(INPUT_NC, OUTPUT_NC, DOWN, UP, NORM, DROPOUT)"
    functions: list[Any] = [parts.load, parts.pillow, parts.read_picture, parts.write_picture, parts.main]
    code = [inspect.getsource(part) for part in classes]
    code += [BUILD.format(call=call).lstrip("\n"), *(inspect.getsource(part) for part in functions)]
    return "\n\n".join(
        [
            f'"""{_about(exported, stem)}"""\n\n{IMPORTS}\n{_data(exported)}\n',
            *code,
            'if __name__ == "__main__":\n    main()\n',
        ]
    )


def upstream_model_text(stem: str) -> str:
    """The file slim_test_model.py for an upstream checkout, which uses ``stem.py`` unless told otherwise."""
    text = Path(__file__).with_name("upstream_model.py").read_text(encoding="utf-8")
    return text.replace('SLIM = "slim_G.py"', f'SLIM = "{stem}.py"')


# -- widths as data --------------------------------------------------------
def widths(generator: nn.Module, netG: str) -> dict[str, int | tuple[int, ...]]:
    """Channels after every convolution, by the names that exported files give them."""
    out = [m.out_channels for m in generator.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    if netG in RESNET_BLOCKS:
        down, blocks, up = out[1:3], out[3:-3:2], out[-3:-1]
        return {"STEM": out[0], "DOWN": tuple(down), "BLOCKS": tuple(blocks), "UP": tuple(up)}
    levels = UNET_DOWNS[netG]
    return {"DOWN": tuple(out[:levels]), "UP": tuple(out[levels:-1][::-1])}


def _data(exported: StoredGenerator) -> str:
    architecture, here = exported.architecture, exported.generator
    netG, norm = architecture["netG"], architecture.get("norm", "batch")
    with torch.device("meta"):
        full = widths(build_generator(**architecture), netG)
    lines = [
        f"INPUT_NC = {int(architecture['input_nc'])}",
        f"OUTPUT_NC = {int(architecture['output_nc'])}",
        f"TRAINED_ON = {exported.size}  # height and width",
        f"SIDES = {sides(netG)}  # height and width must be multiples of it",
        f"BIT_DEPTH = {exported.bit_depth}  # bits that values have in pictures of 16 bits a channel",
        f"NORM = {LAYERS[norm]}",
        f"DROPOUT = {_dropout(architecture)}",
        "",
        "# Channels: after the first convolution, each halving, inside each block, after each doubling."
        if netG in RESNET_BLOCKS
        else "# Channels at each level, outermost first: after halving, and what comes back up to it.",
        *(f"{key} = {value}{_full(value, full[key])}" for key, value in widths(here, netG).items()),
    ]
    return "\n".join(lines)


def _full(here: int | tuple[int, ...], full: int | tuple[int, ...]) -> str:
    """A comment that says how many channels there were, if there were more."""
    if here == full:
        return ""
    if isinstance(full, tuple) and len(set(full)) == 1:
        return f"  # of {full[0]} each"
    return f"  # of {full}"


def _dropout(architecture: Mapping[str, Any]) -> str:
    use, netG = bool(architecture.get("use_dropout")), architecture["netG"]
    if netG in RESNET_BLOCKS:
        return str(use)
    levels = tuple(range(4, UNET_DOWNS[netG] - 1)) if use else ()
    return f"{levels}  # levels that have it"


# -- what the file says of itself ------------------------------------------
ABOUT = """\
Generator {name}, {state}: {netG} with {norm} and {dropout}.

Input:  (N, {input_nc}, H, W) in [-1, 1]; H and W multiples of {sides}. Trained on {height}x{width}.
Output: (N, {output_nc}, H, W) in [-1, 1].

{costs}

{origin}
{stem}.pth beside this file is a plain state_dict under upstream's keys. With torch alone:

    from {stem} import load

    generator = load()
    with torch.no_grad():
        output = generator(input)

{mode}
With Pillow, for one picture:

    python {stem}.py INPUT.png OUTPUT.png

For a folder of pictures, in a checkout of pytorch-CycleGAN-and-pix2pix (2018-09 or newer) whose folder
models/ holds this file, {stem}.pth and slim_test_model.py:

    python test.py --model slim_test --slim {stem}.py --dataroot FOLDER --name NAME
"""


def _about(exported: StoredGenerator, stem: str) -> str:
    architecture = exported.architecture
    height, width = exported.size
    return ABOUT.format(
        name=exported.name,
        state="slim" if exported.slim != exported.dense else "at full size",
        netG=architecture["netG"],
        norm=f"{architecture.get('norm', 'batch')} norm".replace("none", "no"),
        dropout="dropout" if architecture.get("use_dropout") else "no dropout",
        input_nc=architecture["input_nc"],
        output_nc=architecture["output_nc"],
        sides=sides(architecture["netG"]),
        height=height,
        width=width,
        costs=_costs(exported),
        origin=_origin(exported),
        stem=stem,
        mode=_mode(architecture),
    )


def _costs(exported: StoredGenerator) -> str:
    """A table: what it costs as it is, and at full size."""
    height, width = exported.size
    rows = [("", "here", "full size")]
    for label, key in (
        (f"MACs at {height}x{width}", "macs"),
        ("as the literature counts", "macs_literature"),
        ("parameters", "parameters"),
    ):
        rows.append((label, human(exported.slim[key]), human(exported.dense[key])))
    return "\n".join(f"    {label:<24} {here:>10} {full:>10}" for label, here, full in rows)


def _mode(architecture: Mapping[str, Any]) -> str:
    """A paragraph on train and evaluation mode, which are the same for some generators."""
    effects = []
    if architecture.get("norm", "batch") == "batch":
        effects.append("batch norm takes the statistics of its input")
    if architecture.get("use_dropout"):
        effects.append("dropout is active")
    if not effects:
        return "Train mode, in which upstream tests, and evaluation mode are the same for it.\n"
    text = f"As in upstream's test.py it is in train mode: {' and '.join(effects)}."
    return _wrapped(f"{text} load(eval=True) puts it in evaluation mode, as test.py --eval does.") + "\n"


def _origin(exported: StoredGenerator) -> str:
    text = f"From {exported.origin}; written by coronet_plugin {__version__}, which is not needed to use it."
    return _wrapped(_plain(text))


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _plain(text: str) -> str:
    """``text`` without anything that could end a docstring."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("\\", "/").replace('"', "'")
