"""Generators wrapped in something, and generators with computed weights: what is saved can be read back."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from run_helpers import difference
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from training_helpers import train

from coronet_plugin import Compression, bake_, find_channels, load_generator, masked, slim, verify
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.wrappers import unwrap

NORMS = {
    "old weight norm": weight_norm,
    "old spectral norm": spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}
WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "torch.compile": partial(torch.compile, backend="aot_eager"),
    "compiled, then DataParallel": lambda g: nn.DataParallel(torch.compile(g, backend="aot_eager")),
}
IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def plain(norm=lambda layer: layer, width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), norm(nn.Conv2d(width, width, 3, padding=1))]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))


def trained(generator: nn.Module, steps: int = 4) -> Compression:
    """A few steps of search through ``generator``, the cut to half, and one step after it."""
    compression = Compression(generator, IMAGE, search_steps=steps, budget=0.5)
    optimizer = torch.optim.Adam(generator.parameters(), 1e-2)
    compression.attach(optimizer)
    train(compression, optimizer, steps + 1, through=generator)
    return compression


# -- computed weights ----------------------------------------------------
@pytest.mark.parametrize("build", ["baked", "as written"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_what_was_baked_trained_and_saved_can_be_read_back(norm, build, tmp_path):
    generator = plain(norm)
    assert bake_(generator) == ["2.weight"]
    assert generator.state_dict().keys() == plain().state_dict().keys()
    compression = trained(generator)
    compression.save(tmp_path / "latest_net_G.pth")
    generator.load_state_dict(generator.state_dict())

    def again() -> nn.Module:
        fresh = plain(norm)
        if build == "baked":
            bake_(fresh)
        return fresh

    loaded = load_generator(tmp_path / "latest_net_G.pth", again)
    assert loaded[2].weight.shape[0] < 16 and difference(loaded, generator, (IMAGE,)) == 0


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_what_was_not_baked_can_be_read_back_too(norm, tmp_path):
    generator = plain(norm)
    generator.append(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 3, 1)))
    compression = Compression(generator, IMAGE, search_steps=1, budget=0.99)
    compression.slim()
    compression.save(tmp_path / "latest_net_G.pth")

    def again() -> nn.Module:
        tail = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 3, 1))
        return plain(norm).append(tail)

    loaded = load_generator(tmp_path / "latest_net_G.pth", again)
    numbers = [sum(p.numel() for p in net.parameters()) for net in (loaded, again())]
    assert numbers[0] < numbers[1] and difference(loaded, generator, (IMAGE,)) == 0


@pytest.mark.parametrize("how", ["training", "without gradients", "frozen"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_baking_changes_neither_the_function_nor_what_is_trained(norm, how):
    generator = plain(norm)
    if how == "frozen":
        generator[2].requires_grad_(False)
    before = generator.eval()(IMAGE).detach()
    generator.train()
    with torch.set_grad_enabled(how != "without gradients"):
        bake_(generator)
    assert torch.equal(generator.eval()(IMAGE), before)
    assert dict(generator.named_parameters())["2.weight"].requires_grad == (how != "frozen")


# -- wrappers ------------------------------------------------------------
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_generator_is_trained_through_its_wrapper_and_read_back(wrap, tmp_path):
    inside, same = plain(), plain()
    wrapped = wrap(inside)
    compression, expected = trained(wrapped), trained(same)
    assert compression.generator is inside
    compression.save(tmp_path / "latest_net_G.pth")
    keys = torch.load(tmp_path / "latest_net_G.pth", weights_only=True).keys()
    assert keys == plain().state_dict().keys()
    loaded = load_generator(tmp_path / "latest_net_G.pth", lambda: wrap(plain()))
    assert difference(loaded, inside, (IMAGE,)) == 0
    assert difference(wrapped, inside, (IMAGE,)) < 1e-6  # it runs the small one, not what it was made for
    assert difference(same, inside, (IMAGE,)) < 1e-5  # and trained it: compiled sums are rounded otherwise
    assert compression.remaining == expected.remaining <= 0.5


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrapped_generators_are_planned_proven_and_cut_like_plain_ones(wrap):
    wrapped = wrap(plain())
    plan: ChannelPlan = find_channels(wrapped, IMAGE)
    assert [s.name for s in plan.sets] == ["0", "2", "4"]
    assert verify(wrapped, plan, IMAGE) < 1e-4
    alive = np.arange(plan.units) % 2 == 0
    assert difference(slim(wrapped, plan, alive), masked(wrapped, plan, alive), (IMAGE,)) < 1e-5


def test_a_layer_called_module_is_no_wrapper(tmp_path):
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = plain()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.module(x)

    generator = Residual()
    assert unwrap(generator) is generator and unwrap(nn.DataParallel(generator)) is generator
    trained(generator).save(tmp_path / "latest_net_G.pth")
    loaded = load_generator(tmp_path / "latest_net_G.pth", Residual)
    assert difference(loaded, generator, (IMAGE,)) == 0


def test_a_layer_that_makes_two_channel_sets_can_be_read_back(tmp_path):
    class TwoSets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.tail = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
            self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tail(self.wide(x) + torch.cat([self.left(x), self.right(x)], 1))

    compression = trained(TwoSets())
    assert [s["name"] for s in compression.spec().sets] == ["wide", "wide'", "tail"]
    compression.save(tmp_path / "latest_net_G.pth")
    loaded = load_generator(tmp_path / "latest_net_G.pth", TwoSets)
    assert difference(loaded, compression.generator, (IMAGE,)) == 0
