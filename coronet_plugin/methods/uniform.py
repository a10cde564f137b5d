"""The baseline of a narrow generator: every channel set narrowed by one factor before the training begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from coronet_plugin.budget.budget import Meter
from coronet_plugin.budget.goal import Goal, Share
from coronet_plugin.budget.widths import Widths, choose_alive
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.registry import method


@method("uniform", "narrow from the first step on")
class Uniform(Method):
    """A narrow generator from the first step on; which channels stay means nothing, they are untrained."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task._replace(steps=0), config)

    def score(self) -> np.ndarray:
        return np.concatenate([-np.arange(s.units) / s.units for s in self.plan.prunable])

    def chosen(self) -> np.ndarray:
        return evenly_narrowed(self.goal)


def evenly_narrowed(share: Share) -> np.ndarray:
    """Units of a generator that fit the budget when all sets are narrowed by one factor, the best of each."""
    goal = share.goal

    def best(meter: Meter, allowed: float) -> np.ndarray:
        widths = goal.widths if goal.fixed else _widest(goal, meter, allowed)
        return choose_alive(goal.plan, goal.score(), meter, allowed, widths)

    return share.split(goal.settle(best))


def _widest(goal: Goal, meter: Meter, allowed: float) -> Widths:
    """Floors at the largest common factor that fits."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if meter(_narrowed(goal, middle)) <= allowed:
            low = middle
        else:
            high = middle
    alive = _narrowed(goal, low)
    return Widths(tuple(int(alive[s.slice].sum()) for s in goal.plan.prunable), goal.widths.blocks)


def _narrowed(goal: Goal, factor: float) -> np.ndarray:
    alive = np.zeros(goal.plan.units, dtype=bool)
    for s, floor, block in zip(goal.plan.prunable, goal.widths.floors, goal.widths.blocks):
        alive[s.start : s.start + max(floor, int(factor * s.units / block) * block)] = True
    return alive
