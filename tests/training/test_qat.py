"""Quantization-aware training: rounding that changes no names, resumes exactly, and ends in plain files."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from conftest import paired_folder, run_train
from torch import nn

from coronet_plugin import load_generator
from coronet_plugin.fake_quantization import (
    activation_grid,
    on_weight_grid,
    output_axis,
    rounded_activation,
)
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.training.model_type import CompressedModel
from coronet_plugin.training.qat import FREEZE, Rounding

SMALL = ["--netG", "resnet_6blocks", "--ngf", 8, "--ndf", 4, "--load_size", 32, "--crop_size", 32]


def small(netG: str = "resnet_6blocks") -> nn.Module:
    torch.manual_seed(0)
    norm = "instance" if netG.startswith("resnet") else "batch"
    return build_generator(input_nc=3, output_nc=3, ngf=4, netG=netG, norm=norm)


def begun(net: nn.Module, steps: int) -> Rounding:
    rounding = Rounding(1, steps)
    rounding.generator = net
    rounding.finish()
    rounding.before_step(1)
    return rounding


def convolutions(net: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))}


@pytest.mark.parametrize("layer", [nn.Conv2d(5, 7, 3), nn.ConvTranspose2d(5, 7, 3, 2)])
def test_weights_are_129_steps_per_output_channel(layer):
    axis = output_axis(layer)
    assert layer.weight.shape[axis] == 7
    rounded = on_weight_grid(layer.weight, axis).detach()
    channels, before = rounded.movedim(axis, 0).flatten(1), layer.weight.detach().movedim(axis, 0).flatten(1)
    step = before.abs().amax(1, keepdim=True) / 64
    whole = channels / step
    assert torch.allclose(whole, whole.round(), atol=1e-3)  # float32, of numbers up to 64
    assert (channels - before).abs().le(step / 2 * 1.001).all()
    assert torch.equal(channels.abs().amax(1), (step * 64).flatten())
    again = on_weight_grid(rounded, axis)
    assert torch.allclose(again, rounded, rtol=1e-6)  # the step is recomputed from the largest weight


def test_gradients_pass_straight_through_and_stop_outside_the_range():
    weight = torch.randn(3, 4, requires_grad=True)
    on_weight_grid(weight, 0).sum().backward()
    assert torch.equal(weight.grad, torch.ones(3, 4))
    assert torch.equal(on_weight_grid(torch.zeros(2, 3), 0), torch.zeros(2, 3))  # a dead channel has no step


def test_zero_is_exact_in_every_activation_grid():
    for low, high in ((-1.0, 1.0), (0.0, 3.0), (2.0, 3.0), (-5.0, -1.0), (0.0, 0.0)):
        scale, zero_point = activation_grid(low, high)
        assert scale > 0 and 0 <= zero_point <= 255
    x = torch.cat([torch.zeros(3), torch.linspace(-0.3, 2, 50)])
    assert torch.equal(rounded_activation(x)[:3], torch.zeros(3))
    assert (rounded_activation(x) - x).abs().max() <= 2.3 / 255 * 0.51 + 1e-6


@pytest.mark.parametrize("netG", ["resnet_6blocks", "unet_128"])
def test_rounding_keeps_names_parameters_and_optimizer(netG):
    net = small(netG)
    names, parameters = list(net.state_dict()), list(net.parameters())
    rounding = begun(net, steps=4)
    assert list(net.state_dict()) == names and all(a is b for a, b in zip(net.parameters(), parameters))
    assert set(rounding.layers) == set(convolutions(net))
    output = net(torch.rand(2, 3, 128, 128) * 2 - 1)
    output.mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_rounded_output_is_near_and_not_equal():
    net, x = small(), torch.rand(1, 3, 32, 32) * 2 - 1
    plain = net(x)
    rounding = begun(net, steps=1)
    first = net(x)
    gap = float((first - plain).detach().abs().max())
    assert 0 < gap < 0.2  # some grey levels, through 17 norms
    net.eval()
    assert torch.equal(net(x), net(x))  # ranges stay as they are in evaluation mode
    released = rounding.release_()
    assert {type(m) for m in convolutions(released).values()} == {nn.Conv2d, nn.ConvTranspose2d}
    assert float((released(x) - first).detach().abs().max()) < 0.2


def test_ranges_follow_until_they_are_frozen():
    net = small()
    rounding = begun(net, steps=100)
    wide, narrow = torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, 3, 32, 32)
    assert rounding.facts()["ranges"] == {}
    net(wide)
    before = rounding.facts()["ranges"]["model.1"]["input"]
    net(3 * wide)
    moved = rounding.facts()["ranges"]["model.1"]["input"]
    assert moved[0] > before[0]
    rounding.before_step(round(FREEZE * 100) + 1)
    net(100 * wide), net(narrow)
    assert rounding.facts()["ranges"]["model.1"]["input"] == moved


def test_files_get_rounded_weights_and_training_keeps_its_own():
    net = small()
    rounding = begun(net, steps=2)
    before = copy.deepcopy(net.state_dict())
    with rounding.in_files():
        saved = copy.deepcopy(net.state_dict())
    assert all(torch.equal(net.state_dict()[k], before[k]) for k in before)
    for name, layer in convolutions(net).items():
        expected = on_weight_grid(before[f"{name}.weight"], output_axis(layer))
        assert torch.equal(saved[f"{name}.weight"], expected)
        assert not torch.equal(expected, before[f"{name}.weight"])


@pytest.fixture
def run(tmp_path):
    root = paired_folder(tmp_path, images=4, size=32)

    def go(name: str, *extra: object) -> int:
        return run_train(
            "--dataroot", root, "--name", name, "--checkpoints_dir", tmp_path / "c", "--model", "coronet",
            "--coronet_base", "pix2pix", *SMALL, "--display_id", -1, "--num_threads", 0, "--no_html", "--seed", 3,
            "--coronet_budget", 0.3, "--norm", "instance", "--no_dropout", "--coronet_search_epochs", 0.5, *extra,
        )  # fmt: skip

    return go


def test_training_ends_in_plain_files_on_the_grid(run, tmp_path, capsys):
    assert run("a", "--n_epochs", 2, "--n_epochs_decay", 0, "--coronet_qat", 1) == 0
    assert (
        "netG is trained for int8 from here on: 18 convolutions are rounded for 4 steps"
        in capsys.readouterr().out
    )
    file = tmp_path / "c" / "a" / "latest_net_G.pth"
    net = load_generator(file)
    for name, layer in convolutions(net).items():
        assert type(layer) in (nn.Conv2d, nn.ConvTranspose2d)
        rounded = on_weight_grid(layer.weight, output_axis(layer))
        assert torch.allclose(rounded, layer.weight, rtol=1e-6), name
    spec = json.loads(file.with_suffix(".json").read_text())
    ranges = spec["quantization"]["ranges"]
    assert set(ranges) == set(convolutions(net)) and spec["quantization"]["steps"] == 4
    assert all(scale > 0 and 0 <= zero <= 255 for ends in ranges.values() for scale, zero in ends.values())


NAMES = ("whole", "parts")


@pytest.mark.parametrize("form", [[], ["--coronet_hypernetwork", "implicit", "--coronet_rate_after", "keep"]])
def test_resumed_equals_uninterrupted(run, tmp_path, monkeypatch, form):
    options = ["--n_epochs", 3, "--n_epochs_decay", 0, "--coronet_qat", 2, *form]
    assert run("whole", *options) == 0
    step = CompressedModel.optimize_parameters

    class Stopped(Exception):
        pass

    def stop_in_epoch_3(self):
        if self.place.epochs_done == 2:
            raise Stopped
        step(self)

    monkeypatch.setattr(CompressedModel, "optimize_parameters", stop_in_epoch_3)
    with pytest.raises(Stopped):
        run("parts", *options, "--save_epoch_freq", 2)
    monkeypatch.undo()
    assert run("parts", *options, "--continue_train") == 0
    first, second = (torch.load(tmp_path / "c" / n / "latest_net_G.pth", weights_only=True) for n in NAMES)
    assert all(torch.equal(first[key], second[key]) for key in first)
    specs = [
        json.loads((tmp_path / "c" / n / "latest_net_G.json").read_text())["quantization"] for n in NAMES
    ]
    assert specs[0] == specs[1] and specs[0]["steps"] == specs[0]["of"] == 8


def test_rounding_must_wait_for_the_search(run, capsys):
    assert run("a", "--n_epochs", 1, "--n_epochs_decay", 0, "--coronet_qat", 0.75) == 2
    said = capsys.readouterr().err
    assert "--coronet_qat 0.75" in said and "at most 0.5" in said


def test_without_it_the_spec_says_nothing(run, tmp_path):
    run("a", "--n_epochs", 1, "--n_epochs_decay", 0)
    assert "quantization" not in json.loads((tmp_path / "c" / "a" / "latest_net_G.json").read_text())
