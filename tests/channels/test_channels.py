"""Channel sets of the stock generators and of blocks that are easily got wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import OptionError, PlanError, example_input, find_channels, slim, verify
from coronet_plugin.channels.cut import masked
from coronet_plugin.channels.find import units_of_features
from coronet_plugin.generators.stock import build_generator


def plan_of(netG: str, norm: str = "instance", ngf: int = 4, size: int = 64, dropout: bool = False):
    torch.manual_seed(0)
    generator = build_generator(3, 3, ngf, netG, norm, dropout)
    return generator, find_channels(generator, example_input(generator, size))


def test_resnet_has_one_set_for_the_residual_stream_and_one_inside_each_block():
    _, plan = plan_of("resnet_9blocks")
    assert len(plan.prunable) == 14  # two stems, stream, nine blocks, two upsamplers (docs/method.md)
    stream = plan.prunable[2]
    assert stream.producers[0] == "model.7"
    assert len(stream.producers) == 10 and len(stream.consumers) == 10
    assert all(len(s.producers) == 1 for s in plan.prunable if s is not stream)
    assert [s.pinned for s in plan.sets if s.pinned] == ["it is the generator's output"]


def test_unet_concatenation_gives_encoder_and_decoder_their_own_sets():
    _, plan = plan_of("unet_256", "batch", size=256)
    assert len(plan.prunable) == 15
    outermost = plan.slices["model.model.3.weight"][0]
    encoder, decoder = plan.prunable[0], plan.prunable[-1]
    assert outermost.tolist() == [
        *range(encoder.start, encoder.start + encoder.units),
        *range(decoder.start, decoder.start + decoder.units),
    ]


@pytest.mark.parametrize("netG", ["resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_every_stock_generator_is_covered_and_verified(netG, norm):
    size = {"unet_256": 256, "unet_128": 128}.get(netG, 32)
    generator, plan = plan_of(netG, norm, size=size, dropout=norm == "batch")
    assert plan.coverage() == 1.0
    assert verify(generator, plan, example_input(generator, size)) < 1e-4


def test_finding_channels_leaves_the_generator_as_it_was():
    generator = build_generator(3, 3, 4, "resnet_6blocks", "batch", True)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    random_state = torch.get_rng_state()
    find_channels(generator, example_input(generator, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert generator.training and all(module.training for module in generator.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in generator.modules())


def conv(inputs, outputs, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def test_features_added_to_the_input_image_are_pinned():
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    plan = find_channels(Residual(conv(3, 3), nn.Tanh()), torch.randn(1, 3, 8, 8))
    assert plan.units == 0 and plan.sets[0].pinned


def test_a_forward_that_runs_other_layers_than_its_own_is_refused():
    generator = nn.Sequential(conv(3, 16), conv(16, 3))
    generator.forward = lambda x: generator[1](generator[0](x))  # a copy would still run these
    with pytest.raises(PlanError, match="none of its own layers"):
        find_channels(generator, torch.randn(1, 3, 8, 8))


def test_concatenation_with_the_image_keeps_the_offset():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 16), conv(19, 3)

        def forward(self, x):
            return self.b(torch.cat([x, self.a(x)], 1))

    generator = Net()
    plan = find_channels(generator, torch.randn(1, 3, 8, 8))
    assert plan.slices["b.weight"][1].tolist() == [-1, -1, -1, *range(16)]
    assert verify(generator, plan, torch.randn(1, 3, 8, 8)) < 1e-5


def test_a_generator_that_does_not_run_is_an_error_with_the_shape():
    with pytest.raises(PlanError, match=r"\(1, 4, 8, 8\)"):
        find_channels(conv(3, 3), torch.randn(1, 4, 8, 8))


class Halving(nn.Module):
    """A U-Net of one's own: halves three times, and joins what went in to what comes up."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(*(conv(3 if i == 0 else 4, 4, stride=2) for i in range(3)))
        self.up, self.last = nn.Upsample(scale_factor=8), conv(7, 3)

    def forward(self, x):
        return self.last(torch.cat([x, self.up(self.down(x))], 1))


