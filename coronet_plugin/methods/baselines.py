"""What compression by latents is measured against, under the same budget, schedule and data.

* ``uniform``: every channel set narrowed by the same factor before the training begins.
* ``random``: the default search with random numbers in place of importance.
* ``magnitude``: plain training, then one cut by the L1 norm of coupled weights (Li et al., ICLR 2017,
  arXiv 1608.08710), grouped and scored by Torch-Pruning (Fang et al., CVPR 2023, arXiv 2301.12900).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from coronet_plugin.budget.budget import Widths, choose_alive
from coronet_plugin.budget.goal import Goal
from coronet_plugin.channels.cut import copy_with, on_device
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError, describe
from coronet_plugin.methods.base import Search, Subject
from coronet_plugin.methods.exact import ExactSearch


class UniformSearch(Search):
    """A narrow generator from the first step on; which channels stay means nothing, they are untrained."""

    def __init__(self, subject: Subject, goal: Goal, steps: int) -> None:
        super().__init__(subject, goal, steps=0)

    def chosen(self) -> np.ndarray:
        goal, index = self.goal, self.goal.members.index(self)
        score = np.concatenate([-np.arange(s.units) / s.units for s in goal.plan.prunable])
        widths = goal.widths if goal.fixed else self._widest(goal)
        return goal.plan.split(choose_alive(goal.plan, score, goal.meter, goal.target, widths))[index]

    def _widest(self, goal: Goal) -> Widths:
        """Floors at the largest common factor that fits."""
        low, high = 0.0, 1.0
        for _ in range(30):  # the widest factor that fits
            middle = (low + high) / 2
            if goal.meter(self._narrowed(middle)) <= goal.target:
                low = middle
            else:
                high = middle
        floors = [int(self._narrowed(low)[s.slice].sum()) for s in goal.plan.prunable]
        return Widths(tuple(floors), goal.widths.blocks)

    def _narrowed(self, factor: float) -> np.ndarray:
        alive = np.zeros(self.goal.plan.units, dtype=bool)
        for s, floor, block in zip(self.goal.plan.prunable, self.goal.widths.floors, self.goal.widths.blocks):
            alive[s.start : s.start + max(floor, int(factor * s.units / block) * block)] = True
        return alive


class RandomSearch(ExactSearch):
    """The default search, but chance decides who is given up."""

    def __init__(self, subject: Subject, goal: Goal, steps: int) -> None:
        super().__init__(subject, goal, steps)
        self._lots = torch.rand(self.plan.units, dtype=torch.float64)

    def take_gradients(self) -> None:
        pass

    def score(self) -> np.ndarray:
        return torch.where(self._shrinkage == 0, self._lots, -torch.inf).numpy()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lots": self._lots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._lots = state["lots"].clone()


class MagnitudeSearch(Search):
    """Plain training and one cut by magnitude.

    Raises:
        OptionError: as :func:`magnitude` does, when it is made.
    """

    def __init__(self, subject: Subject, goal: Goal, steps: int) -> None:
        super().__init__(subject, goal, steps)
        self.score()  # what cannot be scored is refused now, not after hours of training

    def score(self) -> np.ndarray:
        return magnitude(self.generator, self.plan, self.inputs)


def magnitude(generator: nn.Module, plan: ChannelPlan, example: tuple[Any, ...]) -> np.ndarray:
    """L1 norm of all weights of every unit, in units of the mean over its group: ``(units,)``.

    ``example``: inputs of the generator, on any device. The generator is left as it was.

    Raises:
        OptionError: Torch-Pruning is not installed, or cannot group this generator's channels.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise OptionError(
            "--coronet_method magnitude needs Torch-Pruning: pip install 'coronet-plugin[magnitude]'"
        ) from error
    try:
        return _magnitude(torch_pruning, generator, plan, example)
    except Exception as error:
        raise OptionError(
            f"torch-pruning cannot group the channels of {type(generator).__name__}: {describe(error)}; "
            "choose another --coronet_method"
        ) from error


def _magnitude(
    torch_pruning: ModuleType, generator: nn.Module, plan: ChannelPlan, example: tuple[Any, ...]
) -> np.ndarray:
    copied = copy_with(generator).eval()
    inputs = on_device(example, next(copied.parameters()).device)  # a host may have moved the generator
    graph = torch_pruning.DependencyGraph().build_dependency(copied, example_inputs=inputs)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1, normalizer="mean")
    score = np.zeros(plan.units + 1)  # the last entry gathers what is pinned
    for channel_set in plan.prunable:
        layer = copied.get_submodule(channel_set.producers[0])
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        group = graph.get_pruning_group(layer, prune, idxs=list(range(graph.get_out_channels(layer))))
        np.add.at(score, plan.units_of(channel_set), importance(group).double().cpu().numpy())
    return score[:-1]
