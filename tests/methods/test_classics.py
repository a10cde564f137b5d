"""Classics: a cut by the slope of the loss, and scales that are trained and shrunk."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import Compression, OptionError
from coronet_plugin.channels.cut import masked
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import configure
from coronet_plugin.methods.proximal import soft_threshold

X = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def small(norm: str = "instance") -> nn.Module:
    torch.manual_seed(0)
    return build_generator(3, 3, 8, "resnet_6blocks", norm)


def started(generator: nn.Module, method, steps: int, optimizer=None, **options):
    optimizer = optimizer or torch.optim.Adam(generator.parameters(), lr=1e-3)
    example = X.to(next(generator.parameters()).dtype)
    options = {"search_steps": steps, "budget": 0.3, "method": method, **options}
    return Compression(generator, example, **options).attach(optimizer), optimizer


def forward_backward(generator: nn.Module, number: int) -> torch.Tensor:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1
    x = x.to(next(generator.parameters()).dtype)
    loss = (generator(x) + x).abs().mean()
    loss.backward()
    return loss


def train(compression: Compression, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        forward_backward(compression.generator, compression.steps)
        optimizer.step()
        if compression.step():
            compression.slim()


# -- taylor --------------------------------------------------------------------
def test_taylor_adds_up_what_the_last_batches_say_of_every_channel():
    """Against sums over the parameters of one channel after the other, by hand."""
    generator = small("batch").double()
    compression, optimizer = started(
        generator, configure("taylor", taylor_batches=2), 5, torch.optim.SGD(generator.parameters(), lr=0.0)
    )
    train(compression, optimizer, 4)  # of five, the fourth is the first that counts
    plan, expected = compression.plan, np.zeros(compression.plan.units)
    for number in (3, 4):
        other = copy.deepcopy(generator)
        other.zero_grad()
        forward_backward(other, number)
        for unit in range(plan.units):
            total = 0.0
            for name, parameter in other.named_parameters():
                for axis, units in plan.slices.get(name, {}).items():
                    mine = torch.from_numpy(np.flatnonzero(units == unit))
                    both = parameter.detach() * parameter.grad
                    total += float(both.index_select(axis, mine).sum())
            expected[unit] += abs(total)
    optimizer.zero_grad()
    forward_backward(generator, 4)
    optimizer.step()
    for s in plan.prunable:
        mean = expected[s.slice].mean()
        assert np.allclose(compression.method.score()[s.slice], expected[s.slice] / mean, rtol=1e-5)


def test_taylor_finds_channels_that_do_nothing():
    generator = small()
    compression, optimizer = started(generator, "taylor", 4, budget=0.5)
    dead = compression.plan.prunable[2]  # the stream: it is read by many
    idle = np.ones(compression.plan.units, dtype=bool)
    idle[dead.start : dead.start + 6] = False
    generator.load_state_dict(masked(generator, compression.plan, idle).state_dict())
    optimizer.param_groups[0]["lr"] = 0.0
    train(compression, optimizer, 4)
    assert compression.phase == "compact" and compression.remaining <= 0.5
    assert not compression.alive()[dead.start : dead.start + 6].any()


# -- slimming ------------------------------------------------------------------
def test_scales_move_by_their_gradient_and_the_proximal_step():
    """One step against a generator whose readers are really multiplied by scales."""
    generator = small().double()
    plain = copy.deepcopy(generator)
    compression, optimizer = started(
        generator, configure("slimming", scale_rate=3.0), 50, torch.optim.SGD(generator.parameters(), lr=0.1)
    )
    plan, steps = compression.plan, {}
    for s in plan.prunable[:4]:
        unit = s.start + 1
        for sign in (1, -1):
            factor = np.ones(plan.units)
            factor[unit] += sign * 1e-5
            shaken = masked(plain, plan, np.ones(plan.units, dtype=bool))
            from coronet_plugin.channels.cut import readers, scale_

            scale_(dict(shaken.named_parameters()), readers(plan), factor)
            steps.setdefault(unit, []).append(float(forward_backward(shaken, 0)))
    before = dict(generator.named_parameters())["model.4.weight"].detach().clone()
    optimizer.zero_grad()
    forward_backward(generator, 0)
    optimizer.step()
    moved = dict(generator.named_parameters())["model.4.weight"].detach().clone()
    assert not torch.equal(before, moved)
    compression.step()
    took = compression.method.shrinkage
    assert took > 0
    for unit, (up, down) in steps.items():
        slope = (up - down) / 2e-5
        expected = soft_threshold(torch.tensor(1 - 3 * 0.1 * slope).double(), took)
        assert float(compression.method.latents[unit]) == pytest.approx(float(expected), abs=1e-5)
    first = plan.prunable[0]
    after = generator.get_parameter("model.4.weight").detach()
    ratio = compression.method.latents[first.slice]
    assert torch.allclose(after, moved * ratio[None, :, None, None], rtol=1e-9)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_slimming_ends_when_asked_within_the_budget_and_loses_nothing(norm):
    generator = small(norm).double()
    compression, optimizer = started(generator, "slimming", 30, gradual=False)
    train(compression, optimizer, 29)
    assert compression.phase == "search"
    optimizer.zero_grad()
    forward_backward(generator, 29)
    optimizer.step()
    assert compression.step()
    alive = compression.alive()
    assert compression.plan.cost(alive).macs <= 0.3 * compression.dense.macs
    floors = [int(alive[s.slice].sum()) for s in compression.plan.prunable]
    assert min(floors) >= 4
    before = copy.deepcopy(generator).eval()(X.double())
    compression.slim()
    assert torch.allclose(generator.eval()(X.double()), before, atol=1e-9)
    train(compression, optimizer, 2)
    generator = compression.generator
    assert generator.model[1].out_channels == floors[0]


def test_scales_say_which_channels_stay():
    """A channel whose scale the loss wants larger outlives the others."""
    generator = small()
    compression, optimizer = started(generator, "slimming", 40, budget=0.5, gradual=False)
    unit = compression.plan.prunable[0].start + 2

    class Wanted(torch.optim.SGD):
        pass

    gradients = compression.method.gradients

    def pulled() -> None:
        gradients()
        compression.method._scales.grad[unit] = -1.0

    compression.method.gradients = pulled
    train(compression, optimizer, 40)
    assert compression.alive()[unit]


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("taylor", "taylor_batches", 0),
        ("slimming", "scale_rate", -1.0),
        ("slimming", "scale_rate", float("nan")),
    ],
)
def test_settings_out_of_range_are_one_line(method, name, value):
    with pytest.raises(OptionError, match=f"--coronet_{name} must be at least"):
        configure(method, **{name: value})
