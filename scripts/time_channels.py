"""Seconds that find_channels takes, with its proof, for full-size generators at 256x256: median of three.

Where diffusers is installed, also for the layout of ddpm-cifar10 (35 M parameters) at 32x32.

python scripts/time_channels.py
"""

from __future__ import annotations

import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coronet_plugin import example_input, find_channels  # noqa: E402
from coronet_plugin.channels.facts import Runner, call  # noqa: E402
from coronet_plugin.generators.stock import build_generator  # noqa: E402


def unet_2d() -> nn.Module:
    """The U-Net of ddpm-cifar10."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_eps=1e-6,
        downsample_padding=0,
        attention_head_dim=None,
    )


def show(name: str, generator: nn.Module, example: Any, run: Runner = call) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        find_channels(generator, example, run)
        seconds.append(time.perf_counter() - started)
    shown = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(f"{name:16} {statistics.median(seconds):.2f} s ({shown})")


for name in ("resnet_9blocks", "unet_256"):
    stock = build_generator(3, 3, 64, name, "instance", False)
    show(name, stock, example_input(stock, 256))
if find_spec("diffusers"):
    inputs = torch.randn(1, 3, 32, 32), torch.tensor([10])
    show("UNet2DModel", unet_2d(), inputs, lambda net, *given: net(*given).sample)
