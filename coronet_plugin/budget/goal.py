"""Say what may be left after every step of a search: the path from the dense cost to the budget.

A :class:`Goal` is made first, of one generator or of several that share a budget; every generator's method
is then given its :class:`Share` and asks that, without knowing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from coronet_plugin.budget.budget import Budget, Meter
from coronet_plugin.budget.latency_meter import CLOSE, LatencyMeter
from coronet_plugin.budget.widths import JointPlan, Widths, choose_alive, protected, threshold
from coronet_plugin.channels.facts import OUTPUT
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError, PlanError

SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "linear": lambda progress, end: end + (1 - end) * (1 - progress),
    "cubic": lambda progress, end: end + (1 - end) * (1 - progress) ** 3,
    "exponential": lambda progress, end: end**progress,
}
"""Fraction of the dense cost by progress (0 to 1) and final fraction. Cubic: Zhu and Gupta, 2017,
arXiv 1710.01878, eq. (1)."""
STRIDE = 0.8
"""A candidate is timed when the cost has come down to this part of what was timed last; the last step to the
budget is one, too."""
TRIES = 6
"""So many candidates are timed at the end, at most, to find one that fits."""
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
        round_to: int | None = 1,
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
        self._timed_at = math.inf
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
        """The cost that may be left at ``progress`` (0 to 1) of the search.

        Where candidates are timed, the last of it goes at the end: what was foretold too high is not gone.
        """
        if self.schedule == STEADY:
            return self.target
        end = self.target / self.dense
        least = self.target / STRIDE if self.timers and progress < 1 else self.target
        return max(
            min(least, self.dense), self.dense * SCHEDULES[self.schedule](min(1.0, max(0.0, progress)), end)
        )

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
            self._decided = dict(enumerate(self.plan.split(self._decide(progress))))
            self._decided_at = progress
        return self._decided.pop(index)

    def _decide(self, progress: float) -> np.ndarray:
        """Units of all generators to keep at ``progress``: bool ``(units,)``."""

        def best(meter: Meter, allowed: float) -> np.ndarray:
            return choose_alive(self.plan, self.score(), meter, allowed, self.widths)

        if progress >= 1:
            return self.settle(best)
        alive = best(self.meter, self.allowed(progress))
        if self.timers and self.meter(alive) < STRIDE * min(self._timed_at, self.dense):
            self._timed_at = self.time_(alive)
            alive = best(self.meter, self.allowed(progress))
        return alive

    # -- latencies -------------------------------------------------------
    @property
    def timers(self) -> list[LatencyMeter]:
        """The meters, if they time what is chosen; none if they count, or foretell by a table alone."""
        return [m for m in self.meters if isinstance(m, LatencyMeter) and m.clock is not None]

    def time_(self, alive: np.ndarray) -> float:
        """Time the generators of the units ``alive`` (bool, ``(units,)``): milliseconds of all together."""
        return sum(timer.measure_(part) for timer, part in zip(self.timers, self.plan.split(alive)))

    def settle(self, choose: Callable[[Meter, float], np.ndarray]) -> np.ndarray:
        """The units that ``choose`` (by which meter, at most how much) finds for the budget.

        Where candidates are timed, it is asked for more or less until what it finds, timed whole, fits: by
        what the last one was off, and by halves once one fits and one does not. It goes by the predictions
        at the beginning all the time, so that less asked is less found.
        """
        if not self.timers:
            return choose(self.meter, self.target)
        if not self.budget.absolute and not self.fixed:  # a part of what dense takes now, not hours ago
            for timer, plan in zip(self.timers, self.plan.plans):
                timer.measure_(np.ones(plan.units, dtype=bool), anew=True)
            self.weigh_()
        foretold = [timer.predict for timer in self.timers]

        def meter(alive: np.ndarray | None = None) -> float:
            return sum(each(part) for each, part in zip(foretold, self.plan.split(alive)))

        low, asked, high, tried = 0.0, self.target, math.inf, {}
        for number in range(TRIES):
            alive = choose(meter, asked)
            tried[alive.tobytes()] = ms, alive = self.time_(alive), alive
            if (1 - CLOSE / 2) * self.target <= ms <= self.target:
                return alive
            low, high = (asked, high) if ms <= self.target else (low, asked)
            step = 1 + CLOSE * (number + 1)
            asked *= (1 - CLOSE / 5) * self.target / ms
            asked = max(asked, low * step) if high == math.inf else min(asked, high / step)
            if not low < asked < high or 0 < low < high < math.inf:
                asked = (low + high) / 2
        return min(tried.values(), key=self._how_bad)[1]

    def _how_bad(self, found: tuple[float, np.ndarray]) -> tuple[bool, float]:
        """By how much a time misses the target; more than a little above it is worse than anything below."""
        off = found[0] / self.target - 1
        return off > CLOSE / 2, abs(off)


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

    def choose(self, progress: float = 1.0) -> np.ndarray:
        """Units to keep at ``progress`` (0 to 1) of the search: bool ``(units,)``."""
        return self.goal.choose(self.index, progress)

    def promise(self, alive: np.ndarray) -> str:
        """Say what this generator takes with the units ``alive``, timed anew; "" if costs are counted."""
        meter = self.meter
        return meter.promise(alive) if isinstance(meter, LatencyMeter) else ""

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
