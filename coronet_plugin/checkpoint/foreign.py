"""Whose a weight file is that no family here fits, by the names of its tensors.

Facts of public code bases: what their classes are called, and which names their tensors have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from coronet_plugin.generators.resnet import BLOCK_KEY


class Origin(NamedTuple):
    """``words``: what a file is. ``needs``: the class that loads it, and where that is from."""

    words: str
    needs: str


def origin_of(state: Mapping[str, Any]) -> Origin | None:
    """The code base a state_dict is from, if its tensors tell that it is none of upstream's generators.

    ``state``: without prefixes of wrappers.
    """
    names = [key for key, value in state.items() if isinstance(value, Tensor)]
    for tells, origin in _KNOWN:
        if tells(names):
            return origin
    return None


def _any(pattern: str) -> Callable[[list[str]], bool]:
    return lambda names: any(re.search(pattern, name) for name in names)


def _downsamplings(names: list[str]) -> int:
    """Of a ResNet generator in one row: three layers each before the first block, four before them."""
    places = [int(match[1].split(".")[1]) for name in names if (match := BLOCK_KEY.match(name))]
    return (min(places) - 4) // 3 if places else 0


def _is_one_row(names: list[str]) -> bool:
    return all(name.startswith("model.") for name in names)


_KNOWN: tuple[tuple[Callable[[list[str]], bool], Origin], ...] = (
    (
        lambda names: _any(r"\.filt$")(names) and not any(map(BLOCK_KEY.match, names)),
        Origin("a discriminator of CUT, which blurs", "no generator: give latest_net_G.pth"),
    ),
    (
        _any(r"^mlp_\d+\.\d+\.weight"),
        Origin("the projector of CUT, which judges features", "no generator: give latest_net_G.pth"),
    ),
    (
        _any(r"^model\d+_[12]\."),
        Origin("the local enhancer of pix2pixHD", "pix2pixHD's class LocalEnhancer (models/networks.py)"),
    ),
    (
        lambda names: _is_one_row(names) and _downsamplings(names) > 2,
        Origin(
            "a ResNet generator with more than two downsamplings, as pix2pixHD's global generator",
            "pix2pixHD's class GlobalGenerator (models/networks.py)",
        ),
    ),
    (
        _any(r"mlp_shared"),
        Origin(
            "a generator with SPADE norms, as GauGAN's",
            "the class SPADEGenerator of SPADE or GAN Compression",
        ),
    ),
    (
        _any(r"^Up_conv\d|^Att\d|^Up\d\.up\."),
        Origin(
            "an attention U-Net, as DeepLIIF's", "DeepLIIF's class AttU_Net (deepliif/models/att_unet.py)"
        ),
    ),
    (
        lambda names: _is_one_row(names) and _any(r"^model\.model\.")(names) and _levels(names) not in (7, 8),
        Origin(
            "a U-Net generator of another depth than 7 or 8 levels, as DeepLIIF's unet_512",
            "the class UnetGenerator with its number of levels (num_downs)",
        ),
    ),
)


def _levels(names: list[str]) -> int:
    """Levels of a U-Net: how deep the submodules are nested, counting the outermost."""
    return max(name.split(".").count("model") for name in names) - 1


def in_words(origin: Origin) -> str:
    """Say what the file is, what it needs, and how to give it."""
    return (
        f"it is {origin.words}; it needs {origin.needs}. With the class at hand, register it as a family "
        "(--coronet_family) or give the module to Compression"
    )
