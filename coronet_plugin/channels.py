"""The channel sets of a generator: which channels live and die together.

:func:`find_channels` runs a generator once and returns a :class:`ChannelPlan`.
Channels that must be kept or removed together form a *unit* (channel 5 of a
residual stream is one unit however many convolutions write it); units made by
the same layers form a :class:`ChannelSet`, which gets one latent vector.

A plan is data: it counts MACs and parameters for any choice of living units
and says which slices of which tensors belong to which unit. It changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.cost import Cost
from coronet_plugin.errors import PlanError
from coronet_plugin.propagation import LayerCall, Propagation
from coronet_plugin.rules import RULES

PINNED = -1
"""Unit number of every channel that is never removed."""


@dataclass(frozen=True)
class ChannelSet:
    """Channels made by the same layers, named after the first of them.

    A prunable set owns the units ``start`` to ``start + units - 1``; a pinned
    one has ``start == PINNED`` and says why in ``pinned``. ``channels`` is the
    width a user sees in the first layer.
    """

    name: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: int
    units: int
    start: int
    pinned: str | None

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
    ``num_features``. ``calls``: runs of weighted layers, for counting.
    ``shapes``: dense shape of every parameter.
    """

    sets: tuple[ChannelSet, ...]
    slices: Mapping[str, Mapping[int, np.ndarray]]
    widths: Mapping[str, Mapping[str, np.ndarray]]
    calls: tuple[LayerCall, ...]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def prunable(self) -> tuple[ChannelSet, ...]:
        return tuple(s for s in self.sets if s.pinned is None)

    @property
    def units(self) -> int:
        """Number of units that can be removed."""
        return sum(s.units for s in self.prunable)

    def kernels(self) -> dict[str, LayerCall]:
        """First call of every convolution with a weight of its own, by weight name."""
        found: dict[str, LayerCall] = {}
        for call in self.calls:
            if call.weight is not None and len(call.weight_shape) == 4:
                found.setdefault(call.weight, call)
        return found

    def cost(self, alive: np.ndarray | None = None) -> Cost:
        """Cost when only the units ``alive`` (bool, ``(units,)``) remain; all by default."""
        keep = np.ones(self.units + 1, dtype=bool)
        if alive is not None:
            keep[:-1] = alive  # the last entry answers for PINNED
        sizes = {name: self._size(name, shape, keep) for name, shape in self.shapes.items()}
        macs = literature = 0
        for call in self.calls:
            weights = sizes[call.weight] if call.weight else int(np.prod(call.weight_shape))
            macs += weights * call.positions
            literature += weights * call.positions_literature
        return Cost(macs, literature, sum(sizes.values()))

    def _size(self, name: str, shape: tuple[int, ...], keep: np.ndarray) -> int:
        size = 1
        axes = self.slices.get(name, {})
        for axis, length in enumerate(shape):
            size *= int(np.count_nonzero(keep[axes[axis]])) if axis in axes else length
        return size

    def kept_channels(self, channel_set: ChannelSet, alive: np.ndarray) -> np.ndarray:
        """Indices, in the set's first producing layer, of its channels that are ``alive``."""
        call = next(call for call in self.calls if call.module == channel_set.producers[0])
        units = self.slices[call.weight or ""][call.axis_out]
        if channel_set.pinned is not None:
            return np.flatnonzero(units == PINNED)
        mine = (units >= channel_set.start) & (units < channel_set.start + channel_set.units)
        return np.flatnonzero(mine & np.append(alive, True)[units])

    def coverage(self) -> float:
        """Fraction of the true MACs in layers with at least one prunable axis."""
        touched = total = 0
        for call in self.calls:
            macs = int(np.prod(call.weight_shape)) * call.positions
            axes = self.slices.get(call.weight, {}) if call.weight else {}
            total += macs
            touched += macs if any((units != PINNED).any() for units in axes.values()) else 0
        return touched / total if total else 0.0


