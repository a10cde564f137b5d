"""The published search: all weights come from a hypernetwork, and its latents are shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coronet_plugin.budget.goal import STEADY
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.methods.base import Task
from coronet_plugin.methods.events import Remaining
from coronet_plugin.methods.generated import Embedded, Generating
from coronet_plugin.methods.proximal import DEAD_BELOW, amount, shrink_
from coronet_plugin.methods.registry import method


class Shrinking(Generating):
    """Search by a hypernetwork whose latents are shrunk (docs/method.md eqs. (1) to (5))."""

    schedule = STEADY
    steady = True

    def __init__(self, task: Task, config: Any, embedding: int = 1) -> None:
        super().__init__(task, config, self.name, embedding)
        self._last_score = np.ones(self.plan.units)
        self.shrinkage = 0.0
        """How much the last proximal step took off every latent: lambda times learning rate."""

    def gradients(self) -> None:
        self.generated.take_gradients()

    def after_step(self, step: int) -> None:
        self.generated.step()
        self._shrink(step)
        self.write_weights_()

    def _shrink(self, step: int) -> None:
        if step > self.steps:
            return
        self.shrinkage = amount(self.goal, step, self.steps)
        floors = [int(self.goal.protected()[s.slice].sum()) for s in self.plan.prunable]
        shrink_(list(self.generated.hypernetwork.latents), self.shrinkage, floors)

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        if self._generated is not None and remaining is None:
            self._generated.follow_(plan)

    def score(self) -> np.ndarray:
        """Size of every unit's latent, ``(units,)``."""
        if self._generated is None:
            return self._last_score
        return self._generated.hypernetwork.z().detach()[1:].abs().double().cpu().numpy()

    def alive(self) -> np.ndarray:
        """Units whose latents are above the threshold, at least a set's floor."""
        return (self.score() >= DEAD_BELOW) | self.goal.protected()

    def finish(self) -> None:
        self._last_score = self.score()
        super().finish()


@method("published", "the paper's hypernetwork of three layers, about 11 numbers per weight")
class Published(Shrinking):
    """Weights by three layers (docs/method.md eqs. (1) to (3))."""

    @dataclass(frozen=True)
    class Config(Embedded):
        """The choice that the paper leaves open. Raises OptionError for an embedding size below one."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config, config.embedding)


@method("folded", "the published map multiplied out, about 2 numbers per weight")
class Folded(Shrinking):
    """Weights by the published map with its last two layers multiplied out."""
