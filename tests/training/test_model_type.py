"""``--model coronet`` in the bundled host: train, slim, resume, test, with the base model's own ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, paired_folder, run_test, run_train, unpaired_folder
from PIL import Image
from run_helpers import assert_same_weights, stopping_before

import train
from coronet_plugin import cost_of, example_input, load_generator
from models import create_model
from options.train_options import TrainOptions

SMALL = ["--netG", "resnet_6blocks", "--ngf", 8, "--ndf", 4, "--load_size", 32, "--crop_size", 32]


@pytest.fixture
def run(tmp_path):
    """Train or test with small networks; returns the exit code."""
    roots = {}

    def go(name: str, base: str, *extra: object, testing: bool = False) -> int:
        if base not in roots:
            make = paired_folder if base == "pix2pix" else unpaired_folder
            roots[base] = make(tmp_path, images=4 if base == "pix2pix" else (4, 4), size=32)
        where = ["--dataroot", roots[base], "--name", name, "--checkpoints_dir", tmp_path / "c"]
        if testing:
            return run_test(*where, "--model", "coronet", "--results_dir", tmp_path / "r", *extra)
        return run_train(
            *where, "--model", "coronet", "--coronet_base", base, *SMALL, "--display_id", -1, "--num_threads", 0,
            "--no_html", "--print_freq", 1, "--seed", 3, "--coronet_budget", 0.3, "--norm", "instance", *extra,
        )  # fmt: skip

    return go


def losses(tmp_path, name: str) -> list[dict]:
    lines = (tmp_path / "c" / name / "loss_log.jsonl").read_text().splitlines()
    return [json.loads(line)["losses"] for line in lines]


@pytest.mark.parametrize(("base", "nets"), [("pix2pix", ["G"]), ("cycle_gan", ["G_A", "G_B"])])
def test_train_slim_and_test(run, tmp_path, capsys, base, nets):
    assert run("a", base, "--n_epochs", 2, "--n_epochs_decay", 1, "--coronet_search_epochs", 1.5) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "c" / "a"
    curve = losses(tmp_path, "a")
    for net in nets:
        assert f"net{net} is slim after 6 steps" in said
        spec = json.loads((folder / f"latest_net_{net}.json").read_text())
        generator = load_generator(folder / f"latest_net_{net}.pth")
        cost = cost_of(generator, example_input(generator, 32))
        assert spec["phase"] == "compact" and cost.macs == spec["slim"]["macs"] <= spec["budget"]["target"]
        fractions = [entry[f"macs_{net}"] for entry in curve]
        assert fractions[0] > 0.5 and fractions[-1] == pytest.approx(cost.macs / spec["dense"]["macs"])
        assert 0 < curve[-1][f"width_{net}"] < curve[0][f"width_{net}"] <= 1
    dense = {"pix2pix": "D", "cycle_gan": "D_A"}[base]
    assert not (folder / f"latest_net_{dense}.json").exists()  # discriminators are left alone
    # no option of the training has to be said again
    assert run("a", base, testing=True) == 0
    images = sorted(p.name for p in (tmp_path / "r" / "a" / "test_latest" / "images").iterdir())
    assert sum("fake_B" in name for name in images) == 4
    assert "fake_B" in (tmp_path / "r" / "a" / "test_latest" / "index.html").read_text()


def test_pictures_are_tested_whole_where_training_cropped_them_at_random(run, tmp_path):
    assert run("a", "pix2pix", "--load_size", 40, "--n_epochs", 1, "--n_epochs_decay", 0) == 0
    assert run("a", "pix2pix", testing=True) == 0
    pair = np.asarray(Image.open(sorted((tmp_path / "paired" / "test").iterdir())[0]))
    shown = sorted((tmp_path / "r" / "a" / "test_latest" / "images").glob("*real_A*"))[0]
    assert np.array_equal(np.asarray(Image.open(shown)), pair[:, :32])


def test_what_a_continued_run_says_is_of_now(run, capsys, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    search = ["--n_epochs_decay", 0, "--save_epoch_freq", 1, "--coronet_search_epochs", 1.5]
    with monkeypatch.context() as patch:
        patch.setattr(train.Visualizer, "end_epoch", stop)
        with pytest.raises(Stopped):
            run("a", "pix2pix", "--n_epochs", 2, "--save_latest_freq", 4, *search)
    assert "budget 0.3 (macs) after 6 steps\n" in capsys.readouterr().out
    assert run("a", "pix2pix", "--n_epochs", 2, *search, "--continue_train") == 0
    said = capsys.readouterr().out
    assert said.count("budget 0.3 (macs) after 6 steps") == 1
    assert "after 6 steps, 4 of which are made\n" in said
    assert said.count("netG is slim after 6 steps") == 1
    assert run("a", "pix2pix", "--n_epochs", 3, *search, "--continue_train") == 0
    said = capsys.readouterr().out
    assert "it is slim since step 6, with 2" in said
    assert "budget 0.3 (macs)" not in said and "is slim after" not in said


@pytest.mark.parametrize("method", ["uniform", "random"])
def test_a_baseline_that_is_continued_does_not_say_that_it_is_cut_again(run, capsys, method):
    options = ["--n_epochs_decay", 0, "--coronet_method", method]
    assert run("a", "pix2pix", "--n_epochs", 1, *options) == 0
    assert "netG is slim after" in capsys.readouterr().out
    assert run("a", "pix2pix", "--n_epochs", 2, *options, "--continue_train") == 0
    said = capsys.readouterr().out
    assert "it is slim since step" in said and "is slim after" not in said


def test_the_test_page_shows_what_the_loaded_generator_computes(run, tmp_path):
    from PIL import Image

    from util.util import tensor2im

    run(
        "a", "pix2pix", "--n_epochs", 1, "--n_epochs_decay", 0, "--coronet_search_epochs", 0.5, "--no_dropout"
    )
    run("a", "pix2pix", testing=True)
    generator = load_generator(tmp_path / "c" / "a" / "latest_net_G.pth")
    images = tmp_path / "r" / "a" / "test_latest" / "images"
    real = torch.from_numpy(np.array(Image.open(images / "0_real_A.png")).transpose(2, 0, 1).copy())
    with torch.no_grad():
        fake = generator((real.float() / 127.5 - 1)[None])
    shown = torch.from_numpy(np.array(Image.open(images / "0_fake_B.png")).copy())
    difference = (torch.from_numpy(tensor2im(fake).copy()).int() - shown.int()).abs().max()
    assert difference <= 1  # rounding to bytes


@pytest.mark.parametrize("search", [3.5, 0.5], ids=["in the search", "after the cut"])
@pytest.mark.parametrize("base", ["pix2pix", "cycle_gan"])
def test_a_continued_run_equals_an_uninterrupted_one(run, tmp_path, base, search):
    schedule = ["--n_epochs", 2, "--n_epochs_decay", 2, "--coronet_search_epochs", search]
    schedule += ["--coronet_average", 0.8, "--coronet_lr_factor", 2]
    assert run("whole", base, *schedule) == 0
    with stopping_before(3):
        run("parts", base, *schedule, "--save_epoch_freq", 2)
    assert run("parts", base, *schedule, "--continue_train") == 0
    weights = [path.name for path in (tmp_path / "c" / "whole").glob("latest_*_net_*.pth")]
    weights += [path.name for path in (tmp_path / "c" / "whole").glob("latest_net_*.pth")]
    assert any("average" in name for name in weights)
    assert_same_weights(tmp_path / "c" / "whole", tmp_path / "c" / "parts", weights)
    assert losses(tmp_path, "whole")[-1] == losses(tmp_path, "parts")[-1]


def test_a_user_can_choose_what_is_compressed(run, tmp_path):
    assert run("a", "cycle_gan", "--n_epochs", 1, "--n_epochs_decay", 0, "--coronet_networks", "G_B") == 0
    assert (tmp_path / "c" / "a" / "latest_net_G_B.json").exists()
    assert not (tmp_path / "c" / "a" / "latest_net_G_A.json").exists()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--coronet_budget", "0.0001"], "smallest possible"),
        (["--coronet_budget", "lots"], "0.1"),
        (["--coronet_search_epochs", "9"], "--coronet_search_epochs"),
        (["--coronet_networks", "G_C"], "--coronet_networks"),
        (["--coronet_base", "no_such"], "no_such"),
        (["--coronet_base", "coronet"], "itself"),
        (["--coronet_embedding", "0"], "--coronet_embedding"),
        (["--continue_train"], "latest"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, capsys, extra, said):
    try:
        code = run("a", "pix2pix", "--n_epochs", 1, "--n_epochs_decay", 1, *extra)
    except SystemExit as stop:  # found while reading the options
        code = stop.code
    error = capsys.readouterr().err.strip()
    assert code == 2 and said in error and "Traceback" not in error
    assert len([line for line in error.splitlines() if "error" in line]) == 1


def test_in_a_host_that_catches_nothing_a_mistake_is_one_line_too():
    program = """
