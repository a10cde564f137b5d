"""Our channel sets against the groups of torch-pruning, which follows autograd's graph instead.

Where torch-pruning handles every operation of a generator both must say the same. Where it
does not, a small example shows what goes wrong, so that the claim can be checked.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from random_generators import Program, RandomGenerator, Step, alone, programs, then
from random_operations import UNDERSTOOD
from torch import Tensor, nn

from coronet_plugin import ChannelPlan, find_channels, masked

tp = pytest.importorskip("torch_pruning")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of parameters and norms it does not know

PRUNERS = {
    nn.Conv2d: tp.prune_conv_out_channels,
    nn.ConvTranspose2d: tp.prune_conv_out_channels,
    nn.Linear: tp.prune_linear_out_channels,
}
LAYERS = tuple(PRUNERS)
ROUNDING = 1e-9
CLAIMED_OF = "1.6.1"

Slot = tuple[str, str, int]
"""Name of a layer, norm or parameter; ``"in"`` or ``"out"``; index along that side."""


def subject(program: Program) -> tuple[RandomGenerator, Tensor, ChannelPlan]:
    generator = RandomGenerator(program).double().eval()
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, program.size, program.size, generator=noise, dtype=torch.float64)
    return generator, x, find_channels(generator, x)


# -- what goes together --------------------------------------------------
def prunable(generator: nn.Module, plan: ChannelPlan) -> Iterator[tuple[str, int, list[int]]]:
    """Each layer with its prunable units and the output channels that are in them."""
    for name, module in generator.named_modules():
        axes = plan.slices.get(f"{name}.weight", {})
        if isinstance(module, LAYERS) and axes:  # weights shared by two layers have one name
            units = axes[_axis_out(module)]
            for unit in sorted({*units.tolist()} - {-1}):
                yield name, unit, np.flatnonzero(units == unit).tolist()


def ours(generator: nn.Module, plan: ChannelPlan, unit: int) -> set[Slot]:
    found: set[Slot] = set()
    for name, _ in generator.named_parameters():
        owner, _, attribute = name.rpartition(".")
        module = generator.get_submodule(owner)
        plain = type(module).__module__.startswith("torch.nn.")
        for axis, units in plan.slices.get(name, {}).items():
            reads = isinstance(module, LAYERS) and attribute == "weight" and axis != _axis_out(module)
            side = "in" if reads else "out"
            found |= {(owner if plain else name, side, i) for i in np.flatnonzero(units == unit).tolist()}
    return found


def _axis_out(module: nn.Module) -> int:
    return 1 if isinstance(module, nn.ConvTranspose2d) and module.groups == 1 else 0


def dependencies(generator: nn.Module, x: Tensor) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        return tp.DependencyGraph().build_dependency(generator, (x,), verbose=False)


def theirs(graph: Any, generator: nn.Module, layer: str, channels: Sequence[int]) -> Any:
    """Torch-pruning's group, not yet pruned."""
    module = generator.get_submodule(layer)
    return graph.get_pruning_group(module, PRUNERS[type(module)], list(channels))


def slots_of(graph: Any, generator: nn.Module, group: Any) -> set[Slot]:
    names = {part: name for name, part in [*generator.named_modules(), *generator.named_parameters()]}
    slots: set[Slot] = set()
    for dependency, indices in group:
        part = dependency.target.module
        if part in names and not _has_no_channels(part):
            reads = isinstance(part, LAYERS) and not graph.is_out_channel_pruning_fn(dependency.handler)
            slots |= {(names[part], "in" if reads else "out", i) for i in indices}
    return slots


def _has_no_channels(part: nn.Module | nn.Parameter) -> bool:
    weight = part if isinstance(part, nn.Parameter) else getattr(part, "weight", None)
    return weight is None or weight.numel() == 1


