"""Random small generators, described by programs that can be read, shrunk and pasted into a test.

A program is a list of steps; step ``i`` makes feature ``i + 2`` from earlier ones. Feature 0 is
the image, feature 1 the head's; the last one goes through the tail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from random_operations import OPS, conv
from torch import Tensor, nn

WIDTHS = (8, 4, 16, 12)
MOST_CHANNELS = 48
SIZES = (4, 16)
"""Smallest and largest height of a feature."""
MOST_BACK = 5
"""How far back a step reads, at most."""
Drawn = tuple[str, int, int, int, int]
"""Op, three picks of what it reads, width."""


class Step(NamedTuple):
    """``op`` of :data:`OPS` reads these features; ``again`` runs the module of step ``of`` on one."""

    op: str
    reads: tuple[int, ...]
    width: int = WIDTHS[0]
    of: int | None = None

    def __repr__(self) -> str:
        of = "" if self.of is None else f", of={self.of}"
        return f"Step({self.op!r}, {self.reads}, {self.width}{of})"


class Program(NamedTuple):
    """A generator for images of ``size``, as data."""

    size: int
    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        lines = "".join(f"\n    {step!r}," for step in self.steps)
        return f"Program({self.size}, ({lines}\n))"

    def ops(self) -> set[str]:
        return {step.op for step in self.steps}


class RandomGenerator(nn.Module):
    """What a program says. Norms look trained: no scale is 1, no shift is 0."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        super().__init__()
        self.program = program
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            shapes = [(3, program.size), (WIDTHS[0], program.size)]
            self.head = conv(3, WIDTHS[0])
            self.steps = nn.ModuleList()
            for step in program.steps:
                self.steps.append(_module(step, shapes, self.steps))
                shapes.append(_shape(self.steps[-1], [shapes[i] for i in step.reads]))
            self.tail = conv(shapes[-1][0], 3)
            self._look_trained()

    @torch.no_grad()
    def _look_trained(self) -> None:
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.ndim == 1 and tensor.is_floating_point() and not name.endswith(("_u", "_v")):
                tensor.add_(0.3 * torch.randn_like(tensor))

    def forward(self, image: Tensor) -> Tensor:
        features = [image, self.head(image)]
        for step, module in zip(self.program.steps, self.steps):
            features.append(module(*[features[i] for i in step.reads]))
        return torch.tanh(self.tail(features[-1]))


def _module(step: Step, shapes: Sequence[tuple[int, int]], modules: Sequence[nn.Module]) -> nn.Module:
    if step.of is not None:
        return modules[step.of]
    return OPS[step.op].make(shapes[step.reads[0]][0], step.width)


@torch.no_grad()
def _shape(module: nn.Module, reads: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Channels and height a module makes of features with these."""
    training = module.training
    out = module.eval()(*[torch.zeros(1, channels, size, size) for channels, size in reads])
    module.train(training)
    return out.shape[1], out.shape[2]


def resolve(size: int, drawn: Iterable[Drawn]) -> Program:
    """A program of those drawn steps that fit: any numbers will do, so any part can be left out."""
    steps: list[Step] = []
    modules: list[nn.Module] = []
    shapes = [(3, size), (WIDTHS[0], size)]
    for op, *picks, width in drawn:
        step = _fit(op, picks, width, shapes, steps)
        if step is None:
            continue
        module = _module(step, shapes, modules)
        channels, height = _shape(module, [shapes[i] for i in step.reads])
        if channels <= MOST_CHANNELS and SIZES[0] <= height <= SIZES[1]:
            steps.append(step)
            modules.append(module)
            shapes.append((channels, height))
    return Program(size, tuple(steps))


def _fit(
    name: str, picks: Sequence[int], width: int, shapes: Sequence[tuple[int, int]], steps: Sequence[Step]
) -> Step | None:
    """The step with its reads chosen by ``picks``, recent features first; None if nothing fits."""
    op = OPS[name]
    first = len(shapes) - 1 - picks[0] % (len(shapes) - 1)
    channels, size = shapes[first]
    if channels % op.multiple:
        return None
    if name == "again":
        before = [i for i, s in enumerate(steps) if _repeatable(s) and shapes[s.reads[0]][0] == channels]
        return Step(name, (first,), 0, before[-1 - picks[1] % len(before)]) if before else None
    if op.reads == "image":
        return Step(name, (first, 0), width)
    if op.reads == "alike":
        alike = [i for i, shape in enumerate(shapes) if shape == shapes[first] and i != first]
        return Step(name, (first, alike[-1 - picks[1] % len(alike)]), width) if alike else None
    if op.reads == "several":
        level = [i for i, shape in enumerate(shapes) if shape[1] == size and i > 0]
        others = (level[-1 - pick % len(level)] for pick in picks[1 : 2 + picks[2] % 2])
        return Step(name, (first, *others), width)
    return Step(name, (first,), width)


def _repeatable(step: Step) -> bool:
    op = OPS[step.op]
    return op.reads == "one" and not op.in_place and step.op != "again"


@st.composite
def programs(draw: st.DrawFn, ops: Iterable[str] = OPS, most: int = 12, chain: bool = False) -> Program:
    """Programs of up to ``most`` steps out of ``ops``; with ``chain`` each step reads the last feature."""
    pick = st.integers(0, MOST_BACK)
    first = st.just(0) if chain else pick
    step = st.tuples(st.sampled_from(list(ops)), first, pick, pick, st.sampled_from(WIDTHS))
    return resolve(draw(st.sampled_from([8, 16])), draw(st.lists(step, min_size=1, max_size=most)))


def sample(
    ops: Iterable[str], count: int, most: int = 12, seed: int = 0, chain: bool = False
) -> list[Program]:
    """The same kind of programs, drawn evenly and always the same ones."""
    names, random = list(ops), Random(seed)

    def step() -> Drawn:
        back = [random.randint(0, MOST_BACK) for _ in range(3)]
        return random.choice(names), 0 if chain else back[0], back[1], back[2], random.choice(WIDTHS)

    return [
        resolve(random.choice([8, 16]), [step() for _ in range(random.randint(1, most))])
        for _ in range(count)
    ]


def alone(op: str) -> Program:
    """``op`` between two convolutions, after what it needs to be of use."""
    others = {"alike": (1,), "several": (1,), "image": (0,)}.get(OPS[op].reads, ())
    of = 0 if op == "again" else None
    return Program(8, (Step("conv 3x3", (1,)), Step(op, (2, *others), of=of), Step("conv 1x1", (3,))))


def then(*ops: str) -> tuple[Step, ...]:
    """Steps one after the other, behind the head."""
    return tuple(Step(op, (i + 1,)) for i, op in enumerate(ops))
