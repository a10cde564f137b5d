"""Separable ResNets: the layout, counts and files of GAN Compression."""

from __future__ import annotations

import pytest
import torch

from coronet_plugin import OptionError, cost_of, example_input
from coronet_plugin.checkpoint.upstream import recognise_generator
from coronet_plugin.cli import main
from coronet_plugin.generators.registry import family_named
from coronet_plugin.generators.resnet import SubConfig
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.runs.opener import read_generator

PUBLISHED = {
    # parameters, MACs at output positions in G, true ones
    "16_16_32_16_32_32_16_16": (356_867, 2.525, 1.846),
    "16_16_24_16_32_64_16_24": (355_235, 2.618, 1.939),
    "32_32_48_32_48_48_16_16": (822_051, 4.962, 4.056),
}
"""Generators that GAN Compression's README offers, which gives 2.55 G and .357 M, 2.64 G and .355 M, 4.99 G and
.822 M (its counter adds norms)."""
DENSE = {64: (1_987_075, 18.314), 48: (1_130_883, 10.565), 32: (514_307, 4.929), 16: (137_347, 1.408)}


def sub(config_str: str, norm: str = "instance") -> torch.nn.Module:
    return family_named("sub_mobile_resnet_9blocks").build(SubConfig(config_str=config_str, norm=norm))


@pytest.mark.parametrize("config_str", PUBLISHED)
def test_published_widths_have_their_parameters_and_macs(config_str):
    parameters, literature, true = PUBLISHED[config_str]
    net = sub(config_str)
    cost = cost_of(net, example_input(net, 256))
    assert cost.parameters == parameters
    assert round(cost.macs_literature / 1e9, 3) == literature and round(cost.macs / 1e9, 3) == true


@pytest.mark.parametrize("ngf", DENSE)
def test_uniform_widths_have_their_parameters_and_macs(ngf):
    net = build_generator(3, 3, ngf, "mobile_resnet_9blocks", "instance")
    cost = cost_of(net, example_input(net, 256))
    assert (cost.parameters, round(cost.macs_literature / 1e9, 3)) == DENSE[ngf]
    same = sub("_".join([str(ngf)] * 8)).state_dict()
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in same.items()}


def test_keys_are_those_of_gan_compression():
    keys = list(build_generator(3, 3, 4, "mobile_resnet_9blocks", "instance", use_dropout=True).state_dict())
    assert keys == list(build_generator(3, 3, 4, "mobile_resnet_9blocks", "instance").state_dict())
    block = [key for key in keys if key.startswith("model.10.") and key.endswith("weight")]
    assert block == [
        f"model.10.conv_block.{place}.conv.{layer}.weight" for place in (1, 6) for layer in (0, 2)
    ]
    outside = [key for key in keys if "conv_block" not in key and key.endswith("weight")]
    assert outside == [f"model.{place}.weight" for place in (1, 4, 7, 19, 22, 26)]


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_compressed_file_says_its_widths(norm, tmp_path, capsys):
    widths = "8_12_20_16_24_4_6_9"
    net = sub(widths, norm)
    family, config = recognise_generator(net.state_dict(), {})
    assert (family.name, config.config_str, config.norm) == ("sub_mobile_resnet_9blocks", widths, norm)
    torch.save(net.state_dict(), tmp_path / "latest_net_G.pth")
    opened = read_generator("G", tmp_path / "latest_net_G.pth").generator.eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(opened(x), net.eval()(x))
    assert main(["inspect", str(tmp_path / "latest_net_G.pth"), "--size", "64"]) == 0
    assert f"widths {widths}, 3 to 3 channels, {norm} norm" in capsys.readouterr().out


def test_a_dense_file_is_of_the_dense_family():
    for name in ("mobile_resnet_9blocks", "mobile_resnet_6blocks", "resnet_9blocks"):
        state = build_generator(3, 1, 12, name, "instance").state_dict()
        family, config = recognise_generator(state, {})
        assert (family.name, config.ngf, config.output_nc) == (name, 12, 1)


def test_a_block_computes_depth_first_then_channels():
    net = build_generator(3, 3, 4, "mobile_resnet_6blocks", "none").eval()
    block, x = net.model[10], torch.randn(1, 16, 9, 9)
    state = block.state_dict()
    y = x
    for place in (1, 6):
        padded = torch.nn.functional.pad(y, (1, 1, 1, 1), mode="reflect")
        one, all_ = (state[f"conv_block.{place}.conv.{layer}.weight"] for layer in (0, 2))
        alone = [torch.nn.functional.conv2d(padded[:, i : i + 1], one[i : i + 1]) for i in range(16)]
        y = torch.einsum("oi,nihw->nohw", all_[:, :, 0, 0], torch.cat(alone, 1))
        y = torch.relu(y) if place == 1 else y
    assert torch.allclose(block(x), x + y, atol=1e-6)


@pytest.mark.parametrize("text", ["16_16", "0_1_1_1_1_1_1_1", "a", "99999_1_1_1_1_1_1_1"])
def test_other_texts_are_no_widths(text):
    with pytest.raises(OptionError, match="expected eight widths"):
        SubConfig(config_str=text)
