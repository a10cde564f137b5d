from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from run_helpers import ARCHITECTURE, SIZE, make_cycle_run, make_run, option_line

from coronet_plugin.errors import CheckpointError, DataError, OptionError
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.runs.options import parse_options
from coronet_plugin.runs.run import Run, find_run, read_log


def find(root: Path, name: str) -> Run:
    return find_run(name, root / "checkpoints", root / "results")


# Options


def test_option_lines_are_read_as_upstream_writes_them() -> None:
    options = parse_options(
        "----------------- Options ---------------\n"
        + option_line("beta1", 0.5)
        + option_line("dataroot", "./data: mine/[new] set", "None")
        + option_line("name", "a run", "experiment_name")
        + option_line("suffix", "")
        + option_line("verbose", False)
        + "----------------- End -------------------\n"
    )
    assert options.values == {
        "beta1": "0.5",
        "dataroot": "./data: mine/[new] set",
        "name": "a run",
        "suffix": "",
        "verbose": "False",
    }
    assert options.changed == {"dataroot": "None", "name": "experiment_name"}


def test_the_command_names_what_was_changed_and_can_be_pasted() -> None:
    options = parse_options(
        option_line("dataroot", "./my data", "None")
        + option_line("isTrain", True, "None")
        + option_line("lr", 0.0002)
        + option_line("name", "x_1", "experiment_name")
        + option_line("no_dropout", True, False)
        + option_line("suffix", "_{ngf}", "")
    )
    assert options.command() == "python train.py --dataroot './my data' --name x_1 --no_dropout"


def test_missing_and_malformed_options_are_named() -> None:
    options = parse_options(option_line("ngf", "wide"))
    with pytest.raises(OptionError, match="--netG"):
        options.text("netG")
    with pytest.raises(OptionError, match="--ngf is 'wide'"):
        options.integer("ngf")
    assert options.integer("crop_size", 256) == 256


# The log


def test_log_without_its_last_line_cut_short(tmp_path: Path) -> None:
    line = json.dumps({"epoch": 1, "step": 20, "seconds": 3.5, "losses": {"G_L1": 2.0}})
    path = tmp_path / "loss_log.jsonl"
    path.write_text(line + "\n" + line[:20], encoding="utf-8")
    (entry,) = read_log(path)
    assert (entry.step, entry.epoch, entry.seconds, entry.losses["G_L1"]) == (20, 1, 3.5, 2.0)
    path.write_text(line[:20] + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        read_log(path)
    assert read_log(tmp_path / "none.jsonl") == ()


# Finding runs


def test_a_dense_run_is_found_and_its_generator_rebuilt(tmp_path: Path) -> None:
    make_run(tmp_path, "dense", seed=3)
    run = find(tmp_path, "dense")
    assert run.is_dense and run.base_model == "pix2pix" and set(run.weights) == {"G"}
    assert run.images_dir == tmp_path / "results/dense/test_latest/images"
    assert run.training_seconds == 12.5
    torch.manual_seed(3)
    expected = build_generator(**ARCHITECTURE).eval()
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(run.load_generator("G")(image), expected(image))


def test_a_compressed_run_is_loaded_small(tmp_path: Path) -> None:
    make_run(tmp_path, "slim", budget=0.3)
    run = find(tmp_path, "slim")
    assert not run.is_dense and run.specs["G"].phase == "compact"
    net = run.load_generator("G")
    assert not net.training
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == run.specs["G"].slim["parameters"] < run.specs["G"].dense["parameters"]


def test_cycle_gan_has_two_translations_and_no_truth(tmp_path: Path) -> None:
    make_cycle_run(tmp_path, "cycle")
    first, second = find(tmp_path, "cycle").translations
    assert (first.generator, first.source, first.output, first.truth) == ("G_A", "real_A", "fake_B", None)
    assert (second.generator, second.source, second.output, second.truth) == ("G_B", "real_B", "fake_A", None)


def test_channels_of_the_way_back_are_swapped(tmp_path: Path) -> None:
    make_cycle_run(tmp_path, "cycle")
    file = tmp_path / "checkpoints/cycle/train_opt.txt"
    text = file.read_text(encoding="utf-8").replace(option_line("input_nc", 3), option_line("input_nc", 1, 3))
    file.write_text(text, encoding="utf-8")
    run = find(tmp_path, "cycle")
    assert run.input_size("G_A") == (1, SIZE, SIZE) and run.input_size("G_B") == (3, SIZE, SIZE)


def test_a_written_command_is_preferred(tmp_path: Path) -> None:
    make_run(tmp_path, "dense")
    assert find(tmp_path, "dense").command.startswith("python train.py --crop_size 32 ")
    command = "python train.py --name dense --seed 1"
    (tmp_path / "checkpoints/dense/command.txt").write_text(command + "\n", encoding="utf-8")
    assert find(tmp_path, "dense").command == command


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, "dense", stems=())
    assert find(tmp_path, "dense").images_dir is None
    with pytest.raises(CheckpointError, match=r"no run 'dnse' .*there are: dense"):
        find(tmp_path, "dnse")
    with pytest.raises(CheckpointError, match="7_net_G"):
        find_run("dense", tmp_path / "checkpoints", tmp_path / "results", epoch="7")
    (tmp_path / "checkpoints/dense/train_opt.txt").unlink()
    with pytest.raises(CheckpointError, match="no train_opt.txt"):
        find(tmp_path, "dense")


def test_a_foreign_json_beside_the_weights_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "dense")
    (tmp_path / "checkpoints/dense/latest_net_G.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a coronet spec"):
        find(tmp_path, "dense")
