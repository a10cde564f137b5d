"""What may be left after every step of a search: the path from the dense cost to the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from coronet_plugin.budget.budget import Budget, JointPlan, Meter, Widths, choose_alive, protected, threshold
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError

SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "linear": lambda progress, end: end + (1 - end) * (1 - progress),
    "cubic": lambda progress, end: end + (1 - end) * (1 - progress) ** 3,
    "exponential": lambda progress, end: end**progress,
}
"""Fraction of the dense cost by progress (0 to 1) and final fraction. Cubic: Zhu and Gupta, 2017,
arXiv 1710.01878, eq. (1)."""
STEADY = "steady"
"""Latents shrink by equal amounts, and the cost falls as it comes: for generated weights alone."""


class Member(Protocol):
    """What a goal asks of the search of each of its generators."""

    def score(self) -> np.ndarray:
        """Worth of every unit, ``(units,)``; minus infinity for what is given up."""

    def alive(self) -> np.ndarray:
        """Units that still work, bool ``(units,)``."""


class Goal:
    """A budget for one generator, or one that several share, and the way there.

    ``dense`` and ``target``: the cost of all channels and what may be left of it at the end, in the
    unit of ``meter``. ``members``: the searches of the generators, in the order of ``plans``.

    Raises:
        BudgetError: the budget cannot be reached.
        OptionError: there is no such schedule, or ``round_to`` is below one.
    """

    def __init__(
        self,
        plans: Sequence[ChannelPlan],
        budget: Budget,
        meter: Meter,
        schedule: str = "cubic",
        round_to: int = 1,
    ) -> None:
        if schedule not in (*SCHEDULES, STEADY):
            schedules = ", ".join([*SCHEDULES, STEADY])
            raise OptionError(f"schedule {schedule!r} does not exist; choose one of {schedules}")
        self.plan = JointPlan(plans)
        self.meter = meter
        self.schedule = schedule
        self.members: list[Member] = []
        self.widths = Widths.of(self.plan, round_to)
        self.fixed = False
        self.dense = meter(None)
        self.target = budget.target(meter, self._smallest())
        self._decided: dict[int, np.ndarray] = {}
        self._decided_at = -1.0

    def _smallest(self) -> np.ndarray:
        return protected(self.plan, np.ones(self.plan.units), self.widths)

    def fix_widths_(self, units: Sequence[int]) -> None:
        """Let every prunable set end with exactly so many units; the target is what that costs."""
        self.widths = Widths(tuple(units), (1,) * len(units))
        self.fixed = True
        self.target = self.meter(self._smallest())

    def allowed(self, progress: float) -> float:
        """The cost that may be left at ``progress`` (0 to 1) of the search."""
        if self.schedule == STEADY:
            return self.target
        end = self.target / self.dense
        return max(self.target, self.dense * SCHEDULES[self.schedule](min(1.0, max(0.0, progress)), end))

    def choose(self, member: Member, progress: float = 1.0) -> np.ndarray:
        """Units of ``member`` to keep at ``progress``: bool ``(units,)``.

        Members that ask at the same progress get parts of one decision.
        """
        index = self.members.index(member)
        if index not in self._decided or self._decided_at != progress:
            alive = choose_alive(self.plan, self._score(), self.meter, self.allowed(progress), self.widths)
            self._decided = dict(enumerate(self.plan.split(alive)))
            self._decided_at = progress
        return self._decided.pop(index)

    def threshold(self, progress: float = 1.0) -> float:
        """The score of the best unit that has to go at ``progress``, 0 if none has to."""
        return threshold(self.plan, self._score(), self.meter, self.allowed(progress), self.widths)

    @property
    def met(self) -> bool:
        """Whether what is alive costs no more than the target."""
        return self.meter(np.concatenate([member.alive() for member in self.members])) <= self.target

    def protected(self, member: Member) -> np.ndarray:
        """The best units of every set of ``member``, up to its floor: bool ``(units,)``."""
        keep = protected(self.plan, self._score(), self.widths)
        return self.plan.split(keep)[self.members.index(member)]

    def _score(self) -> np.ndarray:
        return np.concatenate([member.score() for member in self.members])