def find_channels(generator: nn.Module, example: Any) -> ChannelPlan:
    """Find the channel sets of ``generator`` by running it on ``example``.

    ``example``: input ``(N, C, H, W)`` on the generator's device, or a tuple of
    inputs. Training flags and buffers are left as they were; no gradient is made.

    Raises:
        PlanError: the generator does not run on ``example``.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    state = Propagation(generator, RULES)
    training = {module: module.training for module in generator.modules()}
    generator.eval()  # batch statistics of one image and dropout teach nothing about channels
    try:
        state.run(inputs)
    except Exception as error:
        shapes = [tuple(x.shape) for x in inputs if isinstance(x, Tensor)]
        raise PlanError(
            f"the generator {type(generator).__name__} does not run on an example of shape {shapes}: "
            f"{error}. Pass an example input it accepts."
        ) from error
    finally:
        for module, flag in training.items():
            module.training = flag
    return _plan(generator, state)


def example_input(generator: nn.Module, size: int, channels: int | None = None) -> Tensor:
    """A random image ``(1, C, size, size)`` for a generator that takes one image.

    ``channels``: by default those of the generator's first convolution.
    """
    parameter = next(generator.parameters())
    if channels is None:
        convolutions = (m for m in generator.modules() if isinstance(m, nn.Conv2d))
        first = next(convolutions, None)
        channels = 3 if first is None else first.in_channels
    noise = torch.Generator().manual_seed(0)
    image = torch.rand(1, channels, size, size, generator=noise) * 2 - 1
    return image.to(parameter.device, parameter.dtype)


def _plan(generator: nn.Module, state: Propagation) -> ChannelPlan:
    reasons = state.pinned()
    members: dict[int, set[str]] = defaultdict(set)
    order: dict[int, None] = {}
    for index, origin in enumerate(state.origins):
        root = state.find(index)
        if origin is not None:
            members[root].add(origin)
            order.setdefault(root)
    groups: dict[tuple[frozenset[str], str | None], list[int]] = defaultdict(list)
    for root in order:
        groups[(frozenset(members[root]), reasons.get(root))].append(root)

    first = {call.module: position for position, call in reversed(list(enumerate(state.calls)))}
    sets: list[ChannelSet] = []
    unit_of: dict[int, int] = {}
    taken: set[str] = set()
    for (made_by, reason), roots in sorted(groups.items(), key=lambda g: min(first[m] for m in g[0][0])):
        producers = tuple(sorted(made_by, key=lambda module: first[module]))
        start = PINNED if reason else len(unit_of)
        if reason is None:
            unit_of.update({root: start + offset for offset, root in enumerate(roots)})
        name = producers[0]
        while name in taken:
            name += "'"
        taken.add(name)
        wanted = set(roots)
        sets.append(
            ChannelSet(
                name=name,
                producers=producers,
                consumers=_consumers(state, wanted),
                channels=_channels_in(state, producers[0], wanted),
                units=len(roots),
                start=start,
                pinned=reason,
            )
        )

    def to_units(ids: np.ndarray) -> np.ndarray:
        return np.array([unit_of.get(state.find(i), PINNED) for i in ids.tolist()], dtype=np.int64)

    return ChannelPlan(
        sets=tuple(sets),
        slices={t: {axis: to_units(ids) for axis, ids in axes.items()} for t, axes in state.tensors.items()},
        widths={m: {a: to_units(ids) for a, ids in attrs.items()} for m, attrs in state.norms.items()},
        calls=tuple(state.calls),
        shapes={name: tuple(p.shape) for name, p in generator.named_parameters()},
    )


def _consumers(state: Propagation, roots: set[int]) -> tuple[str, ...]:
    readers = []
    for weight, ids in state.consumers.items():
        if roots & {state.find(i) for i in ids.tolist()}:
            readers.append(weight.rpartition(".")[0])
    return tuple(readers)


def _channels_in(state: Propagation, module: str, roots: set[int]) -> int:
    return sum(origin == module and state.find(i) in roots for i, origin in enumerate(state.origins))
