"""The published search: all weights come from a hypernetwork, and its latents are shrunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coronet_plugin.budget.goal import STEADY
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.events import Remaining
from coronet_plugin.methods.generated import GeneratedWeights, check_embedding, embedding_setting
from coronet_plugin.methods.hypernetwork import Hypernetwork
from coronet_plugin.methods.proximal import DEAD_BELOW, amount, shrink_
from coronet_plugin.methods.registry import method


class Shrinking(Method):
    """Search by a hypernetwork whose latents are shrunk (docs/method.md eqs. (1) to (5))."""

    schedule = STEADY
    steady = True
    generates = True
    embedding = 1
    """Of each connection; the folded form has none."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self._generated: GeneratedWeights | None
        self._generated = GeneratedWeights(self.generator, self.plan, self.name, self.embedding)
        self._last_score = np.ones(self.plan.units)
        self.shrinkage = 0.0
        """How much the last proximal step took off every latent: lambda times learning rate."""

    @property
    def generated(self) -> GeneratedWeights:
        """The generated weights of a search that is not over."""
        assert self._generated is not None
        return self._generated

    @property
    def hypernetwork(self) -> Hypernetwork | None:
        """None when the search is over."""
        return None if self._generated is None else self._generated.hypernetwork

    def begin(self, optimizer: Any, group: int) -> None:
        self.generated.attach(optimizer, group)
        self.synchronise_()

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

    def write_weights_(self) -> None:
        self.generated.write_()

    def adopt_weights_(self) -> None:
        self.generated.adopt_()

    def synchronise_(self) -> None:
        self.generated.synchronise_()
        self.write_weights_()

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
        self._generated = None

    def state_dict(self) -> dict[str, Any]:
        return self.generated.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generated.load_state_dict(state)
        self.write_weights_()


@method("published", "the paper's hypernetwork of three layers, about 11 numbers per weight")
class Published(Shrinking):
    """Weights by three layers (docs/method.md eqs. (1) to (3))."""

    @dataclass(frozen=True)
    class Config:
        """What the paper leaves open.

        Raises:
            OptionError: the embedding size is below one.
        """

        embedding: int = embedding_setting()

        def __post_init__(self) -> None:
            check_embedding(self.embedding)

    def __init__(self, task: Task, config: Any) -> None:
        self.embedding = config.embedding
        super().__init__(task, config)


@method("folded", "the published map multiplied out, about 2 numbers per weight")
class Folded(Shrinking):
    """Weights by the published map with its last two layers multiplied out."""
