"""The channel sets of a generator: which channels live and die together.

Channels that must be kept or removed together form a *unit* (channel 5 of a
residual stream is one unit however many convolutions write it); units made by
the same layers form a :class:`ChannelSet`, which gets one latent vector.

A :class:`ChannelPlan` is data: it counts MACs and parameters for any choice of
living units and says which slices of which tensors belong to which unit. It
changes nothing. :mod:`coronet_plugin.channels.find` makes plans.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.facts import OUTPUT, Correction, LayerCall, Padded, Product
from coronet_plugin.channels.padding import Padding
from coronet_plugin.errors import OptionError

PINNED = -1
"""Unit number of every channel that is never removed."""


@dataclass(frozen=True)
class ChannelSet:
    """Channels made by the same layers, named after the first of them.

    A prunable set owns the units ``start`` to ``start + units - 1``; a pinned
    one has ``start == PINNED`` and says why in ``pinned``. ``channels`` is the
    width a user sees in the first layer. ``approximate`` says why the cut of a
    prunable one changes what is computed, None for all that are exact.
    """

    name: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: int
    units: int
    start: int
    pinned: str | None
    approximate: str | None = None

    @property
    def slice(self) -> slice:
        """Where this set's units lie in a vector over all units."""
        return slice(self.start, self.start + self.units)


