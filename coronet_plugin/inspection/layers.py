"""The weighted layers of a plan: how wide they are, what they cost, and whose channels they make.

A layer may make channels of several sets; its multiply-adds are shared out among them in
proportion, so that whatever is shown by set adds up to what is shown by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coronet_plugin.channels.facts import LayerCall
from coronet_plugin.channels.plan import PINNED, ChannelPlan, ChannelSet

NO_SET = "(in no set)"
"""Name under which layers are counted whose output channels could not be followed."""
FORWARD = "(forward)"
"""Name for layers that the generator's own forward computes without a module."""


@dataclass(frozen=True)
class Share:
    """The channels of one layer that belong to one set, and the true MACs that make them."""

    set: str
    channels: int
    kept: int
    macs: int
    macs_kept: int


@dataclass(frozen=True)
class LayerFacts:
    """A layer with a weight: its name and the sets its output channels belong to."""

    name: str
    shares: tuple[Share, ...]

    @property
    def channels(self) -> int:
        """Width of the output at full size."""
        return sum(share.channels for share in self.shares)

    @property
    def kept(self) -> int:
        """Width of the output now."""
        return sum(share.kept for share in self.shares)


def _calls(plan: ChannelPlan) -> dict[str, list[LayerCall]]:
    """The runs of each layer by its name, in the order of the first."""
    weights: dict[str, set[str | None]] = {}
    for call in plan.calls:
        weights.setdefault(call.module, set()).add(call.weight)
    found: dict[str, list[LayerCall]] = {}
    for call in plan.calls:
        several = len(weights[call.module]) > 1  # functional layers in one forward
        name = call.weight if several or not call.module else call.module
        found.setdefault(name or call.module or "(unnamed layer)", []).append(call)
    return found


def layer_facts(plan: ChannelPlan, alive: np.ndarray) -> tuple[LayerFacts, ...]:
    """All weighted layers in the order they run, when the units ``alive`` (bool, ``(units,)``) remain."""
    return tuple(LayerFacts(name, _shares(plan, calls, alive)) for name, calls in _calls(plan).items())


def _shares(plan: ChannelPlan, calls: Sequence[LayerCall], alive: np.ndarray) -> tuple[Share, ...]:
    units = output_units(plan, calls)
    macs, macs_kept = (sum(plan.macs_of(call, left)[0] for call in calls) for left in (None, alive))
    keep = np.append(alive, True)  # the last entry answers for PINNED
    names, channels, kept = zip(*_split(plan.sets, calls[0].module, units, keep))
    costs = _in_proportion(macs, channels), _in_proportion(macs_kept, kept)
    return tuple(map(Share, names, channels, kept, *costs))


def _in_proportion(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in whole parts, as ``weights``, that add up to it."""
    ends = np.cumsum(weights).tolist()
    cuts = [0, *(total * end // max(1, ends[-1]) for end in ends)]
    return [after - before for before, after in zip(cuts, cuts[1:])]


def output_units(plan: ChannelPlan, calls: Sequence[LayerCall]) -> np.ndarray:
    """The unit of each output channel of a layer, ``(width,)``, by the first run that was followed."""
    call = next((c for c in calls if c.axis_out in plan.slices.get(c.weight or "", {})), calls[0])
    axes = plan.slices.get(call.weight or "", {})
    width = call.weight_shape[call.axis_out] * (call.groups if call.transposed else 1)
    if call.axis_out in axes and len(axes[call.axis_out]) == width:
        return axes[call.axis_out]
    if call.groups > 1 and call.axis_in in axes:  # groups are removed whole
        groups = axes[call.axis_in].reshape(call.groups, -1)[:, 0]
        return np.repeat(groups, width // call.groups)
    return np.full(width, PINNED)


def _split(
    sets: Sequence[ChannelSet], module: str, units: np.ndarray, keep: np.ndarray
) -> list[tuple[str, int, int]]:
    """Name, channels and kept channels of every set that a layer with output ``units`` makes."""
    parts = []
    for s in sets:
        mine = (units >= s.start) & (units < s.start + s.units) & (s.pinned is None)
        if mine.any():
            parts.append((set_name(s), int(mine.sum()), int((mine & keep[units]).sum())))
    left = int((units == PINNED).sum())
    pinned = [s for s in sets if s.pinned is not None and module in s.producers]
    for s in pinned:  # a plan does not tell pinned sets apart channel by channel
        width = left if s is pinned[-1] else min(left, s.channels)
        left -= width
        parts += [(set_name(s), width, width)] if width else []
    return [*parts, (NO_SET, left, left)] if left or not parts else parts


def set_name(channel_set: ChannelSet) -> str:
    """The name of a set, also where the layer it is named after has none."""
    return channel_set.name or FORWARD
