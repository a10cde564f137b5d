"""A generator and the modules that read its features, followed as one network.

A contrastive loss such as CUT's hands features to a projector whose first layers are as wide as they are.
Such a *reader* has no say in what its generator makes, but it loses the inputs that the generator loses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from coronet_plugin.channels.facts import Runner
from coronet_plugin.channels.plan import PINNED, ChannelPlan

T = TypeVar("T")
GENERATOR, READERS = "generator.", "readers."
"""How the names of a joint network begin."""
OWN = "a reader of the generator's features makes it"
"""Why channels inside of a reader are pinned."""


class Joint(nn.Module):
    """``generator`` and its ``readers``, to be run by what :func:`joined` gives."""

    def __init__(self, generator: nn.Module, readers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.generator = generator
        self.readers = nn.ModuleList(readers)


def joined(run: Runner) -> Runner:
    """Run a :class:`Joint` by ``run(generator, *readers, *inputs)``."""
    return lambda joint, *inputs: run(joint.generator, *joint.readers, *inputs)


def beside(readers: Sequence[nn.Module], run: Runner) -> Runner:
    """Run a generator alone, or a copy of it, by ``run(generator, *readers, *inputs)``."""
    return (lambda generator, *inputs: run(generator, *readers, *inputs)) if readers else run


def parted(plan: ChannelPlan) -> ChannelPlan:
    """The plan of the generator in a :class:`Joint`, with that of its readers in ``plan.readers``.

    Units have the same numbers in both; channels that readers alone make are pinned.
    """
    for each in plan.prunable:
        if all(name.startswith(READERS) for name in each.producers):
            plan = plan.pin(each.name, OWN)
    names = {each.name: each.name[len(GENERATOR) :] for each in plan.sets if each.name.startswith(GENERATOR)}
    mine = tuple(
        replace(
            each,
            name=names.get(each.name, each.name),
            producers=_inside(each.producers, GENERATOR),
            consumers=_inside(each.consumers, GENERATOR),
        )
        for each in plan.sets
        if any(name.startswith(GENERATOR) for name in each.producers) or each.start != PINNED
    )
    return replace(
        _part(plan, GENERATOR), sets=mine, readers=replace(_part(plan, READERS), sets=mine, readers=None)
    )


def _part(plan: ChannelPlan, whose: str) -> ChannelPlan:
    """The tensors and modules whose names begin with ``whose``, under the rest of their names."""

    def inside(named: Mapping[str, T]) -> dict[str, T]:
        return {n[len(whose) :]: value for n, value in named.items() if f"{n}.".startswith(whose)}

    def own(each: Any) -> bool:
        return f"{each.module}.".startswith(whose)

    return replace(
        plan,
        slices=inside(plan.slices),
        widths=inside(plan.widths),
        calls=tuple(
            replace(
                c,
                module=c.module[len(whose) :],
                weight=None if c.weight is None else c.weight[len(whose) :],
                reads=frozenset((name[len(whose) :], axis) for name, axis in c.reads),
            )
            for c in plan.calls
            if own(c)
        ),
        products=tuple(replace(p, module=p.module[len(whose) :]) for p in plan.products if own(p)),
        shapes=inside(plan.shapes),
        corrections=tuple(
            replace(c, tensor=c.tensor[len(whose) :]) for c in plan.corrections if c.tensor.startswith(whose)
        ),
        padded=inside(plan.padded),
        gated=inside(plan.gated),
    )


def _inside(names: Sequence[str], whose: str) -> tuple[str, ...]:
    return tuple(name[len(whose) :] for name in names if name.startswith(whose))
