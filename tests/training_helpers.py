"""Small generators, and the one way in which tests train them: to give the negative of pictures of noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from run_helpers import ARCHITECTURE
from torch import Tensor, nn

from coronet_plugin.compression import Compression
from coronet_plugin.generators.stock import build_generator


def small(seed: int = 0, **changes: Any) -> nn.Module:
    """A stock generator of random weights, by default a ResNet of 8 channels; ``changes`` of its config."""
    torch.manual_seed(seed)
    return build_generator(**{**ARCHITECTURE, **changes})


def started(
    generator: nn.Module, by: Any = torch.optim.Adam, lr: float = 1e-3, side: int = 32, **options: Any
) -> tuple[Compression, torch.optim.Optimizer]:
    """A search in ``generator`` that an optimizer of all its parameters is attached to."""
    optimizer = by(generator.parameters(), lr=lr)
    example = torch.zeros(1, 3, side, side, dtype=next(generator.parameters()).dtype)
    options = {"search_steps": 20, "budget": 0.3, **options}
    return Compression(generator, example, **options).attach(optimizer), optimizer


def pictures(compression: Compression, seed: int = 1, batch: int = 2) -> Iterator[Tensor]:
    """Batches of the example's size and type, in [-1, 1], the same for a seed, without end."""
    example, noise = compression.inputs[0], torch.Generator().manual_seed(seed)
    while True:
        yield (torch.rand(batch, *example.shape[1:], generator=noise) * 2 - 1).to(example.dtype)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    """Make one step of plain training; the loss before it."""
    optimizer.zero_grad()
    loss = (model(x) + x).abs().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def train(
    compression: Compression,
    optimizer: torch.optim.Optimizer,
    steps: int,
    seed: int = 1,
    through: nn.Module | None = None,
) -> list[float]:
    """Make ``steps`` steps, ``through`` a wrapper of the generator; slim when the search is over. The losses."""
    losses = []
    for x, _ in zip(pictures(compression, seed), range(steps)):
        losses.append(learn(through or compression.generator, optimizer, x))
        if compression.step():
            compression.slim()
    return losses


def search(compression: Compression, optimizer: torch.optim.Optimizer, seed: int = 1) -> None:
    """Train until the search waits for its cut, or at once where the method made it before the first step."""
    for x, _ in zip(pictures(compression, seed), range(compression.method.steps - compression.steps)):
        if compression.phase == "search":
            learn(compression.generator, optimizer, x)
            compression.step()
    assert compression.finished or compression.phase == "compact"


def stepping(compression: Compression, optimizer: torch.optim.Optimizer) -> Callable[[], bool]:
    """A function that makes the next step and is true when the search waits for its cut."""
    batches = pictures(compression)

    def step() -> bool:
        learn(compression.generator, optimizer, next(batches))
        return compression.step()

    return step


def batch(number: int) -> Tensor:
    """Two smooth pictures (2, 3, 32, 32) in [-1, 1], the same for a number."""
    noise = torch.Generator().manual_seed(number)
    return nn.functional.interpolate(torch.rand(2, 3, 4, 4, generator=noise) * 2 - 1, size=32)


def go_on(compression: Compression, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Make ``steps`` steps on the batches of their numbers, so that a continued training sees the same."""
    losses = []
    for _ in range(steps):
        x = batch(compression.steps).to(next(compression.generator.parameters()).dtype)
        losses.append(learn(compression.generator, optimizer, x))
        if compression.step():
            compression.slim()
    return losses
