"""Parts common to upstream's generators: their config, their norm layers, building by a host's options.

Written anew, with the state_dict keys and shapes of pytorch-CycleGAN-and-pix2pix, so that weights move both
ways. Used by the bundled host and by whoever loads a compressed generator with the package alone; needs
nothing but torch. ``forward`` never reads a width, so channels may be removed later by replacing parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from coronet_plugin.errors import OptionError
from coronet_plugin.generators.registry import Family, family_named

NormLayer = Callable[[int], nn.Module]

IMAGE_CHANNELS = 4096
"""Channels of an image at most."""
NUMBERS = 2**31
"""Weights of a layer at most: 8 GB."""
SYNCBATCH = "syncbatch"
"""A host's word for batch norm whose statistics the processes of a training share: the same generator."""
NORM_CLASSES = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": nn.Identity}
"""The norm layers of :func:`get_norm_layer`, as classes."""
NORM_TEXTS = {name: f"nn.{kind.__name__}" for name, kind in NORM_CLASSES.items()}
"""The same as a file with the generator's source names them."""


def get_norm_layer(norm_type: str = "instance") -> NormLayer:
    """A function from a number of channels to a norm layer: ``batch``, ``instance`` or ``none``.

    Batch norm has scale, shift and running statistics; instance norm has none of them. ``syncbatch`` is
    ``batch`` here: whoever trains on several processes converts it there.

    Raises:
        OptionError: there is no such norm.
    """
    layers: dict[str, NormLayer] = {
        "batch": functools.partial(nn.BatchNorm2d, affine=True, track_running_stats=True),
        "instance": functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False),
        "none": nn.Identity,
    }
    layers[SYNCBATCH] = layers["batch"]
    if norm_type not in layers:
        raise OptionError(f"--norm {norm_type} is not known; choose one of {', '.join(layers)}")
    return layers[norm_type]


def needs_bias(norm_layer: NormLayer) -> bool:
    """True if a convolution before this norm has a bias.

    Only before instance norm: batch norm brings its own shift, and without norm the
    files of upstream have none either.
    """
    return getattr(norm_layer, "func", norm_layer) is nn.InstanceNorm2d


@dataclass(frozen=True)
class StockConfig:
    """Options of upstream's generators. ``ngf``: channels of the outermost feature map."""

    input_nc: int
    output_nc: int
    ngf: int
    norm: str
    use_dropout: bool

    def __post_init__(self) -> None:
        """Raises OptionError for a generator that nobody has."""
        for name in ("input_nc", "output_nc", "ngf"):
            if getattr(self, name) < 1:
                raise OptionError(f"architecture.{name}: expected at least 1, not {getattr(self, name)}")
        if max(self.input_nc, self.output_nc) > IMAGE_CHANNELS:
            raise OptionError(f"architecture: more than {IMAGE_CHANNELS} image channels")
        if 8 * 8 * 16 * self.ngf**2 > NUMBERS:  # 8 ngf x 8 ngf x 4 x 4, as the middle of a U-Net has several
            raise OptionError(f"architecture.ngf: {self.ngf} would need more than {NUMBERS} weights")
        get_norm_layer(self.norm)
        if self.norm == SYNCBATCH:
            object.__setattr__(self, "norm", "batch")


class StockFamily(Family):
    """Generators of upstream, by its options."""

    config: ClassVar[type] = StockConfig

    def describe(self, config: StockConfig) -> str:
        """Say the config in a line: ``ngf 64, 3 to 3 channels, instance norm, no dropout``."""
        dropout = "with dropout" if config.use_dropout else "no dropout"
        norm = f"{config.norm} norm".replace("none", "no")
        return f"ngf {config.ngf}, {config.input_nc} to {config.output_nc} channels, {norm}, {dropout}"


def build_generator(
    input_nc: int, output_nc: int, ngf: int, netG: str, norm: str = "batch", use_dropout: bool = False
) -> nn.Module:
    """Build a generator by its ``--netG`` name from options that hosts have; a family takes those it knows.

    Stock ones take (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1]. Weights are torch's defaults.

    Raises:
        OptionError: ``netG`` or ``norm`` is unknown.
    """
    found = family_named(netG)
    options = {"input_nc": input_nc, "output_nc": output_nc, "ngf": ngf, "norm": norm}
    texts = {name: str(value) for name, value in {**options, "use_dropout": use_dropout}.items()}
    return found.build(found.from_options(texts))


def kernels_of(state: Mapping[str, Any]) -> list[Tensor]:
    """The weights of the 2-D convolutions in a state_dict, in its order."""
    return [value for value in state.values() if isinstance(value, Tensor) and value.ndim == 4]


def norm_of(state: Mapping[str, Any], first: str) -> str:
    """The norm of a stock generator by its tensors; ``first``: name of the first convolution."""
    if any(key.endswith(".weight") and value.ndim == 1 for key, value in state.items()):
        return "batch"
    return "instance" if f"{first}.bias" in state else "none"


def convolution_widths(generator: nn.Module) -> list[int]:
    """Channels that each convolution gives, in the order of the modules."""
    return [m.out_channels for m in generator.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
