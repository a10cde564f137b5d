"""With and without ``--model coronet``: the same run where nothing is compressed, the same start where it is."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import paired_folder, run_train, unpaired_folder
from run_helpers import difference

from coronet_plugin import Compression, example_input
from coronet_plugin.generators.stock import build_generator

SMALL = ["--netG", "resnet_6blocks", "--ngf", 8, "--ndf", 4, "--load_size", 36, "--crop_size", 32]
QUIET = ["--display_id", -1, "--num_threads", 0, "--print_freq", 1, "--display_freq", 4, "--seed", 3]


@pytest.fixture
def train(tmp_path):
    made = {}

    def go(name, base, *options):
        if base not in made:
            made[base] = (
                paired_folder(tmp_path, 4, 36) if base == "pix2pix" else unpaired_folder(tmp_path, (4, 4), 36)
            )
        where = ["--dataroot", made[base], "--name", name, "--checkpoints_dir", tmp_path / "c"]
        assert run_train(*where, *SMALL, *QUIET, "--n_epochs", 2, "--n_epochs_decay", 1, *options) == 0
        return tmp_path / "c" / name

    return go


def losses(folder):
    return [json.loads(line)["losses"] for line in (folder / "loss_log.jsonl").read_text().splitlines()]


def tensors(path):
    return torch.load(path, weights_only=True)


def pictures(folder):
    """Of the page; without the fixed ones, which are watched beside those of the base."""
    names = sorted(p.name for p in (folder / "web" / "images").iterdir())
    return [name for name in names if "_fixed" not in name]


OFF = ["--coronet_budget", 1.0, "--coronet_search_epochs", 1]


@pytest.mark.parametrize("base", ["pix2pix", "cycle_gan"])
def test_a_budget_of_one_without_hypernetwork_is_the_base_model_bit_for_bit(train, base):
    plain = train("plain", base, "--model", base)
    coronet = train("coronet", base, "--model", "coronet", "--coronet_base", base, *OFF)
    expected, found = losses(plain), losses(coronet)
    assert len(found) == 12  # three epochs of four images; the cut, which cuts nothing, after the first
    assert [{k: v for k, v in entry.items() if k in expected[0]} for entry in found] == expected
    for path in plain.glob("latest_net_*.pth"):
        ours, theirs = tensors(coronet / path.name), tensors(path)
        assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)
    images = pictures(plain)
    assert images == pictures(coronet) and images
    for name in images:
        assert (plain / "web" / "images" / name).read_bytes() == (
            coronet / "web" / "images" / name
        ).read_bytes()


def test_a_compressed_run_has_the_losses_visuals_and_pages_of_its_base(train):
    plain = train("plain", "pix2pix", "--model", "pix2pix")
    coronet = train(
        "coronet", "pix2pix", "--model", "coronet", "--coronet_base", "pix2pix", "--coronet_budget", 0.3
    )
    added = {"macs_G", "width_G"}
    assert losses(coronet)[0].keys() - added == losses(plain)[0].keys()
    assert pictures(plain) == pictures(coronet)


@pytest.mark.parametrize("form", ["published", "folded", "implicit", "gated"])
def test_a_trained_dense_run_can_be_begun_with(train, tmp_path, form, capsys):
    dense = train("dense", "cycle_gan", "--model", "cycle_gan")
    options = ["--model", "coronet", "--coronet_base", "cycle_gan", "--coronet_budget", 0.3]
    options += [
        "--coronet_init_from",
        dense / "latest_net_G_A.pth",
        "--coronet_hypernetwork",
        form,
        "--lr",
        0,
    ]
    again = train("again", "cycle_gan", *options, "--coronet_search_epochs", 3)
    said = capsys.readouterr().out
    for name in ("G_A", "G_B", "D_A", "D_B"):
        assert f"net{name} begins with {dense / f'latest_net_{name}.pth'}" in said
    assert losses(again)[-1]["macs_G_A"] < 0.31  # the search went on from there
    trained, expected = tensors(again / "latest_net_D_A.pth"), tensors(dense / "latest_net_D_A.pth")
    assert all(torch.equal(trained[k], expected[k]) for k in expected)  # with a learning rate of zero


@pytest.mark.parametrize("form", ["published", "folded"])
@pytest.mark.parametrize(
    ("netG", "norm", "size"), [("resnet_9blocks", "instance", 64), ("unet_128", "batch", 128)]
)
def test_kept_weights_are_exact_to_the_last_bit(form, netG, norm, size):
    torch.manual_seed(1)
    generator = build_generator(3, 3, 16, netG, norm, False).eval()
    with torch.no_grad():
        generator.state_dict()["model.1.weight" if netG != "unet_128" else "model.model.0.weight"][0] = 0
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    x = example_input(generator, size)
    expected = generator(x)
    compression = Compression(generator, x, search_steps=10, method=form, keep_weights=True, budget=0.3)
    after = generator.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    compression.method.write_weights_()
    assert torch.equal(generator(x), expected)
    # the weakest filters of a set have the smallest latents
    (first,) = [s for s in compression.plan.prunable if s.name == compression.plan.prunable[0].name]
    (weight,) = [w for name, w in generator.named_parameters() if name == f"{first.name}.weight"]
    strength = weight.abs().sum((1, 2, 3)).argsort().tolist()
    assert compression.method.score()[first.slice].argsort().tolist()[4:] == strength[4:]
    copy = build_generator(3, 3, 16, netG, norm, False)
    copy.load_state_dict(before)
    assert difference(copy, generator, (x,)) == 0


def test_a_missing_start_is_one_line(train, tmp_path, capsys):
    options = ["--model", "coronet", "--coronet_base", "pix2pix", "--coronet_budget", 0.3]
    with pytest.raises(AssertionError):
        train("x", "pix2pix", *options, "--coronet_init_from", tmp_path / "no.pth")
    error = capsys.readouterr().err
    assert "--coronet_init_from" in error and "no.pth" in error and "Traceback" not in error
