"""A width for every group of channel sets, from a list each, and the choice of the best that fit.

As GAN Compression searches (Li et al., CVPR 2020, arXiv 2003.08936): small spaces are tried whole, large ones
by evolution. What a width is worth is for the caller to say.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from coronet_plugin.budget.goal import Goal
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError

Widths = tuple[int, ...]
"""Units of every group."""

STAGES = 3
"""Groups at most of a run of alike sets, such as the blocks of a ResNet."""
TRIES = 100
"""Random widths that are drawn for a budget before one is narrowed until it fits."""


def _all(*widths: int) -> tuple[Widths, ...]:
    return (widths,)


SPACES: dict[str, tuple[Widths, ...]] = {
    "channels-64-pix2pix": _all(64, 56, 48, 40, 32, 24, 16),
    "channels-64-cycleGAN": _all(64, 48, 32, 24, 16),
    "channels-48": ((48, 32),) * 2 + ((48, 40, 32),) * 4 + ((48, 32, 24, 16),) * 2,
    "channels-32": _all(32, 24, 16),
}
"""Published spaces by name, for generators of ngf 64: of all groups, or of each of a ResNet's eight."""


def fractions_of(text: str) -> tuple[tuple[float, ...], ...]:
    """Fractions of the dense width, of all groups or of each: of a published space, or ``0.5,0.25``.

    Raises:
        OptionError: the text is neither.
    """
    if text in SPACES:
        return tuple(tuple(width / 64 for width in widths) for widths in SPACES[text])
    try:
        fractions = sorted({float(part) for part in text.split(",")}, reverse=True)
    except ValueError:
        fractions = []
    if not fractions or not 0 < fractions[-1] <= fractions[0] <= 1:
        raise OptionError(
            f"--coronet_space {text!r} is neither one of {', '.join(SPACES)} nor fractions of the width such "
            "as 1,0.5,0.25"
        )
    return (tuple(fractions),)