@pytest.mark.parametrize(
    ("size", "nearest"), [((20, 16), "16x16 or 16x24"), ((5, 5), "8x8"), ((9, 33), "32x8 or 40x16")]
)
def test_a_size_that_cannot_be_halved_often_enough_comes_with_the_nearest_that_can(size, nearest):
    said = f"Halving takes images with sides of multiples of 8 pixels, and got {size[1]}x{size[0]}; the nearest that work: {nearest};"
    with pytest.raises(PlanError, match=said):
        find_channels(Halving(), torch.zeros(1, 3, *size))


def test_what_is_merely_too_small_is_not_taken_for_a_matter_of_multiples():
    with pytest.raises(PlanError, match=r"does not run on an example of shape \[\(1, 3, 5, 5\)\]"):
        find_channels(nn.Sequential(nn.Conv2d(3, 4, 11), conv(4, 3)), torch.zeros(1, 3, 5, 5))


def test_pinning_a_set_leaves_the_others_as_they_were():
    generator, plan = plan_of("resnet_6blocks")
    stream = plan.prunable[2]
    pinned = plan.pin(stream.name, "because")
    assert [s.name for s in pinned.sets] == [s.name for s in plan.sets]
    assert [s.name for s in pinned.prunable] == [s.name for s in plan.prunable if s is not stream]
    assert pinned.units == plan.units - stream.units
    assert next(s for s in pinned.sets if s.name == stream.name).pinned == "because"
    assert pinned.cost() == plan.cost()
    ones = np.zeros(pinned.units, dtype=bool)
    ones[[s.start for s in pinned.prunable]] = True
    assert pinned.cost(ones).parameters == sum(p.numel() for p in slim(generator, pinned, ones).parameters())
    assert verify(generator, pinned, example_input(generator, 64)) < 1e-4


def test_channels_in_one_unit_are_pinned_because_there_is_nothing_to_choose():
    generator = nn.Sequential(conv(3, 16), nn.PixelShuffle(4), conv(1, 3))
    plan = find_channels(generator, torch.randn(1, 3, 8, 8))
    assert plan.units == 0
    assert plan.sets[0].channels == 16 and "only be removed together" in plan.sets[0].pinned


def test_hidden_channels_of_the_stock_generators_are_all_prunable():
    for netG in ("resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"):
        _, plan = plan_of(netG, size=256 if netG == "unet_256" else 128)
        hidden = sum(s.channels * len(s.producers) for s in plan.sets if "output" not in (s.pinned or ""))
        prunable = sum(s.channels * len(s.producers) for s in plan.prunable)
        assert prunable == hidden > 0


@pytest.mark.parametrize(
    ("netG", "names"),
    [
        ("mobile_resnet_6blocks", ["model.3", "model.9", "model.11", "model.15"]),
        ("unet_128", ["model.model.1", "model.model.1.model.3"]),
    ],
)
def test_units_of_features_are_what_a_cut_leaves_of_them(netG, names):
    """Against the slim generator's own features, in their order."""
    size = 128 if netG == "unet_128" else 32
    generator, x = build_generator(3, 3, 8, netG, "instance").eval(), torch.randn(1, 3, size, size)
    plan = find_channels(generator, x)
    found = units_of_features(generator, plan, (x,), names)
    alive = np.random.default_rng(0).random(plan.units) < 0.6
    alive[[s.start for s in plan.prunable]] = True
    small, reference = slim(generator, plan, alive), masked(generator, plan, alive)
    features = {}
    for net in (small, reference):
        for name in names:
            keep = lambda _, __, output, key=(net, name): features.update({key: output.clone()})  # noqa: E731
            net.get_submodule(name).register_forward_hook(keep)
        with torch.no_grad():
            net(x)
    for name in names:
        kept = np.append(alive, True)[found[name]]
        assert 0 < kept.sum() < len(kept)
        assert torch.allclose(
            features[small, name], features[reference, name][:, torch.from_numpy(kept)], atol=1e-4
        )


def test_features_of_no_layer_are_one_line():
    generator, x = build_generator(3, 3, 4, "resnet_6blocks", "instance"), torch.randn(1, 3, 32, 32)
    with pytest.raises(OptionError, match="no layer 'model.99' whose channels are known; it has model.0"):
        units_of_features(generator, find_channels(generator, x), (x,), ["model.99"])
