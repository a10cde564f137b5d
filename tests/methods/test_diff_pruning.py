"""Diff-Pruning on a linear denoiser whose gradients are known in closed form, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import Compression, OptionError
from coronet_plugin.methods import Sample, configure

FIRST = [1.0, 2.0, 0.0, 0.5, 1.0, 2.0, 0.0, 0.5]
LAST = [1.0, -1.0, 3.0, 0.1, 1.0, -1.0, 3.0, 0.1]


class Denoiser(nn.Module):
    """Eight hidden channels by 1x1 convolutions: ``w2 (w1 x)``, which is -1.9 x."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 1, bias=False), nn.Conv2d(8, 1, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor(FIRST).view(8, 1, 1, 1))
            self.last.weight.copy_(torch.tensor(LAST).view(1, 8, 1, 1))

    def forward(self, x):
        return self.last(self.first(x))


def started(samples, **settings):
    generator = Denoiser()
    optimizer = torch.optim.SGD(generator.parameters(), 0.0)
    config = configure("diff_pruning", **settings)
    compression = Compression(generator, torch.zeros(1, 1, 2, 2), budget=0.5, search_steps=1, method=config)
    compression.method.held_out = samples
    return compression.attach(optimizer), optimizer


def at_steps(*scales):
    """Samples whose loss is the square of the scale: the truth is so far from the output."""
    return [Sample((torch.full((1, 1, 2, 2), s),), torch.full((1, 1, 2, 2), -1.9 * s - s)) for s in scales]


def cut(compression, optimizer):
    compression.generator(torch.ones(1, 1, 2, 2)).mean().backward()
    before = {name: p.grad.clone() for name, p in compression.generator.named_parameters()}
    optimizer.step()
    assert compression.step()
    method = compression.method
    chosen = method.chosen()
    for name, parameter in compression.generator.named_parameters():
        assert torch.equal(parameter.grad, before[name])  # those of the training are left alone
    return method, chosen


def test_a_channel_is_worth_the_products_of_its_weights_and_the_gradients():
    method, chosen = cut(*started(at_steps(1.0)))
    # the loss (y - t)^2 has the slope 2 by y; that by w1_i is 2 w2_i x, that by w2_i is 2 w1_i x
    worth = 2 * 2 * np.abs(np.array(FIRST) * np.array(LAST))
    assert np.allclose(method.score(), worth / worth.mean(), atol=1e-5)
    assert chosen.tolist() == 2 * [True, True, False, False]


@pytest.mark.parametrize(("threshold", "used"), [(0.05, 3), (0.5, 2), (0.0, 4)])
def test_time_steps_count_until_the_loss_is_below_a_share_of_the_largest(threshold, used):
    losses = at_steps(1.0, 0.5, 0.1, 0.05)  # 1, 0.25, 0.01, 0.0025
    method, _ = cut(*started(losses, diff_threshold=threshold))
    assert method.used == used


def test_without_time_steps_it_says_whom_it_is_for():
    with pytest.raises(OptionError, match=r"for diffusion models.*examples/diffusion\.py"):
        started([])


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_no_threshold(threshold):
    with pytest.raises(OptionError, match="--coronet_diff_threshold must be from 0 to 1"):
        configure("diff_pruning", diff_threshold=threshold)
