"""Agent gates for a generator and its discriminator: gates, costs, densities, the game, the cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from run_helpers import difference
from torch import nn

from coronet_plugin import Compression, OptionError, find_channels
from coronet_plugin.channels.cut import masked, slim
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import configure
from coronet_plugin.methods.agents import Agent, Gated, density_distance, gates, soft_cost
from coronet_plugin.methods.manifold import Game, judged
from models.networks import NLayerDiscriminator

QUICK = {"bank": 4, "neighbours": 2, "agent_hidden": 16}


def picture(seed: int, size: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def networks(netG: str = "resnet_6blocks", seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    return build_generator(3, 3, 8, netG, "instance"), NLayerDiscriminator(6, 8, 2, nn.InstanceNorm2d)


def started(
    steps: int = 9, pruned: bool = True, budget: float = 0.4, teacher: nn.Module | None = None, **settings
):
    """Compressions of a generator and, if ``pruned``, its discriminator, with their optimizers."""
    config = configure("manifold", **{**QUICK, **settings})
    found = []
    for network, example in zip(networks(), (picture(0), torch.cat([picture(0), picture(1)], 1))):
        compression = Compression(network, example, search_steps=steps, budget=budget, method=config)
        found.append((compression, torch.optim.Adam(network.parameters(), lr=1e-3)))
    (g, g_optimizer), (d, d_optimizer) = found
    g.method.judged_by(d.generator, d.method if pruned else None)
    g.method.teacher = teacher
    g.attach(g_optimizer)
    if pruned:
        d.attach(d_optimizer)
    return found if pruned else found[:1]


def train(found, first: int, last: int) -> None:
    """pix2pix on pictures and their negatives."""
    (g, g_optimizer), *others = found
    for number in range(first, last + 1):
        x = picture(number)
        fake = g.generator(x)
        for d, optimizer in others:
            optimizer.zero_grad()
            real, made = (d.generator(torch.cat([x, y], 1)) for y in (-x, fake.detach()))
            ((real - 1).square().mean() + made.square().mean()).backward()
            optimizer.step()
        g_optimizer.zero_grad()
        (fake + x).abs().mean().backward()
        g_optimizer.step()
        ready = [compression.step() for compression, _ in found]
        if all(ready):
            for compression, _ in found:
                compression.slim()


# -- gates -----------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("netG", ["resnet_6blocks", "mobile_resnet_6blocks", "unet_128"])
def test_open_gates_cost_what_the_plan_says(netG, kind):
    size = 128 if netG == "unet_128" else 32
    plan = find_channels(build_generator(3, 3, 8, netG, "batch"), picture(0, size))
    for seed in range(3):
        alive = np.random.default_rng(seed).random(plan.units) < 0.5
        v = torch.from_numpy(alive).float().requires_grad_()
        cost = soft_cost(plan, v, kind)
        assert float(cost.detach()) == plan.cost(alive).of_kind(kind)
    cost.backward()
    one = alive.copy()
    one[0] = not one[0]  # each axis is counted once, so that the derivative is the difference
    step = plan.cost(one).of_kind(kind) - plan.cost(alive).of_kind(kind)
    assert float(v.grad[0]) == pytest.approx(step * (1 if one[0] else -1), rel=1e-5)


@pytest.mark.parametrize("netG", ["resnet_6blocks", "mobile_resnet_6blocks"])
def test_closed_gates_are_what_a_cut_removes(netG):
    """The gated generator, the masked one and the slim one compute the same: the cut is exact."""
    generator = networks(netG)[0].double().eval()
    x = picture(3).double()
    plan = find_channels(generator, x)
    alive = np.random.default_rng(0).random(plan.units) < 0.5
    alive[[s.start for s in plan.prunable]] = True
    gated = Gated(generator, plan).output(torch.from_numpy(alive).double(), (x,))
    for other in (masked(generator, plan, alive), slim(generator, plan, alive)):
        assert torch.allclose(other.eval()(x), gated, atol=1e-12)


def test_gates_are_drawn_hard_and_taught_softly():
    random, logits = (
        torch.Generator().manual_seed(0),
        torch.linspace(-6, 3, 7).repeat(4000, 1).requires_grad_(),
    )
    v = gates(logits, base=2.0, temperature=0.4, random=random)
    assert set(v.detach().unique().tolist()) <= {0.0, 1.0}
    expected = torch.sigmoid(logits.detach()[0] + 2.0)  # of the difference of two Gumbel variables
    assert torch.allclose(v.detach().mean(0), expected, atol=0.03)
    v.sum().backward()
    noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0))
    soft = torch.sigmoid((logits.detach() + (noise / (1 - noise)).log() + 2.0) / 0.4)
    assert torch.allclose(logits.grad, soft * (1 - soft) / 0.4, atol=1e-4)


# -- densities -------------------------------------------------------------------
def test_the_distance_is_that_of_two_densities():
    """In one dimension against the integral of the squared difference of the two estimates."""
    original, pruned = (
        torch.tensor([[0.0], [1.0], [-0.6], [0.3]]).double(),
        torch.tensor([[2.0], [0.1], [0.4]]).double(),
    )
    spread = (1.0 + 0.6 + 0.3) / 3
    axis = torch.linspace(-40, 40, 80001).double()
    expected = 0.0
    for width in (1, 2, 4):
        h = width * spread
        densities = [
            torch.exp(-((axis[:, None] - x[:, 0]) ** 2) / (2 * h**2)).mean(1) for x in (original, pruned)
        ]
        scale = h * math.sqrt(math.pi)  # of one Gaussian's square
        expected += float(torch.trapezoid((densities[0] - densities[1]) ** 2, axis)) / scale
    assert float(density_distance(original, pruned)) == pytest.approx(expected, rel=1e-6)
    assert float(density_distance(original, original)) == pytest.approx(0, abs=1e-12)


def test_neighbourhoods_are_of_the_nearest_outputs_of_the_original():
    generator, judge = networks()
    bank = [(picture(i),) for i in range(6)]
    plan = find_channels(generator, bank[0])
    judge_plan = find_channels(judge, torch.cat([picture(0), picture(1)], 1))
    game = Game(Gated(generator, plan), Gated(judge, judge_plan), bank, neighbours=3)
    seen = []
    judge.model[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0].mean((2, 3))))
    with torch.no_grad():
        for (x,) in bank:
            judge(torch.cat([x, generator(x)], 1))
    features = torch.cat(seen)
    for centre, members in enumerate(game.near):
        apart = (features - features[centre]).norm(dim=1)
        assert members[0] == centre and members == apart.argsort()[:4].tolist()
    open_gates = [torch.ones(p.units) for p in (plan, judge_plan)]
    assert float(game.distance(*open_gates, 2)) == pytest.approx(0, abs=1e-6)
    closed = torch.ones(plan.units)
    closed[::2] = 0
    assert float(game.distance(closed, open_gates[1], 2)) > 1e-4


# -- the game --------------------------------------------------------------------
def test_agents_improve_opposite_losses_and_hear_each_other():
    """Gradients of one step are those of the two losses, written down anew."""
    (g, _), (d, _) = started(teacher=networks(seed=5)[0])
    method = g.method
    train([(g, _), (d, started()[1][1])][:1], 1, 3)  # the bank is not full yet
    assert method._game is None
    method._bank.append((picture(9),))
    method._begin_game()
    one, two = method._agents["G"], method._agents["D"]
    two.said = torch.randn(two.said.shape, generator=torch.Generator().manual_seed(1))
    state = method._random.get_state()
    before = [{name: p.detach().clone() for name, p in agent.named_parameters()} for agent in (one, two)]
    method.optimizer.step = lambda: None
    method._play()
    found = [[p.grad.clone() for p in agent.parameters() if p.grad is not None] for agent in (one, two)]
    random = torch.Generator()
    random.set_state(state)
    logits, others = (
        one(torch.randn(two.said.shape, generator=torch.Generator().manual_seed(1)))[0],
        two(torch.zeros(32))[0],
    )
    v, w = (gates(x, 3.0, 0.4, random) for x in (logits, others))
    centre = int(torch.randint(4, (), generator=random))
    distance = method._game.distance(v, w, centre)
    costs = [
        (soft_cost(plan, x, "macs") / (0.4 * plan.cost().macs)).log().abs()
        for plan, x in ((g.plan, v), (d.plan, w))
    ]
    for agent, loss, mine in (
        (one, distance + 2 * costs[0], found[0]),
        (two, 2 * costs[1] - distance, found[1]),
    ):
        wanted = torch.autograd.grad(loss, list(agent.parameters()), retain_graph=True, allow_unused=True)
        wanted = [x for x in wanted if x is not None]
        assert len(mine) == len(wanted) > 10
        assert all(torch.allclose(a, b.float(), rtol=1e-3, atol=1e-6) for a, b in zip(mine, wanted))
    assert any(not torch.equal(one(x)[0], one(y)[0]) for x, y in [(one.said, two.said * 0)])
    assert all(
        torch.equal(p, old[name])
        for agent, old in zip((one, two), before)
        for name, p in agent.named_parameters()
    )


def test_both_are_trained_then_gated_with_frozen_weights_then_cut():
    found = started(steps=9)
    (g, _), (d, _) = found
    assert [g.method.acts(n) for n in range(1, 10)] == [False] * 6 + [True] * 3
    train(found, 1, 6)
    trained = [{k: x.clone() for k, x in c.generator.state_dict().items()} for c, _ in found]
    agent = g.method._agents["G"].heads[0].weight.detach().clone()
    train(found, 7, 8)
    for (compression, _), before in zip(found, trained):
        assert all(torch.equal(x, before[k]) for k, x in compression.generator.state_dict().items())
    assert not torch.equal(agent, g.method._agents["G"].heads[0].weight)
    references = []
    for (compression, _), inputs in zip(found, (picture(3), torch.cat([picture(3), picture(4)], 1))):
        references.append(
            (masked(compression.generator, compression.plan, compression.method.chosen()), inputs)
        )
    random = g.method._random.get_state()
    train(found, 9, 9)
    assert not torch.equal(random, g.method._random.get_state())
    for (compression, _), (_, inputs) in zip(found, references):
        kept = masked_again(compression, trained[0 if compression is g else 1])
        assert compression.phase == "compact" and 0.3 < compression.remaining <= 0.4
        assert difference(compression.generator, kept, (inputs,)) < 1e-5
    train(found, 10, 11)
    assert not torch.equal(
        found[0][0].generator.model[1].bias,
        trained[0]["model.1.bias"][: found[0][0].generator.model[1].bias.numel()],
    )


def masked_again(compression: Compression, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The network as it was trained, with what was cut ignored."""
    dense = networks()[0 if len(compression.inputs[0][0]) == 3 else 1]
    dense.load_state_dict(weights)
    return masked(dense, compression.plan, compression.alive())