# -- what becomes of it --------------------------------------------------
def without(generator: nn.Module, slots: set[Slot]) -> nn.Module:
    """A copy at full size in which layers make zeros of these outputs and ignore these inputs."""
    copied = copy.deepcopy(generator)
    for name, module in copied.named_modules():
        if isinstance(module, LAYERS):
            axis = -1 if isinstance(module, nn.Linear) else 1
            inputs, outputs = ([i for n, s, i in slots if (n, s) == (name, side)] for side in ("in", "out"))
            module.register_forward_pre_hook(lambda _, x, i=inputs, a=axis: _zero(x[0], a, i))
            module.register_forward_hook(lambda _, x, out, i=outputs, a=axis: _zero(out, a, i))
    return copied


def _zero(x: Tensor, axis: int, indices: list[int]) -> Tensor:
    there = [i for i in indices if i < x.shape[axis]]
    return x.index_fill(axis, torch.tensor(there, dtype=torch.long), 0.0)


@torch.no_grad()
def same_function(first: nn.Module, second: nn.Module, x: Tensor) -> bool:
    a, b = first(x), second(x)
    return bool((a - b).abs().max() <= ROUNDING * b.abs().max())


def verdicts(program: Program) -> set[str]:
    """What torch-pruning makes of each unit: ``right``, ``raises``, ``wrong`` (runs, but computes
    something else than without those channels) or ``differs`` (right, but not the channels we find)."""
    generator, x, plan = subject(program)
    return {_verdict(generator, x, plan, *unit) for unit in prunable(generator, plan)}


def _verdict(
    generator: nn.Module, x: Tensor, plan: ChannelPlan, layer: str, unit: int, channels: list[int]
) -> str:
    pruned = copy.deepcopy(generator)
    try:
        graph = dependencies(pruned, x)
        group = theirs(graph, pruned, layer, channels)
        slots = slots_of(graph, pruned, group)
        group.prune()
        pruned(x)
    except Exception:  # KeyError, ValueError, TypeError and whatever torch raises
        return "raises"
    if not same_function(pruned, without(generator, slots), x):
        return "wrong"
    return "right" if slots == ours(generator, plan, unit) else "differs"


# -- agreement -----------------------------------------------------------
class Failure(NamedTuple):
    """A verdict on ``steps``, or on the operation alone, and what is behind it."""

    verdict: str
    reason: str
    steps: tuple[Step, ...] = ()


TORCH_PRUNING_WRONG = {
    "grouped conv": Failure("wrong", "keeps the first inputs of every group, whichever were removed"),
    "grouped deconv": Failure("raises", "keeps the inputs of one group only"),
    "depthwise conv, doubling": Failure("raises", "takes it for a convolution of all channels"),
    "group norm": Failure("raises", "keeps num_groups when a whole group goes"),
    "group norm, one each": Failure("raises", "keeps num_groups when a whole group goes"),
    "instance norm, statistics": Failure("raises", "running statistics keep their length"),
    "in-place relu": Failure("raises", "an instance norm before it is not found", then("instance norm, affine", "in-place relu")),
    "in-place leaky relu": Failure("raises", "an instance norm before it is not found", then("instance norm, affine", "in-place leaky relu")),
    "in-place add": Failure("raises", "an instance norm before it is not found", (*then("instance norm, affine"), Step("conv 1x1", (1,)), Step("in-place add", (2, 3)))),
    "prelu": Failure("raises", "a slope for all channels before a concatenation", then("prelu", "u-net level")),
    "channel parameters": Failure("raises", "a free parameter with three axes switches off the offsets of concatenations", then("channel parameters", "branches")),
    "functional conv": Failure("raises", "takes a free weight for elementwise"),
    "pixel shuffle": Failure("raises", "four channels become one"),
    "pixel unshuffle": Failure("raises", "one channel becomes four"),
    "glu": Failure("differs", "removes inputs of the next layer that it does not have"),
    "chunk gate": Failure("differs", "of a concatenation: removes outputs that a layer does not have", then("branches", "chunk gate")),
    "concatenate": Failure("raises", "of the same channels, twice", (Step("concatenate", (1, 1)), Step("concatenate", (2, 2, 1)))),
    "concatenate image": Failure("raises", "another concatenation behind it", (Step("concatenate image", (1, 0)), Step("u-net level", (2,)))),
    "image first": Failure("wrong", "counts the next layer's inputs from behind the image, which is not in its graph"),
    "tied convs": Failure("differs", "the shared weight becomes two"),
    "attention": Failure("raises", "takes a product of matrices for elementwise", (Step("attention", (1,), 4),)),
}  # fmt: skip
"""Operations after which torch-pruning can go wrong, each with an example."""

