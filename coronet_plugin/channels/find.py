"""Find the channel sets of a generator: run it, number the units, prove the result.

Propagation says what it understood, this module makes a plan of it, and
:mod:`coronet_plugin.channels.proof` has the last word: what fails is pinned.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.cut import copy_with
from coronet_plugin.channels.facts import Product, Runner, call, tensors_in
from coronet_plugin.channels.joint import Joint, joined, parted
from coronet_plugin.channels.plan import PINNED, ChannelPlan, ChannelSet
from coronet_plugin.channels.proof import prove
from coronet_plugin.channels.propagation import Propagation
from coronet_plugin.channels.rules import RULES, kernels
from coronet_plugin.errors import OptionError, PlanError, describe
from coronet_plugin.sizes import wrong_size
from coronet_plugin.wrappers import unwrap

HALVINGS = 9
"""How often at most a generator is thought to halve its input."""


EXACT, APPROXIMATE = "exact", "approximate"
SETS = (EXACT, APPROXIMATE)
"""Which channel sets are used: those whose cut changes nothing, or also others."""


def find_channels(
    generator: nn.Module,
    example: Any,
    run: Runner = call,
    sets: str = EXACT,
    readers: Sequence[nn.Module] = (),
) -> ChannelPlan:
    """Find the channel sets of ``generator`` by running copies of it on ``example``.

    ``example``: input ``(N, C, H, W)`` on the generator's device, or a tuple of
    inputs; ``run(generator, *inputs)`` runs it, if not by a plain call (when features
    are read from it as well, say: whatever it returns keeps its channels).

    ``sets``: ``"approximate"`` lets channels go, too, that the code mixes in ways that cannot be made exact,
    such as a mean over channels in the middle of a forward: such a set says so, the proof is only that the
    smaller generator runs, and how much its cut changes is measured when it is made.

    ``readers``: modules that read the generator's features, such as the projector of a contrastive loss. They
    lose the inputs that the generator loses, and nothing else; their part of the plan is its ``readers``.
    ``run(generator, *readers, *inputs)`` then returns what they make of the features, too.

    The plan is proven (:func:`~coronet_plugin.channels.proof.verify`); a set that fails the
    proof is pinned and says so. The generator, its buffers and the random state are left
    as they were.

    Raises:
        PlanError: the generator does not run on ``example``, or not twice the same.
        OptionError: there is no such choice of ``sets``.
    """
    if sets not in SETS:
        raise OptionError(f"sets {sets!r} does not exist; choose one of {', '.join(SETS)}")
    generator = unwrap(generator)
    inputs = example if isinstance(example, tuple) else (example,)
    approximate = sets == APPROXIMATE
    if readers:
        joint, run = Joint(generator, [unwrap(each) for each in readers]), joined(run)
        return parted(prove(joint, trace(joint, inputs, run, approximate), inputs, run, approximate))
    return prove(generator, trace(generator, inputs, run, approximate), inputs, run, approximate)


FROZEN = (
    "a frozen layer makes or reads it (requires_grad is off); prune_frozen, on the command line "
    "--coronet_prune_frozen, lets it go"
)


def keep_frozen(plan: ChannelPlan, generator: nn.Module, readers: Sequence[nn.Module] = ()) -> ChannelPlan:
    """``plan`` with every set pinned that has entries in a parameter whose ``requires_grad`` is off.

    Whoever froze it wants it as it is, and without its gradient nobody knows which of its channels matter.
    """
    for name, parameter in generator.named_parameters():
        for channel_set in () if parameter.requires_grad else plan.sets_in(name):
            plan = plan.pin(channel_set.name, FROZEN)
    for name, parameter in nn.ModuleList(readers).named_parameters():
        for channel_set in () if parameter.requires_grad or not plan.readers else plan.readers.sets_in(name):
            plan = plan.pin(channel_set.name, FROZEN)
    return plan


def units_of_features(
    generator: nn.Module, plan: ChannelPlan, inputs: tuple[Any, ...], names: Sequence[str], run: Runner = call
) -> dict[str, np.ndarray]:
    """The unit of every channel that the modules ``names`` put out, ``PINNED`` where it never goes.

    ``plan``: of the dense ``generator``, which is run on ``inputs``.

    Raises:
        OptionError: the generator has no such module, or its output's channels are not known.
    """
    state = _followed(unwrap(generator), inputs, run)
    roots = np.array([state.find(index) for index in range(len(state.origins))])
    units = np.full(len(roots), PINNED)  # by root
    for name, axes in state.tensors.items():
        for axis, ids in axes.items():
            units[roots[ids]] = plan.slices[name][axis]
    for name in names:
        if name not in state.outputs:
            known = ", ".join([each for each in state.outputs if each][:6])
            raise OptionError(
                f"{type(generator).__name__} has no layer {name!r} whose channels are known; "
                f"it has {known}, ..."
            )
    return {name: units[roots[state.outputs[name]]] for name in names}


TAPS = 4
"""Places at which features are compared where no family names them."""


def find_taps(
    generator: nn.Module, plan: ChannelPlan, inputs: tuple[Any, ...], run: Runner = call
) -> tuple[str, ...]:
    """Modules that put out the stream of most layers, evenly spaced through the forward pass.

    The stream of a ResNet is what all its blocks write. Where no channels are made by several layers, each
    set is a stream for itself. Of modules that follow each other with the same channels (a convolution, its
    norm, its activation, the block around them) the outermost counts, and of these the last. ``plan``: of
    the dense ``generator``.

    Raises:
        OptionError: none of its channels can be removed, or modules put out none of those.
    """
    outputs = {name: ids for name, ids in _followed(unwrap(generator), inputs, run).outputs.items() if name}
    found = units_of_features(generator, plan, inputs, list(outputs), run)
    sets = sorted(plan.prunable, key=lambda s: len(s.producers), reverse=True)
    shared = [s for s in sets if len(s.producers) == len(sets[0].producers) > 1][:1] or sets
    places: list[tuple[str, bool]] = []
    before: list[int] = []
    for name, units in found.items():
        mine = any(np.array_equal(np.unique(units), np.arange(s.start, s.slice.stop)) for s in shared)
        if before != units.tolist():
            places.append((name, mine))
        elif name.count(".") <= places[-1][0].count("."):
            places[-1] = (name, mine)
        before = units.tolist()
    names = [name for name, mine in places if mine]
    if not names:
        raise OptionError(
            f"{type(generator).__name__} has no layer whose features are known to be comparable with a "
            "teacher's; name some with --coronet_distill_taps"
        )
    spread = np.linspace(0, len(names) - 1, min(TAPS, len(names))).round().astype(int)
    return tuple(names[i] for i in spread)


def trace(
    generator: nn.Module, inputs: tuple[Any, ...], run: Runner = call, approximate: bool = False
) -> ChannelPlan:
    """The plan that propagation proposes, unproven; good for counting.

    Raises:
        PlanError: the generator does not run on ``inputs``, or runs no layer of its own.
    """
    generator = unwrap(generator)
    return _plan(generator, _followed(generator, inputs, run, approximate))


def _followed(
    generator: nn.Module, inputs: tuple[Any, ...], run: Runner, approximate: bool = False
) -> Propagation:
    copied = copy_with(generator).eval()  # batch statistics and dropout teach nothing about channels
    try:
        with torch.random.fork_rng(devices=[x.device for x in tensors_in(inputs) if x.is_cuda][:1]):
            state = _follow(copied, inputs, run, approximate)
    except Exception as error:
        _refuse_size(generator, inputs, run, error)
        shapes = [tuple(x.shape) for x in tensors_in(inputs)]
        raise PlanError(
            f"the generator {type(generator).__name__} does not run on an example of shape {shapes}: "
            f"{describe(error)}. Give an example it accepts; a model class does by coronet_example(name)."
        ) from error
    if not state.touched:
        raise PlanError(
            f"the generator {type(generator).__name__} runs none of its own layers; "
            "define forward in its class, not on the object"
        )
    return state


def _follow(generator: nn.Module, inputs: tuple[Any, ...], run: Runner, approximate: bool) -> Propagation:
    """Follow the channels; once more if modules that mix them all can be left as they are."""
    sealed: frozenset[str] = frozenset()
    while True:
        state = Propagation(
            generator, RULES, kernels.follow, approximate=[] if approximate else None, sealed=sealed
        )
        state.follow(inputs, run)
        more = {module for module in state.mixers if state.can_be_sealed(module)} - sealed
        if not more:
            return state
        sealed |= more


def cost_of(generator: nn.Module, example: Any) -> Cost:
    """Count what ``generator`` costs on ``example`` by running it once.

    ``example``: an input tensor ``(1, C, H, W)`` or a tuple of inputs. The
    generator's training flags, buffers and random state are left as they were.
    """
    return trace(generator, example if isinstance(example, tuple) else (example,)).cost()


def _refuse_size(generator: nn.Module, inputs: tuple[Any, ...], run: Runner, error: Exception) -> None:
    """Raise PlanError if the size is why it does not run: others can be halved often enough.

    Three times a power of two can be halved as often as that power; three and a half times it cannot.
    """
    images = [isinstance(x, Tensor) and x.ndim == 4 for x in inputs]
    sizes = {x.shape[-2:] for x, is_image in zip(inputs, images) if is_image}
    if len(sizes) != 1:
        return
    height, width = sizes.pop()
    copied = copy_with(generator).eval()

    def runs(side: int) -> bool:
        sized = [
            x.new_zeros(*x.shape[:2], side, side) if is_image else x for x, is_image in zip(inputs, images)
        ]
        with contextlib.suppress(Exception), torch.no_grad():
            run(copied, *sized)
            return True
        return False

    multiples = (2**power for power in range(1, HALVINGS + 1))
    fitting = next((m for m in multiples if (height % m or width % m) and runs(3 * m)), 0)
    if fitting and not runs(7 * fitting // 2):
        what = wrong_size(f"the generator {type(generator).__name__}", fitting, (width, height))
        raise PlanError(f"{what}; set --crop_size, or the size of the example, to one of them") from error


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


# -- from ids to units ---------------------------------------------------
def _plan(generator: nn.Module, state: Propagation) -> ChannelPlan:
    roots = np.array([state.find(index) for index in range(len(state.origins))])
    first = {origin: i for i, origin in reversed(list(enumerate(state.origins))) if origin is not None}
    made_by: dict[str | None, list[int]] = defaultdict(list)
    for root, origin in zip(roots.tolist(), state.origins):
        made_by[origin].append(root)
    units = np.full(len(roots), PINNED)  # by root
    sets: list[ChannelSet] = []
    start = 0
    departing = state.departing()
    for producers, reason, members in _groups(state, roots, first):
        if reason is None and len(members) == 1:
            reason = "all its channels can only be removed together"
        if reason is None:
            units[members] = np.arange(start, start + len(members))
        sets.append(
            ChannelSet(
                name=_unused(producers[0], sets),
                producers=producers,
                consumers=_readers(state, roots, members),
                channels=int(np.isin(made_by[producers[0]], members).sum()),
                units=len(members),
                start=PINNED if reason else start,
                pinned=reason,
                approximate=None if reason else next((departing[m] for m in members if m in departing), None),
            )
        )
        start += 0 if reason else len(members)
    return ChannelPlan(
        sets=tuple(sets),
        slices={t: {a: units[roots[ids]] for a, ids in axes.items()} for t, axes in state.tensors.items()},
        widths={m: {a: units[roots[ids]] for a, ids in axes.items()} for m, axes in state.norms.items()},
        calls=tuple(
            replace(c, axes={a: units[roots[ids]] for a, ids in c.axes.items()}) for c in state.calls
        ),
        products=tuple(
            Product(p.module, p.positions, tuple(units[roots[ids]] for ids in p.ids)) for p in state.products
        ),
        shapes={name: tuple(p.shape) for name, p in generator.named_parameters()},
        corrections=tuple(replace(c, ids=units[roots[c.ids]]) for c in state.corrections),
        padded={name: replace(p, ids=units[roots[p.ids]]) for name, p in state.padded.items()},
        gated={t: {a: units[roots[ids]] for a, ids in axes.items()} for t, axes in state.gated.items()},
    )


def _groups(
    state: Propagation, roots: np.ndarray, first: dict[str, int]
) -> Iterable[tuple[tuple[str, ...], str | None, list[int]]]:
    """Producers, reason for pinning and roots of every set, in the order of the forward pass."""
    reasons = state.pinned()
    made_by: dict[int, set[str]] = defaultdict(set)
    for root, origin in zip(roots.tolist(), state.origins):
        if origin is not None:
            made_by[root].add(origin)
    groups: dict[tuple[tuple[str, ...], str | None], list[int]] = defaultdict(list)
    for root, origins in made_by.items():
        producers = tuple(sorted(origins, key=lambda module: first[module]))
        groups[(producers, reasons.get(root))].append(root)
    for (producers, reason), members in sorted(groups.items(), key=lambda group: first[group[0][0][0]]):
        yield producers, reason, members


def _unused(name: str, sets: list[ChannelSet]) -> str:
    """A layer may make several sets: the second is marked with a prime."""
    while any(name == channel_set.name for channel_set in sets):
        name += "'"
    return name


def _readers(state: Propagation, roots: np.ndarray, members: list[int]) -> tuple[str, ...]:
    return tuple(
        weight.rpartition(".")[0]
        for weight, ids in state.consumers.items()
        if np.isin(roots[ids], members).any()
    )
