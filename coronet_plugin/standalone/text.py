"""The text of an exported file: what it says of the generator, its widths as data, its code.

Code is copied from the generator's family and from :mod:`coronet_plugin.standalone.parts`; nothing here
computes.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from coronet_plugin._version import __version__
from coronet_plugin.channels.cost import human
from coronet_plugin.errors import OptionError
from coronet_plugin.generators.registry import Standalone
from coronet_plugin.standalone import parts

if TYPE_CHECKING:
    from coronet_plugin.runs.opener import StoredGenerator

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
    """The whole file ``stem.py``, which loads ``stem.pth``.

    Raises:
        OptionError: the generator's family has no source to copy.
    """
    source = _source(exported)
    functions: list[Any] = [parts.load, parts.pillow, parts.read_picture, parts.write_picture, parts.main]
    code = [inspect.getsource(part) for part in source.classes]
    code += [BUILD.format(call=source.call).lstrip("\n"), *(inspect.getsource(part) for part in functions)]
    return "\n\n".join(
        [
            f'"""{_about(exported, stem)}"""\n\n{_foreign(source)}{IMPORTS}\n{_data(exported, source)}\n',
            *code,
            'if __name__ == "__main__":\n    main()\n',
        ]
    )


def upstream_model_text(stem: str) -> str:
    """The file slim_test_model.py for an upstream checkout, which uses ``stem.py`` unless told otherwise."""
    text = Path(__file__).with_name("upstream_model.py").read_text(encoding="utf-8")
    return text.replace('SLIM = "slim_G.py"', f'SLIM = "{stem}.py"')


def _source(exported: StoredGenerator) -> Standalone:
    exported.family.check_one_image()
    source = exported.family.standalone(exported.config)
    if source is None:
        raise OptionError(
            f"{exported.name} is of the family {exported.family.name}, which has no source that works "
            "without the package (Family.standalone, docs/families.md); coronet export writes it for others"
        )
    return source


def _foreign(source: Standalone) -> str:
    """A comment on classes that are not this package's, and so not under its licence."""
    foreign = [part for part in source.classes if not part.__module__.startswith("coronet_plugin.")]
    if not foreign:
        return ""
    names = ", ".join(part.__name__ for part in foreign)
    modules = ", ".join(sorted({part.__module__ for part in foreign}))
    return f"# {names}: copied from {modules}, under the licence of that; the rest:\n"


# -- widths as data --------------------------------------------------------
def _data(exported: StoredGenerator, source: Standalone) -> str:
    with torch.device("meta"):
        full = source.widths(exported.family.build(exported.config))
    widths = source.widths(exported.generator)
    lines = [
        f"INPUT_NC = {exported.channels}",
        f"OUTPUT_NC = {_output_channels(exported)}",
        f"TRAINED_ON = {exported.size}  # height and width",
        f"SIDES = {exported.multiple}  # height and width must be multiples of it",
        f"BIT_DEPTH = {exported.bit_depth}  # bits that values have in pictures of 16 bits a channel",
        *(f"{name} = {text}" for name, text in source.settings.items()),
        "",
        f"# {source.comment}",
        *(f"{name} = {value}{_full(value, full[name])}" for name, value in widths.items()),
    ]
    return "\n".join(lines)


def _output_channels(exported: StoredGenerator) -> int:
    return int(getattr(exported.config, "output_nc", 3))


def _full(here: int | tuple[int, ...], full: int | tuple[int, ...]) -> str:
    """A comment that says how many channels there were, if there were more."""
    if here == full:
        return ""
    if isinstance(full, tuple) and len(set(full)) == 1:
        return f"  # of {full[0]} each"
    return f"  # of {full}"


# -- what the file says of itself ------------------------------------------
ABOUT = """\
Generator {name}, {state}: {family}, {config}.

Input:  (N, {inputs}, H, W) in [-1, 1]; H and W multiples of {sides}. Trained on {height}x{width}.
Output: (N, {outputs}, H, W) in [{low:g}, {high:g}].

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
    height, width = exported.size
    low, high = exported.family.output_range
    return ABOUT.format(
        name=exported.name,
        state="slim" if exported.slim != exported.dense else "at full size",
        family=exported.family.name,
        config=exported.family.describe(exported.config),
        inputs=exported.channels,
        outputs=_output_channels(exported),
        low=low,
        high=high,
        sides=exported.multiple,
        height=height,
        width=width,
        costs=_costs(exported),
        origin=_origin(exported),
        stem=stem,
        mode=_mode(exported.generator),
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


def _mode(generator: nn.Module) -> str:
    """A paragraph on train and evaluation mode, which are the same for some generators."""
    effects, layers = [], list(generator.modules())
    if any(isinstance(layer, _BatchNorm) for layer in layers):
        effects.append("batch norm takes the statistics of its input")
    if any(isinstance(layer, _DropoutNd) for layer in layers):
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
