"""A slim generator is an ordinary small module that computes what the masked big one does."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from conftest import DEVICES
from generator_styles import STYLES
from run_helpers import difference
from torch import nn

from coronet_plugin import cost_of, example_input, find_channels
from coronet_plugin.channels.cut import masked, narrowed, on_device, sliced, slim
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.generators.stock import build_generator

SIZES = {
    "unet_256": 256,
    "unet_128": 128,
    "resnet_9blocks": 64,
    "resnet_6blocks": 64,
    "mobile_resnet_6blocks": 64,
}


def trained_looking(netG: str, norm: str, ngf: int = 8) -> nn.Module:
    """A generator whose norms have non-trivial parameters and statistics."""
    torch.manual_seed(0)
    generator = build_generator(3, 3, ngf, netG, norm, use_dropout=True)
    for name, tensor in generator.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2)
        elif "running_mean" in name or name.endswith("bias"):
            tensor.normal_(0, 0.3)
    return generator


def random_alive(plan, seed: int, fraction: float = 0.4) -> np.ndarray:
    alive = np.random.default_rng(seed).random(plan.units) < fraction
    alive[[s.start for s in plan.prunable]] = True
    return alive


@pytest.mark.parametrize("netG", SIZES)
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("device", DEVICES)
def test_slim_equals_masked_to_rounding(netG, norm, device):
    generator = trained_looking(netG, norm).to(device)
    x = example_input(generator, SIZES[netG]).to(device)
    plan = find_channels(generator, x)
    for seed in range(3):
        alive = random_alive(plan, seed)
        small, reference = slim(generator, plan, alive), masked(generator, plan, alive)
        # single precision through up to 24 convolutions; outputs lie in [-1, 1]
        assert difference(small, reference, (x,)) < 2e-5
        assert difference(small, generator, (x,)) > 1e-3  # the cut is not a no-op


def test_slim_equals_masked_in_double_precision_to_twelve_digits():
    generator = trained_looking("resnet_6blocks", "batch").double()
    x = example_input(generator, 64)
    plan = find_channels(generator, x)
    alive = random_alive(plan, 1)
    assert difference(slim(generator, plan, alive), masked(generator, plan, alive), (x,)) < 1e-12


def test_slim_is_physical():
    generator = trained_looking("unet_128", "batch")
    x = example_input(generator, 128)
    plan = find_channels(generator, x)
    alive = random_alive(plan, 0)
    small = slim(generator, plan, alive)
    assert type(small) is type(generator)
    assert cost_of(small, x) == plan.cost(alive)  # what the plan promised is what is there
    assert list(small.state_dict()) == list(generator.state_dict())
    for module in small.modules():
        assert not hasattr(module, "parametrizations")
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels)
        elif isinstance(module, nn.ConvTranspose2d):
            assert module.weight.shape[:2] == (module.in_channels, module.out_channels)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.shape == module.running_mean.shape == (module.num_features,)
    assert sum(p.numel() for p in pickle.loads(pickle.dumps(small)).parameters()) < sum(
        p.numel() for p in generator.parameters()
    )


def test_affine_free_norms_follow_too():
    generator = trained_looking("resnet_6blocks", "instance")
    plan = find_channels(generator, example_input(generator, 32))
    small = slim(generator, plan, random_alive(plan, 0))
    widths = [m.num_features for m in small.modules() if isinstance(m, nn.InstanceNorm2d)]
    before = [m.num_features for m in generator.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert all(a < b for a, b in zip(widths, before))


def test_the_source_is_untouched_and_the_copy_trains():
    generator = trained_looking("resnet_6blocks", "instance")
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    x = example_input(generator, 32)
    plan = find_channels(generator, x)
    small = slim(generator, plan, random_alive(plan, 0))
    small(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
    assert all(torch.equal(t, before[n]) for n, t in generator.state_dict().items())
    assert all(p.grad is None for p in generator.parameters())


def test_inputs_are_moved_in_any_nesting():
    x = torch.rand(2)
    moved = on_device((x, {"more": [x, "a word"]}, 3), "meta")
    assert moved[0].device.type == moved[1]["more"][0].device.type == "meta"
    assert moved[1]["more"][1:] == ["a word"] and moved[2] == 3 and x.device.type == "cpu"


# -- as if it was cut ------------------------------------------------------------
@pytest.mark.parametrize("netG", ["resnet_6blocks", "unet_128", "mobile_resnet_6blocks"])
def test_narrowed_is_the_slim_generator_forth_and_back(netG):
    """Output, gradients and running statistics; nothing of it is left afterwards."""
    generator = trained_looking(netG, "batch").double()
    x = example_input(generator, SIZES[netG])
    x = torch.cat([x, x.flip(1)])
    plan = find_channels(generator, x)
    alive = random_alive(plan, 3)
    small = slim(generator, plan, alive)
    attributes = [{k: v for k, v in vars(m).items() if isinstance(v, int)} for m in generator.modules()]
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    torch.manual_seed(0)
    with narrowed(generator, plan, alive):
        output = generator(x)
    output.square().mean().backward()
    torch.manual_seed(0)
    expected = small(x)
    expected.square().mean().backward()
    assert torch.equal(output, expected)
    gradients = {name: parameter.grad for name, parameter in small.named_parameters()}
    statistics = small.state_dict()
    for name, parameter in generator.named_parameters():
        assert torch.equal(sliced(parameter.grad, plan, name, alive), gradients[name])
        outside = parameter.grad.abs().sum() - gradients[name].abs().sum()
        assert abs(outside) <= 1e-12 * gradients[name].abs().sum()
    for name, tensor in generator.state_dict().items():
        assert torch.equal(sliced(tensor, plan, name, alive), statistics[name])
    moved = {name for name, tensor in generator.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all("running" in name or "batches" in name for name in moved)
    assert attributes == [
        {k: v for k, v in vars(m).items() if isinstance(v, int)} for m in generator.modules()
    ]
    assert generator(x).shape == output.shape


def test_narrowed_ends_with_an_exception_too():
    generator = trained_looking("resnet_6blocks", "instance")
    x = example_input(generator, 32)
    plan = find_channels(generator, x)
    expected = generator.eval()(x)
    with pytest.raises(ZeroDivisionError), narrowed(generator, plan, random_alive(plan, 1)):
        raise ZeroDivisionError
    assert torch.equal(generator(x), expected)


@pytest.mark.parametrize("name", ["U-GAT-IT", "ConvNeXt", "nn.MultiheadAttention", "scaled dot product"])
def test_narrowed_generators_of_other_styles_compute_what_slim_ones_do(name):
    """With modules that go on at their dense width, corrected weights, and parameters that are listed."""
    torch.manual_seed(0)
    generator, x = STYLES[name].build().eval(), STYLES[name].example()
    x = x if isinstance(x, tuple) else (x,)
    plan = find_channels(generator, x)
    alive = random_alive(plan, 0, 0.6)
    small = slim(generator, plan, alive)
    with torch.no_grad():
        before = next(tensors_in(generator(*x)))
        with narrowed(generator, plan, alive):
            output = next(tensors_in(generator(*x)))
        assert torch.allclose(output, next(tensors_in(small(*x))), atol=1e-5)
        assert torch.equal(next(tensors_in(generator(*x))), before)
