"""All of upstream's model types and data sets are in the bundled host: colorization and template, plain and slim."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_test, run_train, smooth_image
from PIL import Image
from test_data import options

import data
import models
from coronet_plugin.errors import OptionError
from coronet_plugin.runs.run import find_run

SHORT = ["--n_epochs_decay", 0, "--no_html", "--save_epoch_freq", 1]


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A data root with pictures in ``train`` and ``test``."""
    root = tmp_path / "photos"
    for phase in ("train", "test"):
        (root / phase).mkdir(parents=True)
        for i in range(3):
            smooth_image(i, 40, 40).save(root / phase / f"{i}.png")
    return root


def defaults(kind: str, name: str, is_train: bool = True) -> argparse.Namespace:
    setter = (models if kind == "model" else data).get_option_setter(name)
    return setter(argparse.ArgumentParser(), is_train).parse_args([])


def test_all_five_of_each_are_there():
    for name in ("pix2pix", "cycle_gan", "test", "colorization", "template"):
        assert models.find_model_using_name(name).__name__.lower() == name.replace("_", "") + "model"
    for name in ("aligned", "unaligned", "single", "colorization", "template"):
        assert data.find_dataset_using_name(name).__name__.lower() == name + "dataset"


def test_defaults_are_upstreams():
    def having(setter_of: tuple[str, str], **known: object) -> dict[str, object]:
        parser = argparse.ArgumentParser()
        for name in known:
            parser.add_argument(f"--{name}")
        kind, name = setter_of
        setter = (models if kind == "model" else data).get_option_setter(name)
        found = vars(setter(parser, True).parse_args([]))
        return {name: found[name] for name in known}

    colours = {"norm": "batch", "netG": "unet_256", "dataset_mode": "colorization", "lambda_L1": 100.0}
    assert vars(defaults("model", "colorization"))["lambda_L1"] == 100.0
    given = {name: value for name, value in colours.items() if name != "lambda_L1"}
    assert having(("model", "colorization"), **given) == given
    nc = {"input_nc": 1, "output_nc": 2, "direction": "AtoB"}
    assert having(("dataset", "colorization"), **nc) == nc
    assert having(("model", "template"), dataset_mode="aligned") == {"dataset_mode": "aligned"}
    assert defaults("model", "template").lambda_regression == 1.0
    assert having(("dataset", "template"), max_dataset_size=10) == {"max_dataset_size": 10}
    assert defaults("dataset", "template").new_dataset_option == 2.0


def test_lightness_and_colours_give_the_picture_again(pictures):
    opt = options(pictures, "colorization", input_nc=1, output_nc=2, load_size=32, no_flip=True)
    sample = data.create_dataset(opt).dataset[0]
    assert sample["A"].shape == (1, 32, 32) and sample["B"].shape == (2, 32, 32)
    assert sample["A"].abs().max() <= 1 and sample["B"].abs().max() <= 1
    again = models.find_model_using_name("colorization").lab2rgb(None, sample["A"][None], sample["B"][None])
    truth = np.asarray(Image.open(sample["A_paths"]).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(again.astype(int) - truth).max() <= 1
    grey = sample["A"] * 0
    assert (
        np.ptp(models.find_model_using_name("colorization").lab2rgb(None, grey[None], sample["B"][None] * 0))
        == 0
    )


def test_colours_go_one_way(pictures):
    with pytest.raises(OptionError, match="--input_nc 1, --output_nc 2 and --direction AtoB, not 3"):
        data.create_dataset(options(pictures, "colorization"))


def test_the_template_data_set_makes_brighter_pictures(pictures):
    opt = options(pictures, "template", new_dataset_option=1.5)
    sample = data.create_dataset(opt).dataset[0]
    expected = ((sample["A"] + 1) * 1.5 - 1).clamp(max=1)
    assert torch.allclose(sample["B"], expected) and sample["B"].max() <= 1
    assert sample["data_A"] is sample["A"] and sample["path"] == sample["B_paths"]


@pytest.mark.parametrize("way", ["plain", "coronet"])
def test_colorization_from_training_to_pictures(tmp_path, run, pictures, way):
    model = "colorization" if way == "plain" else "coronet"
    ours = ["--coronet_base", "colorization", "--coronet_budget", 0.5, "--coronet_search_epochs", 1]
    extra = ours if way == "coronet" else []
    assert run_train(*run("c", pictures, model), *SHORT, "--display_freq", 1, *extra) == 0
    sizes = ["--load_size", 32, "--num_test", 1]
    assert run_test(*run("c", pictures, model, testing=True), *sizes) == 0
    images = tmp_path / "results" / "c" / "test_latest" / "images"
    assert {f.name for f in images.iterdir()} == {
        f"0_{v}.png" for v in ("real_A", "real_B_rgb", "fake_B_rgb")
    }
    assert np.ptp(np.asarray(Image.open(images / "0_real_A.png")).astype(int), axis=2).max() == 0
    assert np.ptp(np.asarray(Image.open(images / "0_fake_B_rgb.png")).astype(int), axis=2).max() > 0
    found = find_run("c", tmp_path / "checkpoints", tmp_path / "results").translations
    assert [(t.source, t.output, t.truth) for t in found] == [("real_A", "fake_B_rgb", "real_B_rgb")]


@pytest.mark.parametrize("way", ["plain", "coronet"])
def test_template_learns(tmp_path, run, pictures, way):
    model = "template" if way == "plain" else "coronet"
    ours = ["--coronet_base", "template", "--coronet_budget", 0.5, "--coronet_search_epochs", 1]
    extra = ["--dataset_mode", "template", "--norm", "instance", "--n_epochs", 12, "--lr", 0.003]
    words = [*SHORT, *(ours if way == "coronet" else []), *extra, "--print_freq", 1]
    assert run_train(*run("t", pictures, model), *words) == 0
    lines = (tmp_path / "checkpoints" / "t" / "loss_log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["losses"]["G"] for line in lines]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    testing = ["--load_size", 32, "--num_test", 1, "--dataset_mode", "template"]
    assert run_test(*run("t", pictures, model, testing=True), *testing) == 0
    images = tmp_path / "results" / "t" / "test_latest" / "images"
    assert {f.name for f in images.iterdir()} == {f"0_{v}.png" for v in ("data_A", "data_B", "output")}


@pytest.mark.parametrize("words", ["--model test --norm batch --input_nc 1 --output_nc 2", "--model coronet"])
def test_colours_of_pictures_without_truth(tmp_path, run, pictures, words):
    plain = "coronet" not in words
    ours = ["--coronet_base", "colorization", "--coronet_budget", 0.5, "--coronet_search_epochs", 1]
    model, extra = ("colorization", []) if plain else ("coronet", ours)
    assert run_train(*run("c", pictures, model), *SHORT, *extra) == 0
    place = run("c", pictures / "test", "test", testing=True)
    assert run_test(*place, *words.split(), "--load_size", 32, "--dataset_mode", "single") == 0
    fake = np.asarray(Image.open(tmp_path / "results" / "c" / "test_latest" / "images" / "0_fake.png"))
    assert fake.shape == (32, 32, 3) and np.ptp(fake.astype(int), axis=2).max() > 0
