"""ResNets of upstream: two halvings, residual blocks at a quarter of the size, two doublings.

Those called ``mobile`` have separable convolutions in their blocks, and the keys of GAN Compression's files
(Li et al., CVPR 2020, arXiv 2003.08936).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from coronet_plugin.errors import OptionError
from coronet_plugin.generators import by_widths
from coronet_plugin.generators.config import shorten
from coronet_plugin.generators.registry import Standalone, family
from coronet_plugin.generators.stock import (
    NORM_CLASSES,
    NORM_TEXTS,
    NormLayer,
    StockConfig,
    StockFamily,
    convolution_widths,
    get_norm_layer,
    kernels_of,
    needs_bias,
    norm_of,
)

PADDINGS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": None}
BLOCK_KEY = re.compile(r"(.*\bconv_block)\.(\d+)\.(.+)")
"""A tensor of a residual block: the block, the layer's place in it, the rest."""


class ResnetGenerator(nn.Module):
    """Two halvings, ``n_blocks`` residual blocks, two doublings.

    (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1]; H and W multiples of 4 come out as they went in.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        norm_layer: NormLayer = nn.BatchNorm2d,
        use_dropout: bool = False,
        n_blocks: int = 6,
        padding_type: str = "reflect",
    ) -> None:
        super().__init__()
        bias = needs_bias(norm_layer)

        def activated(conv: nn.Module, channels: int) -> list[nn.Module]:
            return [conv, norm_layer(channels), nn.ReLU(True)]

        widths = (ngf, ngf * 2, ngf * 4)
        layers = [nn.ReflectionPad2d(3), *activated(nn.Conv2d(input_nc, ngf, 7, bias=bias), ngf)]
        for narrow, wide in zip(widths, widths[1:]):
            layers += activated(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=bias), wide)
        layers += [
            ResnetBlock(widths[-1], padding_type, norm_layer, use_dropout, bias) for _ in range(n_blocks)
        ]
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1]):
            up = nn.ConvTranspose2d(wide, narrow, 3, stride=2, padding=1, output_padding=1, bias=bias)
            layers += activated(up, narrow)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


class ResnetBlock(nn.Module):
    """``x`` plus two 3x3 convolutions of it; shape (N, dim, H, W) stays.

    With dropout the layers of ``conv_block`` after it move one place up, which is why
    files made with and without dropout have different keys.
    """

    def __init__(
        self, dim: int, padding_type: str, norm_layer: NormLayer, use_dropout: bool, use_bias: bool
    ) -> None:
        super().__init__()
        if padding_type not in PADDINGS:
            raise OptionError(f"padding {padding_type!r} is not known; choose one of {', '.join(PADDINGS)}")
        pad = PADDINGS[padding_type]

        def convolution() -> list[nn.Module]:
            padding = [] if pad is None else [pad(1)]
            conv = nn.Conv2d(dim, dim, 3, padding=1 if pad is None else 0, bias=use_bias)
            return [*padding, conv, norm_layer(dim)]

        between = [nn.ReLU(True), *([nn.Dropout(0.5)] if use_dropout else [])]
        self.conv_block = nn.Sequential(*convolution(), *between, *convolution())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


# -- the families --------------------------------------------------------------
class ResnetFamily(StockFamily):
    """ResNet: two halvings, residual blocks, two doublings."""

    blocks: ClassVar[int]
    parts: ClassVar[tuple[type[nn.Module], ...]] = (by_widths.ResnetBlock,)
    """Classes of :mod:`by_widths` that a block is made of, itself first."""
    convolutions: ClassVar[int] = 2
    """Convolutions of a block."""

    rounds_up = True

    def default_config(self) -> StockConfig:
        return StockConfig(3, 3, 64, "instance", use_dropout=False)

    def build(self, config: StockConfig) -> nn.Module:
        norm = get_norm_layer(config.norm)
        arguments = (config.input_nc, config.output_nc, config.ngf, norm, config.use_dropout, self.blocks)
        return ResnetGenerator(*arguments)

    def side_multiple(self, config: StockConfig) -> int:
        return 4

    def taps(self, config: Any) -> tuple[str, ...]:
        """Behind the halvings and each third of the blocks, as in GAN Compression."""
        return tuple(f"model.{9 + self.blocks * third // 3}" for third in range(4))

    def deduce(self, state: Mapping[str, Any]) -> StockConfig | None:
        kernels, found = kernels_of(state), {match[1] for match in map(BLOCK_KEY.match, state) if match}
        if len(found) != self.blocks or not kernels:
            return None
        inputs, outputs, ngf = kernels[0].shape[1], kernels[-1].shape[0], kernels[0].shape[0]
        return StockConfig(inputs, outputs, ngf, norm_of(state, "model.1"), bool(has_dropout_slot(state)))

    def standalone(self, config: StockConfig) -> Standalone:
        return Standalone(
            classes=(by_widths.ResnetGenerator, *self.parts),
            call="ResnetGenerator(INPUT_NC, OUTPUT_NC, STEM, DOWN, BLOCKS, UP, NORM, DROPOUT, "
            f"{self.parts[0].__name__})",
            settings={"NORM": NORM_TEXTS[config.norm], "DROPOUT": str(config.use_dropout)},
            widths=self.widths,
            comment="Channels: after the first convolution, each halving, inside each block, each doubling.",
        )

    def widths(self, generator: nn.Module) -> dict[str, int | tuple[int, ...]]:
        """Channels by the names of the file that rebuilds the generator."""
        out = convolution_widths(generator)
        inside = out[2 + self.convolutions // 2 : -3 : self.convolutions]
        return {"STEM": out[0], "DOWN": tuple(out[1:3]), "BLOCKS": tuple(inside), "UP": tuple(out[-3:-1])}


@family("resnet_9blocks")
class Resnet9Blocks(ResnetFamily):
    """ResNet with 9 residual blocks, CycleGAN's generator for 256x256."""

    blocks = 9


