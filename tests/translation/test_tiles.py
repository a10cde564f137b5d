"""Pictures in tiles: blended without a seam, with the statistics of the whole picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_helpers import ARCHITECTURE
from torch import nn

from coronet_plugin.export.normalisation import normalised
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.translation.statistics import Moments, WholePicture
from coronet_plugin.translation.tiles import blended, grid, usual_overlap


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 90), st.integers(8, 90), st.integers(8, 40), st.integers(0, 30), st.sampled_from((1, 4))
)
def test_weights_of_all_tiles_sum_to_1_at_every_pixel(height, width, side, overlap, multiple):
    tile, overlap = (min(side, height), min(side, width)), min(overlap, side - 1, height - 1, width - 1)
    total, tiles = torch.zeros(height, width), grid((height, width), tile, overlap, multiple)
    for one in tiles:
        assert one.weights.shape == tile == one.size and one.weights.min() > 0
        one.of(total)[:] += one.weights
    assert torch.allclose(total, torch.ones(height, width), atol=1e-5)


def test_tiles_share_what_is_asked_and_begin_at_multiples():
    tops = sorted({tile.top for tile in grid((64, 64), (24, 24), 6, 4)})
    assert tops == [0, 16, 32, 40] and all(top % 4 == 0 for top in tops)
    assert sorted({tile.left for tile in grid((64, 100), (64, 64), 20, 64)}) == [
        0,
        36,
    ]  # steps of 44: no 64 fits


@pytest.mark.parametrize("scale", [1, 2])
def test_what_every_tile_gives_alike_has_no_seam(scale):
    picture = torch.rand(1, 3, 50, 70)
    enlarge = nn.Upsample(scale_factor=scale) if scale > 1 else nn.Identity()
    output = blended(lambda tile: enlarge(tile.of(picture)), grid((50, 70), (20, 32), 7), (50, 70))
    assert torch.allclose(output, enlarge(picture), atol=1e-5)


def deep(layers: int = 5) -> nn.Module:
    """Norms between layers that see one pixel, so that tiles lack nothing but statistics."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, 8, 1)]
    for number in range(layers):
        parts += [nn.InstanceNorm2d(8, affine=number % 2 == 0), nn.LeakyReLU(0.3), nn.Conv2d(8, 8, 1)]
    for norm in parts:
        if isinstance(norm, nn.InstanceNorm2d) and norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
    return nn.Sequential(*parts, nn.Conv2d(8, 3, 1), nn.Tanh()).eval()


def uneven(height: int = 48, width: int = 64) -> torch.Tensor:
    """A picture whose parts have other means and deviations than the whole."""
    ramp = torch.linspace(-0.8, 0.8, width).expand(height, width)
    torch.manual_seed(1)
    return (ramp + 0.3 * torch.rand(1, 3, height, width) * torch.linspace(0, 1, height)[:, None]).clamp(-1, 1)


def test_statistics_of_the_whole_picture():
    generator, picture, tiles = deep(), uneven(), grid((48, 64), (16, 16), 5)
    with torch.no_grad():
        whole = generator(picture)
        alone = blended(lambda tile: generator(tile.of(picture)), tiles, (48, 64))
    assert (alone - whole).abs().max() > 0.3  # what it is against
    translator = WholePicture(generator)
    for _ in range(2):  # nothing of the picture before is left
        assert torch.allclose(translator.translate(picture, tiles), whole, atol=2e-5)
        other = WholePicture(generator).translate(-picture, tiles)
        assert torch.equal(translator.translate(-picture, tiles), other)


def test_a_norm_that_is_used_twice_has_the_statistics_of_both_places():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.layer(self.norm(x).relu()))

    generator, tiles = Twice(), grid((48, 64), (32, 32), 5)
    with torch.no_grad():
        assert torch.allclose(
            WholePicture(generator).translate(uneven(), tiles), generator(uneven()), atol=2e-5
        )


def test_a_generator_without_norms():
    generator, tiles = nn.Conv2d(3, 3, 1), grid((48, 64), (16, 16), 5)
    with torch.no_grad():
        assert torch.allclose(
            WholePicture(generator).translate(uneven(), tiles), generator(uneven()), atol=1e-5
        )


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_resnet_in_tiles(norm):
    """Norms of the picture bring tiles much closer to the whole, and the generator itself is not changed."""
    torch.manual_seed(3)
    net = normalised(build_generator(**{**ARCHITECTURE, "norm": norm}), "batch")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    picture = uneven(96, 128)
    tiles = grid((96, 128), (64, 64), usual_overlap((64, 64), 4), 4)
    with torch.no_grad():
        whole = net(picture)
        alone = blended(lambda tile: net(tile.of(picture)), tiles, (96, 128))
        again = WholePicture(net).translate(picture, tiles)
        assert (again - whole).abs().mean() < 0.5 * (alone - whole).abs().mean()
        assert torch.equal(net(picture), whole)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_moments_of_parts_are_those_of_the_whole():
    x = torch.randn(1, 4, 6, 10, dtype=torch.double) * 3 + 100
    parts = [Moments.of(x[..., part], torch.ones(6, 5)) for part in (slice(0, 5), slice(5, 10))]
    found = parts[0] + parts[1]
    assert torch.allclose(found.mean, x[0].mean((1, 2)))
    assert torch.allclose(found.variance, x[0].var((1, 2), unbiased=False))
