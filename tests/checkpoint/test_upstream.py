"""Weight files of other versions: made to fit, or refused with the option that is wrong."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import nn

from coronet_plugin.checkpoint.upstream import adapt_state_dict, read_state_dict
from coronet_plugin.errors import CheckpointError
from coronet_plugin.generators.resnet import has_dropout_slot
from coronet_plugin.generators.stock import build_generator
from models import networks


def resnet(norm="instance", use_dropout=False, ngf=4, **changed) -> nn.Module:
    settings = {"input_nc": 3, "output_nc": 3, "ngf": ngf, "netG": "resnet_6blocks", **changed}
    return build_generator(**settings, norm=norm, use_dropout=use_dropout).eval()


def unet(netG="unet_128", output_nc=3) -> nn.Module:
    return build_generator(3, output_nc, 4, netG)


def judge(netD: str, ndf: int = 4) -> nn.Module:
    return networks.define_D(6, ndf, netD, n_layers_D=2)


def same_function(first: nn.Module, second: nn.Module) -> bool:
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        return torch.equal(first(x), second(x))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_prefixes_are_stripped(prefix):
    source, net = resnet(), resnet()
    net.load_state_dict(adapt_state_dict({prefix + k: v for k, v in source.state_dict().items()}, net))
    assert same_function(source, net)


def test_a_prefix_that_is_the_networks_own_stays():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Conv2d(1, 1, 1)

    net = Wrapped()
    assert adapt_state_dict(net.state_dict(), net).keys() == net.state_dict().keys()
    twice = {f"module.{key}": value for key, value in net.state_dict().items()}
    assert adapt_state_dict(twice, net).keys() == net.state_dict().keys()


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("made_with", [True, False])
def test_dropout_slot_is_moved_both_ways(norm, made_with):
    source, net = resnet(norm, made_with), resnet(norm, not made_with)
    assert has_dropout_slot(source.state_dict()) is made_with
    assert source.state_dict().keys() != net.state_dict().keys()
    net.load_state_dict(adapt_state_dict(source.state_dict(), net))
    assert same_function(source, net)


def test_dropout_is_unknown_for_unets():
    assert has_dropout_slot(build_generator(3, 3, 4, "unet_128").state_dict()) is None


def with_old_statistics(net: nn.Module) -> dict[str, torch.Tensor]:
    """The state as written in 2018: instance norms with running statistics."""
    state = dict(net.state_dict())
    for name, module in net.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            state[f"{name}.running_mean"] = torch.zeros(module.num_features)
            state[f"{name}.running_var"] = torch.ones(module.num_features)
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return state


@pytest.mark.parametrize("use_dropout", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_old_instance_norm_statistics_are_dropped(use_dropout, prefix):
    source, net = resnet(use_dropout=True), resnet(use_dropout=use_dropout)
    old = {prefix + key: value for key, value in with_old_statistics(source).items()}
    net.load_state_dict(adapt_state_dict(old, net))
    assert same_function(source, net)


def test_instance_norm_with_scale_loses_only_its_statistics():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2, affine=True))
    adapted = adapt_state_dict(with_old_statistics(net), net)
    assert adapted.keys() == net.state_dict().keys()


def test_statistics_stay_where_the_network_keeps_them():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2, track_running_stats=True))
    state = {key: value + 3 for key, value in net.state_dict().items()}
    assert torch.equal(adapt_state_dict(state, net)["1.running_mean"], torch.full((2,), 3.0))


def test_batch_norm_files_before_num_batches_tracked():
    source, net = resnet("batch"), resnet("batch")
    old = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    net.load_state_dict(adapt_state_dict(old, net))
    assert same_function(source, net)


def test_nothing_given_is_changed():
    source, net = resnet(), resnet()
    state = {f"module.{key}": value for key, value in with_old_statistics(source).items()}
    before, weights = list(state), net.state_dict()["model.1.weight"].clone()
    adapt_state_dict(state, net)
    assert list(state) == before
    assert torch.equal(net.state_dict()["model.1.weight"], weights)


@pytest.mark.parametrize(
    ("made", "wanted", "advice"),
    [
        (resnet(netG="resnet_9blocks"), resnet(), "9 blocks.*6 blocks.*--netG"),
        (unet(), resnet(), "U-Net.*ResNet.*--netG"),
        (unet(), unet("unet_256"), "7 levels.*8 levels.*--netG"),
        (resnet("batch"), resnet("instance"), "batch norm.*instance norm.*--norm"),
        (resnet("instance"), resnet("none"), "instance norm.*no norm.*--norm"),
        (resnet("none", use_dropout=True), resnet("batch"), "no norm.*batch norm.*--norm"),
        (resnet(ngf=8), resnet(ngf=4), "the file fits --ngf 8$"),
        (resnet(input_nc=1), resnet(), "--input_nc 1$"),
        (resnet(output_nc=1), resnet(), "--output_nc 1$"),
        (resnet(input_nc=1, output_nc=2, ngf=8), resnet(), "--ngf 8 and --input_nc 1 and --output_nc 2$"),
        (unet(output_nc=1), unet(), "--output_nc 1$"),
        (judge("basic"), judge("n_layers"), "3 layers.*2 layers.*n_layers_D"),
        (judge("pixel"), judge("basic"), "pixel.*PatchGAN.*--netD"),
        (judge("basic", 8), judge("basic"), "--ndf 8$"),
    ],
)
def test_what_cannot_fit_names_the_option(made, wanted, advice):
    with pytest.raises(CheckpointError, match=advice) as caught:
        adapt_state_dict(made.state_dict(), wanted)
    assert "\n" not in str(caught.value)


def test_a_slimmed_file_says_so():
    state = resnet().state_dict()
    key = "model.10.conv_block.1.weight"
    state[key] = state[key][:-1]
    with pytest.raises(CheckpointError, match=r"slim generator.*--model coronet"):
        adapt_state_dict(state, resnet())


def test_reading_back_what_was_written(tmp_path):
    state = {"a": torch.ones(2), "b": torch.tensor(3)}
    for number, content in enumerate((state, {"state_dict": state, "epoch": 3})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert torch.equal(read_state_dict(tmp_path / f"{number}.pth")["a"], state["a"])
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(tmp_path / "old.pth")["a"], state["a"])


def test_missing_file_names_its_neighbours(tmp_path):
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_state_dict(tmp_path / "latest_net_G.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "latest_net_G_A.pth")
    with pytest.raises(CheckpointError, match=r"latest_net_G\.pth is not there.*has latest_net_G_A\.pth"):
        read_state_dict(tmp_path / "latest_net_G.pth")


def test_damaged_and_unsafe_files_are_one_line(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:700])
    (tmp_path / "text.pth").write_text("<html>")
    torch.save({"opt": argparse.Namespace(lr=1)}, tmp_path / "pickle.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    for name in ("cut", "text", "pickle", "list"):
        with pytest.raises(CheckpointError, match=f"{name}.pth") as caught:
            read_state_dict(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
