"""Quantization-aware training of a slim generator (Jacob et al. 2018): it learns to live with int8.

For the last part of training every convolution calculates with weights rounded to int8 per channel, and
with inputs and outputs rounded to uint8 per tensor, in ranges that follow the activations and are frozen
towards the end. Gradients pass straight through the rounding. Layers change their class and nothing else:
parameters, names and optimizers stay as they are. Files get the rounded weights, as plain tensors; the
weights behind them, which training goes on with, and the ranges are training state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.distributed import say
from coronet_plugin.errors import CheckpointError
from coronet_plugin.fake_quantization import ACTIVATION_STEPS, on_weight_grid, output_axis
from coronet_plugin.methods import Events

AVERAGING = 0.01
"""How much of a new batch's extremes goes into the ranges."""
FREEZE = 0.75
"""Part of the quantization-aware steps after which ranges stay as they are."""


class Range:
    """Rounds a tensor to uint8 between running extremes, which move until they are frozen."""

    def __init__(self, device: torch.device) -> None:
        self.low = torch.full((1,), torch.inf, device=device)
        self.high = torch.full((1,), -torch.inf, device=device)
        self.scale = torch.ones(1, device=device)
        self.zero_point = torch.zeros(1, dtype=torch.int32, device=device)
        self.switches = torch.tensor([0, 1], device=device)
        self.frozen = self.seen = False
        """``seen``: whether anything has passed yet."""

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        off, on = self.switches[:1], self.switches[1:]
        watching = training and not self.frozen and torch.is_grad_enabled()  # not while pictures are shown
        self.seen = self.seen or watching
        if not self.seen:
            return x
        rounded: Tensor = torch.fused_moving_avg_obs_fake_quant(
            x, on if watching else off, on, self.low, self.high, self.scale, self.zero_point,
            AVERAGING, 0, ACTIVATION_STEPS, -1, False, False,
        )  # fmt: skip
        return rounded

    def state(self) -> list[Tensor]:
        """Extremes, width of a step, and the step that stands for 0."""
        return [self.low, self.high, self.scale, self.zero_point]

    def grid(self) -> list[float]:
        """[width of a step, step that stands for 0]."""
        return [float(self.scale), int(self.zero_point)]


class _RoundedConv2d(nn.Conv2d):
    ranges: tuple[Range, Range]

    def forward(self, input: Tensor) -> Tensor:
        before, after = self.ranges
        weight = on_weight_grid(self.weight, 0)
        return after(self._conv_forward(before(input, self.training), weight, self.bias), self.training)


class _RoundedConvTranspose2d(nn.ConvTranspose2d):
    ranges: tuple[Range, Range]

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        if output_size is not None:
            raise TypeError("a rounded transposed convolution takes no output_size; set its output_padding")
        before, after = self.ranges
        weight = on_weight_grid(self.weight, 1)
        options = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        y = nn.functional.conv_transpose2d(before(input, self.training), weight, self.bias, *options)  # type: ignore[arg-type]
        return after(y, self.training)


CLASSES: dict[type, type] = {nn.Conv2d: _RoundedConv2d, nn.ConvTranspose2d: _RoundedConvTranspose2d}
ENDS = ("input", "output")


