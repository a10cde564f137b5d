"""The hypernetwork folded into the steps: equal to the explicit one, and at home wherever training is."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from run_helpers import ARCHITECTURE, difference
from torch import nn
from torch.func import functional_call
from training_helpers import search, small, train
from training_helpers import started as training

from coronet_plugin import CheckpointError, Compression, OptionError, example_input, find_channels
from coronet_plugin.budget.latency_meter import Clock
from coronet_plugin.budget.shared import shared_goal
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import configure
from coronet_plugin.methods.hypernetwork import Hypernetwork
from coronet_plugin.methods.implicit import SPREADS, Rates, StepMultipliers, draw

ADAM, SGD = torch.optim.Adam, torch.optim.SGD


class Net(nn.Module):
    """A convolution, a depthwise, a transposed one used twice, and a linear layer per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.shared = nn.ConvTranspose2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.tanh(self.depthwise(torch.tanh(self.first(x))))
        x = torch.tanh(self.shared(torch.tanh(self.shared(x))))
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def noisy_steps(forward, optimizer, steps: int, advance=lambda: None) -> None:
    noise = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(2, 4, 3, 8, 8, generator=noise, dtype=torch.float64).unbind()
        optimizer.zero_grad()
        (forward(x) - y).square().mean().backward()
        optimizer.step()
        advance()


def explicit(
    net: nn.Module, plan, hyper: Hypernetwork, kind, steps: int, **settings
) -> dict[str, torch.Tensor]:
    """Train by eqs. (1) to (3) with all but ``w2`` and ``b2`` frozen; returns the weights it ends with."""
    trained = [p for n, p in hyper.named_parameters() if n.rsplit(".")[-1] in ("w2", "b2")]
    biases = [p for n, p in net.named_parameters() if n not in hyper.names]
    optimizer = kind([*trained, *biases], **settings)

    def weights():
        z = hyper.z().detach()
        return {name: hyper.weight(i, z) for i, name in enumerate(hyper.names)}

    noisy_steps(lambda x: functional_call(net, weights(), (x,)), optimizer, steps)
    return {name: value.detach() for name, value in weights().items()}


OPTIMIZERS = [
    (ADAM, {"lr": 1e-3, "betas": (0.5, 0.999)}),
    (ADAM, {"lr": 1e-3, "amsgrad": True, "foreach": True}),
    (ADAM, {"lr": 1e-3, "fused": True}),
    (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.3}),
    (torch.optim.NAdam, {"lr": 1e-3}),
    (torch.optim.Adamax, {"lr": 1e-3}),
    (torch.optim.RMSprop, {"lr": 1e-4, "momentum": 0.9, "centered": True}),
    (torch.optim.Adagrad, {"lr": 1e-2, "lr_decay": 1e-3}),
    (torch.optim.Rprop, {"lr": 1e-4}),
    (SGD, {"lr": 1e-2, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 1e-2, "momentum": 0.9, "dampening": 0.5, "maximize": False}),
    (SGD, {"lr": 1e-2, "weight_decay": 0.3}),
]


@pytest.mark.parametrize(
    ("kind", "settings"),
    OPTIMIZERS,
    ids=lambda x: getattr(x, "__name__", "-".join(map(str, x)) if isinstance(x, dict) else None),
)
def test_it_moves_weights_as_the_explicit_map_with_frozen_latents_does(kind, settings):
    """Over 200 noisy steps, to rounding; with every class and setting of an optimizer that is let pass."""
    if settings.get("fused") and torch.__version__ < "2.4":
        pytest.skip("fused steps on the CPU came with torch 2.4")
    if kind not in (SGD, torch.optim.Rprop):
        settings = {**settings, "eps": 1e-14}  # what is left of the gradients' scale
    torch.manual_seed(0)
    net = Net().double()
    plan = find_channels(net, torch.randn(1, 3, 8, 8, dtype=torch.float64))
    hyper = Hypernetwork(plan).double()
    with torch.no_grad():
        for index, name in enumerate(hyper.names):
            net.get_parameter(name).copy_(hyper.weight(index, hyper.z()))
    folded = copy.deepcopy(net)
    before = {name: net.get_parameter(name).detach().clone() for name in hyper.names}
    optimizer = kind(folded.parameters(), **settings)
    multipliers = attached(folded, plan, optimizer, 1000, Rates(seed=3))
    exponent = 2 if kind is SGD else 1
    drawn = draw(plan, Rates(), exponent, seed=3)
    assert all(torch.equal(value, drawn[name]) for name, value in multipliers.values.items())
    multipliers.values["last.weight"].fill_(1)  # linear layers are none of the published map's
    z = hyper.z().detach()
    for index, name in enumerate(hyper.names):
        latents = [z[getattr(hyper, f"z_{side}_{index}")] for side in ("in", "out")]
        share = torch.outer(*latents).abs() ** exponent * (
            hyper.kernels[index].w1.detach().abs() ** exponent
        ).sum(-1)
        share = share if hyper.calls[index].axis_in == 0 else share.T
        assert multipliers.values[name].shape == (*share.shape, 1, 1)
        multipliers.values[name] = (1 + share)[..., None, None]
    noisy_steps(folded, optimizer, 200)
    for name, weight in explicit(net, plan, hyper, kind, 200, **settings).items():
        moved = (weight - before[name]).abs().max()
        assert moved > 0.01 and (folded.get_parameter(name) - weight).abs().max() < 1e-6 * moved, name


