"""What the default search promises: no loss at the cut, a real signal, a path as asked, no cost."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from run_helpers import difference
from torch import nn
from training_helpers import learn, pictures, search, small, started, stepping

from coronet_plugin import BudgetError, Compression, OptionError, find_channels, load_generator
from coronet_plugin.budget.budget import Budget, CountMeter
from coronet_plugin.budget.goal import SCHEDULES, Goal
from coronet_plugin.budget.shared import shared_goal
from coronet_plugin.budget.widths import Widths, choose_alive
from coronet_plugin.methods import gates


def stock(netG="resnet_6blocks", norm="instance", ngf=16, seed=0) -> nn.Module:
    generator = small(seed, netG=netG, norm=norm, ngf=ngf)
    for module in generator.modules():  # scales and shifts as after some training
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.affine:
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return generator


def learning(generator, side=32, **options):
    compression, host = started(generator, side=side, **options)
    return compression, host, stepping(compression, host)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("netG", "norm", "side"),
    [("resnet_6blocks", "instance", 32), ("resnet_6blocks", "batch", 32), ("resnet_6blocks", "none", 32),
     ("unet_128", "instance", 256), ("unet_128", "batch", 128), ("unet_128", "none", 128)],
)  # fmt: skip
def test_the_cut_changes_nothing(netG, norm, side, mode):
    """Output before and after, in both families and with every norm, weights and state as trained.

    In double precision, to 1e-9: norms over few values magnify what single precision rounds.
    """
    generator = stock(netG, norm)
    compression, host = started(generator, side=side, search_steps=6)
    x = torch.rand(2, 3, side, side).double() * 2 - 1
    search(compression, host)
    generator.train(mode).double()
    with torch.no_grad():
        before = generator(x)
        compression.slim()
        after = generator(x)
    assert compression.remaining <= 0.3
    assert (after - before).abs().max() <= 1e-9


def test_the_optimizer_goes_on_as_if_nothing_was_cut():
    """The next steps of the slim generator are those of the whole one whose dead channels stay dead."""
    slim, _, step = learning(stock(), search_steps=10)
    whole, _, other = learning(stock(), search_steps=10)
    for _ in range(10):
        step(), other()
    slim.slim()
    for _ in range(5):
        step()
        other()  # past its end, the search goes on to hold dead latents at zero
    x = (torch.rand(1, 3, 32, 32) * 2 - 1,)
    assert difference(slim.generator, whole.generator, x) < 1e-4


def test_a_budget_of_one_trains_the_base_model_bit_for_bit():
    generator, plain = stock(), stock()
    compression, _, step = learning(generator, budget=1.0, search_steps=4)
    host = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for x, _ in zip(pictures(compression), range(6)):
        step()
        learn(plain, host, x)
    assert all(
        torch.equal(a, b) for a, b in zip(generator.state_dict().values(), plain.state_dict().values())
    )


def test_importance_is_the_derivative_by_the_logarithm_of_the_latent():
    """Against finite differences of the loss when the slices that read a channel are scaled."""
    from coronet_plugin.channels.cut import copy_with, readers, scale_

    generator = stock("resnet_6blocks", ngf=4).double()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    compression = Compression(generator, x, search_steps=1000, budget=0.9)
    plan, search = compression.plan, compression.method

    def loss(net: nn.Module) -> torch.Tensor:
        return (net(x) - x).square().mean()

    loss(generator).backward()
    search.gradients()
    found = search.importance[:-1].sqrt().double()
    for unit in range(0, plan.units, 7):
        sides = []
        for sign in (1, -1):
            moved = copy_with(generator)
            factor = np.ones(plan.units)
            factor[unit] = np.exp(sign * 1e-6)
            scale_(dict(moved.named_parameters()), readers(plan), factor)
            sides.append(loss(moved).item())
        slope = abs(sides[0] - sides[1]) / 2e-6
        assert float(found[unit]) == pytest.approx(slope, rel=1e-3, abs=1e-8)


def test_channels_that_do_nothing_die_first_and_those_that_do_everything_stay():
    """Half of the channels of two layers are made useless; chance would keep half of them."""
    generator = stock(ngf=16)
    first, _ = (generator.get_parameter(f"model.{i}.weight") for i in (4, 7))
    with torch.no_grad():
        first[:, ::2] *= 1e-4  # the first set's even channels are hardly read
    compression, host = started(generator, search_steps=60, budget=0.5)
    search(compression, host)
    compression.slim()
    kept = compression.alive()[compression.plan.prunable[0].slice]
    assert kept[1::2].sum() > 2 * kept[::2].sum()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_cost_falls_as_scheduled_and_without_a_cliff(schedule):
    generator = stock(ngf=24)
    compression, _, step = learning(generator, search_steps=50, budget=0.2, schedule=schedule)
    fractions = []
    for _ in range(50):
        step()
        fractions.append(compression.remaining)
    begin = gates.WARM_UP + gates.FADING
    wanted = [SCHEDULES[schedule](max(0, k / 50 - begin) / (1 - begin), 0.2) for k in range(1, 51)]
    assert fractions == sorted(fractions, reverse=True)
    assert np.allclose(fractions, wanted, atol=0.06)
    assert fractions[-1] <= 0.2 and np.diff([1.0, *fractions]).min() > -0.09, "a path, no cliff"


@pytest.mark.parametrize("method", ["coronet", "uniform", "random", "magnitude"])
@pytest.mark.parametrize("budget", [0.5, 0.1])
def test_every_method_meets_the_same_budget(method, budget):
    pytest.importorskip("torch_pruning") if method == "magnitude" else None
    compression, host = started(stock(ngf=24), search_steps=12, budget=budget, method=method)
    search(compression, host)
    compression.slim()
    assert 0.95 * budget <= compression.remaining <= budget
    x = torch.rand(1, 3, 32, 32)
    assert find_channels(compression.generator, x).cost().macs == compression.cost().macs


def test_uniform_is_narrow_before_the_first_step_by_one_factor():
    """In the five-line loop too, which asks for the cut after a step."""
    compression, _, _ = learning(stock(ngf=32), budget=0.25, method="uniform")
    assert compression.phase == "compact" and compression.steps == 0
    fractions = [compression.alive()[s.slice].mean() for s in compression.plan.prunable]
    assert max(fractions) - min(fractions) < 0.1 and np.mean(fractions) == pytest.approx(0.5, abs=0.03)


def test_magnitude_keeps_the_strongest_filters_of_every_set():
    pytest.importorskip("torch_pruning")
    generator = stock(ngf=16)
    with torch.no_grad():
        for block in range(10, 16):
            generator.get_parameter(f"model.{block}.conv_block.1.weight")[::2] *= 0.01
            generator.get_parameter(f"model.{block}.conv_block.5.weight")[:, ::2] *= 0.01
    compression, _, _ = learning(generator, budget=0.5, method="magnitude")
    compression.slim()
    inner = [s for s in compression.plan.prunable if s.name.endswith("conv_block.1")]
    assert len(inner) == 6
    for channel_set in inner:
        alive = compression.alive()[channel_set.slice]
        assert alive[1::2].mean() > 0.9 > 0.5 > alive[::2].mean()


def test_magnitude_without_torch_pruning_is_refused_before_the_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(OptionError, match=r"coronet-plugin\[magnitude\]"):
        learning(stock(), method="magnitude")


def test_magnitude_refuses_what_it_cannot_group_before_the_training_and_leaves_it_alone(monkeypatch):
    torch_pruning = pytest.importorskip("torch_pruning")
    generator = stock(norm="batch")
    generator.model[2].eval()
    before = [tensor.clone() for tensor in generator.state_dict().values()]
    learning(generator, method="magnitude")
    assert generator.training and not generator.model[2].training
    assert all(torch.equal(a, b) for a, b in zip(generator.state_dict().values(), before))

    def fail(*_, **__):
        raise ValueError("no such group")

    monkeypatch.setattr(torch_pruning.DependencyGraph, "get_pruning_group", fail)
    with pytest.raises(OptionError, match="cannot group .* no such group"):
        learning(generator, method="magnitude")


@pytest.mark.parametrize("method", ["coronet", "uniform", "random", "magnitude"])
def test_widths_of_another_run_are_met_exactly(method):
    widths = None
    for given in ({}, {"method": method}):
        if given and method == "magnitude":
            pytest.importorskip("torch_pruning")
        compression, host = started(stock(seed=len(given)), search_steps=12, widths=widths, **given)
        search(compression, host)
        compression.slim()
        found = {entry["name"]: len(entry["kept"]) for entry in compression.spec().sets}
        widths = widths or found
    assert found == widths
    with pytest.raises(OptionError, match="channel set model.1"):
        learning(stock(), widths={**widths, "model.1": 999})


@pytest.mark.parametrize("multiple", [4, 8])
def test_widths_are_rounded_inside_the_budget(multiple):
    compression, host = started(stock(ngf=32), search_steps=20, budget=0.3, round_to=multiple)
    search(compression, host)
    compression.slim()
    widths = [compression.alive()[s.slice].sum() for s in compression.plan.prunable]
    assert all(width % multiple == 0 and width for width in widths)
    assert 0.25 <= compression.remaining <= 0.3
    with pytest.raises(OptionError, match="at least 1"):
        learning(stock(), round_to=0)


def test_a_shared_budget_goes_to_the_generator_that_needs_it():
    """The second generator's output is multiplied away: most of the budget goes to the first."""
    one, other = stock(ngf=16), stock(ngf=16, seed=1)
    host = torch.optim.Adam(itertools.chain(one.parameters(), other.parameters()), lr=1e-3)
    x = torch.rand(1, 3, 32, 32)
    shares = shared_goal((one, other), (x, x), 0.4).shares
    pair = [Compression(g, x, search_steps=30, goal=s).attach(host) for g, s in zip((one, other), shares)]
    for _ in range(30):
        host.zero_grad()
        (one(x) - x).abs().mean().add(1e-3 * other(x).mean()).backward()
        host.step()
        for compression in pair:
            compression.step()
    for compression in pair:
        compression.slim()
    dense = sum(c.plan.cost().macs for c in pair)
    total = sum(c.cost().macs for c in pair)
    assert 0.37 * dense <= total <= 0.4 * dense
    with pytest.raises(BudgetError, match="smallest possible"):
        shared_goal((stock(), stock()), (x, x), 0.001)


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_a_shared_budget_counts_what_its_parts_do(kind):
    x = torch.rand(1, 3, 32, 32)
    pair = [stock(ngf=width) for width in (8, 12)]
    goal = shared_goal(pair, (x, x), 0.5, kind)
    plans = [find_channels(generator, x) for generator in pair]
    alive = np.random.default_rng(0).random(goal.plan.units) < 0.6
    assert goal.meter(alive) == sum(p.cost(a).of_kind(kind) for p, a in zip(plans, goal.plan.split(alive)))
    assert goal.dense == goal.meter(None) == sum(p.cost().of_kind(kind) for p in plans)


