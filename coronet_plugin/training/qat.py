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

from coronet_plugin.checkpoint.spec import COMPACT
from coronet_plugin.distributed import say
from coronet_plugin.errors import CheckpointError
from coronet_plugin.fake_quantization import ACTIVATION_STEPS, on_weight_grid, output_axis
from coronet_plugin.training import host

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
        self.frozen = False

    @property
    def seen(self) -> bool:
        """Whether anything has passed yet."""
        return bool(torch.isfinite(self.low))

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        off, on = self.switches[:1], self.switches[1:]
        watching = training and not self.frozen and torch.is_grad_enabled()  # not while pictures are shown
        if not watching and not self.seen:
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


class Rounding:
    """Quantization-aware training of one slim generator, which is changed in place; see the module's text.

    All layers whose class is ``Conv2d`` or ``ConvTranspose2d`` itself are rounded. ``steps``: how many there
    will be; ranges are frozen after :data:`FREEZE` of them.
    """

    def __init__(self, generator: nn.Module, steps: int) -> None:
        self.generator, self.steps, self.done = generator, steps, 0
        self.layers = {name: m for name, m in generator.named_modules() if type(m) in CLASSES}
        for layer in self.layers.values():
            device = next(layer.parameters()).device
            layer.ranges = (Range(device), Range(device))  # type: ignore[assignment]
            layer.__class__ = CLASSES[type(layer)]

    def advance(self, number: int) -> None:
        """Tell the number of the step that comes, from 1 on."""
        self.done = number
        for each in self._ranges().values():
            each.frozen = number > FREEZE * self.steps

    def release_(self) -> nn.Module:
        """Make the generator plain again, with rounded weights, and return it."""
        for layer in self.layers.values():
            with torch.no_grad():
                layer.weight.copy_(on_weight_grid(layer.weight, output_axis(layer)))  # type: ignore[operator,arg-type]
            layer.__class__ = next(plain for plain, new in CLASSES.items() if new is type(layer))
            del layer.ranges
        return self.generator

    @contextlib.contextmanager
    def in_files(self) -> Iterator[None]:
        """While this lasts, the generator's parameters are the rounded weights."""
        kept = {layer: layer.weight.data for layer in self.layers.values()}
        try:
            for layer, weight in kept.items():
                layer.weight.data = on_weight_grid(weight, output_axis(layer))
            yield
        finally:
            for layer, weight in kept.items():
                layer.weight.data = weight

    def facts(self) -> dict[str, Any]:
        """What the spec says: ``ranges`` by layer and ``input`` or ``output``: [step's width, zero point]."""
        seen = {key: each.grid() for key, each in self._ranges().items() if each.seen}
        ranges: dict[str, dict[str, list[float]]] = {}
        for (name, end), grid in seen.items():
            ranges.setdefault(name, {})[end] = grid
        words = {"weights": "int8 per output channel, symmetric", "activations": "uint8 per tensor"}
        return {**words, "steps": self.done, "of": self.steps, "ranges": ranges}

    def state_dict(self) -> dict[str, Any]:
        """What a bit-equal continuation needs: the weights before rounding, and the ranges."""
        return {
            "weights": {name: layer.weight.detach().cpu() for name, layer in self.layers.items()},  # type: ignore[union-attr,operator]
            "ranges": {
                f"{n} {end}": [t.cpu() for t in each.state()] for (n, end), each in self._ranges().items()
            },
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError when ``state`` is of a generator with other layers."""
        if set(state["weights"]) != set(self.layers):
            raise CheckpointError("the saved quantization-aware training is of a generator with other layers")
        for name, layer in self.layers.items():
            layer.weight.copy_(state["weights"][name])  # type: ignore[operator,union-attr]
        for (name, end), each in self._ranges().items():
            for mine, saved in zip(each.state(), state["ranges"][f"{name} {end}"]):
                mine.copy_(saved)

    def _ranges(self) -> dict[tuple[str, str], Range]:
        pairs = {name: layer.ranges for name, layer in self.layers.items()}
        return {(n, end): each for n, both in pairs.items() for end, each in zip(ENDS, both)}  # type: ignore[arg-type]


class LateRounding:
    """Rounding of all compressed generators of a host's ``model`` in its last ``epochs`` epochs."""

    def __init__(self, model: Any, epochs: float) -> None:
        self.model, self.epochs = model, epochs
        self.roundings: dict[str, Rounding] = {}

    def before_step(self) -> None:
        """Begin when it is time and the generators are slim; keep count."""
        if not self.epochs:
            return
        model = self.model
        steps = max(1, round(self.epochs * model._steps_per_epoch))
        whole = host.total_epochs(model.opt) * model._steps_per_epoch
        done = model._epochs_done * model._steps_per_epoch + model._steps_this_epoch - (whole - steps)
        if done >= 0 and not self.roundings and all(c.phase == COMPACT for c in model.compressions.values()):
            self._begin(steps)
        for rounding in self.roundings.values():
            rounding.advance(done + 1)

    def _begin(self, steps: int) -> None:
        for name in self.model.compressions:
            network = host.unwrap(getattr(self.model, "net" + name))
            self.roundings[name] = Rounding(network, steps)
            say(
                f"coronet: net{name} is trained for int8 from here on: {len(self.roundings[name].layers)} "
                f"convolutions are rounded for {steps} steps"
            )

    @contextlib.contextmanager
    def in_files(self, name: str) -> Iterator[dict[str, Any]]:
        """While this lasts, generator ``name`` has the weights that files get; gives what its spec says."""
        if name not in self.roundings:
            yield {}
            return
        with self.roundings[name].in_files():
            yield self.roundings[name].facts()

    def state_dict(self) -> dict[str, Any]:
        """By generator; empty before it begins."""
        return {
            name: {"steps": rounding.steps, "done": rounding.done, **rounding.state_dict()}
            for name, rounding in self.roundings.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, in generators that are slim and loaded.

        Raises:
            CheckpointError: it is of a generator with other layers.
        """
        self.roundings = {}
        if state:
            self._begin(int(next(iter(state.values()))["steps"]))
        for name, rounding in self.roundings.items():
            rounding.load_state_dict(state[name])
            rounding.advance(int(state[name]["done"]))