REFUSED = [
    (torch.optim.Adadelta, {}, "steps of Adadelta"),
    (torch.optim.RAdam, {}, "steps of RAdam"),
    (torch.optim.ASGD, {}, "steps of ASGD"),
    (torch.optim.LBFGS, {}, "steps of LBFGS"),
    (type("Adam", (ADAM,), {}), {}, "steps of Adam"),
    (ADAM, {"weight_decay": 0.1}, "take AdamW"),
    (ADAM, {"differentiable": True}, "differentiable"),
    (torch.optim.RMSprop, {"weight_decay": 0.1}, "take AdamW"),
    (torch.optim.Adagrad, {"initial_accumulator_value": 0.1}, "initial_accumulator_value"),
    (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}, "momentum"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), REFUSED)
def test_steps_that_no_multiple_can_follow_are_refused_in_one_line(kind, settings, message):
    net = Net()
    compression = Compression(net, torch.rand(1, 3, 8, 8), search_steps=5, budget=0.8, method="implicit")
    with pytest.raises(OptionError, match=message) as caught:
        compression.attach(kind(net.parameters(), **settings))
    assert "\n" not in str(caught.value)


def attached(generator, plan, optimizer, steps: int, rates: Rates = Rates()) -> StepMultipliers:  # noqa: B008
    multipliers = StepMultipliers(steps, rates)
    multipliers.generator, multipliers.plan = generator, plan
    multipliers.begin(optimizer, 0)
    return multipliers


def started(steps=10, seed=0, lr=1e-3, kind=ADAM, rates=None, **options):
    rates = rates or Rates()
    generator = small(seed)
    if options.get("method", "implicit") == "implicit":
        options["method"] = configure("implicit", **dataclasses.asdict(rates))
    else:
        options.setdefault("companions", [StepMultipliers(steps, rates)])
    return (generator, *training(generator, kind, lr, search_steps=steps, **options))


def moves(generator, compression, optimizer) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """How far the next step takes each parameter, with multipliers and without."""
    alone = copy.deepcopy(generator)
    state = copy.deepcopy(optimizer.state_dict())
    before = {name: p.detach().clone() for name, p in generator.named_parameters()}
    train(compression, optimizer, 1)
    other = ADAM(alone.parameters(), lr=1e-3)
    other.load_state_dict(state)
    compression = Compression(alone, example_input(alone, 32), search_steps=9, budget=1.0).attach(other)
    train(compression, other, 1)
    plain = {name: p.detach() - before[name] for name, p in alone.named_parameters()}
    return {name: p.detach() - before[name] for name, p in generator.named_parameters()}, plain


@pytest.mark.parametrize("options", [{"budget": 1.0}, {"method": "uniform"}, {"method": "random"}, {}],
                         ids=["dense", "uniform", "random", "coronet"])  # fmt: skip
