"""Rounding to int8 while still calculating in floats: what quantization-aware training and sensitivity share.

Weights are rounded per output channel to the 129 steps of a symmetric grid, activations per tensor to 256
steps between their extremes (Jacob et al. 2018, eq. (1) and (12)). The rounding itself, with gradients that
pass straight through it, is torch's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.ConvTranspose2d)
"""Layers that are quantized; norms and activations between them stay in floats."""
WEIGHT_STEPS = 64
"""Largest integer of weights in int8 files by default: with 127, runtimes saturate on some CPUs."""
ACTIVATION_STEPS = 255
SMALLEST = 1e-12
"""Half a grid that has no width is as wide as this."""


def output_axis(layer: nn.Module) -> int:
    """The axis of ``layer``'s weight that counts output channels (within a group)."""
    return 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def weight_scales(weight: Tensor, axis: int) -> Tensor:
    """Width of a step for every output channel: its largest weight is 64 steps."""
    others = [i for i in range(weight.ndim) if i != axis]
    return weight.detach().abs().amax(others).clamp_min(SMALLEST) / WEIGHT_STEPS


def on_weight_grid(weight: Tensor, axis: int) -> Tensor:
    """``weight`` rounded per channel of ``axis`` to int8; its gradient is that of ``weight`` itself.

    Doing it again changes nothing but the last bit, since the largest weight of every channel stays.
    """
    scales = weight_scales(weight, axis).float()
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -WEIGHT_STEPS, WEIGHT_STEPS)
    return rounded


def activation_grid(low: float, high: float) -> tuple[float, int]:
    """(width of a step, step that stands for 0) of 256 steps from ``low`` to ``high``, which include 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, SMALLEST) / ACTIVATION_STEPS
    return scale, min(max(round(-low / scale), 0), ACTIVATION_STEPS)


def on_activation_grid(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """``x`` rounded to uint8; the gradient is zero for what lies outside the grid."""
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, ACTIVATION_STEPS)


def rounded_activation(x: Tensor) -> Tensor:
    """``x`` rounded to 256 steps between its own extremes."""
    return on_activation_grid(x, *activation_grid(float(x.min()), float(x.max())))
