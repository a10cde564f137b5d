"""Agent gates in the host: generators and discriminators pruned together, continued, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import QUIET, TINY, paired_folder, run_test, run_train, unpaired_folder
from run_helpers import assert_same_weights, stopping_before

from coronet_plugin.checkpoint.spec import Spec

AGENTS = "--coronet_method manifold --coronet_agent_hidden 16 --coronet_bank 4 --coronet_neighbours 2 --coronet_budget 0.5".split()
SIZES = ["--ngf", 8, "--ndf", 8, "--norm", "instance"]


@pytest.fixture
def trained(tmp_path):
    """Train a run by name on a data root; gives its folder."""

    def begin(name: str, root: Path, base: str, *options: object, code: int = 0) -> Path:
        words = [
            "--name",
            name,
            "--dataroot",
            root,
            "--checkpoints_dir",
            tmp_path / "c",
            *TINY,
            *QUIET,
            *SIZES,
        ]
        words += ["--model", "coronet", "--coronet_base", base, "--seed", 1]
        assert run_train(*words, *options) == code
        return tmp_path / "c" / name

    return begin


def test_a_generator_and_its_discriminator_are_pruned_and_trained_on(trained, tmp_path):
    root = paired_folder(tmp_path, images=5)
    folder = trained("p", root, "pix2pix", *AGENTS, "--coronet_networks", "G,D")
    for name in ("G", "D"):
        spec = Spec.read(folder / f"latest_net_{name}.json")
        assert spec.phase == "compact" and 0 < spec.slim["macs"] <= 0.5 * spec.dense["macs"]
        assert (
            spec.search["method"] == "manifold" and spec.search["of"] == 6
        )  # 3 fifths of two epochs of five
    words = ["--name", "p", "--dataroot", root, "--checkpoints_dir", tmp_path / "c", *TINY, *SIZES]
    assert run_test(*words, "--model", "coronet", "--results_dir", tmp_path / "r") == 0


def test_cycle_gan_s_pairs_and_discriminators_that_stay(trained, tmp_path):
    folder = trained("u", unpaired_folder(tmp_path, images=(5, 5)), "cycle_gan", *AGENTS)
    for name in ("G_A", "G_B"):
        spec = Spec.read(folder / f"latest_net_{name}.json")
        assert spec.phase == "compact" and spec.slim["macs"] <= 0.5 * spec.dense["macs"]
    assert not (folder / "latest_net_D_A.json").exists()


@pytest.mark.parametrize("stops", [2, 3, 4], ids=["original", "agents", "after the cut"])
def test_a_continued_run_equals_an_uninterrupted_one(trained, tmp_path, stops):
    root = paired_folder(tmp_path, images=4)
    options = [*AGENTS, "--coronet_search_epochs", 3, "--coronet_agents_part", 1.5, "--n_epochs", 4]
    options += ["--n_epochs_decay", 0, "--coronet_networks", "G,D" if stops != 3 else "G"]
    whole = trained("whole", root, "pix2pix", *options)
    with stopping_before(stops):
        trained("parts", root, "pix2pix", *options, "--save_epoch_freq", 1)
    parts = trained("parts", root, "pix2pix", *options, "--continue_train")
    assert_same_weights(whole, parts, ["latest_net_G.pth", "latest_net_D.pth"])


def test_a_trained_run_is_gone_on_with(trained, tmp_path, capsys):
    root = paired_folder(tmp_path, images=6)
    words = [
        "--name",
        "dense",
        "--dataroot",
        root,
        "--checkpoints_dir",
        tmp_path / "c",
        *TINY,
        *QUIET,
        *SIZES,
    ]
    assert run_train(*words, "--model", "pix2pix") == 0
    teacher = torch.load(tmp_path / "c" / "dense" / "latest_net_D.pth", weights_only=True)
    options = [*AGENTS, "--coronet_teacher", "dense", "--coronet_networks", "G,D"]
    folder = trained("slim", root, "pix2pix", *options, "--lr", 0)
    assert f"netD begins with {tmp_path / 'c' / 'dense' / 'latest_net_D.pth'}" in capsys.readouterr().out
    spec = Spec.read(folder / "latest_net_D.json")
    kept = {s["name"]: s["kept"] for s in spec.sets}
    mine = torch.load(folder / "latest_net_D.pth", weights_only=True)
    assert torch.equal(mine["model.0.weight"], teacher["model.0.weight"][kept["model.0"]])


def test_what_cannot_be_is_one_line(trained, tmp_path, capsys):
    root = paired_folder(tmp_path)
    for number, (options, what) in enumerate(
        (
            (
                ["--coronet_networks", "G,D"],
                "the method gates prunes generators alone; leave it out, or choose",
            ),
            ([*AGENTS, "--coronet_networks", "D"], "pruned together with its generator; name that too"),
            (
                [*AGENTS, "--coronet_budget_kind", "latency", "--coronet_budget", "0.95"],
                "go by macs or params",
            ),
            ([*AGENTS, "--coronet_teacher", "nobody"], "--coronet_teacher nobody: "),
            ([*AGENTS, "--coronet_bank", 1], "--coronet_bank 1 must be above --coronet_neighbours 2"),
        )
    ):
        trained(f"bad{number}", root, "pix2pix", *options, code=2)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert what in line
