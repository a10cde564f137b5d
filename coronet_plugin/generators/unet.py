"""U-Nets of upstream: halvings to a single pixel and as many doublings, with a skip at every level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from coronet_plugin.generators import by_widths
from coronet_plugin.generators.registry import Standalone, family
from coronet_plugin.generators.stock import (
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


class UnetGenerator(nn.Module):
    """``num_downs`` halvings to the bottleneck and as many doublings, with a skip at every level.

    (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1]; H and W must be multiples of ``2 ** num_downs``.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        num_downs: int,
        ngf: int = 64,
        norm_layer: NormLayer = nn.BatchNorm2d,
        use_dropout: bool = False,
    ) -> None:
        super().__init__()
        widest = ngf * 8
        block = UnetSkipConnectionBlock(widest, widest, innermost=True, norm_layer=norm_layer)
        for _ in range(num_downs - 5):
            block = UnetSkipConnectionBlock(
                widest, widest, submodule=block, norm_layer=norm_layer, use_dropout=use_dropout
            )
        for outer, inner in ((ngf * 4, widest), (ngf * 2, ngf * 4), (ngf, ngf * 2)):
            block = UnetSkipConnectionBlock(outer, inner, submodule=block, norm_layer=norm_layer)
        self.model = UnetSkipConnectionBlock(
            output_nc, ngf, input_nc=input_nc, submodule=block, outermost=True, norm_layer=norm_layer
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


class UnetSkipConnectionBlock(nn.Module):
    """One level of a U-Net: halve, go through ``submodule``, double, append to the input.

    (N, input_nc, H, W) to (N, input_nc + outer_nc, H, W), or to (N, outer_nc, H, W) if ``outermost``.
    """

    def __init__(
        self,
        outer_nc: int,
        inner_nc: int,
        input_nc: int | None = None,
        submodule: nn.Module | None = None,
        outermost: bool = False,
        innermost: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d,
        use_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        bias = needs_bias(norm_layer)
        from_below = inner_nc if innermost else inner_nc * 2  # the level below appends its input

        down: list[nn.Module] = [
            nn.Conv2d(outer_nc if input_nc is None else input_nc, inner_nc, 4, 2, 1, bias=bias)
        ]
        up: list[nn.Module] = [
            nn.ReLU(True),
            nn.ConvTranspose2d(from_below, outer_nc, 4, 2, 1, bias=bias or outermost),
        ]
        if outermost:
            up.append(nn.Tanh())
        else:
            down.insert(0, nn.LeakyReLU(0.2, True))
            up.append(norm_layer(outer_nc))
            if not innermost:
                down.append(norm_layer(inner_nc))
        if use_dropout and not (outermost or innermost):
            up.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*down, *([] if submodule is None else [submodule]), *up)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return self.model(x)
        # The first layer activates x in place, so what the skip carries is activated;
        # trained weights depend on it.
        return torch.cat([x, self.model(x)], 1)


# -- the families --------------------------------------------------------------
def _widths(generator: nn.Module) -> dict[str, int | tuple[int, ...]]:
    out = convolution_widths(generator)
    levels = len(out) // 2
    return {"DOWN": tuple(out[:levels]), "UP": tuple(out[levels:-1][::-1])}


class UnetFamily(StockFamily):
    """U-Net: halvings to a single pixel and as many doublings, with skips."""

    downs: ClassVar[int]
    untold = ("use_dropout",)

    def default_config(self) -> StockConfig:
        return StockConfig(3, 3, 64, "batch", use_dropout=True)

    def build(self, config: StockConfig) -> nn.Module:
        norm = get_norm_layer(config.norm)
        arguments = (config.input_nc, config.output_nc, self.downs, config.ngf, norm, config.use_dropout)
        return UnetGenerator(*arguments)

    def side_multiple(self, config: StockConfig) -> int:
        return 2**self.downs

    def taps(self, config: Any) -> tuple[str, ...]:
        """The second and the fourth halving, and what comes back up to them from two levels below.

        Of 2, 8, 16 and 4 times ngf channels, as in OMGD (Ren et al., ICCV 2021, arXiv 2108.06908).
        """
        second = "model.model.1.model"
        fourth = f"{second}.3.model.3.model"
        return f"{second}.1", f"{fourth}.1", f"{fourth}.3", f"{second}.3"

    def deduce(self, state: Mapping[str, Any]) -> StockConfig | None:
        kernels = kernels_of(state)
        if len(kernels) != 2 * self.downs:
            return None
        inputs, outputs, ngf = kernels[0].shape[1], kernels[-1].shape[1], kernels[0].shape[0]
        return StockConfig(inputs, outputs, ngf, norm_of(state, "model.model.0"), use_dropout=True)

    def standalone(self, config: StockConfig) -> Standalone:
        levels = tuple(range(4, self.downs - 1)) if config.use_dropout else ()
        return Standalone(
            classes=(by_widths.UnetGenerator, by_widths.UnetLevel),
            call="UnetGenerator(INPUT_NC, OUTPUT_NC, DOWN, UP, NORM, DROPOUT)",
            settings={"NORM": NORM_TEXTS[config.norm], "DROPOUT": f"{levels}  # levels that have it"},
            widths=_widths,
            comment="Channels at each level, outermost first: after halving, and what comes back up to it.",
        )


@family("unet_128")
class Unet128(UnetFamily):
    """U-Net with 7 halvings, for 128x128."""

    downs = 7


@family("unet_256")
class Unet256(UnetFamily):
    """U-Net with 8 halvings, pix2pix's generator for 256x256."""

    downs = 8
