"""The reproducibility file of a run: what it says, when it changes, that it never stops a training."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, paired_folder, run_train

from coronet_plugin.training import provenance
from coronet_plugin.training.provenance import FILE, commit_of, fingerprint, in_words, read


def options(tmp_path: Path, **changed: object) -> argparse.Namespace:
    values = {"checkpoints_dir": str(tmp_path / "c"), "name": "run", "dataroot": str(tmp_path / "data")}
    return argparse.Namespace(**{**values, "seed": 7, "phase": "train", "continue_train": False, **changed})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("train/a.png", "train/deep/b.png", "test/c.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return tmp_path / "data"


# -- data -------------------------------------------------------------------
def test_equal_data_has_an_equal_fingerprint_wherever_it_lies(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "elsewhere")
    found = fingerprint(data)
    assert found == fingerprint(tmp_path / "elsewhere")
    assert (found["files"], found["bytes"], found["every"]) == (
        2,
        100 * len("train/a.png" + "train/deep/b.png"),
        1,
    )


@pytest.mark.parametrize("change", ["rename", "same size", "longer", "one more"])
def test_changed_data_has_another_fingerprint(data: Path, change: str) -> None:
    before, path = fingerprint(data), data / "train/a.png"
    content = path.read_bytes()
    if change == "rename":
        path.rename(path.with_name("z.png"))
    elif change == "same size":
        path.write_bytes(content[::-1])
    elif change == "longer":
        path.write_bytes(content + b".")
    else:
        (data / "train/new.png").write_bytes(b"")
    after = fingerprint(data)
    same_list = before["names_and_sizes"] == after["names_and_sizes"]
    assert same_list == (change == "same size") and before != after


def test_only_the_phase_that_is_trained_on_counts(data: Path) -> None:
    before = fingerprint(data)
    (data / "test/c.png").write_bytes(b"other")
    assert fingerprint(data) == before
    assert fingerprint(data, "test")["files"] == 1
    assert fingerprint(data, "val")["files"] == 3  # no such folder: all there is
    assert fingerprint(data / "nowhere") is None


def test_unpaired_data_is_the_folders_of_both_sides(tmp_path: Path) -> None:
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        (tmp_path / f"train{side}" / "1.png").write_bytes(side.encode())
    assert fingerprint(tmp_path)["files"] == 2


def test_what_is_read_of_large_data_is_bounded_and_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (data / f"train/{number:02}.png").write_bytes(bytes(1000))
    monkeypatch.setattr(provenance, "CONTENT_BYTES", 4000)
    opened: list[int] = []
    original = open

    def counting(path: str, mode: str) -> object:
        opened.append(os.path.getsize(path))
        return original(path, mode)

    monkeypatch.setattr(provenance, "open", counting, raising=False)
    found = fingerprint(data)
    assert found["every"] == 6 and len(opened) == 4  # 22.7 kB in 22 files, of which 4 kB may be read
    assert sum(opened) <= 4000


# -- code -------------------------------------------------------------------
def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repository"
    (folder / "package").mkdir(parents=True)
    (folder / "package/code.py").write_text("1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_the_commit_and_whether_the_code_was_changed_since(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert commit_of(repository / "package") == {"commit": commit, "dirty": False}
    (repository / "notes.txt").write_text("not code")  # unknown to git
    (repository / "package/code.py").write_text("2\n")
    assert commit_of(repository / "package") == commit_of(repository) == {"commit": commit, "dirty": True}


def test_an_installed_package_is_not_taken_for_the_repository_around_it(
    repository: Path, tmp_path: Path
) -> None:
    site = repository / ".venv/site-packages/coronet_plugin"
    site.mkdir(parents=True)
    (site / "code.py").write_text("1\n")
    assert commit_of(site) is None
    (tmp_path / "plain").mkdir()
    assert commit_of(tmp_path / "plain") is None


# -- the file ---------------------------------------------------------------
def test_home_is_not_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    words = ["/opt/someone/python", "-m", "coronet_plugin", "train.py", "--dataroot", str(data)]
    monkeypatch.setattr(sys, "orig_argv", words, raising=False)
    provenance.begin(options(tmp_path, device=torch.device("cpu"), size=float("inf"), gpu_ids=[0]))
    text = (tmp_path / "c/run" / FILE).read_text()
    (one,) = read(tmp_path / "c/run")
    assert str(tmp_path) not in text and "someone" not in text
    assert one["command"] == "python -m coronet_plugin train.py --dataroot ~/data"
    assert one["options"]["dataroot"] == "~/data" and one["options"]["gpu_ids"] == [0]
    assert (one["options"]["device"], one["options"]["size"]) == ("cpu", "inf")


def test_a_command_that_is_not_a_trainings_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "ipykernel"], raising=False)
    assert provenance.command() is None


def test_continuing_appends_and_a_new_training_begins_anew(data: Path, tmp_path: Path) -> None:
    provenance.begin(options(tmp_path))
    provenance.begin(options(tmp_path, continue_train=True, seed=8))
    assert [(one["seed"], one["continued"]) for one in read(tmp_path / "c/run")] == [(7, False), (8, True)]
    provenance.begin(options(tmp_path))
    assert [one["seed"] for one in read(tmp_path / "c/run")] == [7]


def test_a_record_that_cannot_be_written_is_one_warning(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c/run" / FILE).mkdir(parents=True)
    provenance.begin(options(tmp_path))
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "training goes on" in said


def test_damaged_and_foreign_files_are_no_record(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"format": "other"}'):
        (tmp_path / FILE).write_text(text)
        assert read(tmp_path) == []


@pytest.mark.parametrize("model", ["pix2pix", "coronet"])
def test_a_training_of_the_host_leaves_one(tmp_path: Path, model: str) -> None:
    root = paired_folder(tmp_path, images=2, size=32)
    small = "--netG resnet_6blocks --ngf 4 --ndf 4 --load_size 32 --crop_size 32 --num_threads 0 --no_html".split()
    name = ["--dataroot", root, "--name", "run", "--checkpoints_dir", tmp_path / "c", "--model", model]
    coronet = ["--coronet_base", "pix2pix", "--coronet_budget", 0.5] if model == "coronet" else []
    epochs = ["--n_epochs", 1, "--n_epochs_decay", 0, "--display_id", -1, "--seed", 5]
    assert run_train(*name, *small, *coronet, *epochs) == 0
    (one,) = read(tmp_path / "c/run")
    assert one["seed"] == 5 and one["options"]["model"] == model and one["data"] == fingerprint(root)
    assert one["code"]["host"] == commit_of(ROOT)
    assert one["spent"]["seconds"] > 0 and one["spent"]["memory"] > 50 * 2**20
    assert one["versions"]["torch"] == torch.__version__ and one["machine"]["cores"] >= 1
    assert platform.node() not in list(one["machine"].values())


def test_what_a_training_took_is_that_of_all_its_parts_and_of_its_teacher(data: Path, tmp_path: Path) -> None:
    run, teacher = tmp_path / "c/run", tmp_path / "c/dense"
    teacher.mkdir(parents=True)
    assert provenance.spent(teacher) == provenance.Spent()
    entry = {"step": 5, "epoch": 1, "seconds": 30.0, "losses": {}}
    (teacher / "loss_log.jsonl").write_text(json.dumps(entry) + "\n")
    assert provenance.spent(teacher).seconds == 30  # a host that leaves no record has a log
    provenance.begin(options(tmp_path), teacher)
    provenance.note(options(tmp_path), 5.0)
    provenance.note(options(tmp_path), 10.0)
    first = provenance.spent(run)
    assert first.seconds == 40 and first.memory > 10 * 2**20 and first.gpu_memory is None
    provenance.begin(options(tmp_path, continue_train=True), teacher)
    provenance.note(options(tmp_path), 7.0)
    assert provenance.spent(run).seconds == 47 and provenance.spent(run).memory >= first.memory
    assert read(run)[1]["teacher"]["run"] == "dense"


def test_in_words(data: Path, tmp_path: Path) -> None:
    one = provenance.entry(options(tmp_path, seed=None))
    one["code"] = {"plugin": {"commit": "0123456789abcdef", "dirty": True}, "host": None}
    one["began"] = "2024-05-06T07:08:09Z"
    said = in_words(one)
    assert said["seed"] == "none" and said["began"] == "2024-05-06 07:08:09 UTC"
    assert said["plug-in"].endswith(" 0123456789, changed since") and said["host"] == "not in git"
    assert said["data"].startswith("2 files, ") and str(torch.__version__) in said["versions"]
