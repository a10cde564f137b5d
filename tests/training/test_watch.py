"""Fixed pictures while training: what is shown, that training is not touched, that nothing fails over it."""

from __future__ import annotations

import socket
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import paired_folder, run_train, unpaired_folder
from PIL import Image

from coronet_plugin.runs.run import find_run
from util.util import tensor2im

SMALL = (
    "--netG resnet_6blocks --norm batch --ngf 8 --ndf 4 --load_size 36 --crop_size 32 --num_threads 0".split()
)
SHORT = (
    "--n_epochs 1 --n_epochs_decay 1 --display_freq 1 --update_html_freq 1 --print_freq 1 --seed 3".split()
)


@pytest.fixture
def train(tmp_path: Path):
    """Train by name and base; gives the run's folder."""
    roots: dict[str, Path] = {}

    def go(name: str, base: str, *options: object) -> Path:
        if base not in roots:
            make = paired_folder if base == "pix2pix" else unpaired_folder
            roots[base] = make(tmp_path, 3 if base == "pix2pix" else (3, 3), 32)
        where = ["--dataroot", roots[base], "--name", name, "--checkpoints_dir", tmp_path / "c"]
        model = ["--model", base]
        if name != "dense":
            model = ["--model", "coronet", "--coronet_base", base, "--coronet_budget", 0.4]
        display = [] if "--display_id" in options else ["--display_id", -1]
        assert run_train(*where, *SMALL, *SHORT, *model, *display, *options) == 0
        return tmp_path / "c" / name

    return go


def shown(folder: Path, label: str, epoch: int = 2) -> np.ndarray:
    return np.array(Image.open(folder / "web" / "images" / f"epoch{epoch:03}_{label}.png"))


def translated(folder: Path, image: np.ndarray, generator: str = "G") -> np.ndarray:
    """As test.py does, from the saved weights."""
    net = find_run(folder.name, folder.parent).load_generator(generator).train()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    values = torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 127.5 - 1
    with torch.no_grad():
        return tensor2im(net(values[None]))


def test_fixed_inputs_are_the_first_test_pictures_and_outputs_those_of_both_runs(
    train, tmp_path: Path
) -> None:
    dense = train("dense", "pix2pix")
    slim = train("slim", "pix2pix", "--coronet_compare_to", "dense")
    labels = {f"fixed{i}_{what}_G" for i in (1, 2) for what in ("input", "dense", "now")}
    names = {path.stem.partition("_")[2] for path in (slim / "web/images").iterdir()}
    assert names == {"real_A", "fake_B", "real_B"} | labels
    for number in (1, 2):
        image = shown(slim, f"fixed{number}_input_G")
        with Image.open(tmp_path / "paired/test" / f"{number - 1}.png") as pair:
            assert np.array_equal(
                image, np.array(pair)[:, :32]
            )  # A is on the left; not cropped, not mirrored
        assert np.array_equal(image, shown(slim, f"fixed{number}_input_G", epoch=1))
        for label, run in (("dense", dense), ("now", slim)):
            found = shown(slim, f"fixed{number}_{label}_G").astype(int)
            assert (
                abs(found - translated(run, image)).max() <= 1
            )  # a batch of one or of two, rounded to bytes


@pytest.mark.parametrize("base", ["pix2pix", "cycle_gan"])
def test_watching_does_not_touch_the_training(train, base: str) -> None:
    options = ["--coronet_hypernetwork", "none"]
    with_it = train(
        "with", base, *options, "--coronet_compare_to", "with"
    )  # itself, at its beginning: no weights
    without = train("without", base, *options, "--coronet_watch", 0)
    assert not [path for path in (without / "web/images").iterdir() if "_fixed" in path.name]
    networks = sorted(path.name for path in without.glob("latest_net_*.pth"))
    for name in networks:
        ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (with_it, without))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_both_directions_are_watched(train) -> None:
    run = train("slim", "cycle_gan", "--coronet_watch", 1)
    assert shown(run, "fixed1_now_G_A").shape == shown(run, "fixed1_input_G_B").shape == (32, 32, 3)
    assert not np.array_equal(shown(run, "fixed1_input_G_A"), shown(run, "fixed1_input_G_B"))


def test_a_run_that_is_not_there_costs_one_line(train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("slim", "pix2pix", "--coronet_compare_to", "mistyped")
    said = capsys.readouterr().out
    assert said.count("warning") == 1 and "mistyped" in said and "training goes on" in said
    assert shown(run, "fixed1_now_G").any() and not (run / "web/images/epoch001_fixed1_dense_G.png").exists()


def test_data_without_test_pictures_is_watched_on_training_ones(train, tmp_path: Path, capsys) -> None:
    train("dense", "pix2pix")
    for path in (tmp_path / "paired/test").iterdir():
        path.unlink()
    run = train("slim", "pix2pix")
    with Image.open(tmp_path / "paired/train/0.png") as pair:
        assert np.array_equal(shown(run, "fixed1_input_G"), np.array(pair)[:, :32])
    assert "warning" not in capsys.readouterr().out


def test_pictures_that_cannot_be_used_are_not_said_to_be_missing(train, tmp_path: Path, capsys) -> None:
    train("dense", "pix2pix")
    capsys.readouterr()
    for phase in ("test", "train"):
        for path in (tmp_path / "paired" / phase).iterdir():
            Image.new("RGB", (33, 32)).save(path)  # no pair
    with pytest.raises(AssertionError):
        train("slim", "pix2pix")  # the training fails over it as well
    (warning,) = (line for line in capsys.readouterr().out.splitlines() if "warning" in line)
    assert "train/0.png has 33x32 pixels" in warning and "has no pictures" not in warning


def test_visdom_gets_them_in_its_grid(train, monkeypatch: pytest.MonkeyPatch) -> None:
    grids: list[tuple[tuple[int, ...], str]] = []

    class Client:
        def __init__(self, **_: object) -> None: ...

        def check_connection(self) -> bool:
            return True

        def images(self, stack: np.ndarray, **rest: dict) -> None:
            grids.append((np.shape(stack), rest["opts"]["title"]))

        def line(self, **_: object) -> None: ...

    monkeypatch.setitem(sys.modules, "visdom", types.SimpleNamespace(Visdom=Client))
    train("dense", "pix2pix")
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        listening.listen()
        port = listening.getsockname()[1]
        train("slim", "pix2pix", "--coronet_compare_to", "dense", "--display_id", 1, "--display_port", port)
    assert len(grids) == 6  # two epochs of three pictures
    for shape, title in grids:
        assert shape == (9, 3, 32, 32) and "fixed2_dense_G" in title and "fixed2_now_G" in title