from coronet_plugin.errors import BudgetError, show_in_one_line
show_in_one_line()
show_in_one_line()
raise {}
"""

    def run(error, **environment):
        command = [sys.executable, "-c", program.format(error)]
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=ROOT
        )

    done = run("BudgetError('ask for less')")
    assert (done.returncode, done.stderr) == (2, "coronet: ask for less\n")
    assert "Traceback" in run("BudgetError('ask for less')", CORONET_DEBUG="1").stderr
    done = run("ValueError('a bug')")
    assert done.returncode == 1 and "Traceback" in done.stderr


# -- losses and images before the first step ----------------------------------
@pytest.fixture
def fresh(tmp_path):
    """A pix2pix model to be compressed, as train.py makes it, before its first step."""
    root = paired_folder(tmp_path, images=1, size=32)
    where = ["--dataroot", root, "--name", "a", "--checkpoints_dir", tmp_path / "c"]
    arguments = [
        *where,
        "--model",
        "coronet",
        "--coronet_base",
        "pix2pix",
        "--coronet_budget",
        0.3,
        "--coronet_watch",
        0,
    ]
    opt = TrainOptions().parse([str(argument) for argument in [*arguments, *SMALL]])
    model = create_model(opt)
    model.setup(opt)
    return model


def test_a_loss_is_zero_until_it_is_computed(fresh):
    zero = dict.fromkeys(["G_GAN", "G_L1", "D_real", "D_fake"], 0.0)
    curves = {"macs_G": fresh.loss_macs_G, "width_G": fresh.loss_width_G}  # known from the start
    assert not hasattr(fresh, "loss_G_L1") and all(curves.values())
    assert fresh.get_current_losses() == {**zero, **curves}
    fresh.loss_G_L1 = torch.tensor(2.5)
    assert fresh.get_current_losses() == {**zero, "G_L1": 2.5, **curves}


def test_an_image_is_left_out_until_it_is_computed(fresh):
    names = ["real_A", "fake_B", "real_B"]
    assert fresh.get_current_visuals() == {} and fresh.visual_names == names
    images = torch.rand(2, 1, 3, 32, 32)
    fresh.set_input({"A": images[0], "B": images[1], "A_paths": ["a"], "B_paths": ["b"]})
    assert list(fresh.get_current_visuals()) == ["real_A", "real_B"] and fresh.visual_names == names
    fresh.forward()
    shown = fresh.get_current_visuals()
    assert list(shown) == fresh.visual_names == names
    assert shown["fake_B"] is fresh.fake_B