def test_every_method_s_weights_move_by_their_multiples_and_all_else_as_always(options):
    generator, compression, optimizer = started(steps=40, **options)
    multiplied, plain = moves(generator, compression, optimizer)
    values = compression.companions["multipliers"].values
    assert set(values) == {name for name, p in generator.named_parameters() if p.ndim == 4}
    for name, moved in multiplied.items():
        expected = plain[name] * values[name] if name in values else plain[name]
        assert torch.allclose(moved, expected, rtol=1e-3, atol=1e-6), name
    assert max(float((multiplied[n] / plain[n]).nanmean()) for n in values) > 2


def test_the_mean_is_what_was_asked_and_the_spread_stays():
    plan = find_channels(build_generator(**ARCHITECTURE), torch.rand(1, 3, 32, 32))
    found = {}
    for mean in (None, 1.0):
        drawn = draw(plan, Rates(rate=mean), 1, seed=3)
        found[mean] = torch.cat([value.flatten() for value in drawn.values()])
    assert found[1.0].mean() == pytest.approx(1, rel=1e-5)
    assert torch.allclose(found[None] / found[None].mean(), found[1.0])
    assert found[None].min() >= 1
    with pytest.raises(OptionError, match="above 0, not 0"):
        Rates(rate=0)


PLAN = find_channels(build_generator(**{**ARCHITECTURE, "ngf": 24}), torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("exponent", [1, 2])
def test_every_spread_has_the_mean_of_the_published_one(exponent):
    means, deviations = {}, {}
    for spread in SPREADS:
        draws = [draw(PLAN, Rates(spread=spread), exponent, seed).values() for seed in range(8)]
        found = torch.cat([value.flatten() for values in draws for value in values])
        means[spread], deviations[spread] = float(found.mean()), float(found.log().std())
    assert means["constant"] == pytest.approx(5.41 if exponent == 1 else 9, abs=0.01)
    assert means["published"] == pytest.approx(means["constant"], rel=0.1)
    assert means["lognormal"] == pytest.approx(means["constant"], rel=0.05)
    assert deviations["constant"] < 1e-6 and deviations["lognormal"] == pytest.approx(0.85, rel=0.02)
    if exponent == 1:
        assert deviations["published"] == pytest.approx(0.85, rel=0.1)


def test_multipliers_are_of_connections_filters_or_layers():
    for per, numbers in (("connection", 24 * 96), ("filter", 96), ("layer", 1)):
        drawn = draw(PLAN, Rates(per=per), 1, seed=0)
        assert len(drawn["model.10.conv_block.1.weight"].unique()) == pytest.approx(
            min(numbers * 4, 96 * 96) if per == "connection" else numbers, rel=0.01
        )
    by_filter = draw(PLAN, Rates(per="filter"), 1, seed=0)
    convolution, transposed = by_filter["model.4.weight"], by_filter["model.16.weight"]
    assert torch.equal(convolution, convolution[:, :1].expand_as(convolution))
    assert torch.equal(transposed, transposed[:1].expand_as(transposed))


def test_they_are_drawn_without_taking_random_numbers_from_the_training():
    torch.manual_seed(5)
    generators = [build_generator(**ARCHITECTURE) for _ in range(2)]
    plans = [find_channels(g, torch.rand(1, 3, 32, 32)) for g in generators]
    before = torch.get_rng_state()
    several = [attached(g, p, ADAM(g.parameters()), 5) for g, p in zip(generators, plans)]
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (m.values["model.1.weight"] for m in several)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("after", "strengths"), [("drop", [1, 1, 0, 0, 0]), ("keep", [1, 1, 1, 1, 1]),
                                                  ("fade", [1, 1, 1, 0.5, 0])])  # fmt: skip
def test_what_becomes_of_them_after_the_search(after, strengths):
    generator, compression, optimizer = started(
        steps=2, budget=1.0, rates=Rates(spread="constant", rate_after=after)
    )
    for strength in strengths:
        multiplied, plain = moves(generator, compression, optimizer)
        name = "model.10.conv_block.1.weight"
        ratio = float((multiplied[name] / plain[name]).nanmedian())
        assert ratio == pytest.approx(1 + 4.41 * strength, rel=1e-2)
    kept = compression.companions["multipliers"]
    train(compression, optimizer, 1)
    assert bool(kept.values) == (after == "keep") == bool(kept.state_dict()["values"]), "memory is free"


