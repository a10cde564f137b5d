"""The budget a user asks for, and which units fit into it.

A :class:`Budget` is read from text (``0.1``, ``2.6G``, ``350k``, ``20ms``). Given a
score per unit (the size of its latent, its importance), :func:`choose_alive` keeps
the highest scores whose cost stays within the target: one global threshold found
by bisection, then single units that still fit, so that the target is met from
below within :data:`TOLERANCE` wherever the channels' granularity allows.

A *meter* says what a choice of living units costs, in the unit of the budget.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from coronet_plugin.channels.cost import human
from coronet_plugin.channels.plan import ChannelPlan, ChannelSet
from coronet_plugin.errors import BudgetError, OptionError

Meter = Callable[["np.ndarray | None"], float]
"""The cost of the living units (bool, ``(units,)``; None for all) in a budget's unit."""

TOLERANCE = 0.005
"""How far below its target the chosen cost may stay, where single channels are fine enough."""

LATENCY = "latency"
KINDS = ("macs", "params", LATENCY)
_UNITS = {"macs": "MACs", "params": "parameters", LATENCY: "ms"}
_PREFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ms": 1, "s": 1e3}


@dataclass(frozen=True)
class Budget:
    """A target cost. ``amount`` is a fraction of the dense cost, or a count if ``absolute``."""

    text: str
    kind: str
    amount: float
    absolute: bool

    @classmethod
    def parse(cls, text: str | float, kind: str = "macs") -> Budget:
        """Read ``"0.1"`` (a fraction up to 1), ``"2.6G"``, ``"350k"``, ``"350000"`` (counts) or ``"20ms"``.

        ``kind``: ``"macs"`` (true multiply-adds), ``"params"``, or ``"latency"`` (of one image).

        Raises:
            BudgetError: the text is none of these, or the kind does not exist.
        """
        if kind not in KINDS:
            raise BudgetError(f"budget kind {kind!r} does not exist; choose one of {', '.join(KINDS)}")
        number = r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*"
        units = "(|ms|s)" if kind == LATENCY else "([kmg]?)"
        match = re.fullmatch(number + units + r"\s*", str(text).lower())
        amount = float(match[1]) * _PREFIXES[match[2]] if match else 0.0
        if match is None or not 0 < amount < math.inf:
            example = "a time such as 20ms" if kind == LATENCY else "a count such as 2.6G"
            raise BudgetError(f"budget {text!r} is not understood; give a fraction such as 0.1 or {example}")
        return cls(str(text), kind, amount, absolute=amount > 1 or bool(match[2]))

    def target(self, meter: Meter, floors: np.ndarray) -> float:
        """The largest cost allowed, in the unit of ``meter``; ``floors``: units that stay in any case.

        Raises:
            BudgetError: it lies above the dense cost or below what the floors can reach.
        """
        dense, smallest = meter(None), meter(floors)
        target = self.amount if self.absolute else self.amount * dense
        unit = _UNITS[self.kind]
        if target > dense:
            raise BudgetError(
                f"budget {self.text} ({human(target)} {unit}) is more than the dense generator's "
                f"{human(dense)} {unit}; ask for less"
            )
        if target < smallest:
            raise BudgetError(
                f"budget {self.text} ({human(target)} {unit}) cannot be reached: the smallest possible is "
                f"{math.ceil(smallest / dense * 1e4) / 1e4:.4g} ({human(smallest)} of {human(dense)} {unit})"
            )
        return target if self.kind == LATENCY else int(target)


def meter_of(plan: ChannelPlan, kind: str) -> Meter:
    """The meter of a budget in ``"macs"`` or ``"params"``."""
    return lambda alive: plan.cost(alive).of_kind(kind)


class JointPlan:
    """Several plans as one, for a budget that generators share: their units one after the other."""

    def __init__(self, plans: Sequence[ChannelPlan]) -> None:
        self.plans = tuple(plans)
        self.starts = np.cumsum([0, *(plan.units for plan in plans)])
        self.units = int(self.starts[-1])
        self.prunable = tuple(
            replace(channel_set, start=int(start) + channel_set.start)
            for plan, start in zip(self.plans, self.starts)
            for channel_set in plan.prunable
        )

    @overload
    def split(self, values: np.ndarray) -> list[np.ndarray]: ...
    @overload
    def split(self, values: np.ndarray | None) -> list[np.ndarray] | list[None]: ...
    def split(self, values: np.ndarray | None) -> list[np.ndarray] | list[None]:
        """The part of each plan in a vector over all units; of None, which stands for all, None for each."""
        return [None] * len(self.plans) if values is None else np.split(values, self.starts[1:-1])


