"""Static post-training quantization to int8 with the runtime's own tool, and the loss it costs.

Weights are int8 per channel, activations 8 bits per tensor with ranges from calibration pictures. Where a
runtime adds pairs of products in 16 bits on some CPUs, weights have 7 bits, so that no pair is too large:
2 x 255 x 64 < 2^15. A part of those pictures is held out; on them the quantized file is compared with the
fp32 generator. Where it loses more than allowed, the layers that hurt most stay in floats, as few as do.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coronet_plugin.errors import ExportError, OptionError, describe
from coronet_plugin.export.pictures import Samples
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.quantization.quality import Quality, quality, truths_of
from coronet_plugin.export.request import Request
from coronet_plugin.export.sensitivity import layers_in_order, sensitivities
from coronet_plugin.export.targets import Target
from coronet_plugin.export.verify import bounds_of

MAX_DROP = 0.01
"""Loss allowed to int8 by default: SSIM of its pictures to those of fp32 is 1 less this, on average."""
HELD_OUT = 4
"""One picture of so many is not calibrated with."""
EVERY_CPU = "every CPU"
FULL_RANGE_NEEDS = "x86 CPUs with AVX-512 VNNI or AVX-VNNI, and ARM CPUs"
"""Where 8-bit weights are right in runtimes that saturate elsewhere."""


@dataclass(frozen=True)
class Quantization:
    """The inputs of a runtime's tool.

    ``generator``: fp32, in evaluation mode, prepared for the target. ``example``: (1, C, H, W). ``layers``:
    its convolutions by name, in the order they run. ``pictures``: (N, C, H, W) float32 in [-1, 1], to
    calibrate with. ``ranges``: what quantization-aware training found, by layer name: ``input`` and
    ``output``, each (scale, zero point); empty without it. ``full_range``: 8 bits of weights also where the
    runtime may saturate. ``entries``: as a :class:`~coronet_plugin.export.targets.Job` has them.
    """

    generator: nn.Module
    example: Tensor
    layers: Mapping[str, nn.Module]
    pictures: np.ndarray
    dynamic: bool = False
    multiple: int = 1
    ranges: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    full_range: bool = False
    entries: Mapping[str, str] = field(default_factory=dict)


Write = Callable[[Path, frozenset[str]], None]
"""Writes the quantized file to a path, with the layers named left in floats."""
Begin = Callable[[Quantization, Path], Write]
"""The function ``begin`` of every runtime's module: it may keep files in the folder it is given."""


@dataclass(frozen=True)
class Tool:
    """A quantizer for a target. ``takes_ranges``: whether it uses those of quantization-aware training.

    ``saturates``: whether the runtime, on x86 CPUs without VNNI, adds two products of u8 and s8 in 16 bits.
    """

    scheme: str
    takes_ranges: bool = False
    saturates: bool = False

    def weights(self, full_range: bool) -> dict[str, Any]:
        """Say how many bits weights have, and where that is right."""
        if not self.saturates:
            return {"weight_bits": 8, "right_on": EVERY_CPU}
        return {
            "weight_bits": 8 if full_range else 7,
            "right_on": FULL_RANGE_NEEDS if full_range else EVERY_CPU,
        }


TOOLS = {
    "onnx": Tool("onnxruntime.quantization, static QDQ: u8 activations, s8 weights per channel", True, True),
    "litert": Tool("ai-edge-quantizer, static: s8 activations, s8 weights per channel"),
    "openvino": Tool("NNCF, mixed preset: u8 or s8 activations, s8 weights per channel", saturates=True),
    "executorch": Tool("torchao PT2E with XNNPACK's quantizer: s8 activations, s8 weights per channel"),
}
"""By target, which is also the name of the module of this package that uses it."""