@family("resnet_6blocks")
class Resnet6Blocks(ResnetFamily):
    """ResNet with 6 residual blocks, CycleGAN's generator for 128x128."""

    blocks = 6


class MobileResnetFamily(ResnetFamily):
    """ResNet with separable residual blocks, as in GAN Compression."""

    parts = (by_widths.MobileResnetBlock, by_widths.SeparableConv2d)
    convolutions = 4
    untold = ("use_dropout",)

    def build(self, config: Any) -> nn.Module:
        stem, down, stream, *inside, first, second = self.eight(config)
        return by_widths.ResnetGenerator(
            config.input_nc,
            config.output_nc,
            stem,
            (2 * down, 4 * stream),
            tuple(4 * width for width in inside for _ in range(self.blocks // len(inside))),
            (2 * first, second),
            NORM_CLASSES[config.norm],
            config.use_dropout,
            self.parts[0],
        )

    def eight(self, config: Any) -> tuple[int, ...]:
        """Widths as :class:`SubConfig` has them."""
        return (config.ngf,) * 8

    def deduce(self, state: Mapping[str, Any]) -> Any:
        return super().deduce(state) if any(".conv.0." in key for key in state) else None


@family("mobile_resnet_9blocks")
class MobileResnet9Blocks(MobileResnetFamily):
    """ResNet with 9 separable residual blocks, GAN Compression's teacher for 256x256."""

    blocks = 9


@family("mobile_resnet_6blocks")
class MobileResnet6Blocks(MobileResnetFamily):
    """ResNet with 6 separable residual blocks."""

    blocks = 6


@dataclass(frozen=True)
class SubConfig:
    """Eight widths as GAN Compression writes them: ``16_16_32_16_32_32_16_16``.

    Those of the first convolution; of the first halving, by 2; of the residual stream, by 4; inside blocks 1
    to 3, 4 to 6 and 7 to 9, by 4; of the first doubling, by 2; of the second.
    """

    input_nc: int = 3
    output_nc: int = 3
    config_str: str = "64_64_64_64_64_64_64_64"
    norm: str = "instance"
    use_dropout: bool = False

    def __post_init__(self) -> None:
        """Raises OptionError for a generator that nobody has."""
        if not re.fullmatch(r"[1-9]\d{0,3}(_[1-9]\d{0,3}){7}", self.config_str):
            raise OptionError(
                "architecture.config_str: expected eight widths such as 16_16_32_16_32_32_16_16, "
                f"not {shorten(self.config_str)}"
            )
        widest = max(map(int, self.config_str.split("_")))
        stock = StockConfig(self.input_nc, self.output_nc, widest, self.norm, self.use_dropout)
        object.__setattr__(self, "norm", stock.norm)


@family("sub_mobile_resnet_9blocks")
class SubMobileResnet9Blocks(MobileResnet9Blocks):
    """ResNet with 9 separable residual blocks of eight widths, as GAN Compression's compressed ones."""

    config = SubConfig

    def default_config(self) -> Any:
        return SubConfig()

    def eight(self, config: Any) -> tuple[int, ...]:
        return tuple(map(int, config.config_str.split("_")))

    def deduce(self, state: Mapping[str, Any]) -> Any:
        dense, kernels = super().deduce(state), kernels_of(state)
        if dense is None or len(kernels) != 42:
            return None
        out = [kernel.shape[0] for kernel in kernels[:-3]] + [kernel.shape[1] for kernel in kernels[-3:-1]]
        eight = (out[0], out[1] // 2, out[2] // 4, *(out[i] // 4 for i in (4, 16, 28)), out[39] // 2, out[40])
        return SubConfig(dense.input_nc, dense.output_nc, "_".join(map(str, eight)), dense.norm)

    def describe(self, config: Any) -> str:
        """Say the config in a line."""
        stock = StockConfig(config.input_nc, config.output_nc, 1, config.norm, config.use_dropout)
        return super().describe(stock).replace("ngf 1,", f"widths {config.config_str},")


def has_dropout_slot(state: Mapping[str, Any]) -> bool | None:
    """True if residual blocks were built with dropout; None where there are none, as in U-Nets."""
    matches = [match for match in map(BLOCK_KEY.match, state) if match]
    places = {int(match[2]) for match in matches if match[3].endswith("weight")} & {5, 6}
    return None if not places else 5 not in places
