"""A residual GAN as in SNGAN: the generator is compressed while a discriminator under spectral norm judges it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from coronet_plugin import Compression, bake_, find_channels, verify


class Up(nn.Module):
    """Residual block that doubles: batch norm before each convolution, a 1x1 convolution beside them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2.0))
        return self.conv2(F.relu(self.norm2(h))) + self.short(F.interpolate(x, scale_factor=2.0))


class Down(nn.Module):
    """Residual block that halves, every weight under spectral norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.short = (
            spectral_norm(nn.Conv2d(a, outputs, k, padding=k // 2)) for a, k in ((inputs, 3), (outputs, 3), (inputs, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(self.conv2(F.relu(self.conv1(F.relu(x)))), 2)
        return h + self.short(F.avg_pool2d(x, 2))


class Generator(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Linear(16, width * 16)
        self.blocks = nn.Sequential(Up(width, width), Up(width, width))
        self.last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(z).view(len(z), -1, 4, 4)))


def discriminator() -> nn.Module:
    return nn.Sequential(Down(3, 8), Down(8, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), spectral_norm(nn.Linear(16, 1)))


def test_the_generator_is_cut_exactly_while_the_discriminator_keeps_its_norms():
    torch.manual_seed(0)
    generator, judge, z = Generator(), discriminator(), torch.randn(4, 16)
    optimizer, other = (torch.optim.Adam(net.parameters(), 1e-3, betas=(0.0, 0.9)) for net in (generator, judge))
    compression = Compression(generator, z[:1], budget=0.25, search_steps=10).attach(optimizer)
    for _ in range(10):
        real, fake = torch.rand(4, 3, 16, 16) * 2 - 1, generator(torch.randn(4, 16))
        other.zero_grad()
        (F.relu(1 - judge(real)) + F.relu(1 + judge(fake.detach()))).mean().backward()
        other.step()
        optimizer.zero_grad()
        (-judge(fake).mean()).backward()
        optimizer.step()
        over = compression.step()
    assert over
    with torch.no_grad():
        before = generator.eval()(z)
        after = compression.slim().eval()(z)
    assert torch.allclose(after, before, atol=1e-5)
    assert 0.24 <= compression.remaining <= 0.25
    assert compression.plan.coverage() == 1
    assert any("parametrizations" in name for name in judge.state_dict())


def test_channels_of_such_a_discriminator_are_pinned_until_it_is_baked():
    torch.manual_seed(0)
    judge, image = discriminator(), torch.randn(2, 3, 16, 16)
    reasons = [s.pinned for s in find_channels(judge, image).sets if s.pinned]
    assert sum("spectral norm" in reason for reason in reasons) >= 3
    bake_(judge)
    plan = find_channels(judge, image)
    assert plan.coverage() == 1 and sum(s.channels for s in plan.prunable) == 8 + 8 + 16 + 16
    assert verify(judge, plan, image) == pytest.approx(0, abs=1e-4)