def test_given_up_units_are_never_chosen_again():
    plan = find_channels(stock(), torch.rand(1, 3, 32, 32))
    score = np.random.default_rng(0).random(plan.units)
    score[np.random.default_rng(1).random(plan.units) < 0.4] = -np.inf
    floors = Widths.of(plan).floors
    enough = all((score[s.slice] > 0).sum() >= floor for s, floor in zip(plan.prunable, floors))
    assert enough
    alive = choose_alive(plan, score, CountMeter(plan, "macs"), plan.cost().macs)
    assert np.isfinite(score[alive]).all()


def test_unknown_schedules_and_methods_are_refused():
    with pytest.raises(OptionError, match="cubic"):
        learning(stock(), schedule="sudden")
    with pytest.raises(OptionError, match="steady"):
        learning(stock(), schedule="steady")
    with pytest.raises(OptionError, match="gates, .*uniform, random, magnitude"):
        learning(stock(), method="luck")


def test_a_goal_never_asks_for_less_than_its_target():
    plan = find_channels(stock(), torch.rand(1, 3, 32, 32))
    for schedule in SCHEDULES:
        goal = Goal([plan], [CountMeter(plan, "macs")], Budget.parse(0.2), schedule)
        path = [goal.allowed(k / 10) for k in range(13)]
        assert path[0] == goal.dense and path[10:] == [goal.target] * 3
        assert path == sorted(path, reverse=True)


