"""The published map behind gates: over-parametrised training with a lossless cut.

``W_ij = s_i O_ij(z_in, z_out)``: the weights come from the published hypernetwork with all its biases, whose
latents are trained like everything in it and never shrunk. In front of every channel that is read stands a
gate ``s``, one at the start, as in :mod:`coronet_plugin.methods.gates`, from which importance, schedule and
giving up are. Zero times whatever the map puts out is zero, so channels whose gates are closed can be removed
at any time, with their part of the map. At the cut the weights are what the map last put out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from coronet_plugin.channels.cut import scale_
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.methods.base import Task
from coronet_plugin.methods.events import Remaining
from coronet_plugin.methods.gates import Gates
from coronet_plugin.methods.generated import Embedded, Generating
from coronet_plugin.methods.registry import method


@method("gated", "the published hypernetwork behind gates, no loss at the cut")
class Gated(Generating, Gates):
    """Search by gates before generated weights; see the module's text."""

    @dataclass(frozen=True)
    class Config(Embedded):
        """The size of the map. Raises OptionError for an embedding size below one."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config, "published", config.embedding)

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        super().resized(plan, remaining)
        self.generated.follow_(plan)

    def _look_at(self, plan: ChannelPlan) -> None:
        super()._look_at(plan)
        self._gated = self._readers.only(self.generated.hypernetwork.names)

    def gradients(self) -> None:
        """Importance by the gates, and gradients of the weights through them to the map."""
        super().gradients()
        gradients = {name: self._parameters[name].grad for name, *_ in self._gated}
        self._gate_({name: gradient for name, gradient in gradients.items() if gradient is not None})
        self.generated.take_gradients()

    def _gate_(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Multiply ``tensors``, which lie like weights, by the gates of what they read. In place."""
        if not bool((self.latents == 1).all()):
            whole = all(name in tensors for name, *_ in self._gated)
            where = self._gated if whole else self._gated.only(tensors)
            scale_(tensors, where, self.latents.numpy())

    def after_step(self, step: int) -> None:
        self.generated.step()
        super().after_step(step)  # moves the gates, and scales what reads without a generated weight
        self.write_weights_()

    def write_weights_(self) -> None:
        super().write_weights_()
        self._gate_(self._parameters)