def test_channels_that_stay_keep_their_multipliers():
    generator, compression, optimizer = started(steps=10, rates=Rates(rate_after="keep", seed=3))
    train(compression, optimizer, 12)
    assert compression.phase == "compact"
    multiplied, plain = moves(generator, compression, optimizer)
    plan, dense = compression.plan, draw(compression.plan, Rates(), 1, seed=3)
    for name, moved in multiplied.items():
        value = dense.get(name, torch.ones(()))
        for axis, units in plan.slices[name].items() if name in dense else ():
            value = value.index_select(
                axis, torch.from_numpy(np.flatnonzero(np.append(compression.alive(), True)[units]))
            )
        assert torch.allclose(moved, plain[name] * value, rtol=1e-3, atol=1e-6), name


def test_they_are_drawn_again_as_often_as_asked_and_for_the_channels_that_are_left():
    generator, compression, optimizer = started(steps=30, rates=Rates(redraw=4))
    seen = []
    for _ in range(29):
        train(compression, optimizer, 1)
        values = compression.companions["multipliers"].values["model.10.conv_block.1.weight"]
        assert values.shape[:2] == generator.get_parameter("model.10.conv_block.1.weight").shape[:2]
        seen.append(float(values[0, 0]))
    changes = [k + 1 for k in range(1, 29) if seen[k] != seen[k - 1]]
    assert [k for k in range(4, 30, 4)] == [k for k in changes if k % 4 == 0]


def test_importance_can_be_divided_by_the_rate():
    plain, discounted = started(steps=400)[1:], started(steps=400, rates=Rates(discount=True))[1:]
    for compression, optimizer in (plain, discounted):
        train(compression, optimizer, 5)
    rates = discounted[0].companions["multipliers"].of_units()
    assert rates.min() > 1 and rates.std() > 0.5
    assert torch.allclose(plain[0].method.importance, discounted[0].method.importance)
    for channel_set in plain[0].plan.prunable:
        worth = plain[0].method.importance[channel_set.slice].numpy() / rates[channel_set.slice] ** 2
        assert np.array_equal(
            worth.argsort().argsort(), discounted[0].method.score()[channel_set.slice].argsort().argsort()
        )


# -- at home wherever training is ---------------------------------------------
def same(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize("done", [4, 12, 17])
@pytest.mark.parametrize(
    "options",
    [{"rates": Rates(rate_after="keep")}, {"rates": Rates(rate_after="fade", redraw=3)}, {"method": "uniform"},
     {"budget": 1.0, "rates": Rates(rate=1, spread="lognormal")}],
    ids=["keep", "fade, redrawn", "uniform", "dense"],
)  # fmt: skip
def test_a_continued_run_equals_an_uninterrupted_one_bit_for_bit(options, done):
    """In the search, when channels are gone already, and behind it."""
    generator, compression, optimizer = started(**options)
    train(compression, optimizer, done)
    saved = copy.deepcopy((compression.state_dict(), optimizer.state_dict(), generator.state_dict()))
    expected = train(compression, optimizer, 12, seed=2)
    again, resumed, other = started(seed=99, **options)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[2])
    other.load_state_dict(saved[1])
    resumed.refresh_()
    assert train(resumed, other, 12, seed=2) == expected
    assert same(again, generator)


@pytest.mark.parametrize(("saved", "continued"), [("implicit", "none"), ("none", "implicit")])
def test_a_training_with_multipliers_is_not_continued_without(saved, continued):
    none = {"none": {"companions": ()}, "implicit": {}}
    state = started(method="uniform", **none[saved])[1].state_dict()
    with pytest.raises(CheckpointError, match="multipliers.*continue with the --coronet_method"):
        started(method="uniform", **none[continued])[1].load_state_dict(state)