def quantize(
    request: Request,
    prepared: nn.Module,
    example: Tensor,
    path: Path,
    calibration: Samples,
    entries: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write ``prepared`` in int8 to ``path``, with as few layers in floats as the allowed loss takes.

    ``request.quantization``: ``max_drop`` (SSIM), ``full_range`` (8 bits of weights also where that is wrong
    on some CPUs) and ``ranges`` of quantization-aware training, if any. Gives the record's entry
    ``quantization``.

    Raises:
        OptionError: the target has no int8, or the allowed loss is no number from 0 to 1.
        ExportError: the tool fails, or no choice of layers loses as little as allowed.
    """
    settings = request.quantization
    limit = check_drop(float(settings.get("max_drop", MAX_DROP)))
    tool, module = _tool(request.target)
    kept, held_out = split(calibration)
    layers = layers_in_order(prepared, example)
    job = Quantization(
        prepared,
        example,
        layers,
        kept.values,
        request.dynamic,
        request.multiple,
        usable_ranges(prepared, settings.get("ranges") or {}),
        bool(settings.get("full_range")),
        entries,
    )
    truths = truths_of(held_out, prepared, example)
    reference = as_array_model(prepared)
    [bound] = bounds_of(prepared, (kept.values[:1],))
    with tempfile.TemporaryDirectory() as folder:
        write = _guarded(module.begin(job, Path(folder)), request.target)

        def try_without(floats: frozenset[str]) -> Quality:
            write(path, floats)
            return quality(request.target.load(path), reference, held_out.values, truths, bound)

        floats, found, before = fewest_in_floats(job, limit, try_without)
    return {
        "quantization": {
            "scheme": tool.scheme,
            **tool.weights(job.full_range),
            "layers": len(layers),
            "left_in_float": [name for name in layers if name in floats],
            "max_drop": limit,
            "calibration": {"pictures": len(kept.values), "from": calibration.source},
            "ranges_from_training": bool(job.ranges) and tool.takes_ranges,
            "loss": found.as_dict(),
            "loss_with_all_layers": before.as_dict(),
        }
    }


def usable_ranges(
    generator: nn.Module, ranges: Mapping[str, Mapping[str, Sequence[float]]]
) -> dict[str, dict[str, Sequence[float]]]:
    """Keep of ``ranges`` those that hold for ``generator``.

    A batch norm is made part of the convolution before it, whose output then is another.
    """
    folded = any(isinstance(module, _BatchNorm) for module in generator.modules())
    return {
        name: {end: grid for end, grid in ends.items() if not (folded and end == "output")}
        for name, ends in ranges.items()
    }


def check_drop(value: float) -> float:
    """Raises OptionError for what is no loss of SSIM."""
    if not 0 < value < 1:
        raise OptionError(f"--int8_max_drop {value:g} must be between 0 and 1: it is a loss of SSIM")
    return value


def split(pictures: Samples) -> tuple[Samples, Samples]:
    """Part pictures to calibrate with from those to measure loss on, every fourth. A single one is both."""
    count = len(pictures.values)
    held_out = [i for i in range(count) if i % HELD_OUT == HELD_OUT - 1] or [count - 1]
    kept = [i for i in range(count) if i not in held_out] or held_out
    return pictures.some(kept), pictures.some(held_out)


def fewest_in_floats(
    job: Quantization, limit: float, try_without: Callable[[frozenset[str]], Quality]
) -> tuple[frozenset[str], Quality, Quality]:
    """The layers to leave in floats, the loss with them, and the loss with none.

    Layers leave int8 in the order of their sensitivity; how many must is found by bisection, each try with
    the runtime's own file. The last try is the one chosen, so that its file stays.
    """
    all_quantized = try_without(frozenset())
    if all_quantized.drop <= limit:
        return frozenset(), all_quantized, all_quantized
    order = list(sensitivities(job.generator, job.layers, job.pictures))
    too_few, enough, best = 0, len(order), all_quantized
    tried = {0: all_quantized}
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        tried[middle] = try_without(frozenset(order[:middle]))
        best = min(best, tried[middle], key=lambda found: found.drop)
        too_few, enough = (too_few, middle) if tried[middle].drop <= limit else (middle, enough)
    if enough == len(order):
        raise ExportError(
            f"int8 loses {best.drop:.3f} of SSIM on pictures it was not calibrated with, even with most "
            f"layers in floats; allowed is {limit:g}: raise --int8_max_drop, calibrate with more pictures, "
            "or take fp16"
        )
    floats = frozenset(order[:enough])
    if list(tried)[-1] != enough:
        tried[enough] = try_without(floats)
    return floats, tried[enough], all_quantized


def _tool(target: Target) -> tuple[Tool, Any]:
    """Find the tool that quantizes for ``target``, and the module that uses it."""
    if target.name not in TOOLS:
        raise OptionError(f"--dtype int8 is not offered for {target.name}; choose one of {', '.join(TOOLS)}")
    target.require("int8")
    return TOOLS[target.name], importlib.import_module(f"{__name__}.{target.name}")


def _guarded(write: Write, target: Target) -> Write:
    """``write``, whose errors, each tool's own, become one."""

    def guarded(path: Path, floats: frozenset[str]) -> None:
        try:
            write(path, floats)
        except (OptionError, ExportError):
            raise
        except Exception as error:
            raise ExportError(f"{target.name} cannot quantize this generator: {describe(error)}") from error

    return guarded


def matched(layers: Mapping[str, nn.Module], shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Layer names by the runtime's names for the same weights, both in the order in which they run.

    ``shapes``: of the runtime's weights. Raises ExportError when they are not the same layers.
    """
    ours = [math.prod(layer.weight.shape) for layer in layers.values()]  # type: ignore[union-attr,arg-type]
    theirs = [math.prod(shape) for shape in shapes.values()]
    if ours != theirs:
        raise ExportError(
            f"the runtime has {len(theirs)} convolutions, torch {len(ours)}, or in another order: "
            "layers cannot be told apart; export with --dtype fp16"
        )
    return dict(zip(shapes, layers))


def tensors(pictures: np.ndarray) -> list[Tensor]:
    """One (1, C, H, W) tensor for each of ``pictures``."""
    return [torch.from_numpy(np.ascontiguousarray(picture[None])) for picture in pictures]
