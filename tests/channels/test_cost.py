"""Counts against the published figures and an independent counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from coronet_plugin import cost_of, example_input
from coronet_plugin.generators.stock import build_generator

PUBLISHED = {  # true, literature's convention (GMACs at 256 x 256), parameters
    ("resnet_9blocks", "instance"): (49.55, 56.80, 11_378_179),
    ("unet_256", "batch"): (6.05, 18.14, 54_413_955),
}


@pytest.mark.parametrize(("netG", "norm"), PUBLISHED)
def test_costs_at_256_pixels_are_the_published_ones(netG, norm):
    true, literature, parameters = PUBLISHED[(netG, norm)]
    generator = build_generator(3, 3, 64, netG, norm)
    cost = cost_of(generator, example_input(generator, 256))
    assert cost.macs / 1e9 == pytest.approx(true, abs=0.005)
    assert cost.macs_literature / 1e9 == pytest.approx(literature, abs=0.005)
    assert cost.parameters == parameters


@pytest.mark.parametrize("netG", ["resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"])
def test_true_macs_equal_an_independent_counter(netG):
    generator = build_generator(3, 3, 8, netG, "batch").eval()
    example = example_input(generator, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(example)
    cost = cost_of(generator, example)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.parameters == sum(p.numel() for p in generator.parameters())


def test_cost_is_for_one_image_whatever_the_batch():
    generator = build_generator(3, 3, 4, "resnet_6blocks", "instance")
    assert cost_of(generator, torch.randn(3, 3, 32, 32)) == cost_of(generator, torch.randn(1, 3, 32, 32))


def test_literature_macs_agree_with_torch_pruning_where_it_counts_the_same():
    torch_pruning = pytest.importorskip("torch_pruning")
    generator = build_generator(3, 3, 16, "unet_128", "batch").eval()
    example = example_input(generator, 128)
    theirs, _ = torch_pruning.utils.count_ops_and_params(generator, example)
    # it also counts normalisation and activations: a little more, never less
    assert 1.0 <= theirs / cost_of(generator, example).macs_literature < 1.02