def test_what_else_the_optimizer_holds_and_what_is_frozen_moves_as_always():
    torch.manual_seed(0)
    nets = {"alone": nn.Linear(4, 4), "beside": None}
    nets["beside"] = copy.deepcopy(nets["alone"])
    generator = build_generator(**ARCHITECTURE)
    frozen = generator.get_parameter("model.4.weight").requires_grad_(False)
    before = frozen.clone()
    together = torch.optim.AdamW(
        [
            {"params": nets["beside"].parameters(), "weight_decay": 0.2},
            {"params": generator.parameters(), "weight_decay": 0.1},
        ],
        lr=1e-3,
    )
    alone = torch.optim.AdamW(nets["alone"].parameters(), lr=1e-3, weight_decay=0.2)
    compression = Compression(
        generator, example_input(generator, 32), search_steps=9, budget=1.0, method="implicit"
    ).attach(together)
    for _ in range(3):
        for optimizer, net in ((together, nets["beside"]), (alone, nets["alone"])):
            optimizer.zero_grad()
            net(torch.ones(2, 4)).square().sum().backward()
            if optimizer is together:
                generator(torch.ones(1, 3, 32, 32)).square().mean().backward()
            optimizer.step()
        compression.step()
    assert same(nets["alone"], nets["beside"]) and torch.equal(frozen, before)


def test_a_step_that_a_gradient_scaler_skips_moves_nothing():
    scaler = getattr(getattr(torch, "amp", None), "GradScaler", None)
    if scaler is None:
        pytest.skip("scaling on the CPU came with torch 2.3")
    generator, compression, optimizer = started()
    scaling = scaler("cpu", init_scale=4.0)
    twin, other, plain = started()
    for broken in (False, True, False):
        x = torch.full((1, 3, 32, 32), 0.5)
        for net, host in ((generator, optimizer), (twin, plain)):
            host.zero_grad()
            loss = (net(x) + x).abs().mean()
            (scaling.scale(loss) if host is optimizer else loss).backward()
        before = copy.deepcopy(generator.state_dict())
        if broken:
            generator.get_parameter("model.1.weight").grad[0, 0, 0, 0] = float("inf")
        scaling.step(optimizer)
        scaling.update()
        compression.step()
        if broken:
            assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
        else:
            plain.step()
            other.step()
    assert compression.steps == compression.companions["multipliers"].done == 2
    assert difference(generator, twin, (x,)) < 1e-4


@pytest.mark.parametrize("form", ["implicit", "gated"])
@pytest.mark.parametrize(
    "options", [{"round_to": 4}, {"kind": "params"}, {"kind": "latency", "budget": 0.6}], ids=str
)
def test_every_kind_of_budget_is_met_without_a_loss(form, options, monkeypatch):
    monkeypatch.setattr(Clock, "ms", lambda self, alive: self.plan.cost(alive).macs / 1e6)
    options = {"budget": 0.4, **options}
    generator = small(ngf=24)
    compression, optimizer = training(generator, ADAM, search_steps=8, method=form, **options)
    search(compression, optimizer)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = generator(x)
        compression.slim()
        assert (generator(x) - expected).abs().max() < 1e-5
    assert compression.remaining <= options["budget"] * (1.03 if "kind" in options else 1)
    if "round_to" in options:
        assert all(compression.alive()[s.slice].sum() % 4 == 0 for s in compression.plan.prunable)


@pytest.mark.parametrize("form", ["implicit", "gated"])
def test_two_generators_share_a_budget_and_an_optimizer(form):
    torch.manual_seed(0)
    pair = [build_generator(**{**ARCHITECTURE, "ngf": 16}) for _ in range(2)]
    optimizer = ADAM([p for net in pair for p in net.parameters()], lr=1e-3)
    x = torch.rand(1, 3, 32, 32)
    shares = shared_goal(pair, [x, x], 0.4).shares
    compressions = [
        Compression(g, x, search_steps=12, goal=share, method=form).attach(optimizer)
        for g, share in zip(pair, shares)
    ]
    for _ in range(12):
        optimizer.zero_grad()
        pair[1](pair[0](x)).square().mean().backward()
        optimizer.step()
        for compression in compressions:
            compression.step()
    before = [net(x) for net in pair]
    for compression in compressions:
        compression.slim()
    assert all((net(x) - old).abs().max() < 1e-5 for net, old in zip(pair, before))
    assert sum(c.cost().macs for c in compressions) <= 0.4 * sum(c.plan.cost().macs for c in compressions)


def test_exact_is_an_earlier_name_of_gates():
    state = started(method="exact", companions=())[1].state_dict()
    state["search"]["method"] = "exact"  # as earlier versions wrote it
    del state["required"], state["companions"]
    _, compression, _ = started(method="gates", companions=())
    compression.load_state_dict(state)
    assert compression.method.name == "gates" and not compression.companions
