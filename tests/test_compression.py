"""The search and the cut in a plain training loop that knows nothing of any host."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from run_helpers import ARCHITECTURE, difference
from torch.func import functional_call
from training_helpers import small, train

from coronet_plugin import (
    BudgetError,
    CheckpointError,
    Compression,
    OptionError,
    PlanError,
    cost_of,
    example_input,
    load_generator,
)
from coronet_plugin.channels.cut import masked
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import Sample, configure, names
from models.networks import NLayerDiscriminator


def started(steps: int = 20, budget="0.3", seed: int = 0, lr: float = 2e-4, kind="macs", **options):
    generator = small(seed)
    asked = {"search_steps": steps, "budget": budget, "kind": kind, "architecture": ARCHITECTURE, **options}
    optimizer = torch.optim.Adam(generator.parameters(), lr=lr, betas=(0.5, 0.999))
    compression = Compression(generator, example_input(generator, 32), **asked)
    example = example_input(generator, 32)
    compression.method.held_out = [Sample((example,), -example)]
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        compression.method.judged_by(NLayerDiscriminator(3, 4, 2, torch.nn.InstanceNorm2d))
    return generator, compression.attach(optimizer), optimizer


@pytest.mark.parametrize("form", ["published", "folded"])
def test_gradients_are_those_of_generated_weights(form):
    generator, compression, _ = started(method=form)
    hyper = compression.method.hypernetwork
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    z = hyper.z()
    weights = {name: hyper.weight(i, z) for i, name in enumerate(hyper.names)}
    functional_call(generator, weights, (x,)).square().mean().backward()
    expected = {name: p.grad.clone() for name, p in hyper.named_parameters()}
    hyper.zero_grad()
    generator.zero_grad()
    generator(x).square().mean().backward()
    compression.method.gradients()
    for name, parameter in hyper.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-7)


def test_generated_weights_are_written_and_left_alone_by_the_optimizer():
    generator, compression, optimizer = started(method="published")
    hyper = compression.method.hypernetwork
    train(compression, optimizer, 3)
    z = hyper.z()
    for index, name in enumerate(hyper.names):
        torch.testing.assert_close(generator.get_parameter(name), hyper.weight(index, z), rtol=0, atol=0)
        assert generator.get_parameter(name) not in optimizer.state
    assert generator.get_parameter("model.1.bias") in optimizer.state  # biases are trained as ever


def test_accumulated_gradients_and_several_runs_per_step_are_summed():
    generator, compression, _ = started(method="published")
    x, y = torch.rand(2, 2, 3, 32, 32).unbind()
    (generator(x).sum() + generator(y).sum()).backward()
    compression.method.gradients()
    together = [p.grad.clone() for p in compression.method.hypernetwork.parameters()]
    compression.method.hypernetwork.zero_grad()
    generator(x).sum().backward()
    generator(y).sum().backward()
    compression.method.gradients()
    for parameter, expected in zip(compression.method.hypernetwork.parameters(), together):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", ["gates", "published", "folded"])
@pytest.mark.parametrize(("budget", "kind"), [("0.3", "macs"), ("0.5", "params"), ("20k", "params")])
def test_the_search_ends_when_asked_and_meets_the_budget(budget, kind, form):
    generator, compression, optimizer = started(steps=12, budget=budget, kind=kind, method=form)
    dense = compression.plan.cost().of_kind(kind)
    fractions = []
    for step in range(1, 13):
        fractions.append(compression.remaining)
        train(compression, optimizer, 1, seed=step)
        assert compression.phase == ("compact" if step == 12 else "search")
    assert fractions[0] == pytest.approx(1, abs=0.05) and fractions == sorted(fractions, reverse=True)
    cost = cost_of(generator, example_input(generator, 32))
    assert cost.of_kind(kind) <= compression.goal.target
    # ngf 8 is coarse: one channel of the stream weighs some percent, the others a tenth of one
    assert cost.of_kind(kind) >= 0.9 * compression.goal.target
    assert compression.remaining == pytest.approx(cost.of_kind(kind) / dense)


@pytest.mark.parametrize("form", ["gates", "published", "folded"])
def test_slimming_equals_masking_the_generator_of_that_moment(form):
    generator, compression, optimizer = started(steps=8, method=form, gradual=False)
    train(compression, optimizer, 7)
    before = copy.deepcopy(generator)
    compression.slim()
    x = example_input(generator, 32)
    reference = masked(before, compression.plan, compression.alive())
    assert difference(generator, reference, (x,)) < 1e-5


def test_training_goes_on_after_the_cut_with_the_same_optimizer_object():
    generator, compression, optimizer = started(steps=10, method="published")
    losses = train(compression, optimizer, 60)
    assert compression.phase == "compact" and compression.method.hypernetwork is None  # its memory is free
    steps = {name: int(optimizer.state[p]["step"]) for name, p in generator.named_parameters()}
    assert {steps[name] for name in steps if name.endswith("bias")} == {60}  # it had them all along
    assert {steps[name] for name in steps if name.endswith("weight")} == {50}
    assert np.mean(losses[-10:]) < np.mean(losses[10:20])


def test_the_learning_rate_schedule_reaches_the_hypernetwork():
    _, compression, optimizer = started(method="published")
    optimizer.param_groups[0]["lr"] = 0.0
    before = [z.clone() for z in compression.method.hypernetwork.latents]
    kernels = copy.deepcopy(compression.method.hypernetwork.kernels.state_dict())
    train(compression, optimizer, 1)
    after = compression.method.hypernetwork.kernels.state_dict()
    assert all(torch.equal(after[name], kernels[name]) for name in kernels)
    for z, old in zip(compression.method.hypernetwork.latents, before):  # only the proximal step moved them
        moved = (old.abs() - z.detach().abs()).clamp(min=0)
        torch.testing.assert_close(
            moved, old.abs().clamp(max=compression.method.shrinkage), rtol=1e-4, atol=1e-6
        )


def test_a_step_the_optimizer_skipped_changes_nothing():
    _, compression, _ = started(method="published")
    before = copy.deepcopy(compression.method.hypernetwork.state_dict())
    assert compression.step() is False
    after = compression.method.hypernetwork.state_dict()
    assert compression.steps == 0 and all(torch.equal(after[k], before[k]) for k in before)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_other_optimizers_work(optimizer):
    torch.manual_seed(0)
    generator = build_generator(**ARCHITECTURE)
    host = optimizer(generator.parameters(), lr=1e-3, weight_decay=0.01)
    compression = Compression(generator, example_input(generator, 32), search_steps=4, budget=0.4).attach(
        host
    )
    train(compression, host, 6)
    assert compression.phase == "compact" and compression.remaining <= 0.4
    assert isinstance(compression.optimizer, optimizer)


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("phase_steps", [5, 14])
def test_a_continued_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, phase_steps, method):
    if method == "gan_compression":
        method = configure(method, search_generations=2, search_population=4)
    generator, compression, optimizer = started(steps=10, method=method)
    train(compression, optimizer, phase_steps)
    compression.save(tmp_path / "net.pth")
    torch.save(
        {"compression": compression.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pth"
    )
    expected = train(compression, optimizer, 10, seed=2)

    again, resumed, other = started(steps=10, seed=99, method=method)
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    resumed.load_state_dict(state["compression"])
    again.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True))
    other.load_state_dict(state["optimizer"])
    assert train(resumed, other, 10, seed=2) == expected
    for a, b in zip(again.state_dict().values(), generator.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("saved", "method"),
    [("gates", "published"), ("gates", "random"), ("random", "gates"), ("published", "gates"),
     ("published", "folded")],
)  # fmt: skip
def test_a_search_of_another_kind_is_not_continued(saved, method):
    _, compression, _ = started(method=method)
    state = started(method=saved)[1].state_dict()
    with pytest.raises(CheckpointError, match=f"is {saved}, this one"):
        compression.load_state_dict(state)


@pytest.mark.parametrize("steps", [3, 12])
def test_load_generator_rebuilds_either_phase(tmp_path, steps):
    generator, compression, optimizer = started(steps=10)
    train(compression, optimizer, steps)
    compression.save(tmp_path / "latest_net_G.pth")
    rebuilt = load_generator(tmp_path / "latest_net_G.pth")
    assert type(rebuilt) is type(generator)
    assert difference(rebuilt, generator, (example_input(generator, 32),)) == 0


def test_unreachable_budget_is_refused_before_anything_changes():
    torch.manual_seed(0)
    generator = build_generator(**ARCHITECTURE)
    before = copy.deepcopy(generator.state_dict())
    with pytest.raises(BudgetError, match="smallest possible"):
        Compression(generator, example_input(generator, 32), search_steps=10, budget=0.01)
    assert all(torch.equal(t, before[n]) for n, t in generator.state_dict().items())


def test_misuse_is_explained():
    generator, compression, _ = started()
    with pytest.raises(OptionError, match="attach the one that does"):
        compression.attach(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]))
    with pytest.raises(OptionError, match="at least one step"):
        Compression(generator, example_input(generator, 32), search_steps=0)
    with pytest.raises(PlanError, match="does not run"):
        Compression(generator, torch.zeros(1, 5, 32, 32), search_steps=5)