def test_agents_meet_the_budget_by_themselves():
    """Without the cut's help: gates drawn at the end cost about what they may."""
    ((g, _),) = started(steps=40, pruned=False, teacher=networks(seed=5)[0], agent_lr=0.01, agent_budget=20.0)
    before = g.method._over(g.plan, torch.ones(g.plan.units), g.method.fraction)
    train([(g, _)], 1, 39)
    logits, _ = g.method._agents["G"](g.method._agents["D"].said)
    now = [
        float(g.method._over(g.plan, g.method._drawn(logits), g.method.fraction).detach()) for _ in range(8)
    ]
    assert np.mean(now) < 0.4 * float(before)


def test_an_agent_tells_sets_apart_by_fixed_codes():
    plan = find_channels(networks()[0], picture(0))
    agent = Agent(plan, 16, torch.Generator().manual_seed(0))
    assert torch.allclose(agent.codes @ agent.codes.T, torch.eye(len(plan.prunable)), atol=1e-5)
    assert "codes" not in dict(agent.named_parameters()) and agent(agent.said)[0].shape == (plan.units,)


# -- what cannot be --------------------------------------------------------------
def test_what_a_discriminator_sees_follows_from_its_channels():
    x, y = (picture(0),), picture(1)
    assert judged(NLayerDiscriminator(3, 4), x, y)[0] is y
    assert torch.equal(judged(NLayerDiscriminator(6, 4), x, y)[0], torch.cat([x[0], y], 1))
    with pytest.raises(OptionError, match="reads 5 channels, and the generator gives 3"):
        judged(NLayerDiscriminator(5, 4), x, y)


def test_what_cannot_be_is_one_line():
    generator = networks()[0]
    with pytest.raises(OptionError, match=r"together; give that before attach\(\)"):
        compression = Compression(generator, picture(0), search_steps=3, budget=0.5, method="manifold")
        compression.attach(torch.optim.Adam(generator.parameters()))
    with pytest.raises(OptionError, match="--coronet_bank 3 must be above --coronet_neighbours 3"):
        configure("manifold", bank=3, neighbours=3)
    with pytest.raises(
        OptionError, match="manifold goes on with the teacher's weights, and the teacher is of another"
    ):
        started(teacher=networks("mobile_resnet_6blocks")[0])
    with pytest.raises(OptionError, match="--coronet_agent_lr must be above 0"):
        configure("manifold", agent_lr=0.0)