BOTH = [op for op in UNDERSTOOD if op not in TORCH_PRUNING_WRONG]
FEW = 5
"""Steps: torch-pruning's time doubles with every residual."""


def check_agreement(program: Program) -> None:
    """The same groups; and one of them pruned by torch-pruning computes what our mask does."""
    generator, x, plan = subject(program)
    traced = copy.deepcopy(generator)
    graph = dependencies(traced, x)
    units = list(prunable(generator, plan))
    for layer, unit, channels in units:
        group = theirs(graph, traced, layer, channels)
        assert slots_of(graph, traced, group) == ours(generator, plan, unit), (layer, channels)
    for layer, unit, channels in units[-1:]:
        theirs(graph, traced, layer, channels).prune()
        assert same_function(traced, masked(generator, plan, np.arange(plan.units) != unit), x)


@given(programs(BOTH, FEW, chain=True))
@settings(max_examples=40, derandomize=True, deadline=None, print_blob=True, database=None)
def test_both_find_the_same_groups(program):
    check_agreement(program)


@pytest.mark.slow
@given(programs(BOTH, FEW, chain=True))
@settings(max_examples=1000, deadline=None, print_blob=True, database=None)
def test_both_find_the_same_groups_in_a_thousand_generators(program):
    check_agreement(program)


@pytest.mark.parametrize("op", BOTH)
def test_both_follow_each_operation(op):
    check_agreement(alone(op))


# -- where torch-pruning goes wrong --------------------------------------
known = pytest.mark.skipif(version("torch-pruning") != CLAIMED_OF, reason="said of another version")


@known
@pytest.mark.parametrize("op", TORCH_PRUNING_WRONG)
def test_torch_pruning_goes_wrong(op):
    failure = TORCH_PRUNING_WRONG[op]
    program = Program(8, failure.steps) if failure.steps else alone(op)
    assert op in program.ops()
    assert failure.verdict in verdicts(program)


@known
def test_torch_pruning_removes_channels_that_meet_the_image():
    generator, x, plan = subject(alone("add image"))
    assert [s.name for s in plan.sets if s.pinned] == ["steps.1.a", "tail"]
    theirs(dependencies(generator, x), generator, "steps.1.a", [0]).prune()
    with pytest.raises(RuntimeError):
        generator(x)


@known
def test_torch_pruning_leaves_the_width_of_a_norm_before_an_in_place_activation():
    generator, x, _ = subject(Program(8, then("conv 3x3", "instance norm", "in-place relu")))
    theirs(dependencies(generator, x), generator, "steps.0", [0]).prune()
    assert generator.steps[0].out_channels == 7
    assert generator.steps[1].num_features == 8


def thinned(program: Program) -> bool:
    """Whether half the channels can be removed by torch-pruning's own choice of channels."""
    generator, x, _ = subject(program)
    pruned = copy.deepcopy(generator)
    importance = tp.importance.MagnitudeImportance()
    pruner = tp.pruner.BasePruner(pruned, (x,), importance, pruning_ratio=0.5, ignored_layers=[pruned.tail])
    removed: set[Slot] = set()
    for group in pruner.step(interactive=True):
        removed |= slots_of(pruner.DG, pruned, group)
        group.prune()
    return same_function(pruned, without(generator, removed), x)


@known
def test_torch_pruning_thins_grouped_convolutions_rightly_and_group_norms_silently_wrongly():
    assert thinned(alone("conv 3x3"))
    assert thinned(alone("grouped conv"))  # it removes the same inputs from every group
    assert not thinned(alone("group norm"))  # it makes every group narrower: other statistics