@dataclass(frozen=True)
class Space:
    """``groups``: numbers of the prunable sets that have one width. ``choices``: units of each, falling."""

    groups: tuple[tuple[int, ...], ...]
    choices: tuple[Widths, ...]

    @classmethod
    def of(cls, goal: Goal, fractions: Sequence[Sequence[float]]) -> Space:
        """The space of a goal's generator: widths no smaller than its floors, in its blocks.

        Sets of one width and of layers of one shape that follow each other are one run; of a run there are
        three groups at most. A ResNet's are eight: the first layer, the first halving, the residual stream,
        the inside of the first, second and third part of the blocks, the first and the second doubling.

        Raises:
            OptionError: there are as many lists of fractions as another generator has groups.
        """
        groups = tuple(_groups(goal))
        if len(fractions) not in (1, len(groups)):
            raise OptionError(
                f"this space is for {len(fractions)} groups of channel sets, the generator has {len(groups)}"
                "; choose a --coronet_space of one list"
            )
        lists = list(fractions) * (len(groups) // len(fractions))
        return cls(groups, tuple(_choices(goal, group[0], each) for group, each in zip(groups, lists)))

    @classmethod
    def exactly(cls, goal: Goal) -> Space:
        """The space of the widths that ``goal`` ends with in any case."""
        return cls(
            tuple((i,) for i in range(len(goal.widths.floors))), tuple((w,) for w in goal.widths.floors)
        )

    @property
    def size(self) -> int:
        """How many widths there are."""
        return math.prod(map(len, self.choices))

    @property
    def smallest(self) -> Widths:
        """The narrowest of all."""
        return tuple(choices[-1] for choices in self.choices)

    @property
    def largest(self) -> Widths:
        """The widest of all."""
        return tuple(choices[0] for choices in self.choices)

    def alive(self, goal: Goal, rank: np.ndarray, widths: Widths) -> np.ndarray:
        """The first units of every set, by their ``rank`` in it ``(units,)``: bool ``(units,)``."""
        alive = np.zeros(goal.plan.units, dtype=bool)
        for group, width in zip(self.groups, widths):
            for number in group:
                part = goal.plan.prunable[number].slice
                alive[part] = rank[part] < width
        return alive

    def draw(self, random: np.random.Generator, weight: float = 1.0) -> Widths:
        """Any widths: each drawn by itself, the narrowest ``weight`` times as often as the widest.

        Between the two the chances rise by equal amounts.
        """
        found = []
        for choices in self.choices:
            chances = np.linspace(1.0, weight, len(choices))
            found.append(choices[random.choice(len(choices), p=chances / chances.sum())])
        return tuple(found)


def _groups(goal: Goal) -> list[tuple[int, ...]]:
    runs: list[list[int]] = []
    before: object = None
    for number, (plan, channel_set) in enumerate((p, s) for p in goal.plan.plans for s in p.prunable):
        shapes = [call.weight_shape for call in plan.calls if call.module == channel_set.producers[0]]
        alike = (id(plan), channel_set.units, *shapes[:1])
        if alike != before:
            runs.append([])
        runs[-1].append(number)
        before = alike
    return [tuple(map(int, part)) for run in runs for part in np.array_split(run, min(STAGES, len(run)))]


def _choices(goal: Goal, number: int, fractions: Sequence[float]) -> Widths:
    dense, floor = goal.plan.prunable[number].units, goal.widths.floors[number]
    block = goal.widths.blocks[number]
    rounded = {round(fraction * dense / block) * block for fraction in fractions}
    return tuple(sorted({int(min(dense, max(floor, width))) for width in rounded}, reverse=True))


@dataclass(frozen=True)
class Evolution:
    """How to search; the numbers are GAN Compression's.

    ``whole``: spaces of at most so many widths are tried whole. Else ``generations`` of ``population``
    members: the best ``parents`` (a fraction) stay, and two halves of a population are made of them: one by
    drawing each width anew with chance ``mutation``, one by taking each from either of two parents. The
    first generation is drawn with the narrowest widths ``weight`` times as often as the widest.
    """

    whole: int = 10_000
    generations: int = 500
    population: int = 100
    parents: float = 0.25
    mutation: float = 0.3
    weight: float = 2.0


def best_widths(
    space: Space,
    fits: Callable[[Widths], bool],
    error: Callable[[Widths], float],
    how: Evolution,
    random: np.random.Generator,
) -> Widths:
    """The widths of least ``error`` among those that are tried; ``fits`` says which may be.

    The narrowest of all must fit. Each is judged once; an error that is no number is the worst.
    """
    fits = functools.cache(fits)
    draw = functools.partial(space.draw, random, how.weight)

    @functools.cache
    def judged(widths: Widths) -> float:
        found = error(widths)
        return math.inf if math.isnan(found) else found

    if space.size <= how.whole:
        return min((w for w in _product(space.choices) if fits(w)), key=judged)
    members = [_fitting(space, fits, random, draw) for _ in range(how.population)]
    for _ in range(how.generations):
        parents = sorted(members, key=judged)[: max(1, round(how.parents * how.population))]
        mutated = functools.partial(_mutated, space, random, parents, how.mutation)
        crossed = functools.partial(_crossed, random, parents)
        makers = [make for make in (mutated, crossed) for _ in range(how.population // 2)]
        members = [*parents, *(_fitting(space, fits, random, make) for make in makers)]
    return min(members, key=judged)


def _product(choices: Sequence[Widths]) -> list[Widths]:
    found: list[Widths] = [()]
    for each in choices:
        found = [(*widths, width) for widths in found for width in each]
    return found


def _fitting(
    space: Space, fits: Callable[[Widths], bool], random: np.random.Generator, make: Callable[[], Widths]
) -> Widths:
    for _ in range(TRIES):
        widths = make()
        if fits(widths):
            return widths
    while not fits(widths):  # a budget that is near the narrowest is not met by chance
        wide = [i for i, width in enumerate(widths) if width > space.choices[i][-1]]
        place = wide[random.integers(len(wide))]
        choices = space.choices[place]
        widths = (*widths[:place], choices[choices.index(widths[place]) + 1], *widths[place + 1 :])
    return widths


def _mutated(space: Space, random: np.random.Generator, parents: Sequence[Widths], chance: float) -> Widths:
    parent, other = parents[int(random.integers(len(parents)))], space.draw(random)
    return tuple(b if random.random() < chance else a for a, b in zip(parent, other))


def _crossed(random: np.random.Generator, parents: Sequence[Widths]) -> Widths:
    one, two = (parents[int(random.integers(len(parents)))] for _ in range(2))
    return tuple(b if random.random() < 0.5 else a for a, b in zip(one, two))


@torch.no_grad()
def ranks_by_l1(generator: nn.Module, plan: ChannelPlan, space: Space) -> np.ndarray:
    """Place of every unit in its set by the L1 norm of the filters that make it, largest first: ``(units,)``.

    Layer by layer in the order of the forward pass: of each layer only those inputs count that the widest
    student of ``space`` keeps.
    """
    parameters = dict(generator.named_parameters())
    rank = np.zeros(plan.units, dtype=np.int64)
    keep = np.ones(plan.units + 1, dtype=bool)  # the last entry answers for PINNED
    width = {number: w for group, w in zip(space.groups, space.largest) for number in group}
    for number, channel_set in enumerate(plan.prunable):
        call = next(c for c in plan.calls if c.module == channel_set.producers[0])
        norms = parameters[call.weight or ""].detach().abs().double().cpu()
        reads = plan.slices[call.weight or ""].get(call.axis_in)
        if reads is not None and call.axis_in != call.axis_out:
            norms = norms.index_select(call.axis_in, torch.from_numpy(np.flatnonzero(keep[reads])))
        rows = norms.transpose(0, call.axis_out).flatten(1).sum(1).numpy()
        sums = np.zeros(plan.units + 1)
        np.add.at(sums, plan.units_of(channel_set), rows)
        order = np.argsort(-sums[channel_set.slice], kind="stable")
        rank[channel_set.start + order] = np.arange(channel_set.units)
        keep[channel_set.slice] = rank[channel_set.slice] < width[number]
    return rank
