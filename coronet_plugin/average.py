"""Averaged weights: a running mean of a generator's tensors over the steps of its training.

A generator that moves about its best place is often better in the mean of where it was (Polyak and Juditsky
1992; of GANs: Karras et al., ICLR 2018, arXiv 1710.10196). The mean stands beside the generator, which trains
as ever, and loses the channels that the generator loses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import readers, scale_, sliced
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import CheckpointError, OptionError

SUFFIX = "_average"
"""``latest_average`` is the name of the epoch whose weights are those of ``latest``, averaged."""


class Average:
    """Exponential moving average of all parameters and buffers of ``generator``.

    After step number ``n`` the mean moves by ``max(1 - decay, 9 / (10 + n))`` of the way to the weights, so
    that it forgets the random ones it began with however short the training. It begins with the weights
    there are at the first :meth:`update_`.

    Raises:
        OptionError: ``decay`` is not between 0 and 1.
    """

    def __init__(self, generator: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise OptionError(f"the decay of the averaged weights must be between 0 and 1, not {decay:g}")
        self.generator, self.decay = generator, decay
        self.steps = 0
        self._values: dict[str, Tensor] = {}

    @torch.no_grad()
    def update_(self) -> None:
        """Take in the generator's weights of this step."""
        now = _tensors(self.generator)
        if not self._values:
            self._values = {name: tensor.detach().clone() for name, tensor in now.items()}
        self.steps += 1
        pace = max(1 - self.decay, 9 / (10 + self.steps))
        for name, tensor in now.items():
            if tensor.is_floating_point():
                self._values[name] = self._values[name].to(tensor.device)
                self._values[name].lerp_(tensor.detach(), pace)
            else:
                self._values[name] = tensor.detach().clone()

    def scale_(self, plan: ChannelPlan, factor: np.ndarray) -> None:
        """Multiply what reads each unit by its ``factor`` ``(units,)``, as a search did with the weights.

        So gates are not averaged: a unit whose gate is zero is read by nobody in the mean either, and its
        removal changes neither.
        """
        if self._values and (factor != 1).any():
            scale_(self._values, readers(plan), factor)

    def follow_(self, plan: ChannelPlan, alive: np.ndarray) -> None:
        """Lose all units of ``plan`` but ``alive``, as the generator did."""
        self._values = {name: sliced(value, plan, name, alive) for name, value in self._values.items()}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[nn.Module]:
        """While this lasts, the generator has the averaged weights. It must not be trained meanwhile."""
        tensors = {name: t for name, t in _tensors(self.generator).items() if name in self._values}
        kept = {name: tensor.data for name, tensor in tensors.items()}
        try:
            for name, tensor in tensors.items():
                tensor.data = self._values[name].to(tensor.device)
            yield self.generator
        finally:
            for name, tensor in tensors.items():
                tensor.data = kept[name]

    def state_dict(self) -> dict[str, Any]:
        """What a bit-equal continuation needs."""
        return {"steps": self.steps, "values": {name: value.cpu() for name, value in self._values.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError when ``state`` is of a generator with other tensors."""
        if state["values"] and set(state["values"]) != set(_tensors(self.generator)):
            raise CheckpointError("the saved averaged weights are of a generator with other tensors")
        self.steps = int(state["steps"])
        self._values = {name: value.clone() for name, value in state["values"].items()}


def average_path(path: str | Path) -> Path:
    """Where averaged weights lie: ``latest_average_net_G.pth`` beside ``latest_net_G.pth``."""
    path = Path(path)
    epoch, net, name = path.name.rpartition("_net_")
    if net:
        return path.with_name(f"{epoch}{SUFFIX}{net}{name}")
    return path.with_name(f"{path.stem}{SUFFIX}{path.suffix}")


def _tensors(generator: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    return {**dict(generator.named_parameters()), **dict(generator.named_buffers())}
