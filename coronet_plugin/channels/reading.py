"""Numbers that code reads from the shape of a tensor, followed through its arithmetic.

``c = x.shape[1]``, ``c // heads`` and ``c ** -0.5`` are ordinary numbers to the generator that is being
followed, which remember of which channels they are the count. So a written size is told from one that will
shrink with the channels, and a scale that depends on a width is known.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

Compared = Callable[["Width", int], None]
"""Called when a width is compared with a number that it equals."""


class Width(int):
    """``len(ids) * factor``, as a number of channels."""

    ids: np.ndarray
    factor: Fraction
    compared: Compared

    def __new__(cls, ids: np.ndarray, factor: Fraction, compared: Compared) -> Width:
        found = super().__new__(cls, int(len(ids) * factor))
        found.ids, found.factor, found.compared = ids, factor, compared
        return found

    @property
    def counted(self) -> np.ndarray:
        """As many ids as it says: of equal parts of all, those of the first, for they shrink alike."""
        return np.resize(self.ids, int(self))

    def _times(self, factor: Fraction) -> int:
        exact = len(self.ids) * self.factor * factor
        return Width(self.ids, self.factor * factor, self.compared) if exact.denominator == 1 else int(exact)

    def __mul__(self, other: Any) -> Any:
        if type(other) is int and other > 0:
            return self._times(Fraction(other))
        return Scale.of(int(self) * other, self.ids, 1) if isinstance(other, float) else int(self) * other

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return self._times(Fraction(1, other)) if type(other) is int and other > 0 else int(self) // other

    def __truediv__(self, other: Any) -> Any:
        return Scale.of(int(self) / other, self.ids, 1)

    def __rtruediv__(self, other: Any) -> Any:
        return Scale.of(other / int(self), self.ids, -1)

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        return Scale.of(int(self) ** other, self.ids, other)

    def __eq__(self, other: Any) -> bool:
        if type(other) is int and other == int(self):
            self.compared(self, other)
        return int(self) == other

    def __ne__(self, other: Any) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __reduce__(self) -> Any:
        return int, (int(self),)


class Scale(float):
    """A number in proportion to ``len(ids) ** power``."""

    ids: np.ndarray
    power: float

    @classmethod
    def of(cls, value: Any, ids: np.ndarray, power: float) -> Any:
        if not isinstance(value, (int, float)):  # a tensor knows its own channels
            return value
        found = cls(value)
        found.ids, found.power = ids, power
        return found

    def __mul__(self, other: Any) -> Any:
        return Scale.of(float(self) * other, self.ids, self.power)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return Scale.of(float(self) / other, self.ids, self.power)

    def __rtruediv__(self, other: Any) -> Any:
        return Scale.of(other / float(self), self.ids, -self.power)

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        return Scale.of(float(self) ** other, self.ids, self.power * other)

    def __neg__(self) -> Any:
        return Scale.of(-float(self), self.ids, self.power)

    def __reduce__(self) -> Any:
        return float, (float(self),)


def power_of(value: Any) -> tuple[np.ndarray, float] | None:
    """The channels on whose number ``value`` depends, and the power to which it does."""
    if isinstance(value, Width):
        return value.ids, 1
    return (value.ids, value.power) if isinstance(value, Scale) and value.power else None
