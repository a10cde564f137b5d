"""GAN Compression in the host: teacher, held-out pictures, continuation, bad input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import QUIET, TINY, paired_folder, run_test, run_train, unpaired_folder
from run_helpers import assert_same_weights, stopping_before
from torch.utils.data import default_collate

from coronet_plugin.checkpoint.spec import Spec
from coronet_plugin.training import provenance
from coronet_plugin.training.holdout import Holdout

SHORT = "--coronet_method gan_compression --coronet_search_whole 3 --coronet_search_generations 1 --coronet_search_population 2".split()


@pytest.fixture
def trained(tmp_path):
    """Train a run by name on a data root; gives its folder."""

    def train(name: str, root: Path, base: str, *options: object, code: int = 0) -> Path:
        words = ["--name", name, "--dataroot", root, "--checkpoints_dir", tmp_path / "c", *TINY, *QUIET]
        words += ["--model", "coronet", "--coronet_base", base, "--norm", "instance", "--seed", 1, "--ngf", 8]
        assert run_train(*words, *options) == code
        return tmp_path / "c" / name

    return train


def test_a_paired_run_from_teacher_to_fine_tuning(trained, tmp_path, capsys):
    root = paired_folder(tmp_path, images=6)
    folder = trained("p", root, "pix2pix", "--coronet_budget", 0.4, "--coronet_holdout", 0.2, *SHORT)
    spec = Spec.read(folder / "latest_net_G.json")
    assert spec.search["of"] == 9  # three quarters of two epochs of six pictures: a third for the teacher
    assert spec.search["config"]["task"] == "pix2pix" and spec.search["config"]["lambda_distill"] == 1.0
    assert 0 < spec.slim["macs"] <= 0.4 * spec.dense["macs"]
    assert re.search(r"tried \d of \d+ widths on 1 pictures held out", capsys.readouterr().out)
    words = ["--name", "p", "--dataroot", root, "--checkpoints_dir", tmp_path / "c", *TINY, "--ngf", 8]
    assert run_test(*words, "--model", "coronet", "--results_dir", tmp_path / "r") == 0


def test_unpaired_students_have_no_cycle(trained, tmp_path, monkeypatch):
    from models.cycle_gan_model import CycleGANModel

    seen = []
    before = CycleGANModel.backward_G
    monkeypatch.setattr(
        CycleGANModel, "backward_G", lambda self: seen.append(self.opt.lambda_A) or before(self)
    )
    root = unpaired_folder(tmp_path, images=(6, 6))
    folder = trained("u", root, "cycle_gan", "--coronet_budget", 0.4, "--coronet_holdout", 0.2, *SHORT)
    assert (
        seen == [10.0] * 4 + [0.0] * 8
    )  # all of the training is the search, and a third of it the teacher's
    for name in ("G_A", "G_B"):
        spec = Spec.read(folder / f"latest_net_{name}.json")
        assert spec.phase == "compact" and spec.search["config"]["lambda_recon"] == 10.0
        assert spec.slim["macs"] <= 0.4 * spec.dense["macs"]


@pytest.mark.parametrize("stops", [2, 3, 4], ids=["teacher", "students", "fine-tuning"])
def test_a_continued_run_equals_an_uninterrupted_one(trained, tmp_path, stops):
    """Stopped before epoch number ``stops``: while the teacher is trained, while students are, and after."""
    root = paired_folder(tmp_path, images=4)
    options = ["--coronet_budget", 0.4, "--coronet_holdout", 0.25, *SHORT, "--coronet_search_epochs", 3]
    options += ["--coronet_teacher_part", 4, "--n_epochs", 4, "--n_epochs_decay", 0]
    if stops == 3:
        options += ["--coronet_pipeline", "full", "--coronet_space", "1,0.5,0.25"]
    whole = trained("whole", root, "pix2pix", *options)
    with stopping_before(stops):
        trained("parts", root, "pix2pix", *options, "--save_epoch_freq", 1)
    parts = trained("parts", root, "pix2pix", *options, "--continue_train")
    assert_same_weights(whole, parts, ["latest_net_G.pth", "latest_net_D.pth"])


def test_pictures_held_out_are_never_trained_on(trained, tmp_path, monkeypatch):
    from models.pix2pix_model import Pix2PixModel

    seen, shown = [], Pix2PixModel.set_input
    root = paired_folder(tmp_path, images=5)

    def set_input(self, batch):
        shown(self, batch)
        seen.extend(self.image_paths)

    monkeypatch.setattr(Pix2PixModel, "set_input", set_input)
    options = ["--coronet_budget", 0.4, "--coronet_holdout", 0.4, *SHORT, "--coronet_watch", 0]
    trained("h", root, "pix2pix", *options, "--n_epochs", 2, "--n_epochs_decay", 1, "--batch_size", 2)
    looked_at, trained_on = seen[:2], seen[2:]
    assert len(trained_on) == 15 and {Path(path).name for path in looked_at} == {"1.png", "3.png"}
    assert {Path(path).name for path in trained_on} == {"0.png", "2.png", "4.png"}


def test_nor_are_those_of_either_side_without_pairs(tmp_path, run):
    from options.train_options import TrainOptions

    root = unpaired_folder(tmp_path, images=(6, 5))
    opt = TrainOptions().parse(run("u", root, "cycle_gan"))
    holdout = Holdout(opt, 0.3)
    assert {Path(path).name for path in holdout.paths} == {"A1.png", "A4.png", "B1.png", "B3.png"}
    random = torch.get_rng_state()
    for index in range(30):
        sample = holdout._dataset[index % 6]
        batch = default_collate([sample, holdout._dataset[(index + 2) % 6]])
        given = holdout.without(batch)
        paths = {*given["A_paths"], *given["B_paths"]}
        assert len(given["A_paths"]) == 2 and paths.isdisjoint(holdout.paths)
        again = holdout.without(batch)
        assert all(torch.equal(given[side], again[side]) for side in "AB")
        for i in range(2):  # what is not held out stays as it came
            if {batch["A_paths"][i], batch["B_paths"][i]}.isdisjoint(holdout.paths):
                assert (
                    torch.equal(given["A"][i], batch["A"][i]) and given["A_paths"][i] == batch["A_paths"][i]
                )
    assert torch.equal(random, torch.get_rng_state())


BAD = [
    (["--coronet_space", "channels-12"], "neither one of channels-64-pix2pix"),
    (
        ["--coronet_space", "1,0.9"],
        "budget 0.3 is outside the search space 1,0.9: its narrowest generator is",
    ),
    (["--coronet_taps", "model.9,model.77"], "no layer 'model.77'"),
    (["--coronet_shared_budget"], "drop --coronet_shared_budget"),
    (["--coronet_holdout", 1], "--coronet_holdout must be between 0 and 1"),
    (["--coronet_holdout", 0.9], "3 training pictures are too few to hold 3 of them out"),
]


@pytest.mark.parametrize(("options", "what"), BAD, ids=[what for _, what in BAD])
def test_what_cannot_be_is_one_line(trained, tmp_path, capsys, options, what):
    base = "cycle_gan" if "--coronet_shared_budget" in options else "pix2pix"
    root = unpaired_folder(tmp_path) if base == "cycle_gan" else paired_folder(tmp_path)
    trained("bad", root, base, "--coronet_budget", 0.3, *SHORT, *options, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert what in line


# -- a teacher by name -----------------------------------------------------------
def dense(root: Path, tmp_path: Path, name: str, *options: object) -> Path:
    words = ["--name", name, "--dataroot", root, "--checkpoints_dir", tmp_path / "c", *TINY, *QUIET]
    assert run_train(*words, "--model", "pix2pix", "--norm", "instance", "--ngf", 8, *options) == 0
    return tmp_path / "c" / name


@pytest.mark.parametrize("pipeline", ["fast", "full"])
def test_a_trained_run_teaches_and_lends_its_discriminator(trained, tmp_path, capsys, pipeline):
    root = paired_folder(tmp_path)
    teacher = dense(root, tmp_path, "teacher")
    options = [
        "--coronet_teacher",
        "teacher",
        "--coronet_pipeline",
        pipeline,
        "--coronet_space",
        "1,0.5,0.25",
    ]
    if pipeline == "fast":  # the student's blocks are separable, the teacher's are not
        options += ["--netG", "mobile_resnet_6blocks"]
    folder = trained("student", root, "pix2pix", "--coronet_budget", 0.5, *SHORT, *options)
    assert f"netD begins with {teacher / 'latest_net_D.pth'}" in capsys.readouterr().out
    spec = Spec.read(folder / "latest_net_G.json")
    assert spec.slim["macs"] <= 0.5 * spec.dense["macs"] and spec.search["config"]["teacher"] == "teacher"
    state = torch.load(folder / "latest_coronet_state.pth", weights_only=True)
    known = state["compressions"]["G"]["companions"]["distillation"]
    assert known["layers"]["model.9"]["weight"].shape[0] == 32


def test_a_teacher_that_cannot_teach_is_one_line(trained, tmp_path, capsys):
    root = paired_folder(tmp_path)
    dense(root, tmp_path, "other", "--netG", "unet_128", "--crop_size", 128, "--load_size", 128)
    dense(root, tmp_path, "back", "--direction", "BtoA")
    dense(root, tmp_path, "wide", "--ngf", 12)
    for run, options, what in (
        ("other", [], "no layer 'model.9'"),
        ("back", [], "translates BtoA, the generator AtoB"),
        (
            "wide",
            ["--coronet_pipeline", "full", "--coronet_space", "1,0.5,0.25"],
            "of another architecture or width",
        ),
        ("nobody", [], "--coronet_teacher nobody: "),
    ):
        capsys.readouterr()
        options = ["--coronet_teacher", run, "--coronet_budget", 0.5, *SHORT, *options]
        trained(f"bad_{run}", root, "pix2pix", *options, code=2)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert what in line


def test_the_teacher_s_time_counts_and_there_is_one_teacher(trained, tmp_path, capsys):
    root = paired_folder(tmp_path)
    teacher = dense(root, tmp_path, "teacher")
    options = ["--coronet_teacher", "teacher", "--coronet_budget", 0.5, *SHORT]
    folder = trained("student", root, "pix2pix", *options)
    assert provenance.spent(folder).seconds > provenance.spent(teacher).seconds > 0
    assert provenance.read(folder)[-1]["teacher"]["run"] == "teacher"
    capsys.readouterr()
    trained("two", root, "pix2pix", *options, "--coronet_distill", "SELF", code=2)
    assert "gan_compression brings its own distillation; leave out what asks" in capsys.readouterr().err
