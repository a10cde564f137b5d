"""Continue with other options than the run began with: what stays exact, what changes, and what is said."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import paired_folder, run_train

from coronet_plugin.checkpoint.tensors import read_tensors

TINY = (
    "--model coronet --coronet_base pix2pix --coronet_budget 0.3 --netG resnet_6blocks --norm instance --ngf 8 "
    "--ndf 4 --load_size 36 --crop_size 32 --display_id 0 --print_freq 1 --seed 1 --no_html --num_threads 0 "
    "--coronet_search_epochs 0.75"
).split()


@pytest.fixture
def train(tmp_path):
    root = paired_folder(tmp_path, 4, 36)

    def go(name: str, *extra: object) -> int:
        where = ["--dataroot", root, "--name", name, "--checkpoints_dir", tmp_path / "c"]
        return run_train(*where, *TINY, *extra)

    return go


def schedule(constant: int, decay: int = 0) -> tuple[object, ...]:
    return "--n_epochs", constant, "--n_epochs_decay", decay


def weights(tmp_path, name: str) -> dict[str, torch.Tensor]:
    return read_tensors(tmp_path / "c" / name / "latest_net_G.pth")


def log(tmp_path, name: str) -> list[dict]:
    lines = (tmp_path / "c" / name / "loss_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("search", [1, 0.5], ids=["cut at the end", "cut before"])
def test_more_epochs_than_planned_equal_a_run_that_was_planned_so(train, tmp_path, search):
    options = ("--coronet_search_epochs", search, "--coronet_average", 0.9)
    assert train("long", *schedule(3), *options) == 0
    assert train("short", *schedule(1), *options) == 0
    assert train("short", *schedule(3), *options, "--continue_train") == 0
    long, short = weights(tmp_path, "long"), weights(tmp_path, "short")
    assert all(torch.equal(long[key], short[key]) for key in long)
    assert [row["step"] for row in log(tmp_path, "short")] == [row["step"] for row in log(tmp_path, "long")]


def test_a_search_whose_length_nobody_gave_stays_as_long_when_epochs_are_added(tmp_path):
    root = paired_folder(tmp_path, 4, 36)
    where = ["--dataroot", root, "--name", "a", "--checkpoints_dir", tmp_path / "c", *TINY[:-2]]
    spec = tmp_path / "c" / "a" / "latest_net_G.json"

    def length() -> tuple[int, str]:
        found = json.loads(spec.read_text(encoding="utf-8"))
        return found["search"]["of"], found["phase"]

    assert run_train(*where, *schedule(8), "--epoch_count", 8) == 0
    assert length() == (8, "search")
    assert run_train(*where, *schedule(16), "--epoch_count", 15, "--continue_train") == 0
    assert length() == (8, "compact")
    assert run_train(*where, *schedule(16), "--epoch_count", 16, "--name", "b") == 0
    assert json.loads((tmp_path / "c" / "b" / "latest_net_G.json").read_text())["search"]["of"] == 16


def test_another_learning_rate_is_the_one_that_is_used(train, tmp_path):
    assert train("a", *schedule(1), "--lr", 0.0002) == 0
    assert train("a", *schedule(2), "--lr", 0.0005, "--continue_train") == 0
    assert {row["epoch"]: row["lr"] for row in log(tmp_path, "a")} == {1: 0.0002, 2: 0.0005}


def test_another_batch_size_goes_on_with_the_same_epochs(train, tmp_path):
    assert train("a", *schedule(1)) == 0
    assert train("a", *schedule(3), "--batch_size", 2, "--continue_train") == 0
    rows = log(tmp_path, "a")
    steps = {row["epoch"]: row["step"] for row in rows}
    assert steps == {1: 4, 2: 6, 3: 8}, "four pictures one by one, then in pairs"
    assert rows[-1]["images"] == 12
    assert rows[-1]["losses"]["macs_G"] <= 0.3


def test_another_number_of_threads_is_said(train, tmp_path, capsys):
    """The last bits depend on it; everything else goes on."""
    assert train("a", *schedule(1)) == 0
    capsys.readouterr()
    torch.set_num_threads(2)
    try:
        assert train("a", *schedule(2), "--continue_train") == 0
    finally:
        torch.set_num_threads(1)
    assert "goes on with threads: 2 after 1" in capsys.readouterr().out
    assert [row["step"] for row in log(tmp_path, "a")] == list(range(1, 9))


@pytest.mark.parametrize("part", ["torch", "coronet_plugin", "cpu"])
def test_what_was_upgraded_or_exchanged_is_said(train, tmp_path, capsys, part):
    """A run of an older torch, of an older version of this package, of another machine."""
    assert train("a", *schedule(1)) == 0
    file = tmp_path / "c" / "a" / "provenance.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    (one,) = record["trainings"]
    one["machine" if part == "cpu" else "versions"][part] = "0.1"
    file.write_text(json.dumps(record), encoding="utf-8")
    capsys.readouterr()
    assert train("a", *schedule(2), "--continue_train") == 0
    said = capsys.readouterr().out
    assert f" {part}" in said and "after 0.1: right, but not bit for bit" in said


def test_nothing_is_said_where_nothing_changed(train, capsys):
    assert train("a", *schedule(1)) == 0
    assert train("a", *schedule(2), "--continue_train") == 0
    assert "bit for bit" not in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.parametrize("options", [(), ("--coronet_method", "published"), ("--fused", "--channels_last")], ids=str)
def test_a_run_of_the_cpu_goes_on_on_a_gpu_and_comes_back(train, tmp_path, options):
    """To where it would have come on the CPU alone, but for rounding; and its files are of no device."""
    for name, ids in {"here": (-1, -1, -1), "there": (-1, 0, -1)}.items():
        for epochs, gpu in enumerate(ids, start=1):
            going_on = ("--continue_train",) * (epochs > 1)
            assert train(name, *schedule(epochs), "--no_dropout", "--gpu_ids", gpu, *options, *going_on) == 0
            assert all(tensor.device.type == "cpu" for tensor in weights(tmp_path, name).values())
    here, there = ([row["losses"] for row in log(tmp_path, name)] for name in ("here", "there"))
    assert here[:4] == there[:4], "the first epoch was on the CPU in both"
    assert here[4]["G_L1"] == pytest.approx(there[4]["G_L1"], rel=1e-3)
    assert here[-1]["G_L1"] == pytest.approx(there[-1]["G_L1"], rel=0.1)


@pytest.mark.gpu
def test_a_continued_run_on_a_gpu_is_the_uninterrupted_one_to_rounding(train, tmp_path):
    """Some operations of a GPU sum in an order of the moment; the random numbers are those of one run."""
    assert train("whole", *schedule(3), "--gpu_ids", 0) == 0
    assert train("parts", *schedule(1), "--gpu_ids", 0) == 0
    assert train("parts", *schedule(3), "--gpu_ids", 0, "--continue_train") == 0
    whole, parts = (log(tmp_path, name) for name in ("whole", "parts"))
    assert [row["step"] for row in parts] == [row["step"] for row in whole]
    assert parts[4]["losses"]["G_L1"] == pytest.approx(whole[4]["losses"]["G_L1"], rel=1e-3)
