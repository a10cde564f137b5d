"""Weight files of other code bases: loaded where the class is upstream's, else it is said whose they are."""

from __future__ import annotations

import pytest
import torch
from conftest import paired_folder, run_train
from torch import nn

from coronet_plugin.cli import main
from coronet_plugin.generators.stock import build_generator


def block(width: int) -> nn.Module:
    """A residual block by the names that all of them share."""
    holder = nn.Module()
    pad, relu = nn.ReflectionPad2d(1), nn.ReLU()
    convs = [nn.Conv2d(width, width, 3) for _ in range(2)]
    holder.conv_block = nn.Sequential(pad, convs[0], nn.Identity(), relu, nn.ReflectionPad2d(1), convs[1])
    return holder


def row(*layers: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors of layers in one row, as ResNet generators have them."""
    holder = nn.Module()
    holder.model = nn.Sequential(*layers)
    return holder.state_dict()


def down(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, 2 * width, 3), nn.Identity(), nn.ReLU()]


def global_generator() -> dict[str, torch.Tensor]:
    first = [nn.ReflectionPad2d(3), nn.Conv2d(3, 4, 7), nn.Identity(), nn.ReLU()]
    return row(*first, *(layer for i in range(4) for layer in down(4 * 2**i)), block(64), block(64))


def blurred() -> dict[str, torch.Tensor]:
    state = row(nn.Conv2d(3, 4, 4), nn.LeakyReLU(), nn.Identity(), nn.Conv2d(4, 8, 4))
    return {**state, "model.2.filt": torch.ones(4, 1, 3, 3)}


def attention_unet() -> dict[str, torch.Tensor]:
    names = "Conv1.conv.0", "Up5.up.1", "Att5.W_g.0", "Up_conv5.conv.0", "Conv_1x1"
    return {f"{name}.weight": torch.zeros(4, 4, 3, 3) for name in names}


def deep_unet() -> dict[str, torch.Tensor]:
    whole = build_generator(3, 3, 2, "unet_256", "batch", False).state_dict()
    inner = {k: v for k, v in whole.items()}
    return {
        **whole,
        **{key.replace("model.model.1.", "model.model.1.model.3.", 1): v for key, v in inner.items()},
    }


FILES = {
    "CUT's discriminator": (blurred, "give latest_net_G.pth"),
    "CUT's projector": (lambda: {"mlp_0.0.weight": torch.zeros(8, 4)}, "give latest_net_G.pth"),
    "pix2pixHD": (global_generator, "pix2pixHD's class GlobalGenerator"),
    "pix2pixHD's enhancer": (
        lambda: {**row(nn.Conv2d(3, 4, 7)), "model1_1.1.weight": torch.zeros(4, 3, 7, 7)},
        "class LocalEnhancer",
    ),
    "GauGAN": (lambda: {"up_0.norm_0.mlp_shared.0.weight": torch.zeros(8, 3, 3, 3)}, "SPADEGenerator"),
    "DeepLIIF": (attention_unet, "class AttU_Net"),
    "DeepLIIF's U-Net": (deep_unet, "UnetGenerator with its number of levels"),
}


@pytest.mark.parametrize("whose", FILES)
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "from DataParallel"])
def test_a_file_of_another_class_says_whose_it_is(tmp_path, capsys, whose, wrapped):
    make, words = FILES[whose]
    path = tmp_path / "latest_net_G.pth"
    torch.save({"module." * wrapped + key: value for key, value in make().items()}, path)
    assert main(["inspect", str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and "--coronet_family" in said and "\n" not in said, said


def test_starting_from_such_a_file_says_so_too(tmp_path, capsys):
    path = tmp_path / "latest_net_G.pth"
    torch.save(global_generator(), path)
    where = ["--dataroot", paired_folder(tmp_path, 2, 36), "--name", "a", "--checkpoints_dir", tmp_path / "c"]
    code = run_train(
        *where, *"--model coronet --coronet_base pix2pix --netG resnet_6blocks --norm instance --ngf 4 --ndf 4".split(),
        *"--load_size 36 --crop_size 32 --display_id 0 --n_epochs 1 --n_epochs_decay 1 --num_threads 0".split(),
        "--coronet_init_from", path, "--coronet_budget", 0.6,
    )  # fmt: skip
    said = capsys.readouterr().err.strip()
    assert code == 2 and "pix2pixHD's class GlobalGenerator" in said and "--coronet_init_from" in said


@pytest.mark.parametrize("netG", ["resnet_9blocks", "resnet_6blocks", "unet_128", "unet_256"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_files_of_forks_with_upstreams_classes_are_just_read(tmp_path, capsys, netG, norm):
    """CUT without blurred sampling, DeepLIIF, GAN Compression's teachers: with the slot of dropout or not."""
    generator = build_generator(3, 3, 4, netG, norm, True)
    path = tmp_path / "latest_net_G1.pth"
    torch.save({f"module.{key}": value for key, value in generator.state_dict().items()}, path)
    assert main(["inspect", str(path)]) == 0
    assert netG in capsys.readouterr().out
