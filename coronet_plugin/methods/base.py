"""The base of every method: events for :class:`~coronet_plugin.compression.Compression`, and a choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor, nn

from coronet_plugin.budget.goal import Share
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.methods.events import Events


class Task(NamedTuple):
    """The task of a method.

    ``generator``, to be changed in place; ``inputs`` to run it on; the ``plan`` of its channels; what may be
    left (``goal``) after how many optimizer ``steps``.
    """

    generator: nn.Module
    inputs: tuple[Any, ...]
    plan: ChannelPlan
    goal: Share
    steps: int


class Sample(NamedTuple):
    """A picture to try a generator on: its ``inputs``, and the ``truth`` if that is known."""

    inputs: tuple[Any, ...]
    truth: Tensor | None = None


class Method(Events):
    """Plain training: nothing happens until the cut. Other methods build on it.

    A method is registered by :func:`~coronet_plugin.methods.registry.method`; the fields of its ``Config``, a
    frozen dataclass made of :func:`~coronet_plugin.settings.setting`, become options.
    """

    label: ClassVar[str] = ""
    """Remark behind its name in tables, if that alone would say too much."""
    schedule: ClassVar[str] = "cubic"
    """How the cost falls if nothing else is asked."""
    discriminators: ClassVar[bool] = False
    """Whether it can prune discriminators too; :meth:`judged_by` is then called before it begins."""
    steady: ClassVar[bool] = False
    """Whether its latents can all shrink alike, the schedule ``steady``."""
    generates: ClassVar[bool] = False
    """Whether the generator's weights come from a hypernetwork."""
    lossless: ClassVar[bool] = False
    """Whether units that are not alive can be removed at any time without a change."""
    teacher: nn.Module | None = None
    """A trained generator to learn from; set before it begins. A method that can learn from one has a
    setting ``teacher``, the name of a run."""
    held_out: Sequence[Sample] = ()
    """Training pictures that are not trained on, for a method that chooses by trying; set before it begins.
    A method that needs them has a setting ``holdout``, the fraction to be held out."""
    narrows: Callable[[], None] = staticmethod(lambda: None)
    """To be called before anything is taken from the dense generator, but for a removal; set when made."""

    search_part: ClassVar[float] = 0.5
    """Part of a training that the search takes, unless the method's settings say it."""

    @dataclass(frozen=True)
    class Config:
        """Nothing to choose."""

    def __init__(self, task: Task, config: Any) -> None:
        self.generator, self.inputs, self.plan, self.goal, self.steps = task
        self.config = config

    def companions(self) -> list[Events]:
        """Who takes part in the training because of this method, beyond the cut too."""
        return []

    @classmethod
    def search_share(cls, config: Any) -> float:
        """Part of a training that the search takes if nothing else is asked."""
        return cls.search_part

    def judged_by(self, discriminator: nn.Module, pruned_by: Method | None = None) -> None:
        """Take up the network that judges the generator's outputs, and its method if it is pruned, too."""

    def one_way(self, step: int) -> bool:
        """Whether translations there and back are of no account in step number ``step``, of all."""
        return False

    def score(self) -> np.ndarray:
        """Worth of every unit, ``(units,)``; minus infinity for what is given up."""
        return np.ones(self.plan.units)

    def alive(self) -> np.ndarray:
        """Units that still work, ``(units,)``."""
        return np.ones(self.plan.units, dtype=bool)

    def gates(self) -> np.ndarray:
        """Factors that the readers of every unit are multiplied by, ``(units,)``."""
        return np.ones(self.plan.units)

    def chosen(self) -> np.ndarray:
        """Units that stay at the cut, ``(units,)``; by default the best-scored that fit."""
        return self.goal.choose()

    def write_weights_(self) -> None:
        """Make the generator compute what the method says, after something else changed either."""

    def adopt_weights_(self) -> None:
        """Begin with the weights the generator has, to the last bit."""

    def synchronise_(self) -> None:
        """Give every process of a distributed training what the first has."""