def test_removing_during_the_search_or_at_its_end_is_the_same():
    """To rounding: sums over fewer channels are added in another order."""
    found = []
    for gradual in (True, False):
        compression, host, step = learning(stock(ngf=12).double(), gradual=gradual, search_steps=12)
        sizes = set()
        for _ in range(20):
            if step():
                compression.slim()
            sizes.add(sum(p.numel() for p in compression.generator.parameters()))
            assert sum(len(g["params"]) for g in host.param_groups) == len(
                list(compression.generator.parameters())
            )
        found.append((compression, len(sizes)))
    (early, many), (late, two) = found
    assert many > 3 and two == 2
    assert np.array_equal(early.alive(), late.alive())
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    assert difference(early.generator, late.generator, (x,)) < 1e-6


def test_a_checkpoint_in_the_middle_of_the_search_is_as_small_as_the_generator(tmp_path):
    compression, _, step = learning(stock(ngf=12), search_steps=12, architecture=dict(
        netG="resnet_6blocks", input_nc=3, output_nc=3, ngf=12, norm="instance", use_dropout=False))  # fmt: skip
    for _ in range(9):
        step()
    assert compression.phase == "search" and compression.remaining < 0.7
    compression.save(tmp_path / "latest_net_G.pth")
    rebuilt = load_generator(tmp_path / "latest_net_G.pth")
    assert difference(rebuilt, compression.generator, (torch.rand(1, 3, 32, 32),)) == 0
    assert sum(p.numel() for p in rebuilt.parameters()) < 0.8 * compression.plan.cost().parameters
