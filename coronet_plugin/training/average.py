"""Average weights: a running mean of a generator's tensors over the steps of its training.

A generator that moves about its best place is often better in the mean of where it was (Polyak and Juditsky
1992; of GANs: Karras et al., ICLR 2018, arXiv 1710.10196). The mean stands beside the generator, which trains
as ever, and loses the channels that the generator loses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import readers, scale_
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.methods import Events
from coronet_plugin.methods.events import Remaining

AVERAGE = "average"
"""``latest_average`` is the name of the epoch whose weights are those of ``latest``, averaged."""


class Average(Events):
    """Exponential moving average of all parameters and buffers of the generator.

    After step number ``n`` the mean moves by ``max(1 - decay, 9 / (10 + n))`` of the way to the weights, so
    that it forgets the random ones it began with however short the training. It begins with the weights
    there are after the first step. Gates are not averaged: a channel that nobody reads in the generator is
    read by nobody in the mean either, and its removal changes neither.

    Raises:
        OptionError: ``decay`` is not between 0 and 1.
    """

    name = AVERAGE

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise OptionError(f"the decay of the averaged weights must be between 0 and 1, not {decay:g}")
        self.decay = decay
        self.steps = 0
        self._values: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        now = _tensors(self.generator)
        if not self._values:
            self._values = {name: tensor.detach().clone() for name, tensor in now.items()}
        self.steps += 1
        pace = max(1 - self.decay, 9 / (10 + self.steps))
        moving = [name for name, tensor in now.items() if tensor.is_floating_point()]
        for name, tensor in now.items():
            self._values[name] = self._values[name].to(tensor.device)
        torch._foreach_lerp_([self._values[n] for n in moving], [now[n].detach() for n in moving], pace)
        for name in now.keys() - set(moving):
            self._values[name].copy_(now[name])

    def gated(self, plan: ChannelPlan, factor: np.ndarray) -> None:
        if self._values:
            scale_(self._values, readers(plan), factor)

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        kept = self._values if remaining is not None else {}
        self._values = {name: remaining(name, value) for name, value in kept.items()}  # type: ignore[misc]

    def finish(self) -> None:
        """Begin with the weights of now where the mean was that of another generator, such as a teacher."""
        if self.steps and not self._values:
            self._values = {name: t.detach().clone() for name, t in _tensors(self.generator).items()}

    def versions(self) -> Mapping[str, AbstractContextManager[Any]]:
        return {AVERAGE: self.in_place()} if self._values else {}

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
        return {"steps": self.steps, "values": {name: value.cpu() for name, value in self._values.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError when ``state`` is of a generator with other tensors."""
        values = state.get("values", {})
        if values and set(values) != set(_tensors(self.generator)):
            raise CheckpointError("the saved averaged weights are of a generator with other tensors")
        self.steps = int(state.get("steps", 0))
        self._values = {name: value.clone() for name, value in values.items()}


def _tensors(generator: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    return {**dict(generator.named_parameters()), **dict(generator.named_buffers())}
