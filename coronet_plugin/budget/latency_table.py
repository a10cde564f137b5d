"""Predict how long a narrower generator takes, from the times of whole generators of a few widths.

A table is rows: widths of all channel sets, and the milliseconds one image takes with them in a runtime, on
one CPU thread. Whole generators are timed and not layers, because norms, activations, padding and the calls
themselves take time, too, and runtimes join layers. A few terms (a constant, weights, and multiply-adds and
values put out by each kind of layer) are fitted to the rows; what a row differs from them by holds for widths
near its own. A row more makes predictions there exact, so who chooses widths times what was chosen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.budget.widths import suitable
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError, describe
from coronet_plugin.files import write_text

FORMAT, VERSION = "coronet-latency-table", 1
FRACTIONS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.08)
"""Widths of the first rows, as fractions of the dense width."""
STIFFNESS = 0.1
"""How strongly each kind of layer is held to the speed of all layers, against the rows."""
REACH = 0.3
"""Difference of widths (mean, of logarithms) at which a row's own remainder counts for half."""


@dataclass(frozen=True)
class Row:
    """Channels by the names of the channel sets, and milliseconds of one image."""

    widths: Mapping[str, int]
    ms: float


@dataclass(frozen=True)
class LatencyTable:
    """Times of one generator in ``runtime``, by widths. The first row is the dense generator."""

    runtime: str
    rows: tuple[Row, ...]

    def with_row(self, row: Row) -> LatencyTable:
        """A table with ``row``, in the place of one of the same widths."""
        rows = {tuple(each.widths.items()): each for each in (*self.rows, row)}
        return LatencyTable(self.runtime, tuple(rows.values()))

    def as_dict(self) -> dict[str, Any]:
        rows = [{"widths": dict(row.widths), "ms": row.ms} for row in self.rows]
        return {"runtime": self.runtime, "rows": rows}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LatencyTable:
        """The table of which ``values`` is :meth:`as_dict`."""
        rows = tuple(
            Row({name: int(width) for name, width in row["widths"].items()}, float(row["ms"]))
            for row in values["rows"]
        )
        return cls(str(values["runtime"]), rows)

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """As JSON; ``about``: what else the file says, such as the machine."""
        values = {"format": FORMAT, "version": VERSION, **about, **self.as_dict()}
        write_text(path, json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path | str) -> LatencyTable:
        """The table of a file.

        Raises:
            OptionError: there is no such file, or it is no table.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values["format"] != FORMAT or values["version"] != VERSION:
                raise ValueError(f"it is {values['format']} {values['version']}")
            table = cls.of(values)
            if not table.rows or not all(0 < row.ms < math.inf for row in table.rows):
                raise ValueError("a time is missing or not above 0")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OptionError(
                f"{path} is no latency table ({describe(error)}); write one with 'coronet bench --table FILE'"
            ) from error
        return table


class Prediction:
    """The milliseconds that a ``table`` foretells for any choice of the units of ``plan``.

    Raises:
        OptionError: the table is of another generator.
    """

    def __init__(self, plan: ChannelPlan, table: LatencyTable) -> None:
        self._sets = plan.prunable
        self.units = np.array([plan.units_for(row.widths) for row in table.rows], dtype=float)
        ms = np.array([row.ms for row in table.rows])
        self._terms = Terms(plan)
        terms = np.array([self._terms(first_units(plan, units)) for units in self.units.astype(int)])
        self._speeds = _fitted(terms, ms)
        self._remainders = np.log(ms / (terms @ self._speeds))

    def __call__(self, alive: np.ndarray | None = None) -> float:
        """Of one image when only the units ``alive`` (bool, ``(units,)``) remain; all by default."""
        units = np.array([s.units if alive is None else alive[s.slice].sum() for s in self._sets])
        distance = np.abs(np.log(np.maximum(units, 1) / self.units)).mean(1)
        weight = 1 / (distance**2 + 1e-9)
        remainder = weight @ self._remainders / (weight.sum() + 1 / REACH**2)
        return float(self._terms(alive) @ self._speeds * math.exp(remainder))


def first_units(plan: ChannelPlan, units: Iterable[int]) -> np.ndarray:
    """The first so many units of every prunable set: bool ``(units,)``."""
    alive = np.zeros(plan.units, dtype=bool)
    for channel_set, count in zip(plan.prunable, units):
        alive[channel_set.start : channel_set.start + count] = True
    return alive


def widths_of(plan: ChannelPlan, alive: np.ndarray) -> dict[str, int]:
    """Channels by the names of the prunable sets, as :meth:`ChannelPlan.units_for` takes them."""
    return {s.name: int(alive[s.slice].sum()) * s.channels // s.units for s in plan.prunable}


def narrowed(plan: ChannelPlan, fractions: Iterable[float]) -> np.ndarray:
    """Every prunable set at its fraction of the dense width, in multiples that suit runtimes."""
    units = []
    for channel_set, fraction in zip(plan.prunable, fractions):
        step = max(1, suitable(channel_set.channels) * channel_set.units // channel_set.channels)
        units.append(min(channel_set.units, max(1, round(fraction * channel_set.units / step)) * step))
    return first_units(plan, units)


class Terms:
    """The amounts of which a choice of units takes its time.

    1, weights; then, by kind of layer, multiply-adds and values put out. A kind is plain or transposed, at
    one size of output.
    """

    def __init__(self, plan: ChannelPlan) -> None:
        counted: list[np.ndarray] = [np.zeros(plan.units + 1)]
        where: list[dict[int, int]] = []
        for each in plan.calls:
            axes = each.axes or plan.slices.get(each.weight or "", {})
            where.append({axis: len(counted) + i for i, axis in enumerate(axes)})
            counted += [
                np.bincount(ids % (plan.units + 1), minlength=plan.units + 1) for ids in axes.values()
            ]
        counted[0][-1] = 1  # axes of which nothing goes
        self._counted = np.array(counted)
        self._axes = np.zeros((max(map(len, where), default=0), len(where)), dtype=int)
        for number, rows in enumerate(where):
            self._axes[: len(rows), number] = list(rows.values())
        self._fixed = np.array(
            [
                math.prod(n for axis, n in enumerate(c.weight_shape) if axis not in rows)
                for c, rows in zip(plan.calls, where)
            ]
        )
        self._out = [rows.get(c.axis_out, 0) for c, rows in zip(plan.calls, where)]
        widths = [1 if row else c.weight_shape[c.axis_out] for c, row in zip(plan.calls, self._out)]
        kinds = [(c.transposed, c.positions_literature) for c in plan.calls]
        of_kind = np.array([[kind == other for other in kinds] for kind in dict.fromkeys(kinds)])
        self._macs = of_kind * [c.positions for c in plan.calls]
        self._values = of_kind * np.multiply(widths, [c.positions_literature for c in plan.calls])

    def __call__(self, alive: np.ndarray | None = None) -> np.ndarray:
        """For the units ``alive`` (bool, ``(units,)``); all by default."""
        keep = np.ones(self._counted.shape[1])
        if alive is not None:
            keep[:-1] = alive
        channels = self._counted @ keep
        sizes = self._fixed * channels[self._axes].prod(0)
        macs, values = self._macs @ sizes, self._values @ channels[self._out]
        return np.concatenate([[1.0, sizes.sum()], np.stack([macs, values], 1).ravel()])


def _fitted(terms: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """Milliseconds per amount of each of ``terms`` ``(rows, terms)``, none below 0; errors count relatively.

    First one speed for all kinds of layers; then each its own, as far as the rows say so.
    """
    together = np.stack([terms[:, 0], terms[:, 1], terms[:, 2::2].sum(1), terms[:, 3::2].sum(1)], 1)
    common = _least_squares(together / ms[:, None], np.zeros(4), STIFFNESS * 1e-3)
    prior = np.concatenate([common[:2], np.tile(common[2:], (terms.shape[1] - 2) // 2)])
    return _least_squares(terms / ms[:, None], prior, STIFFNESS)


def _least_squares(relative: np.ndarray, prior: np.ndarray, stiffness: float) -> np.ndarray:
    """The speeds from 0 on whose ``relative`` times are nearest to 1, and they to ``prior``; by turns."""
    scale = np.maximum(np.abs(relative).mean(0), 1e-300)
    scaled, prior = relative / scale, prior * scale
    square = scaled.T @ scaled + stiffness * np.eye(len(prior))
    wanted, found = scaled.sum(0) + stiffness * prior, prior.copy()
    for _ in range(300):
        for i in range(len(found)):
            found[i] = max(0.0, found[i] + (wanted[i] - square[i] @ found) / square[i, i])
    return found / scale