class Rounding(Events):
    """Quantization-aware training of one slim generator, which is changed in place; see the module's text.

    All layers whose class is ``Conv2d`` or ``ConvTranspose2d`` itself are rounded, from optimizer step number
    ``first`` on, once the generator is slim; ranges are frozen after :data:`FREEZE` of the ``steps``.
    ``network``: what it is called.
    """

    name = "rounding"

    def __init__(self, first: int, steps: int, network: str = "G") -> None:
        self.first, self.steps, self.network = first, steps, network
        self.done = 0
        self.layers: dict[str, Any] = {}
        self._is_slim = False
        self._behind: Mapping[str, Tensor] = {}
        """Weights behind the rounded ones that were loaded and not taken up yet."""

    def finish(self) -> None:
        self._is_slim = True

    def before_step(self, step: int) -> None:
        if not self.layers and self._is_slim and step >= self.first:
            self._begin()
        self._take_up_weights()
        self.done = step - self.first + 1
        for each in self._ranges().values():
            each.frozen = self.done > FREEZE * self.steps

    def _begin(self) -> None:
        self.layers = {name: m for name, m in self.generator.named_modules() if type(m) in CLASSES}
        for layer in self.layers.values():
            device = next(layer.parameters()).device
            layer.ranges = (Range(device), Range(device))
            layer.__class__ = CLASSES[type(layer)]
        say(
            f"coronet: net{self.network} is trained for int8 from here on: {len(self.layers)} "
            f"convolutions are rounded for {self.steps} steps"
        )

    def _stop(self) -> None:
        """Make the layers plain again; weights stay as they are."""
        for layer in self.layers.values():
            layer.__class__ = next(plain for plain, new in CLASSES.items() if new is type(layer))
            del layer.ranges
        self.layers, self._behind = {}, {}

    @torch.no_grad()
    def release_(self) -> nn.Module:
        """Make the generator plain again, with rounded weights, and return it."""
        for layer in self.layers.values():
            layer.weight.copy_(on_weight_grid(layer.weight, output_axis(layer)))
        self._stop()
        return self.generator

    @contextlib.contextmanager
    def in_files(self) -> Iterator[Mapping[str, Any]]:
        """While this lasts, the generator's parameters are the rounded weights."""
        if not self.layers:
            yield {}
            return
        kept = {layer: layer.weight.data for layer in self.layers.values()}
        try:
            for layer, weight in kept.items():
                layer.weight.data = on_weight_grid(weight, output_axis(layer))
            yield {"quantization": self.facts()}
        finally:
            for layer, weight in kept.items():
                layer.weight.data = weight

    def facts(self) -> dict[str, Any]:
        """Facts for the spec: ``ranges`` by layer and ``input`` or ``output``: [step's width, zero point]."""
        seen = {key: each.grid() for key, each in self._ranges().items() if each.seen}
        ranges: dict[str, dict[str, list[float]]] = {}
        for (name, end), grid in seen.items():
            ranges.setdefault(name, {})[end] = grid
        words = {"weights": "int8 per output channel, symmetric", "activations": "uint8 per tensor"}
        return {**words, "steps": self.done, "of": self.steps, "ranges": ranges}

    def state_dict(self) -> dict[str, Any]:
        """State for a bit-equal continuation: weights before rounding, and ranges; at first nothing."""
        if not self.layers:
            return {}
        weights = self._behind or {n: layer.weight.detach().cpu() for n, layer in self.layers.items()}
        ranges = {f"{n} {end}": [t.cpu() for t in each.state()] for (n, end), each in self._ranges().items()}
        return {"steps": self.steps, "done": self.done, "weights": dict(weights), "ranges": ranges}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; weights are taken up before the next step, when files have been loaded.

        Raises:
            CheckpointError: it is of a generator with other layers.
        """
        self._stop()
        if not state:
            return
        self.steps, self.done = int(state["steps"]), int(state["done"])
        self._begin()
        if set(state["weights"]) != set(self.layers):
            raise CheckpointError("the saved quantization-aware training is of a generator with other layers")
        self._behind = state["weights"]
        for (name, end), each in self._ranges().items():
            for mine, saved in zip(each.state(), state["ranges"][f"{name} {end}"]):
                mine.copy_(saved)
            each.seen = bool(torch.isfinite(each.low))

    @torch.no_grad()
    def _take_up_weights(self) -> None:
        for name, weight in self._behind.items():
            self.layers[name].weight.copy_(weight)
        self._behind = {}

    def _ranges(self) -> dict[tuple[str, str], Range]:
        pairs = {name: layer.ranges for name, layer in self.layers.items()}
        return {(n, end): each for n, both in pairs.items() for end, each in zip(ENDS, both)}
