"""Channel sets of the stock generators and of blocks that are easily got wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import PlanError, example_input, find_channels, verify
from coronet_plugin.generators import build_generator


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


class Block(nn.Module):
    """A small generator around ``inner``, a function of the module and its features."""

    def __init__(self, inner, **layers):
        super().__init__()
        self.head = nn.Conv2d(3, 16, 3, padding=1)
        self.tail = nn.Conv2d(16, 3, 3, padding=1)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.inner = inner

    def forward(self, x):
        return torch.tanh(self.tail(self.inner(self, torch.relu(self.head(x)))))


def conv(inputs, outputs, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def squeeze_excite(m, h):
    gate = m.up(torch.relu(m.down(h.mean((2, 3)))))
    return h * torch.sigmoid(gate).view(h.shape[0], -1, 1, 1)


UNDERSTOOD = {
    "depthwise": (lambda m, h: m.point(m.depth(h)), {"depth": conv(16, 16, groups=16), "point": conv(16, 16, 1)}),
    "grouped": (lambda m, h: m.group(h), {"group": conv(16, 16, groups=4)}),
    "group norm": (lambda m, h: m.norm(m.a(h)), {"a": conv(16, 16), "norm": nn.GroupNorm(4, 16)}),
    "pixel shuffle": (lambda m, h: m.a(nn.functional.pixel_shuffle(m.up(h), 2)), {"up": conv(16, 64), "a": conv(16, 16)}),
    "chunk gate": (lambda m, h: torch.mul(*m.a(h).chunk(2, 1)), {"a": conv(16, 32)}),
    "squeeze and excite": (squeeze_excite, {"down": nn.Linear(16, 4), "up": nn.Linear(4, 16)}),
    "called twice": (lambda m, h: m.a(torch.relu(m.a(h))), {"a": conv(16, 16)}),
    "channel parameter": (lambda m, h: h * m.scale, {"scale": nn.Parameter(torch.randn(1, 16, 1, 1))}),
    "prelu": (lambda m, h: m.act(m.a(h)), {"a": conv(16, 16), "act": nn.PReLU(16)}),
    "in-place after norm": (
        lambda m, h: torch.relu_(m.norm(m.a(h))),
        {"a": conv(16, 16), "norm": nn.InstanceNorm2d(16, affine=True, track_running_stats=True)},
    ),
    "transposed, grouped": (
        lambda m, h: m.up(h),
        {"up": nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_blocks_that_are_understood_are_pruned_and_exact(name):
    torch.manual_seed(0)
    inner, layers = UNDERSTOOD[name]
    generator = Block(inner, **layers)
    x = torch.randn(2, 3, 8, 8)
    plan = find_channels(generator, x)
    assert plan.units > 0
    assert verify(generator, plan, x) < 1e-5


PINNED = {
    "image added to features": lambda m, h: h + h.new_ones(1, 3, 1, 1).repeat(1, 6, 1, 1)[:, :16],
    "softmax over channels": lambda m, h: h.softmax(1),
    "mean over channels": lambda m, h: h - h.mean(1, keepdim=True),
    "channels picked by index": lambda m, h: torch.cat([h[:, :4], h[:, 4:]], 1),
    "flipped channels": lambda m, h: h.flip(1),
}


@pytest.mark.parametrize("name", PINNED)
def test_what_is_not_understood_is_pinned_with_a_reason(name):
    generator = Block(PINNED[name])
    plan = find_channels(generator, torch.randn(1, 3, 8, 8))
    assert plan.units == 0
    (head,) = [s for s in plan.sets if s.name == "head"]
    assert head.pinned and len(head.pinned) > 10


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
        find_channels(Block(lambda m, h: h), torch.randn(1, 4, 8, 8))


def test_verification_refuses_a_wrong_plan():
    generator, plan = plan_of("resnet_6blocks", ngf=16, size=32)
    wrong = plan.slices["model.4.weight"][1]
    wrong[:] = np.roll(wrong, 1)  # off by one: what a wrong concatenation offset does
    with pytest.raises(PlanError, match="ResnetGenerator"):
        verify(generator, plan, example_input(generator, 32))
