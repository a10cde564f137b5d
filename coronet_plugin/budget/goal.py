"""Say what may be left after every step of a search: the path from the dense cost to the budget.

A :class:`Goal` is made first, of one generator or of several that share a budget; every generator's method
is then given its :class:`Share` and asks that, without knowing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from coronet_plugin.budget.budget import Budget, Meter
from coronet_plugin.budget.widths import JointPlan, Widths, choose_alive, protected, threshold
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.channels.propagation import OUTPUT
from coronet_plugin.errors import OptionError, PlanError

SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "linear": lambda progress, end: end + (1 - end) * (1 - progress),
    "cubic": lambda progress, end: end + (1 - end) * (1 - progress) ** 3,
    "exponential": lambda progress, end: end**progress,
}
"""Fraction of the dense cost by progress (0 to 1) and final fraction. Cubic: Zhu and Gupta, 2017,
arXiv 1710.01878, eq. (1)."""
STEADY = "steady"
"""Latents shrink by equal amounts, and the cost falls as it comes: for latents that all shrink."""


class Scored(Protocol):
    """The method of each generator, as a goal sees it."""

    def score(self) -> np.ndarray:
        """Worth of every unit, ``(units,)``; minus infinity for what is given up."""

    def alive(self) -> np.ndarray:
        """Units that still work, bool ``(units,)``."""


def check_removable(plans: Sequence[ChannelPlan], budget: Budget) -> None:
    """Raises PlanError, with the reasons, when something has to go and nothing can."""
    if not any(plan.units for plan in plans) and not budget.is_everything:
        why = _why_pinned(plans) or f"there is one layer alone, and {OUTPUT}"
        raise PlanError(
            f"none of the generator's channels can be removed, which budget {budget.text} asks for: {why} "
            "('coronet inspect' shows all reasons)"
        )


def _why_pinned(plans: Sequence[ChannelPlan]) -> str:
    return "; ".join(dict.fromkeys(why for plan in plans if (why := plan.why_pinned())))


class Goal:
    """A budget for one generator, or one that several share, and the way there.

    ``plans`` and ``meters``: of each generator. ``dense`` and ``target``: the cost of all their channels
    and what may be left of it at the end, in the unit of the budget.

    Raises:
        BudgetError: the budget cannot be reached.
        OptionError: there is no such schedule, or ``round_to`` is below one.
    """

    def __init__(
        self,
        plans: Sequence[ChannelPlan],
        meters: Sequence[Meter],
        budget: Budget,
        schedule: str = "cubic",
        round_to: int = 1,
    ) -> None:
        if schedule not in (*SCHEDULES, STEADY):
            schedules = ", ".join([*SCHEDULES, STEADY])
            raise OptionError(f"schedule {schedule!r} does not exist; choose one of {schedules}")
        self.plan = JointPlan(plans)
        self.budget = budget
        self.schedule = schedule
        self.widths = Widths.of(self.plan, round_to)
        self.fixed = False
        self.shares = tuple(Share(self, index) for index in range(len(plans)))
        self.meters = list(meters)
        self._decided: dict[int, np.ndarray] = {}
        self._decided_at = -1.0
        self.weigh_()

    def weigh_(self) -> None:
        """Find out what is dense, and what may be left of it, by the meters there are."""
        self.dense = self.meter(None)
        smallest = self._smallest()
        if self.fixed:
            self.target = self.meter(smallest)
        else:
            self.target = self.budget.target(self.meter, smallest, _why_pinned(self.plan.plans))

    @property
    def reach(self) -> float:
        """The smallest fraction of the dense cost that a budget can ask for."""
        return self.meter(self._smallest()) / self.dense

    def _smallest(self) -> np.ndarray:
        return protected(self.plan, np.ones(self.plan.units), self.widths)

    def meter(self, alive: np.ndarray | None = None) -> float:
        """Cost of the units ``alive`` (bool, ``(units,)`` of all generators; all by default)."""
        return sum(meter(part) for meter, part in zip(self.meters, self.plan.split(alive)))

    def fix_widths_(self, units: Sequence[int]) -> None:
        """Let every prunable set end with exactly so many units; the target is what that costs."""
        self.widths = Widths(tuple(units), (1,) * len(units))
        self.fixed = True
        self.weigh_()

    def allowed(self, progress: float) -> float:
        """The cost that may be left at ``progress`` (0 to 1) of the search."""
        if self.schedule == STEADY:
            return self.target
        end = self.target / self.dense
        return max(self.target, self.dense * SCHEDULES[self.schedule](min(1.0, max(0.0, progress)), end))

    @property
    def met(self) -> bool:
        """True if what is alive costs no more than the target."""
        return self.meter(np.concatenate([share.method.alive() for share in self.shares])) <= self.target

    def score(self) -> np.ndarray:
        """Worth of every unit of all generators, ``(units,)``."""
        return np.concatenate([share.method.score() for share in self.shares])

    def choose(self, index: int, progress: float) -> np.ndarray:
        """Units of generator number ``index`` to keep at ``progress``: bool ``(units,)``.

        Generators that ask at the same progress get parts of one decision.
        """
        if index not in self._decided or self._decided_at != progress:
            alive = choose_alive(self.plan, self.score(), self.meter, self.allowed(progress), self.widths)
            self._decided = dict(enumerate(self.plan.split(alive)))
            self._decided_at = progress
        return self._decided.pop(index)


class Share:
    """One generator's part of a goal. ``method``: set before the first question is asked."""

    method: Scored

    def __init__(self, goal: Goal, index: int) -> None:
        self.goal = goal
        self.index = index

    @property
    def plan(self) -> ChannelPlan:
        """The generator's channels."""
        return self.goal.plan.plans[self.index]

    @property
    def schedule(self) -> str:
        """Name of the schedule by which the cost falls."""
        return self.goal.schedule

    @property
    def dense(self) -> float:
        """Cost of all generators at full size."""
        return self.goal.dense

    @property
    def target(self) -> float:
        """Cost that may be left of all generators in the end."""
        return self.goal.target

    @property
    def met(self) -> bool:
        """True if what is alive of all generators fits the budget."""
        return self.goal.met

    @property
    def meter(self) -> Meter:
        """Meter of this generator's units."""
        return self.goal.meters[self.index]

    def measure_anew_(self, meter: Meter) -> None:
        """Go on with another meter: what is dense, and what a fraction of it is, change with it."""
        self.goal.meters[self.index] = meter
        self.goal.weigh_()

    def choose(self, progress: float = 1.0) -> np.ndarray:
        """Units to keep at ``progress`` (0 to 1) of the search: bool ``(units,)``."""
        return self.goal.choose(self.index, progress)

    def threshold(self, progress: float = 1.0) -> float:
        """The score of the best unit that has to go at ``progress``, 0 if none has to."""
        goal = self.goal
        return threshold(goal.plan, goal.score(), goal.meter, goal.allowed(progress), goal.widths)

    def protected(self) -> np.ndarray:
        """The best units of every set, up to its floor: bool ``(units,)``."""
        keep = protected(self.goal.plan, self.goal.score(), self.goal.widths)
        return self.goal.plan.split(keep)[self.index]

    def split(self, alive: np.ndarray) -> np.ndarray:
        """This generator's part of a vector over the units of all."""
        return self.goal.plan.split(alive)[self.index]
