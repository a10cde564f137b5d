"""Pictures at both ends of a file: how bytes become its numbers and back, said in the file or baked into it.

Everywhere a byte ``b`` of a picture, in RGB, is ``b / 127.5 - 1`` for a generator, and an output ``y`` in the
range from ``low`` to ``high`` the byte ``255 (y - low) / (high - low)``, rounded and clipped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.export.ports import Port, Ports
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import ArrayModel

PREFIX = "coronet."
"""Beginning of the names of a file's own entries, where its format has a field for them."""


class ToLevels(nn.Module):
    """``generator`` with its output, in the range ``limits``, as whole numbers 0 to 255, still floats."""

    def __init__(self, generator: nn.Module, limits: tuple[float, float]) -> None:
        super().__init__()
        self.generator = generator
        self.low, self.high = limits

    def forward(self, x: Tensor) -> Tensor:
        y = self.generator(x)
        return torch.round((y - self.low) * (255 / (self.high - self.low))).clamp(0, 255)


class FromBytes(nn.Module):
    """``generator`` for bytes: (N, H, W, C) uint8 in, (N, H, W, C) uint8 out. ``limits``: of its output."""

    def __init__(self, generator: nn.Module, limits: tuple[float, float]) -> None:
        super().__init__()
        self.levels = ToLevels(generator, limits)

    def forward(self, x: Tensor) -> Tensor:
        y = self.levels(x.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return y.to(torch.uint8).permute(0, 2, 3, 1)


class InLevels(nn.Module):
    """``generator`` on the levels that bytes have, floats at both ends: a :class:`FromBytes` on floats."""

    def __init__(self, generator: nn.Module, limits: tuple[float, float]) -> None:
        super().__init__()
        self.bytes, self.limits = FromBytes(generator, limits), limits

    def forward(self, x: Tensor) -> Tensor:
        y = self.bytes(to_bytes(x)).permute(0, 3, 1, 2).float()
        low, high = self.limits
        return y * ((high - low) / 255) + low


def in_bytes(ports: Ports) -> Ports:
    """The same ends for bytes."""
    return Ports(tuple(map(_as_bytes, ports.inputs)), tuple(map(_as_bytes, ports.outputs)), ports.plain)


def _as_bytes(port: Port) -> Port:
    count, channels, height, width = port.shape
    return Port(port.name, (count, height, width, channels), "uint8")


def to_bytes(x: Tensor) -> Tensor:
    """Pictures (N, C, H, W) in [-1, 1] as (N, H, W, C) uint8, laid out so."""
    return torch.round((x + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def on_floats(run: ArrayModel, limits: tuple[float, float]) -> ArrayModel:
    """A model of bytes as one of floats, (N, C, H, W), in [-1, 1] going in and in ``limits`` coming out."""
    low, high = limits

    def over_bytes(x: np.ndarray) -> np.ndarray:
        y = run(to_bytes(torch.from_numpy(x)).numpy())
        if y.dtype != np.uint8:
            return np.full((len(y), 1, 1, 1), np.nan, dtype=np.float32)  # which no comparison accepts
        return np.ascontiguousarray(y.transpose(0, 3, 1, 2).astype(np.float32) * ((high - low) / 255) + low)

    return over_bytes


def limits_of(request: Request) -> tuple[float, float]:
    """The range of the generator's output: what its family says, else that of tanh."""
    low, high = request.about.get("output_range") or (-1.0, 1.0)
    return float(low), float(high)


def entries(request: Request, ports: Ports) -> dict[str, str]:
    """Describe a file for itself, by name: JSON for each end, so that an app need not guess."""
    found = {f"{PREFIX}{port.name}": json.dumps(_input(request, port)) for port in ports.inputs}
    found.update({f"{PREFIX}{port.name}": json.dumps(_output(request, port)) for port in ports.outputs})
    return found


def _input(request: Request, port: Port) -> dict[str, Any]:
    size: dict[str, Any] = {"multiple_of": request.multiple} if request.dynamic else {"size": [*request.size]}
    return _end(
        request, port, {"from_byte": {"scale": 1 / 127.5, "offset": -1.0}}, {**size, "resize": "bicubic"}
    )


def _output(request: Request, port: Port) -> dict[str, Any]:
    low, high = limits_of(request)
    scale = 255 / (high - low)
    return _end(request, port, {"to_byte": {"scale": scale, "offset": -low * scale, "clip": [0, 255]}}, {})


def _end(
    request: Request, port: Port, of_bytes: Mapping[str, Any], more: Mapping[str, Any]
) -> dict[str, Any]:
    if not port.is_picture:
        return {"dtype": port.dtype}
    if request.embed_preprocessing:
        return {"layout": "NHWC", "color": "RGB", "dtype": "uint8", **more}
    return {"layout": "NCHW", "color": "RGB", "dtype": port.dtype, **of_bytes, **more}
