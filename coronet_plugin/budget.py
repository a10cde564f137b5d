"""What the user asked for, and which units fit into it.

A :class:`Budget` is read from text (``0.1``, ``2.6G``, ``350k``). Given a score
per unit (the size of its latent), :func:`choose_alive` keeps the highest scores
whose cost stays within the target: one global threshold found by bisection,
then single units that still fit, so that the target is met from below within
:data:`TOLERANCE` wherever the channels' granularity allows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from coronet_plugin.channels import ChannelPlan, ChannelSet
from coronet_plugin.cost import human
from coronet_plugin.errors import BudgetError

TOLERANCE = 0.005
"""How far below its target the chosen cost may stay, where single channels are fine enough."""

KINDS = ("macs", "params")
_PREFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class Budget:
    """A target cost. ``amount`` is a fraction of the dense cost, or a count if ``absolute``."""

    text: str
    kind: str
    amount: float
    absolute: bool

    @classmethod
    def parse(cls, text: str | float, kind: str = "macs") -> Budget:
        """Read ``"0.1"`` (a fraction up to 1), ``"2.6G"``, ``"350k"`` or ``"350000"`` (counts).

        ``kind``: ``"macs"`` (true multiply-adds) or ``"params"``.

        Raises:
            BudgetError: the text is none of these, or the kind does not exist.
        """
        if kind not in KINDS:
            raise BudgetError(f"budget kind {kind!r} does not exist; choose one of {', '.join(KINDS)}")
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([kmg]?)\s*", str(text).lower())
        amount = float(match[1]) * _PREFIXES[match[2]] if match else 0.0
        if match is None or not 0 < amount < math.inf:
            raise BudgetError(
                f"budget {text!r} is not understood; give a fraction such as 0.1 or a count such as 2.6G"
            )
        return cls(str(text), kind, amount, absolute=amount > 1 or bool(match[2]))

    def target(self, plan: ChannelPlan, floors: np.ndarray) -> int:
        """The largest cost allowed, in MACs or parameters.

        Raises:
            BudgetError: it lies above the dense cost or below what the floors can reach.
        """
        dense = plan.cost().of_kind(self.kind)
        smallest = plan.cost(floors).of_kind(self.kind)
        target = int(self.amount if self.absolute else self.amount * dense)
        unit = "MACs" if self.kind == "macs" else "parameters"
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
        return target


def floor_of(channel_set: ChannelSet) -> int:
    """Units of a set that always stay: four channels, or 5 % of a wide set (DHP keeps four)."""
    four = math.ceil(4 * channel_set.units / channel_set.channels)
    return min(channel_set.units, max(four, math.ceil(0.05 * channel_set.units)))


def protected(plan: ChannelPlan, score: np.ndarray) -> np.ndarray:
    """The highest-scored units of each set, up to its floor: bool ``(units,)``."""
    keep = np.zeros(plan.units, dtype=bool)
    for channel_set in plan.prunable:
        best = np.argsort(-score[channel_set.slice], kind="stable")[: floor_of(channel_set)]
        keep[channel_set.start + best] = True
    return keep


def threshold(plan: ChannelPlan, score: np.ndarray, kind: str, target: int) -> tuple[np.ndarray, float]:
    """The global threshold at which the units above it fit ``target``.

    Returns the living units (bool, ``(units,)``) and the threshold: the score of
    the best unit that has to go, 0 if none has to.
    """
    floors = protected(plan, score)
    order = np.lexsort((-score, ~floors))  # protected units first, then by falling score
    fewest, most = int(floors.sum()), plan.units

    def living(count: int) -> np.ndarray:
        alive = np.zeros(plan.units, dtype=bool)
        alive[order[:count]] = True
        return alive

    while fewest < most:  # the largest count whose cost fits
        middle = (fewest + most + 1) // 2
        if plan.cost(living(middle)).of_kind(kind) <= target:
            fewest = middle
        else:
            most = middle - 1
    cut = float(score[order[fewest]]) if fewest < plan.units else 0.0
    return living(fewest), cut


def choose_alive(plan: ChannelPlan, score: np.ndarray, kind: str, target: int) -> np.ndarray:
    """Units to keep so that the cost is at most ``target``: bool ``(units,)``.

    The threshold alone stops at the first unit that does not fit, which may be a
    costly one (a channel of the residual stream); further units are then added
    by falling score while they fit, until the cost is within :data:`TOLERANCE`.
    """
    alive, _ = threshold(plan, score, kind, target)
    for unit in np.argsort(-np.where(alive, -np.inf, score), kind="stable"):
        cost = plan.cost(alive).of_kind(kind)
        if alive[unit] or cost >= (1 - TOLERANCE) * target:
            break
        alive[unit] = True
        if plan.cost(alive).of_kind(kind) > target:
            alive[unit] = False
    return alive
