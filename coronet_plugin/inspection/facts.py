"""Facts about a generator's channel sets: widths, sharing, costs, reasons.

The facts are gathered from a :class:`~coronet_plugin.channels.plan.ChannelPlan`, and from
the spec of a slimmed generator. Nothing here prints, draws or reads files; for that
see ``table.py``, ``figure.py`` and ``source.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.find import find_channels
from coronet_plugin.channels.plan import ChannelPlan, ChannelSet
from coronet_plugin.checkpoint.spec import COMPACT, Spec
from coronet_plugin.errors import PlanError
from coronet_plugin.inspection.layers import (
    FORWARD,
    NO_SET,
    LayerFacts,
    Share,
    layer_facts,
    output_units,
    set_name,
)
from coronet_plugin.inspection.names import first_maker

DENSE = "dense"
"""Phase of a generator that is not, or not yet, compressed."""
NOT_FOLLOWED = "what these layers make could not be followed; see what is pinned before them"


@dataclass(frozen=True)
class SetFacts:
    """A channel set. ``macs`` are those of the layers that make it; None if they are not known.

    A layer that makes channels of several sets counts for each in proportion, so the MACs
    of all sets add up to the generator's. ``channels`` and ``kept`` are widths of the first layer.
    """

    name: str
    channels: int
    kept: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    macs: int | None
    macs_kept: int | None
    pinned: str | None


@dataclass(frozen=True)
class Inspection:
    """All that is shown of one generator.

    ``phase``: ``dense``, ``search`` or ``compact``. ``input_size``: (C, H, W) of each input.
    ``dense`` and ``now``: cost at full size and as it is. ``products``: the part of both MACs that is
    in no layer, but in products of activations, as in attention. ``coverage``: fraction of the MACs
    that can shrink with the channels. A slimmed generator of the user's own class is known from its
    spec alone: ``layers`` is empty and ``coverage`` None.
    """

    title: str
    about: str
    phase: str
    input_size: tuple[tuple[int, ...], ...]
    dense: Cost
    now: Cost
    products: tuple[int, int]
    coverage: float | None
    layers: tuple[LayerFacts, ...]
    sets: tuple[SetFacts, ...]

    @property
    def is_slim(self) -> bool:
        """True if channels have been removed for good."""
        return self.phase == COMPACT

    @property
    def prunable(self) -> tuple[SetFacts, ...]:
        return tuple(s for s in self.sets if s.pinned is None)


def inspect_generator(generator: nn.Module, example: Any, title: str = "", about: str = "") -> Inspection:
    """The channel sets of ``generator`` as it is.

    ``example``: input ``(N, C, H, W)`` or a tuple of inputs; costs are for its size.

    Raises:
        PlanError: the generator does not run on ``example``.
    """
    title = title or type(generator).__name__
    return inspect_plan(find_channels(generator, example), example, title, about)


def inspect_plan(
    plan: ChannelPlan,
    example: Any,
    title: str,
    about: str = "",
    phase: str = DENSE,
    alive: np.ndarray | None = None,
) -> Inspection:
    """The facts of ``plan``, with only the units ``alive`` (bool, ``(units,)``) left; all by default."""
    alive = np.ones(plan.units, dtype=bool) if alive is None else alive
    layers = layer_facts(plan, alive)
    inputs = example if isinstance(example, tuple) else (example,)
    dense, now = plan.cost(), plan.cost(alive)
    shares = [share for layer in layers for share in layer.shares]
    return Inspection(
        title=title,
        about=about,
        phase=phase,
        input_size=tuple(tuple(x.shape[1:]) for x in inputs if isinstance(x, Tensor)),
        dense=dense,
        now=now,
        products=(dense.macs - sum(s.macs for s in shares), now.macs - sum(s.macs_kept for s in shares)),
        coverage=plan.coverage(),
        layers=layers,
        sets=tuple(_set_facts(s, layers) for s in plan.sets) + _unfollowed(layers),
    )


def inspect_spec(spec: Spec, title: str, about: str = "") -> Inspection:
    """The facts that the spec alone tells: widths, reasons, the whole costs; not who makes or reads a set."""
    return Inspection(
        title=title,
        about=about,
        phase=spec.phase,
        input_size=tuple(tuple(size) for size in spec.input_size),
        dense=Cost(**spec.dense),
        now=Cost(**spec.slim),
        products=(0, 0),
        coverage=None,
        layers=(),
        sets=tuple(_set_of_spec(entry) for entry in spec.sets),
    )


def _set_of_spec(entry: Mapping[str, Any]) -> SetFacts:
    return SetFacts(
        name=entry["name"],
        channels=entry["channels"],
        kept=len(entry["kept"]),
        makers=(first_maker(entry["name"]),),
        readers=(),
        macs=None,
        macs_kept=None,
        pinned=entry["pinned"],
    )


def alive_units(spec: Spec, plan: ChannelPlan) -> np.ndarray:
    """The units of ``plan`` that are left by ``spec``: bool, ``(units,)``.

    Raises:
        PlanError: the plan does not have the sets of the spec.
    """
    kept = {entry["name"]: entry["kept"] for entry in spec.sets if entry["pinned"] is None}
    if kept.keys() != {s.name for s in plan.prunable}:
        raise PlanError("the spec was written for other channel sets than those found in the generator")
    alive = np.zeros(plan.units + 1, dtype=bool)
    for channel_set in plan.prunable:
        made = [call for call in plan.calls if call.module == channel_set.producers[0]]
        units, indices = output_units(plan, made), kept[channel_set.name]
        if max(indices, default=0) >= len(units):
            raise PlanError(f"the spec keeps more channels of {channel_set.name} than its {len(units)}")
        alive[units[indices]] = True
    return alive[:-1]


def as_json(inspections: Mapping[str, Inspection]) -> dict[str, Any]:
    """All facts of the generators, by name, as plain data."""
    return {
        "format": "coronet-inspection",
        "version": 1,
        "generators": {name: asdict(inspection) for name, inspection in inspections.items()},
    }


# -- sets --------------------------------------------------------------------
def _set_facts(channel_set: ChannelSet, layers: Sequence[LayerFacts]) -> SetFacts:
    made = _makers(layers, set_name(channel_set))
    return SetFacts(
        name=set_name(channel_set),
        channels=made[0][1].channels if made else channel_set.channels,
        kept=made[0][1].kept if made else channel_set.channels,
        makers=tuple(name for name, _ in made) or channel_set.producers,
        readers=tuple(name or FORWARD for name in channel_set.consumers),
        macs=sum(share.macs for _, share in made),
        macs_kept=sum(share.macs_kept for _, share in made),
        pinned=channel_set.pinned,
    )


def _makers(layers: Sequence[LayerFacts], name: str) -> list[tuple[str, Share]]:
    """The layers that make channels of the set ``name``, and their shares in it."""
    return [(layer.name, share) for layer in layers for share in layer.shares if share.set == name]


def _unfollowed(layers: Sequence[LayerFacts]) -> tuple[SetFacts, ...]:
    """One row for the layers that make channels of no set, if there are any."""
    made = _makers(layers, NO_SET)
    if not made:
        return ()
    width, macs = made[0][1].channels, sum(share.macs for _, share in made)
    kept = sum(share.macs_kept for _, share in made)
    return (SetFacts(NO_SET, width, width, tuple(n for n, _ in made), (), macs, kept, NOT_FOLLOWED),)
