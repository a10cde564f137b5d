"""The budget a user asks for, read from ``0.1``, ``2.6G``, ``350k``, ``20ms``.

A *meter* says what a choice of living units costs, in the unit of the budget.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coronet_plugin.channels.cost import human
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import BudgetError

Meter = Callable[["np.ndarray | None"], float]
"""The cost of the living units (bool, ``(units,)``; None for all) in a budget's unit."""

LATENCY = "latency"
KINDS = ("macs", "params", LATENCY)
SMALLEST_COUNT = 1000
"""A count without a suffix is at least this: a smaller number is a fraction, or a slip."""
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

        ``kind``: ``"macs"`` (true multiply-adds), ``"params"``, or ``"latency"`` (of one image). What has
        no unit and is above 1 is a whole number: a count of at least :data:`SMALLEST_COUNT`, or
        milliseconds.

        Raises:
            BudgetError: the text is none of these, or the kind does not exist.
        """
        if kind not in KINDS:
            raise BudgetError(f"budget kind {kind!r} does not exist; choose one of {', '.join(KINDS)}")
        number = r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*"
        units = "(|ms|s)" if kind == LATENCY else "([kmg]?)"
        match = re.fullmatch(number + units + r"\s*", str(text).lower())
        amount = float(match[1]) * _PREFIXES[match[2]] if match else 0.0
        example = "a time such as 20ms" if kind == LATENCY else "a count such as 2.6G or 350000"
        if match is None or not 0 < amount < math.inf:
            raise BudgetError(f"budget {text!r} is not understood; give a fraction such as 0.1 or {example}")
        smallest = 1 if kind == LATENCY else SMALLEST_COUNT
        if amount > 1 and not match[2] and (amount < smallest or not amount.is_integer()):
            raise BudgetError(f"budget {text!r} is neither a fraction such as 0.1, at most 1, nor {example}")
        return cls(str(text), kind, amount, absolute=amount > 1 or bool(match[2]))

    @property
    def is_everything(self) -> bool:
        """True if nothing has to go."""
        return self.amount == 1 and not self.absolute

    def target(self, meter: Meter, floors: np.ndarray, why: str = "") -> float:
        """The largest cost allowed, in the unit of ``meter``; ``floors``: units that stay in any case.

        ``why``: what to say of channels that never go, should the budget not be reached.

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
                + (f"; what stays whole: {why}" if why else "")
            )
        return target if self.kind == LATENCY else int(target)


@dataclass(frozen=True)
class CountMeter:
    """Counts what the living units of ``plan`` cost, in ``"macs"`` or ``"params"``."""

    plan: ChannelPlan
    kind: str

    def __call__(self, alive: np.ndarray | None = None) -> float:
        return self.plan.cost(alive).of_kind(self.kind)
