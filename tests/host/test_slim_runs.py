"""Slim runs tested as upstream's users type it, one generator on pictures without partners."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_test, run_train, unpaired_folder

OURS = ["--model", "coronet", "--coronet_budget", 0.4, "--coronet_search_epochs", 1, "--no_html"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A folder with a slim CycleGAN run ``c``, of grey pictures to colours, and its data."""
    folder = tmp_path_factory.mktemp("slim")
    root = unpaired_folder(folder)
    sizes = "--ngf 8 --ndf 4 --netG resnet_6blocks --load_size 40 --crop_size 32 --num_threads 0".split()
    quiet = "--display_id 0 --n_epochs 1 --n_epochs_decay 1 --input_nc 1 --lambda_identity 0".split()
    place = ["--dataroot", root, "--name", "c", "--checkpoints_dir", folder / "checkpoints"]
    assert run_train(*place, *OURS, *sizes, *quiet) == 0
    return folder, root


def pictures_of(trained: tuple[Path, Path], results: str, *words: object) -> Path:
    """The pictures of a test with ``words``, and nothing else that the training was told."""
    folder, _ = trained
    place = ["--name", "c", "--checkpoints_dir", folder / "checkpoints", "--results_dir", folder / results]
    assert run_test(*place, "--num_test", 1, *words) == 0
    return folder / results / "c" / "test_latest" / "images"


@pytest.fixture(scope="module")
def both(trained) -> Path:
    """Pictures of both generators, scaled and not cropped."""
    return pictures_of(trained, "both", "--dataroot", trained[1], "--model", "coronet", "--load_size", 32)


@pytest.mark.parametrize(
    "words",
    [
        "--model coronet --dataset_mode single",
        "--model test --model_suffix _A",
        "--model coronet --coronet_base test --model_suffix _A",
    ],
)
def test_one_generator_of_a_cycle_gan(trained, both, words):
    images = pictures_of(trained, "single", "--dataroot", trained[1] / "testA", *words.split())
    assert (images / "A0_fake.png").read_bytes() == (both / "A0_fake_B.png").read_bytes()


def test_the_other_one_takes_what_it_was_trained_on(trained, both):
    words = ["--model", "coronet", "--dataset_mode", "single", "--model_suffix", "_B"]
    images = pictures_of(trained, "other", "--dataroot", trained[1] / "testB", *words)
    assert (images / "B0_fake.png").read_bytes() == (both / "A0_fake_A.png").read_bytes()


def test_a_dense_model_type_says_that_the_file_is_slim(trained, capsys):
    folder, root = trained
    place = ["--dataroot", root, "--name", "c", "--checkpoints_dir", folder / "checkpoints"]
    sizes = ["--netG", "resnet_6blocks", "--input_nc", 1, "--crop_size", 32, "--load_size", 32]
    assert run_test(*place, *sizes, "--model", "cycle_gan", "--ngf", 8) == 2
    said = capsys.readouterr().err
    assert "is slim" in said and "--model coronet or --model test" in said and "--ngf" not in said


def test_a_base_that_needs_partners_is_refused_in_one_line(trained, capsys):
    folder, root = trained
    place = ["--dataroot", root / "testA", "--name", "c", "--checkpoints_dir", folder / "checkpoints"]
    words = "--model coronet --coronet_base cycle_gan --dataset_mode single".split()
    with pytest.raises(SystemExit) as left:
        run_test(*place, *words)
    assert left.value.code == 2 and "leave --coronet_base out" in capsys.readouterr().err