# -- which units stay --------------------------------------------------------
def floor_of(channel_set: ChannelSet) -> int:
    """Units of a set that always stay: four channels, or 5 % of a wide set (DHP keeps four)."""
    four = math.ceil(4 * channel_set.units / channel_set.channels)
    return min(channel_set.units, max(four, math.ceil(0.05 * channel_set.units)))


@dataclass(frozen=True)
class Widths:
    """Which widths the sets of a plan may have, in units.

    ``floors``: how many units of each prunable set stay in any case.
    ``blocks``: by how many units a set shrinks at once; what is over in a dense set counts as one block.
    """

    floors: tuple[int, ...]
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, plan: ChannelPlan | JointPlan, round_to: int = 1) -> Widths:
        """Any width from the floor up whose channels are a multiple of ``round_to``.

        Raises:
            OptionError: ``round_to`` is below one.
        """
        if round_to < 1:
            raise OptionError(f"widths are rounded to multiples of at least 1, not {round_to}")
        blocks = [round_to // math.gcd(round_to, s.channels // s.units) for s in plan.prunable]
        floors = [floor_of(s) for s in plan.prunable]
        rounded = [min(s.units, -(-f // b) * b) for s, f, b in zip(plan.prunable, floors, blocks)]
        return cls(tuple(rounded), tuple(blocks))


def protected(plan: ChannelPlan | JointPlan, score: np.ndarray, widths: Widths | None = None) -> np.ndarray:
    """The highest-scored units of each set, up to its floor: bool ``(units,)``."""
    keep = np.zeros(plan.units, dtype=bool)
    floors = (widths or Widths.of(plan)).floors
    for channel_set, floor in zip(plan.prunable, floors):
        best = np.argsort(-score[channel_set.slice], kind="stable")[:floor]
        keep[channel_set.start + best] = True
    return keep


def _blocks(
    plan: ChannelPlan | JointPlan, score: np.ndarray, widths: Widths
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The units of the floors, and blocks of further units by falling mean score; of a set in order.

    Blocks with a unit that is given up (a score of minus infinity) are left out.
    """
    floors, rest, means = [], [], []
    for channel_set, floor, size in zip(plan.prunable, widths.floors, widths.blocks):
        order = channel_set.start + np.argsort(-score[channel_set.slice], kind="stable")
        floors.append(order[:floor])
        for begin in range(floor, len(order), size):
            block = order[begin : begin + size]
            if np.isfinite(score[block]).all():
                rest.append(block)
                means.append(score[block].mean())
    return floors, [rest[i] for i in np.argsort(-np.array(means), kind="stable")]


def threshold(
    plan: ChannelPlan | JointPlan,
    score: np.ndarray,
    meter: Meter,
    target: float,
    widths: Widths | None = None,
) -> float:
    """The global threshold at which the units above it fit ``target``.

    It is the score of the best unit that has to go, 0 if none has to.
    """
    _, rest = _fitting(plan, score, meter, target, widths or Widths.of(plan))
    return float(score[rest[0]].max()) if rest else 0.0


def _fitting(
    plan: ChannelPlan | JointPlan, score: np.ndarray, meter: Meter, target: float, widths: Widths
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The longest run of best blocks that fits ``target``, and the blocks left out."""
    floors, rest = _blocks(plan, score, widths)

    def living(count: int) -> np.ndarray:
        alive = np.zeros(plan.units, dtype=bool)
        for block in (*floors, *rest[:count]):
            alive[block] = True
        return alive

    fewest, most = 0, len(rest)
    while fewest < most:  # the largest count whose cost fits
        middle = (fewest + most + 1) // 2
        if meter(living(middle)) <= target:
            fewest = middle
        else:
            most = middle - 1
    return living(fewest), rest[fewest:]


def choose_alive(
    plan: ChannelPlan | JointPlan,
    score: np.ndarray,
    meter: Meter,
    target: float,
    widths: Widths | None = None,
) -> np.ndarray:
    """Units to keep so that the cost is at most ``target``: bool ``(units,)``.

    The threshold alone stops at the first block that does not fit, which may be a
    costly one (of the residual stream); further blocks are then added by falling
    score while they fit, until the cost is within :data:`TOLERANCE`. Units whose score is
    minus infinity are not kept beyond the floors.
    """
    widths = widths or Widths.of(plan)
    alive, rest = _fitting(plan, score, meter, target, widths)
    full: set[int] = set()  # sets of which a better block did not fit: their widths would have a gap
    owner = {unit: index for index, s in enumerate(plan.prunable) for unit in range(s.start, s.slice.stop)}
    for block in rest:
        if meter(alive) >= (1 - TOLERANCE) * target:
            break
        if owner[block[0]] in full:
            continue
        alive[block] = True
        if meter(alive) > target:
            alive[block] = False
            full.add(owner[block[0]])
    return alive
