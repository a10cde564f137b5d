"""What every search offers to :class:`~coronet_plugin.compression.Compression`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from coronet_plugin.budget.goal import Goal
from coronet_plugin.channels.plan import ChannelPlan


class Subject(NamedTuple):
    """What is compressed: a generator, inputs to run it on, and its channels."""

    generator: nn.Module
    inputs: tuple[Any, ...]
    plan: ChannelPlan


class Search:
    """Plain training: nothing happens until the cut. Other searches build on it.

    ``steps``: optimizer steps until the cut, at least one; 0 cuts before the training begins.
    """

    lossless = False
    """Whether units that are not alive can be removed at any time without a change."""

    def __init__(self, subject: Subject, goal: Goal, steps: int) -> None:
        self.generator, self.inputs, self.plan = subject
        self.goal = goal
        self.steps = steps
        goal.members.append(self)

    def attach(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        """``optimizer`` holds the generator's weights in its parameter group number ``group``."""

    def take_gradients(self) -> None:
        """Called before each of the optimizer's steps: the gradients are there."""

    def advance(self, step: int) -> None:
        """Called after the optimizer's step number ``step`` (from 1)."""

    def score(self) -> np.ndarray:
        """Worth of every unit, ``(units,)``; minus infinity for what is given up."""
        return np.ones(self.plan.units)

    def alive(self) -> np.ndarray:
        """Units that still work, ``(units,)``."""
        return np.ones(self.plan.units, dtype=bool)

    def chosen(self) -> np.ndarray:
        """Units that stay at the cut, ``(units,)``; by default the best-scored that fit."""
        return self.goal.choose(self)

    def follow_(self, plan: ChannelPlan) -> None:
        """The generator's parameters were replaced by what ``plan`` says of them."""

    def release_(self) -> None:
        """The search is over: let go of memory."""

    def write_weights_(self) -> None:
        """Make the generator compute what the search says, after something else changed either."""

    def adopt_weights_(self) -> None:
        """Begin with the weights the generator has, to the last bit."""

    def synchronise_(self) -> None:
        """Give every process of a distributed training what the first has."""

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal continuation needs, besides the generator and its optimizer."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``.

        Raises:
            CheckpointError: it is of another search.
        """
