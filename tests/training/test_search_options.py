"""The search's options through train.py and test.py: what a user types, and what the specs then say."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import paired_folder, run_test, run_train, unpaired_folder

from coronet_plugin.budget.latency_meter import Clock
from coronet_plugin.checkpoint.spec import Spec

CORONET = ["--coronet_base", "pix2pix", "--coronet_search_epochs", "1"]


@pytest.fixture
def trained(run, tmp_path):
    """Train a coronet run on pairs; returns its spec."""
    root = paired_folder(tmp_path)

    def train(name: str, *options: object, code: int = 0) -> Spec | None:
        assert run_train(*run(name, root, "coronet"), *CORONET, "--ngf", 8, *options) == code
        path = tmp_path / "checkpoints" / name / "latest_net_G.json"
        return Spec.read(path) if code == 0 else None

    train.root = root
    return train


@pytest.mark.parametrize("method", ["coronet", "uniform", "random", "magnitude"])
def test_every_method_trains_is_tested_and_meets_the_budget(trained, run, method):
    pytest.importorskip("torch_pruning") if method == "magnitude" else None
    spec = trained("m", "--coronet_budget", 0.4, "--coronet_method", method)
    assert (
        spec.phase == "compact" and 0.3 * spec.dense["macs"] < spec.slim["macs"] <= 0.4 * spec.dense["macs"]
    )
    assert spec.search["method"] == ("gates" if method == "coronet" else method)
    assert run_test(*run("m", trained.root, "coronet", testing=True), "--ngf", 8) == 0


@pytest.mark.parametrize("method", ["coronet", "uniform", "magnitude"])
def test_every_method_can_be_continued(trained, method):
    pytest.importorskip("torch_pruning") if method == "magnitude" else None
    options = ["--coronet_budget", 0.4, "--coronet_method", method, "--coronet_search_epochs", 2]
    first = trained("c", *options, "--n_epochs", 1, "--n_epochs_decay", 1)
    again = trained("c", *options, "--continue_train", "--epoch_count", 3, "--n_epochs_decay", 2)
    assert again.phase == "compact" and again.sets == first.sets


def test_another_run_s_widths(trained, tmp_path):
    first = trained("first", "--coronet_budget", 0.4)
    folder = tmp_path / "checkpoints" / "first"
    for name, where in (("folder", folder), ("file", folder / "latest_net_G.json")):
        spec = trained(name, "--coronet_method", "random", "--coronet_widths_from", where)
        assert [len(s["kept"]) for s in spec.sets] == [len(s["kept"]) for s in first.sets]


def test_a_shared_budget_and_rounded_widths(run, tmp_path):
    root = unpaired_folder(tmp_path)
    options = [
        "--coronet_base",
        "cycle_gan",
        "--coronet_search_epochs",
        1,
        "--ngf",
        16,
        "--coronet_budget",
        0.5,
    ]
    options += ["--coronet_shared_budget", "--coronet_round_to", 4]
    assert run_train(*run("s", root, "coronet"), *options) == 0
    specs = [Spec.read(tmp_path / "checkpoints" / "s" / f"latest_net_{name}.json") for name in ("G_A", "G_B")]
    total, dense = (sum(getattr(s, part)["macs"] for s in specs) for part in ("slim", "dense"))
    assert 0.4 * dense < total <= 0.5 * dense
    assert all(len(s["kept"]) % 4 == 0 for spec in specs for s in spec.sets if not s["pinned"])


def test_a_budget_in_milliseconds(trained, monkeypatch):
    """By a clock that is never disturbed; real ones: tests/budget/test_latency_table.py."""
    monkeypatch.setattr(Clock, "ms", lambda self, alive: self.plan.cost(alive).macs / 1e6)
    spec = trained("ms", "--coronet_budget", 0.5, "--coronet_budget_kind", "latency", "--crop_size", 32)
    assert spec.budget["kind"] == "latency" and spec.slim["macs"] <= 0.52 * spec.dense["macs"]


def test_a_checkpoint_of_the_search_is_tested_as_small_as_it_is(trained, run, tmp_path):
    spec = trained("early", "--coronet_budget", 0.3, "--n_epochs", 5, "--coronet_search_epochs", 6,
                   "--save_epoch_freq", 4)  # fmt: skip
    assert spec.phase == "compact"
    early = tmp_path / "checkpoints" / "early"
    path = early / "4_net_G.pth"
    middle = Spec.read(path.with_suffix(".json"))
    assert middle.phase == "search" and middle.slim["macs"] < middle.dense["macs"]
    assert (
        sum(t.numel() for t in torch.load(path, weights_only=True).values())
        < 1.05 * middle.slim["parameters"]
    )
    assert run_test(*run("early", trained.root, "coronet", testing=True), "--ngf", 8, "--epoch", 4) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coronet_round_to", 0], "at least 1"),
        (["--coronet_rate", 2], "--coronet_rate is not for the method gates"),
        (["--coronet_hypernetwork", "implicit", "--coronet_rate", -1], "above 0, not -1"),
        (
            ["--coronet_schedule", "steady", "--coronet_budget", 0.4],
            "steady' is for published, folded, slimming alone",
        ),
        (["--coronet_widths_from", "nowhere.json"], "nowhere.json cannot be read"),
        (["--coronet_widths_from", "x", "--coronet_shared_budget"], "no budget to share"),
        (["--coronet_budget", "1e9s", "--coronet_budget_kind", "latency"], "ask for less"),
    ],
)
def test_what_cannot_be_is_one_line(trained, capsys, options, message):
    trained("no", *options, code=2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("budget", ["20ms", "1.7", "999"])
def test_a_slip_in_the_budget_is_said_by_the_parser(trained, capsys, budget):
    with pytest.raises(SystemExit) as left:
        trained("no", "--coronet_budget", budget)
    error = capsys.readouterr().err
    assert left.value.code == 2 and "such as 0.1" in error and error.count("\n") == 1


def test_the_log_has_the_path_of_the_cost(trained, tmp_path):
    trained("log", "--coronet_budget", 0.4, "--n_epochs", 5, "--coronet_search_epochs", 5, "--print_freq", 1)
    lines = (tmp_path / "checkpoints" / "log" / "loss_log.jsonl").read_text().splitlines()
    path = [json.loads(line)["losses"]["macs_G"] for line in lines]
    assert path[0] == 1.0 and path[-1] <= 0.4 and path == sorted(path, reverse=True)
    assert len(set(path)) > 4
