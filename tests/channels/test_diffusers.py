"""The classes of diffusers, searched, cut, saved and loaded; the time it takes to find the channels of a large one."""

from __future__ import annotations

import time

import pytest
import torch
from generator_styles import STYLES
from torch import nn

from coronet_plugin import Compression, find_channels, load_generator

pytest.importorskip("diffusers")


@pytest.mark.parametrize("name", ["diffusers UNet2DModel", "diffusers AutoencoderKL"])
def test_it_is_cut_exactly_within_the_budget_and_loads_again(tmp_path, name):
    style = STYLES[name]
    generator, inputs = style.build(), style.inputs()
    optimizer = torch.optim.Adam(generator.parameters(), 1e-4)
    compression = Compression(generator, inputs, budget=0.4, search_steps=8).attach(optimizer)
    for _ in range(8):
        optimizer.zero_grad()
        generator(*inputs).square().mean().backward()
        optimizer.step()
        if compression.step():
            with torch.no_grad():
                before = generator(*inputs)
                after = compression.slim()(*inputs)
            assert torch.allclose(after, before, atol=1e-5 * float(before.abs().max()) + 1e-6)
    assert compression.remaining <= 0.4
    compression.save(tmp_path / "latest_net_G.pth")
    assert torch.equal(
        load_generator(tmp_path / "latest_net_G.pth", style.build)(*inputs), generator(*inputs)
    )


@pytest.mark.slow
def test_channels_of_a_large_unet_are_found_in_seconds():
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
    )

    class Sampled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, steps):
            return self.net(x, steps).sample

    assert sum(p.numel() for p in net.parameters()) > 35e6
    started = time.process_time()  # on how many threads ever: other work does not count
    plan = find_channels(Sampled(), (torch.randn(1, 3, 32, 32), torch.tensor([10])))
    assert time.process_time() - started < 5
    assert plan.coverage() == 1 and [s.name for s in plan.sets if s.pinned] == ["net.conv_out"]
