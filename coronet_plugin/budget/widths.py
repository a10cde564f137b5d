"""Decide which units stay: the best that fit a target, in widths that are allowed.

Given a score per unit (the size of its latent, its importance), :func:`choose_alive` keeps
the highest scores whose cost stays within the target: one global threshold found
by bisection, then single units that still fit, so that the target is met from
below within :data:`TOLERANCE` wherever the channels' granularity allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from coronet_plugin.budget.budget import Meter
from coronet_plugin.channels.plan import ChannelPlan, ChannelSet
from coronet_plugin.errors import OptionError

TOLERANCE = 0.005
"""How far below its target the chosen cost may stay, where single channels are fine enough."""


SUITS_RUNTIMES = 8
"""Kernels of all runtimes work on so many channels at once, or on twice as many: others are not used up."""


def suitable(channels: int) -> int:
    """The multiple that suits runtimes, for a set of so many channels in the dense generator."""
    return min(SUITS_RUNTIMES, 1 << max(0, (channels // 8).bit_length() - 1))


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
    def of(cls, plan: ChannelPlan | JointPlan, round_to: int | None = 1) -> Widths:
        """Any width from the floor up whose channels are a multiple of ``round_to``.

        None: of :data:`SUITS_RUNTIMES`, and of less in sets that have but a few times as many.

        Raises:
            OptionError: ``round_to`` is below one.
        """
        if round_to is not None and round_to < 1:
            raise OptionError(f"widths are rounded to multiples of at least 1, not {round_to}")
        multiples = [round_to or suitable(s.channels) for s in plan.prunable]
        blocks = [m // math.gcd(m, s.channels // s.units) for m, s in zip(multiples, plan.prunable)]
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
