"""Generators: upstream's keys and shapes, and what the layers compute."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import FACTS
from torch import nn

from coronet_plugin.errors import OptionError
from coronet_plugin.generators.resnet import ResnetBlock, ResnetGenerator
from coronet_plugin.generators.stock import build_generator, get_norm_layer
from coronet_plugin.generators.unet import UnetGenerator, UnetSkipConnectionBlock

STOCK = (
    "resnet_9blocks",
    "resnet_6blocks",
    "unet_128",
    "unet_256",
    "mobile_resnet_9blocks",
    "mobile_resnet_6blocks",
    "cut_resnet_4blocks",
)
KNOWN = json.loads((FACTS / "state_dicts.json").read_text())["generators"]


@pytest.mark.parametrize("case", KNOWN)
def test_keys_order_and_shapes_are_upstreams(case):
    facts = dict(part.split("=") for part in case.split())
    with torch.device("meta"):
        net = build_generator(3, 3, 64, facts["netG"], facts["norm"], facts["dropout"] == "True")
    found = {key: list(tensor.shape) for key, tensor in net.state_dict().items()}
    assert found == KNOWN[case]
    assert list(found) == list(KNOWN[case])


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("netG", STOCK)
def test_output_has_the_size_of_the_input_and_is_in_range(netG, norm):
    net = build_generator(1, 2, 4, netG, norm).eval()
    height, width = (256, 256) if netG == "unet_256" else (128, 256)
    with torch.no_grad():
        output = net(torch.randn(2, 1, height, width) * 10)
    assert output.shape == (2, 2, height, width)
    assert output.abs().max() <= 1
    assert output.std() > 0


def test_unknown_names_list_the_known_ones():
    with pytest.raises(OptionError, match="resnet_7blocks.*resnet_9blocks.*unet_256"):
        build_generator(3, 3, 4, "resnet_7blocks")
    with pytest.raises(OptionError, match="layer.*batch, instance, none"):
        get_norm_layer("layer")
    with pytest.raises(OptionError, match="mirror.*reflect"):
        ResnetBlock(4, "mirror", nn.BatchNorm2d, False, True)


def test_resnet_block_adds_its_input():
    block = ResnetBlock(4, "reflect", get_norm_layer("none"), use_dropout=False, use_bias=True)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_padding_decides_the_border_and_the_keys():
    kinds = ("reflect", "replicate", "zero")
    blocks = {kind: ResnetBlock(2, kind, get_norm_layer("none"), False, True) for kind in kinds}
    assert [k for k in blocks["zero"].state_dict() if k.endswith("weight")] == [
        "conv_block.0.weight",
        "conv_block.3.weight",
    ]
    convolutions = {kind: [m for m in b.modules() if isinstance(m, nn.Conv2d)] for kind, b in blocks.items()}
    for mine, source in zip(zip(convolutions["zero"], convolutions["replicate"]), convolutions["reflect"]):
        for conv in mine:
            conv.load_state_dict(source.state_dict())
    x = torch.randn(1, 2, 8, 8)
    outputs = {kind: block(x) for kind, block in blocks.items()}
    for kind in ("replicate", "zero"):
        assert torch.allclose(outputs[kind][..., 2:-2, 2:-2], outputs["reflect"][..., 2:-2, 2:-2], atol=1e-6)
        assert not torch.allclose(outputs[kind], outputs["reflect"])


def test_skip_carries_the_activated_input_before_what_comes_up():
    block = UnetSkipConnectionBlock(4, 8, innermost=True, norm_layer=get_norm_layer("instance"))
    x = torch.randn(1, 4, 4, 4)
    activated = torch.nn.functional.leaky_relu(x, 0.2)
    output = block(x.clone())
    assert torch.equal(output[:, :4], activated)
    up = block.model[3](torch.relu(block.model[1](activated)))
    assert torch.allclose(output[:, 4:], torch.nn.functional.instance_norm(up), atol=1e-6)


def test_dropout_is_where_upstream_has_it():
    nets = {name: build_generator(3, 3, 4, name, use_dropout=True) for name in STOCK}
    count = {name: sum(isinstance(m, nn.Dropout) for m in net.modules()) for name, net in nets.items()}
    assert [*count.values()] == [9, 6, 2, 3, 9, 6, 4]


def test_constructors_are_upstreams():
    resnet = ResnetGenerator(3, 1, 4, nn.InstanceNorm2d, True, 2, "replicate")
    assert sum(isinstance(m, ResnetBlock) for m in resnet.modules()) == 2
    assert any(isinstance(m, nn.ReplicationPad2d) for m in resnet.modules())
    unet = UnetGenerator(3, 1, 5, 4, nn.BatchNorm2d, True)
    assert unet(torch.randn(2, 3, 32, 32)).shape == (2, 1, 32, 32)
    assert UnetGenerator(3, 3, 6).model.model[0].out_channels == 64


@pytest.mark.parametrize("netG", ["resnet_6blocks", "unet_128"])
def test_forward_goes_by_parameters_not_by_the_widths_it_was_made_with(netG):
    torch.manual_seed(0)
    wide, narrow = (build_generator(3, 3, ngf, netG, "batch").eval() for ngf in (8, 4))
    tensors = narrow.state_dict()
    for name, tensor in wide.state_dict(keep_vars=True).items():
        tensor.data = tensors[name].clone()
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(wide(x), narrow(x))
