"""Options: upstream's names, types and defaults; what is refused, and how it is said."""

from __future__ import annotations

import argparse
import json
import sys

import pytest
import torch
from conftest import FACTS

import models
from coronet_plugin.errors import OptionError
from options.base_options import choose_device
from options.test_options import TestOptions
from options.train_options import TrainOptions

KNOWN = json.loads((FACTS / "options-2024-wandb.json").read_text())
NEW = {"--seed", "--debug", "--bit_depth", "--amp", "--channels_last", "--compile"}
NEW_IN_TRAINING = {"--overwrite", "--fused", "--accumulate"}
NEW_IN_TEST = {"--pad_to_multiple"}


def gathered(phase: str, *args: str) -> argparse.ArgumentParser:
    from options.parser import Parser

    options = TrainOptions() if phase == "train" else TestOptions()
    return options._gather(options.initialize(Parser(args)))


@pytest.mark.parametrize("case", KNOWN)
def test_names_types_and_defaults_are_upstreams(case):
    parser = gathered(*case.split())
    found = {
        option: {
            "choices": action.choices,
            "default": action.default,
            "flag": action.nargs == 0,
            "type": action.type.__name__ if action.type else None,
        }
        for action in parser._actions
        for option in action.option_strings
        if option not in ("-h", "--help")
    }
    new = NEW | (NEW_IN_TRAINING if case.startswith("train") else NEW_IN_TEST)
    assert found.keys() >= new
    assert {name: fact for name, fact in found.items() if name not in new} == KNOWN[case]


@pytest.fixture
def parse(tmp_path):
    def parsed(*args, options=TrainOptions):
        fixed = ["--dataroot", "somewhere", "--checkpoints_dir", str(tmp_path), "--name", "run"]
        return options().parse([*fixed, *map(str, args)])

    return parsed


def test_parsed_values_and_the_file(parse, tmp_path, capsys):
    opt = parse("--model", "pix2pix", "--ngf", 8, "--lambda_L1", 3)
    assert (opt.netG, opt.norm, opt.ngf, opt.lambda_L1, opt.load_iter) == ("unet_256", "batch", 8, 3.0, 0)
    assert opt.isTrain is True
    text = (tmp_path / "run" / "train_opt.txt").read_text()
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert lines["ngf"].split(": ", 1)[1].split("\t") == ["8".ljust(30), "[default: 64]"]
    assert "default" not in lines["ndf"]
    assert text.splitlines()[0].startswith("------") and text in capsys.readouterr().out


def test_command_line_is_the_default(monkeypatch, tmp_path):
    argv = ["--dataroot", "d", "--checkpoints_dir", str(tmp_path), "--model", "cycle_gan", "--lambda_A", "2"]
    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    assert TrainOptions().parse().lambda_A == 2


def test_setters_see_the_given_arguments_not_the_command_line(parse, monkeypatch, tmp_path):
    (tmp_path / "asking_model.py").write_text(
        "from models.base_model import BaseModel\n"
        "class AskingModel(BaseModel):\n"
        "    @staticmethod\n"
        "    def modify_commandline_options(parser, is_train):\n"
        "        known, _ = parser.parse_known_args()\n"
        "        parser.set_defaults(netG='unet_128' if known.ngf == 8 else 'resnet_6blocks')\n"
        "        parser.add_argument('--seed', type=str, default='its own')\n"
        "        return parser\n"
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["pytest", "--ngf", "3", "--help"])
    opt = parse("--model", "asking", "--ngf", 8)
    assert (opt.netG, opt.seed) == ("unet_128", "its own")


def error_of(capsys, parse, *args, options=TrainOptions) -> str:
    with pytest.raises(SystemExit) as left:
        parse(*args, options=options)
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--model", "nope"],
            ["train.py: error: --model nope", "colorization, coronet, cycle_gan, pix2pix, template, test"],
        ),
        (
            ["--dataset_mode", "nope"],
            ["--dataset_mode nope", "aligned, colorization, single, template, unaligned"],
        ),
        (["--model", "pix2pix", "--lambda_a", "1"], ["unknown option --lambda_a", "--lambda_L1", "--lr "]),
        (["--lambda_L1", "1"], ["unknown option --lambda_L1", "--lambda_A"]),
        (["--continue"], ["unknown option --continue;", "--continue_train"]),
        (["stray"], ["'stray'"]),
        (["--ngf", "many"], ["--ngf", "many"]),
        (["--ngf", "0"], ["--ngf must be at least 1"]),
        (["--print_freq", "0"], ["--print_freq must be at least 1"]),
        (["--direction", "AtoC"], ["--direction AtoC", "BtoA"]),
        (["--gpu_ids", "first"], ["--gpu_ids first"]),
        (["--suffix", "_{nothing}"], ["--suffix", "nothing"]),
        (["--model", "test"], ["--model test", "test.py"]),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(parse, capsys, args, said):
    line = error_of(capsys, parse, *args)
    for part in said:
        assert part in line


def test_missing_dataroot(capsys):
    with pytest.raises(SystemExit) as left:
        TrainOptions().parse([])
    assert left.value.code == 2
    assert "--dataroot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "theirs", "others"),
    [
        (["--model", "pix2pix"], ["--lambda_L1", "(default: unet_256)"], ["--lambda_A"]),
        (["--model", "cycle_gan"], ["--lambda_identity", "(default: unaligned)"], ["--lambda_L1"]),
        (
            ["--model", "coronet", "--coronet_base", "pix2pix"],
            ["coronet_budget", "lambda_L1"],
            ["lambda_identity"],
        ),
    ],
)
def test_help_shows_the_options_of_the_model(capsys, args, theirs, others):
    with pytest.raises(SystemExit) as left:
        TrainOptions().parse([*args, "--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in theirs) and not any(name in text for name in others)


def test_suffix_is_filled_in_and_appended(parse):
    assert parse("--suffix", "_{netG}_{load_size}").name == "run_resnet_9blocks_286"


def test_testing_leaves_the_training_options_alone(parse, tmp_path):
    parse(options=TestOptions)
    assert not (tmp_path / "run").exists()  # a mistyped name leaves nothing behind
    parse("--model", "pix2pix")
    before = (tmp_path / "run" / "train_opt.txt").read_text()
    opt = parse("--model", "pix2pix", "--phase", "train", options=TestOptions)
    assert opt.isTrain is False
    parse("--phase", "val", options=TestOptions)
    assert (tmp_path / "run" / "train_opt.txt").read_text() == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["train_opt.txt"]


def test_devices(monkeypatch):
    cpu = ([], torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("0") == choose_device("-1") == choose_device("0,1") == cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("-1") == cpu
    assert choose_device("0") == ([0], torch.device("cuda", 0))
    assert choose_device("1,0,5") == ([1, 0], torch.device("cuda", 1))
    with pytest.raises(OptionError, match="only GPUs 0 to 1"):
        choose_device("7")
