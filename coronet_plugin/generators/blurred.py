"""ResNets of CUT, which blur where they halve and double (Park et al., ECCV 2020, arXiv 2007.15651).

Written anew, with the state_dict keys of CUT's files, where the blurs' kernels lie once for each channel.
Files of ``--no_antialias --no_antialias_up`` hold upstream's ResNets. Classes use nothing but torch and each
other, as those of :mod:`by_widths` do: files that need torch alone have copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.generators import by_widths
from coronet_plugin.generators.registry import Standalone, family
from coronet_plugin.generators.resnet import ResnetFamily
from coronet_plugin.generators.stock import NORM_CLASSES, StockConfig, kernels_of


class BlurDown(nn.Module):
    """Halve: every second pixel of a blur by 1 2 1 with reflected borders.

    (N, width, H, W) to (N, width, ceil(H / 2), ceil(W / 2)). The kernel lies in files, once for each channel.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
        self.pad = nn.ReflectionPad2d(1)
        self.filt: Tensor
        self.register_buffer("filt", kernel.repeat(width, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.pad(x), self.filt, stride=2, groups=len(self.filt))


class BlurUp(nn.Module):
    """Double: zeros between pixels, then a blur by 1 3 3 1 with repeated borders.

    (N, width, H, W) to (N, width, 2 H, 2 W); a constant picture keeps its value.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        rows = [[1.0, 3.0, 3.0, 1.0], [3.0, 9.0, 9.0, 3.0]]
        self.pad = nn.ReplicationPad2d(1)
        self.filt: Tensor
        self.register_buffer("filt", (torch.tensor([*rows, *rows[::-1]]) / 16).repeat(width, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        groups = len(self.filt)
        return nn.functional.conv_transpose2d(self.pad(x), self.filt, stride=2, padding=3, groups=groups)


# -- the families --------------------------------------------------------------
@dataclass(frozen=True)
class CutConfig(StockConfig):
    """Options of CUT's generators: by default both halvings and doublings blur."""

    no_antialias: bool = False
    no_antialias_up: bool = False


class CutResnetFamily(ResnetFamily):
    """ResNet that blurs where it halves and doubles, as in CUT."""

    config = CutConfig
    parts = (by_widths.ResnetBlock, BlurDown, BlurUp)

    def default_config(self) -> CutConfig:
        return CutConfig(3, 3, 64, "instance", use_dropout=False)

    def build(self, config: Any) -> nn.Module:
        ngf = config.ngf
        return by_widths.ResnetGenerator(
            config.input_nc,
            config.output_nc,
            ngf,
            (2 * ngf, 4 * ngf),
            (4 * ngf,) * self.blocks,
            (2 * ngf, ngf),
            NORM_CLASSES[config.norm],
            config.use_dropout,
            self.parts[0],
            None if config.no_antialias else BlurDown,
            None if config.no_antialias_up else BlurUp,
        )

    def taps(self, config: Any) -> tuple[str, ...]:
        first = 9 if config.no_antialias else 11
        return tuple(f"model.{first + self.blocks * third // 3}" for third in range(4))

    def deduce(self, state: Mapping[str, Any]) -> Any:
        blurs = kernels_of({key: value for key, value in state.items() if key.endswith(".filt")})
        stock = super().deduce(state) if blurs else None
        if stock is None:
            return None
        sides = {blur.shape[-1] for blur in blurs}  # 3 of those that halve, 4 of those that double
        return CutConfig(**asdict(stock), no_antialias=3 not in sides, no_antialias_up=4 not in sides)

    def describe(self, config: Any) -> str:
        """Say the config in a line."""
        blurs = [*["down"] * (not config.no_antialias), *["up"] * (not config.no_antialias_up)]
        return f"{super().describe(config)}, blurred {' and '.join(blurs) or 'nowhere'}"

    def standalone(self, config: Any) -> Standalone:
        stock = super().standalone(config)
        shrink, grow = (
            "None" if plain else blur.__name__
            for plain, blur in ((config.no_antialias, BlurDown), (config.no_antialias_up, BlurUp))
        )
        return replace(stock, call=f"{stock.call[:-1]}, {shrink}, {grow})")


@family("cut_resnet_9blocks")
class CutResnet9Blocks(CutResnetFamily):
    """ResNet with 9 residual blocks that blurs where it halves and doubles, CUT's generator."""

    blocks = 9


@family("cut_resnet_6blocks")
class CutResnet6Blocks(CutResnetFamily):
    """ResNet with 6 residual blocks that blurs where it halves and doubles."""

    blocks = 6


@family("cut_resnet_4blocks")
class CutResnet4Blocks(CutResnetFamily):
    """ResNet with 4 residual blocks that blurs where it halves and doubles."""

    blocks = 4