@dataclass(frozen=True)
class ChannelPlan:
    """All that is known of a generator's channels.

    ``sets``: prunable and pinned, in the order of the forward pass.
    ``slices[tensor][axis]``: the unit of each index along that axis of a
    parameter or buffer (``PINNED`` where it never goes).
    ``widths[module][attribute]``: units behind a module attribute such as
    ``num_features``. ``calls`` and ``products``: runs of weighted layers and
    products of activations (ids are units here), for counting. ``shapes``: dense
    shape of every parameter. ``corrections``: what is multiplied at the cut. ``padded[module]``: modules
    that mix channels and stay as they are (:mod:`coronet_plugin.channels.padding`); ``gated``: their
    parameters, like ``slices``. ``readers``: the plan of the modules that read the generator's features
    (:mod:`coronet_plugin.channels.joint`), of the same units.
    """

    sets: tuple[ChannelSet, ...]
    slices: Mapping[str, Mapping[int, np.ndarray]]
    widths: Mapping[str, Mapping[str, np.ndarray]]
    calls: tuple[LayerCall, ...]
    products: tuple[Product, ...]
    shapes: Mapping[str, tuple[int, ...]]
    corrections: tuple[Correction, ...] = ()
    padded: Mapping[str, Padded] = field(default_factory=dict)
    gated: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    readers: ChannelPlan | None = None

    @property
    def prunable(self) -> tuple[ChannelSet, ...]:
        return tuple(s for s in self.sets if s.pinned is None)

    @property
    def units(self) -> int:
        """Number of units that can be removed."""
        return sum(s.units for s in self.prunable)

    def kernels(self) -> dict[str, LayerCall]:
        """First call of every 2-d convolution whose weight is a parameter, by weight name."""
        found: dict[str, LayerCall] = {}
        for call in self.calls:
            if call.weight is not None and call.weight in self.shapes and len(call.weight_shape) == 4:
                found.setdefault(call.weight, call)
        return found

    def cost(self, alive: np.ndarray | None = None) -> Cost:
        """Cost when only the units ``alive`` (bool, ``(units,)``) remain; all by default."""
        counts = [self.macs_of(counted, alive) for counted in self._counted]
        macs, literature = (sum(count[convention] for count in counts) for convention in (0, 1))
        keep = self._keep(alive)
        sizes = (math.prod(self._shape(name, shape, keep)) for name, shape in self.shapes.items())
        return Cost(macs, literature, sum(sizes))

    @property
    def _counted(self) -> list[LayerCall | Product]:
        return [*self.calls, *self.products]

    def macs_of(self, counted: LayerCall | Product, alive: np.ndarray | None = None) -> tuple[int, int]:
        """Multiply-adds of one run of a layer, or of one product, when only the units ``alive`` remain.

        For one image: as really done, and as the literature counts
        (:class:`~coronet_plugin.channels.cost.Cost`).
        """
        if isinstance(counted, Product):
            keep = self._keep(alive)
            widths = math.prod(int(np.count_nonzero(keep[units])) for units in counted.ids)
            return widths * counted.positions, widths * counted.positions
        weights = math.prod(self.shape_of(counted, alive))
        return weights * counted.positions, weights * counted.positions_literature

    def macs_by_layer(self) -> dict[str, int]:
        """Multiply-adds really done in all runs of every layer, by its name."""
        found: dict[str, int] = {}
        for call in self.calls:
            found[call.module] = found.get(call.module, 0) + self.macs_of(call)[0]
        return found

    def shape_of(self, call: LayerCall, alive: np.ndarray | None = None) -> tuple[int, ...]:
        """The shape of a layer's weight when only the units ``alive`` (bool, ``(units,)``) remain."""
        keep = self._keep(alive)
        if call.axes:
            return tuple(
                int(np.count_nonzero(keep[call.axes[axis]])) if axis in call.axes else length
                for axis, length in enumerate(call.weight_shape)
            )
        return self._shape(call.weight, call.weight_shape, keep)

    def _keep(self, alive: np.ndarray | None) -> np.ndarray:
        keep = np.ones(self.units + 1, dtype=bool)  # the last entry answers for PINNED
        if alive is not None:
            keep[:-1] = alive
        return keep

    def _shape(self, name: str | None, shape: tuple[int, ...], keep: np.ndarray) -> tuple[int, ...]:
        axes = self.slices.get(name, {}) if name else {}
        return tuple(
            int(np.count_nonzero(keep[axes[axis]])) if axis in axes else length
            for axis, length in enumerate(shape)
        )

    def sets_in(self, tensor: str) -> list[ChannelSet]:
        """The prunable sets with entries in a parameter or buffer."""
        entries = (*self.slices.get(tensor, {}).values(), *self.gated.get(tensor, {}).values())
        found = np.concatenate([[PINNED], *entries])
        return [s for s in self.prunable if ((found >= s.start) & (found < s.slice.stop)).any()]

    def why_pinned(self, most: int = 3) -> str:
        """The first ``most`` reasons for which hidden channels stay, with whose they are, in one line."""
        names: dict[str, list[str]] = {}
        for s in self.sets:
            if s.pinned and s.pinned != OUTPUT:
                reason = re.sub(r" \(in [\w.]+\)$", "", s.pinned)  # the same in every module
                names.setdefault(reason, []).append(s.name)
        reasons = [
            f"{mine[0]}{f' and {len(mine) - 1} more' * (len(mine) > 1)}: {reason}"
            for reason, mine in names.items()
        ]
        return "; ".join([*reasons[:most], *(["..."] if len(reasons) > most else [])])

    def units_of(self, channel_set: ChannelSet) -> np.ndarray:
        """The unit of every channel that the set's first producing layer makes."""
        for call in self.calls:
            if call.module == channel_set.producers[0]:
                if call.weight in self.slices:
                    return self.slices[call.weight or ""][call.axis_out]
                if call.axes:
                    return call.axes[call.axis_out][: channel_set.channels]
        return np.full(channel_set.channels, PINNED)  # made by a kernel that is no parameter

    def kept_channels(self, channel_set: ChannelSet, alive: np.ndarray) -> np.ndarray:
        """Indices, in the set's first producing layer, of its channels that are ``alive``."""
        producer = channel_set.producers[0]
        if all(c.weight not in self.slices and not c.axes for c in self.calls if c.module == producer):
            return np.arange(channel_set.channels)  # a computed weight: nothing of it can go
        units = self.units_of(channel_set)
        if channel_set.pinned is not None:
            return np.flatnonzero(units == PINNED)
        mine = (units >= channel_set.start) & (units < channel_set.start + channel_set.units)
        return np.flatnonzero(mine & self._keep(alive)[units])

    def units_for(self, widths: Mapping[str, int]) -> list[int]:
        """Units of every prunable set that make the ``widths``, in channels by the names of the sets.

        Raises:
            OptionError: a set is not named, or cannot have so many channels.
        """
        units = []
        for s in self.prunable:
            wanted = widths.get(s.name, 0) * s.units
            if not 0 < wanted <= s.channels * s.units or wanted % s.channels:
                raise OptionError(
                    f"the widths give {widths.get(s.name, 'none')} for the channel set {s.name}, which has "
                    f"{s.channels} channels; take those of the same architecture"
                )
            units.append(wanted // s.channels)
        return units

    def sets_as_dicts(self, alive: np.ndarray) -> list[dict[str, Any]]:
        """Every set as plain data: ``name``, ``channels``, indices of those ``kept``, why ``pinned``."""
        return [
            {
                "name": s.name,
                "channels": s.channels,
                "kept": self.kept_channels(s, alive).tolist(),
                "pinned": s.pinned,
                **({"approximate": s.approximate} if s.approximate else {}),
            }
            for s in self.sets
        ]

    def module_widths(self, alive: np.ndarray) -> dict[str, dict[str, int]]:
        """The module attributes of ``widths`` when only ``alive`` (bool, ``(units,)``) remain."""
        keep = self._keep(alive)
        return {
            module: {name: int(np.count_nonzero(keep[units])) for name, units in attributes.items()}
            for module, attributes in self.widths.items()
        }

    def paddings(self, alive: np.ndarray) -> dict[str, Padding]:
        """How modules that mix channels run when only ``alive`` (bool, ``(units,)``) remain."""
        keep = self._keep(alive)
        return {
            module: Padding(len(p.ids), tuple(np.flatnonzero(keep[p.ids]).tolist()), p.inputs, p.outputs)
            for module, p in self.padded.items()
            if not keep[p.ids].all()
        }

    def factors(self, tensor: str, axis: int, alive: np.ndarray) -> np.ndarray | None:
        """By what indices along an axis of a parameter are multiplied when only ``alive`` remain, if so."""
        keep = self._keep(alive)
        factor = None
        for c in self.corrections:
            if (c.tensor, c.axis) == (tensor, axis):
                factor = np.ones(len(c.rows)) if factor is None else factor
                factor[c.rows] *= keep[c.ids].mean() ** c.power
        return factor

    def without(self, dead: np.ndarray) -> ChannelPlan:
        """The plan of the generator from which the units ``dead`` (bool, ``(units,)``) were removed.

        Units keep their numbers, and costs are still those of the choices one makes.
        """
        keep = self._keep(~dead)
        return replace(
            self,
            slices={n: {axis: u[keep[u]] for axis, u in axes.items()} for n, axes in self.slices.items()},
            widths={n: {name: u[keep[u]] for name, u in axes.items()} for n, axes in self.widths.items()},
            corrections=tuple(
                replace(c, rows=c.rows[keep[self.slices[c.tensor][c.axis]]], ids=c.ids[keep[c.ids]])
                for c in self.corrections
            ),
        )

    def coverage(self) -> float:
        """Fraction of the true MACs in layers and products with at least one prunable axis."""
        touched = total = 0
        for counted in self._counted:
            macs, _ = self.macs_of(counted)
            total += macs
            touched += macs if any((units != PINNED).any() for units in self._axes(counted)) else 0
        return touched / total if total else 0.0

    def _axes(self, counted: LayerCall | Product) -> Iterable[np.ndarray]:
        if isinstance(counted, Product):
            return counted.ids
        return [*self.slices.get(counted.weight or "", {}).values(), *counted.axes.values()]

    def is_approximate(self, alive: np.ndarray) -> bool:
        """Whether what goes when only ``alive`` remain changes what is computed."""
        return any(s.approximate and not alive[s.slice].all() for s in self.prunable)

    def mixed(self, channel_set: ChannelSet) -> bool:
        """Whether something reads all its channels at once."""
        units = np.arange(channel_set.start, channel_set.slice.stop)
        return any(p.ids and not p.positions and np.isin(p.ids[0], units).any() for p in self.products)

    def mark(self, name: str, reason: str) -> ChannelPlan:
        """The same plan with the prunable channel set ``name`` called approximate for ``reason``."""
        sets = (replace(s, approximate=reason) if s.name == name else s for s in self.sets)
        return replace(self, sets=tuple(sets))

    def pin(self, name: str, reason: str) -> ChannelPlan:
        """The same plan with the channel set ``name`` pinned for ``reason``."""
        pinned = next(s for s in self.prunable if s.name == name)
        moved = np.arange(self.units + 1)
        moved[pinned.slice.stop :] -= pinned.units
        moved[pinned.slice] = PINNED
        moved[-1] = PINNED  # stays what it was

        def renumbered(channel_set: ChannelSet) -> ChannelSet:
            if channel_set is pinned:
                return replace(pinned, start=PINNED, pinned=reason, approximate=None)
            start = channel_set.start if channel_set.pinned else int(moved[channel_set.start])
            return replace(channel_set, start=start)

        return replace(
            self,
            sets=tuple(map(renumbered, self.sets)),
            slices={n: {axis: moved[u] for axis, u in axes.items()} for n, axes in self.slices.items()},
            widths={n: {name: moved[u] for name, u in axes.items()} for n, axes in self.widths.items()},
            products=tuple(replace(p, ids=tuple(moved[u] for u in p.ids)) for p in self.products),
            calls=tuple(replace(c, axes={axis: moved[u] for axis, u in c.axes.items()}) for c in self.calls),
            corrections=tuple(replace(c, ids=moved[c.ids]) for c in self.corrections),
            padded={n: replace(p, ids=moved[p.ids]) for n, p in self.padded.items()},
            gated={n: {axis: moved[u] for axis, u in axes.items()} for n, axes in self.gated.items()},
            readers=None if self.readers is None else self.readers.pin(name, reason),
        )
