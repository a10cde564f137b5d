"""The published map behind gates: its gradients, its lossless cut, and what goes with the channels that go."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from run_helpers import difference
from torch import nn
from torch.func import functional_call
from training_helpers import search, small, started, stepping

from coronet_plugin.channels.cut import readers

X = torch.rand(2, 3, 32, 32) * 2 - 1


def stock(norm="batch", ngf=8, seed=0, netG="resnet_6blocks") -> nn.Module:
    return small(seed, norm=norm, ngf=ngf, netG=netG)


class PerPixel(nn.Module):
    """A linear layer reads what a convolution makes: its weight is gated, not generated."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.last = nn.Linear(24, 3)

    def forward(self, x):
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def learning(generator, side=32, **options):
    compression, host = started(generator, side=side, **{"method": "gated", **options})
    return compression, host, stepping(compression, host)


def gates_of(compression, name) -> torch.Tensor:
    """What the gates multiply a weight by, in its own shape."""
    gates = torch.ones(compression.plan.shapes[name], dtype=torch.float64)
    latents = torch.cat([compression.method.latents, torch.ones(1, dtype=torch.float64)])
    for other, axis, units in readers(compression.plan):
        if other == name:
            gates *= latents[units].reshape([-1 if i == axis else 1 for i in range(4)])
    return gates.float()


def test_gradients_are_those_of_gated_generated_weights():
    """Also half way through, when some gates are half closed."""
    generator = stock()
    compression, _, step = learning(generator, gradual=False)
    while not 0 < compression.method.latents.min() < 0.7:
        assert not step(), "no gate was ever half closed"
    hyper = compression.method.generated.hypernetwork
    z = hyper.z()
    weights = {name: hyper.weight(i, z) * gates_of(compression, name) for i, name in enumerate(hyper.names)}
    for name, weight in weights.items():
        torch.testing.assert_close(generator.get_parameter(name), weight, rtol=1e-6, atol=1e-9)
    functional_call(generator, weights, (X,)).square().mean().backward()
    expected = {name: p.grad.clone() for name, p in hyper.named_parameters()}
    hyper.zero_grad()
    generator.zero_grad()
    generator(X).square().mean().backward()
    compression.method.gradients()
    for name, parameter in hyper.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("make", "side"),
    [(lambda: stock("batch", 16), 32), (lambda: stock("instance", 16), 32),
     (lambda: stock("batch", 16, netG="unet_128"), 128), (PerPixel, 16)],
    ids=["resnet-batch", "resnet-instance", "unet", "linear"],
)  # fmt: skip
def test_the_cut_changes_nothing(make, side, mode):
    """Although every weight has biases of the map in it, which training has moved."""
    generator = make()
    compression, host, _ = learning(generator, side, search_steps=8)
    search(compression, host)
    assert compression.method.generated.hypernetwork.kernels[0].b2.abs().max() > 1e-3
    x = torch.rand(2, 3, side, side, dtype=torch.float64) * 2 - 1
    generator.train(mode)
    with torch.no_grad():
        before = copy.deepcopy(generator).double()(x)  # so that no order of summation matters
        compression.slim()
        after = copy.deepcopy(generator).double()(x)
    assert compression.remaining <= 0.3
    assert (after - before).abs().max() <= 1e-9
    assert compression.method.hypernetwork is None, "its memory is free"


def test_removing_during_the_search_or_at_its_end_is_the_same():
    """To rounding; the map, and what its optimizer knows, get smaller with the generator."""
    found = []
    for gradual in (True, False):
        compression, _, step = learning(stock("instance", 12).double(), gradual=gradual, search_steps=12)
        compression.method.generated.hypernetwork.double()
        hyper, sizes = compression.method.generated.hypernetwork, set()
        for _ in range(18):
            if step():
                compression.slim()
            if compression.phase == "search":
                sizes.add(sum(p.numel() for p in hyper.kernels.parameters()))
                state = compression.method.generated.optimizer.state
                assert all(state[p]["exp_avg"].shape == p.shape for p in hyper.kernels.parameters())
        found.append((compression, len(sizes)))
    (early, many), (late, one) = found
    assert many > 3 and one == 1
    assert np.array_equal(early.alive(), late.alive())
    assert difference(early.generator, late.generator, (X.double(),)) < 1e-6


def test_latents_are_trained_and_not_shrunk():
    compression, _, step = learning(stock(), search_steps=60, gradual=False)
    before = compression.method.generated.hypernetwork.z().detach().clone()
    for _ in range(30):
        step()
    after = compression.method.generated.hypernetwork.z().detach()
    moved = (after - before).abs()
    assert moved[0] == 0 and moved[1:].max() < 0.1 and moved[1:].min() > 0


def test_a_budget_of_one_trains_the_dense_generator_through_the_map():
    generator = stock()
    compression, host, _ = learning(generator, budget=1.0, search_steps=5)
    search(compression, host)
    hyper = compression.method.generated.hypernetwork
    compression.slim()
    for index, name in enumerate(hyper.names):
        assert torch.equal(generator.get_parameter(name), hyper.weight(index, hyper.z()))
    assert compression.remaining == 1.0


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_kept_weights_are_exact_to_the_last_bit(norm):
    generator = stock(norm, 16)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    compression, _, step = learning(generator, keep_weights=True)
    compression.method.write_weights_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    step()
    assert not torch.equal(generator.get_parameter("model.1.weight"), before["model.1.weight"])
