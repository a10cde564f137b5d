"""Steps of one angle: as long as asked in every layer, whatever the optimizer, the rate and the method."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from training_helpers import search, small, train
from training_helpers import started as training

from coronet_plugin import CheckpointError, Compression, OptionError
from coronet_plugin.methods import stepping
from coronet_plugin.methods.angular import AngularSteps
from coronet_plugin.methods.implicit import Rates, StepMultipliers


def started(angle=0.01, seed=0, by=torch.optim.Adam, lr=1e-3, before=(), **options):
    generator = small(seed)
    companions = [*before, AngularSteps(angle)]
    return (generator, *training(generator, by, lr, companions=companions, **options))


def copied(generator: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in generator.named_parameters()}


def angles(old: dict[str, torch.Tensor], generator: nn.Module) -> list[float]:
    """How far every layer's weight has moved from ``old``, in units of its norm."""
    now = copied(generator)
    return [float((now[name] - w).norm() / w.norm()) for name, w in old.items() if w.ndim > 1]


@pytest.mark.parametrize("by", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
@pytest.mark.parametrize("lr", [1e-4, 1e-2])
def test_every_layer_steps_as_far_as_asked_and_the_schedule_is_followed(by, lr):
    generator, compression, optimizer = started(by=by, lr=lr, budget=1.0)
    for factor in (1, 0.5):
        optimizer.param_groups[0]["lr"] = lr * factor
        old = copied(generator)
        train(compression, optimizer, 1)
        found = angles(old, generator)
        assert len(found) == sum(p.ndim > 1 for p in generator.parameters())
        assert found == pytest.approx([0.01 * factor] * len(found), rel=1e-3)


def test_a_warm_up_that_began_before_is_one():
    """A fifth of the learning rate at first is a fifth of the angle, not the angle itself."""
    generator = small(0)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.2, total_iters=2)
    compression = Compression(
        generator, torch.zeros(1, 3, 32, 32), search_steps=9, budget=1.0, companions=[AngularSteps(0.01)]
    ).attach(optimizer)
    for share in (0.2, 0.6, 1.0):
        old = copied(generator)
        train(compression, optimizer, 1)
        warm_up.step()
        assert angles(old, generator) == pytest.approx([0.01 * share] * len(angles(old, generator)), rel=1e-3)


def test_it_holds_where_optimizers_run_no_hooks(monkeypatch):
    """As in an old torch after torch.compile: steps and their multipliers are those with hooks, in order."""
    found = []
    for old in (False, True):
        monkeypatch.setattr(stepping, "OLD_TORCH", old)
        if old:
            monkeypatch.setattr(torch.optim.Adam, "register_step_pre_hook", None)
            monkeypatch.setattr(torch.optim.Adam, "register_step_post_hook", None)
        multipliers = StepMultipliers(9, Rates(seed=1))
        generator, compression, optimizer = started(before=[multipliers], search_steps=9)
        train(compression, optimizer, 12)
        found.append(copied(generator))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_direction_is_the_optimizer_s_and_biases_move_as_always():
    generator, compression, optimizer = started(budget=1.0)
    plain = small(0)
    old = copied(generator)
    train(compression, optimizer, 1)
    train(*training(plain, budget=1.0), 1)
    mine, theirs = copied(generator), copied(plain)
    for name, w in old.items():
        if w.ndim > 1:
            steps = [(new[name] - w).flatten() for new in (mine, theirs)]
            assert float(nn.functional.cosine_similarity(*steps, dim=0)) == pytest.approx(1, abs=1e-4)
        else:
            assert torch.equal(mine[name], theirs[name])


def test_layers_that_get_narrow_keep_their_angle():
    """The norm is that of what is left, in the search and behind the cut."""
    generator, compression, optimizer = started(search_steps=20, gradual=True)
    search(compression, optimizer)
    compression.slim()
    assert compression.remaining <= 0.3
    old = copied(generator)
    train(compression, optimizer, 1)
    assert angles(old, generator) == pytest.approx([0.01] * len(angles(old, generator)), rel=1e-3)


def test_multipliers_say_where_to_and_the_angle_how_far():
    """Of a step with other multipliers the direction differs, the length does not."""
    found = []
    for seed in (1, 2):
        multipliers = StepMultipliers(9, Rates(seed=seed))
        generator, compression, optimizer = started(budget=1.0, method="uniform", before=[multipliers])
        old = copied(generator)
        train(compression, optimizer, 1)
        found.append(copied(generator))
        assert angles(old, generator) == pytest.approx([0.01] * len(angles(old, generator)), rel=1e-3)
    assert not torch.equal(found[0]["model.1.weight"], found[1]["model.1.weight"])


def test_what_is_zero_or_frozen_or_of_another_network_is_left_to_the_optimizer():
    torch.manual_seed(0)
    generator, beside = small(0), nn.Linear(4, 4)
    alone = copy.deepcopy(beside)
    frozen = generator.get_parameter("model.4.weight").requires_grad_(False)
    with torch.no_grad():
        zero = generator.get_parameter("model.1.weight").zero_()
    groups = [{"params": list(beside.parameters())}, {"params": list(generator.parameters())}]
    compression, _ = training(generator, budget=1.0, companions=[AngularSteps(0.01)])
    together, other = torch.optim.SGD(groups, lr=0.1), torch.optim.SGD(alone.parameters(), lr=0.1)
    compression.attach(together)
    kept = frozen.clone()
    x = torch.rand(1, 3, 32, 32)
    generator(x).square().mean().backward()
    gradient = zero.grad.clone()
    for net, optimizer in ((beside, together), (alone, other)):
        net(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    assert torch.equal(frozen, kept)
    assert torch.allclose(zero, -0.1 * gradient) and gradient.any()
    assert all(torch.equal(a, b) for a, b in zip(beside.parameters(), alone.parameters()))


@pytest.mark.parametrize("done", [4, 12, 22])
def test_a_continued_run_equals_an_uninterrupted_one_bit_for_bit(done):
    """Also where the learning rate has fallen already."""
    generator, compression, optimizer = started()
    train(compression, optimizer, 3)
    optimizer.param_groups[0]["lr"] = 5e-4
    train(compression, optimizer, done)
    saved = copy.deepcopy((compression.state_dict(), optimizer.state_dict(), generator.state_dict()))
    expected = train(compression, optimizer, 12, seed=2)
    again, resumed, other = started(seed=99, lr=5e-4)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[2])
    other.load_state_dict(saved[1])
    resumed.refresh_()
    assert train(resumed, other, 12, seed=2) == expected
    assert all(torch.equal(a, b) for a, b in zip(generator.parameters(), again.parameters()))


def test_a_training_with_an_angle_is_not_continued_without():
    state = started()[1].state_dict()
    with pytest.raises(CheckpointError, match="angle.*continue with the --coronet_method"):
        training(small(0))[0].load_state_dict(state)


@pytest.mark.parametrize("angle", [0, -0.1, 1, float("nan")])
def test_an_angle_that_cannot_be_is_refused(angle):
    with pytest.raises(OptionError, match="above 0 and below 1"):
        AngularSteps(angle)
