"""Which convolutions lose most when they are calculated in int8.

One layer at a time is rounded in torch, input, weights and output, and the error that leaves the generator is
measured. Runtimes differ in details, so this gives an order of layers; how many of them have to stay in
floats, the runtime's own file decides.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.fake_quantization import LAYERS, on_weight_grid, output_axis, rounded_activation

SECONDS = 60.0
"""About how long a ranking may take, unless one picture for every layer takes longer."""


@torch.no_grad()
def layers_in_order(generator: nn.Module, example: Tensor) -> dict[str, nn.Module]:
    """The convolutions of ``generator`` by name, in the order they run for ``example`` (1, C, H, W)."""
    found: dict[str, nn.Module] = {}
    layers = {name: module for name, module in generator.named_modules() if isinstance(module, LAYERS)}

    def note(name: str) -> Any:
        return lambda module, inputs: found.setdefault(name, module) and None

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in layers.items()]
    try:
        generator(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextlib.contextmanager
def rounded(layer: nn.Module) -> Iterator[None]:
    """While this lasts, ``layer`` takes, holds and gives what int8 can hold."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    kept = weight.data
    weight.data = on_weight_grid(kept, output_axis(layer))
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: (rounded_activation(inputs[0]), *inputs[1:])),
        layer.register_forward_hook(lambda _, inputs, output: rounded_activation(output)),
    ]
    try:
        yield
    finally:
        weight.data = kept
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def sensitivities(
    generator: nn.Module, layers: Mapping[str, nn.Module], pictures: np.ndarray, seconds: float = SECONDS
) -> dict[str, float]:
    """Mean squared error of the output by the one layer that is rounded; the largest first.

    ``pictures``: (N, C, H, W) float32 in [-1, 1], of which as many are taken as ``seconds`` allow.
    """
    start = time.perf_counter()
    generator(torch.from_numpy(pictures[:1]))
    each = (time.perf_counter() - start) * (len(layers) + 1)
    chosen = [torch.from_numpy(p[None]) for p in pictures[: max(1, int(seconds / max(each, 1e-9)))]]
    expected = [generator(picture) for picture in chosen]
    errors = {}
    for name, layer in layers.items():
        with rounded(layer):
            gaps = [generator(picture) - output for picture, output in zip(chosen, expected)]
        errors[name] = float(torch.stack([(gap.double() ** 2).mean() for gap in gaps]).mean())
    return dict(sorted(errors.items(), key=lambda item: -item[1]))
