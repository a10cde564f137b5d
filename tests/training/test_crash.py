"""Nothing is lost: killed and interrupted trainings, full disks, read-only folders."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, paired_folder, run_train, unpaired_folder

from coronet_plugin import CheckpointError, load_generator
from coronet_plugin.checkpoint.storage import save_tensors
from coronet_plugin.checkpoint.tensors import read_tensors
from coronet_plugin.files import settle, sweep, together, write_atomically, write_text
from coronet_plugin.interruption import Interruption
from coronet_plugin.training.model_type import CompressedModel
from models.pix2pix_model import Pix2PixModel

TINY = (
    "--model coronet --coronet_budget 0.3 --netG resnet_6blocks --norm instance --ngf 8 --ndf 4 --load_size 36 "
    "--crop_size 32 --display_id 0 --n_epochs 1 --n_epochs_decay 1 --coronet_search_epochs 0.8 --print_freq 1 "
    "--pool_size 2 --seed 1 --no_html"
).split()


def script():
    spec = importlib.util.spec_from_file_location("kill_test_script", ROOT / "scripts" / "kill_test.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def train(tmp_path):
    """Train a tiny run; returns the exit code."""
    roots = {}

    def go(name: str, base: str = "pix2pix", *extra: object) -> int:
        if base not in roots:
            made = (
                paired_folder(tmp_path, 5, 36) if base == "pix2pix" else unpaired_folder(tmp_path, (5, 4), 36)
            )
            roots[base] = made
        where = ["--dataroot", roots[base], "--name", name, "--checkpoints_dir", tmp_path / "c"]
        return run_train(*where, *TINY, "--coronet_base", base, "--num_threads", 0, *extra)

    return go


def assert_same_runs(tmp_path, first: str, second: str) -> None:
    assert script().differences(tmp_path / "c" / first, tmp_path / "c" / second) == []


# -- killed -------------------------------------------------------------------
def kills(number: int, *extra: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "kill_test.py"), "--kills", str(number), *extra]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_a_killed_training_goes_on_bit_for_bit():
    assert kills(4, "--bases", "pix2pix").startswith("4 kills")


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["0", "2"])
def test_a_hundred_kills(threads):
    assert kills(100, "--num_threads", threads).startswith("100 kills")


# -- in the middle of an epoch ------------------------------------------------
class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("base", "every", "stops", "extra"),
    [
        ("cycle_gan", 3, (3, 8), []),
        ("cycle_gan", 3, (3, 8), ["--num_threads", 2]),
        ("pix2pix", 3, (3, 8), ["--lr_policy", "plateau", "--batch_size", 2]),
        ("pix2pix", 5, (5,), ["--print_freq", 100]),
        ("cycle_gan", 3, (3, 8), ["--coronet_hypernetwork", "implicit", "--coronet_rate_after", "fade"]),
        ("pix2pix", 3, (3, 8), ["--coronet_hypernetwork", "gated"]),
    ],
    ids=["one process", "loading processes", "plateau", "after its last step", "implicit", "gated"],
)
def test_a_run_goes_on_in_the_middle_of_an_epoch(train, tmp_path, monkeypatch, base, every, stops, extra):
    """Stopped after saves, searching and slim: order of the data, pools, schedules and logs are the same too."""
    extra = [*extra, "--save_latest_freq", every]
    assert train("whole", base, *extra) == 0
    original = CompressedModel.save_networks
    for stop in stops:

        def save_then_stop(self, epoch, stop=stop):
            original(self, epoch)
            if self.progress["total"] >= stop:
                raise Stopped

        monkeypatch.setattr(CompressedModel, "save_networks", save_then_stop)
        with pytest.raises(Stopped):
            train("parts", base, *extra, *(["--continue_train"] if stop != stops[0] else []))
    monkeypatch.undo()
    assert train("parts", base, *extra, "--continue_train") == 0
    assert_same_runs(tmp_path, "whole", "parts")


def test_the_files_of_an_epoch_come_with_the_state_after_it(train, tmp_path, monkeypatch):
    """Or a run that goes on behind the epoch would never write them."""
    original = CompressedModel.save_networks

    def stop_before_epoch_2(self, epoch):
        if epoch == 2:
            raise Stopped
        original(self, epoch)

    monkeypatch.setattr(CompressedModel, "save_networks", stop_before_epoch_2)
    with pytest.raises(Stopped):
        train("a", "pix2pix", "--save_epoch_freq", 1)
    state = read_tensors(tmp_path / "c" / "a" / "latest_coronet_state.pth")
    assert state["epochs_done"] == 1 and not list((tmp_path / "c" / "a").glob("*.tmp"))
    monkeypatch.undo()
    assert train("a", "pix2pix", "--save_epoch_freq", 1, "--continue_train") == 0
    assert (tmp_path / "c" / "a" / "2_net_G.pth").exists()


def test_an_epoch_whose_data_changed_begins_anew(train, tmp_path, monkeypatch, capsys):
    interrupt_after(monkeypatch, CompressedModel, 2, signal.SIGTERM)
    assert train("a") == 143
    monkeypatch.undo()
    assert train("a", "pix2pix", "--continue_train", "--max_dataset_size", 3) == 0
    assert "images changed, so the interrupted epoch begins anew" in capsys.readouterr().out


# -- interrupted --------------------------------------------------------------
def interrupt_after(monkeypatch, model: type, steps: int, number: int) -> None:
    original = model.optimize_parameters
    done = []

    def step(self):
        done.append(original(self))
        if len(done) == steps:
            signal.raise_signal(number)

    monkeypatch.setattr(model, "optimize_parameters", step)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(train, tmp_path, monkeypatch, capsys, number, code):
    before = signal.getsignal(number)
    assert train("whole") == 0
    interrupt_after(monkeypatch, CompressedModel, 3, number)
    capsys.readouterr()
    assert train("parts") == code
    line = capsys.readouterr().err.strip()
    assert "epoch 1 after 3 steps" in line and "--continue_train" in line and "\n" not in line
    monkeypatch.undo()
    assert signal.getsignal(number) is before
    assert train("parts", "pix2pix", "--continue_train") == 0
    assert_same_runs(tmp_path, "whole", "parts")


def test_a_dense_training_saves_its_networks_too(tmp_path, run, monkeypatch, capsys):
    arguments = run("p", paired_folder(tmp_path), "pix2pix")
    interrupt_after(monkeypatch, Pix2PixModel, 2, signal.SIGTERM)
    assert run_train(*arguments, "--no_html") == 143
    monkeypatch.undo()
    assert "--continue_train --epoch_count 1" in capsys.readouterr().err
    assert run_train(*arguments, "--no_html", "--continue_train", "--epoch_count", 1) == 0


def test_a_second_signal_ends_at_once(request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with Interruption() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested == signal.SIGINT and stop.code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_hosts_save_too(tmp_path, monkeypatch, capsys):
    """Their loops know nothing of signals, so the model listens."""
    from models import create_model
    from options.train_options import TrainOptions

    where = ["--dataroot", paired_folder(tmp_path, 2, 32), "--name", "a", "--checkpoints_dir", tmp_path / "c"]
    opt = TrainOptions().parse([str(word) for word in [*where, *TINY, "--coronet_base", "pix2pix"]])
    model = create_model(opt)
    model.setup(opt)
    image = torch.rand(1, 3, 32, 32)
    try:
        for number in (None, signal.SIGTERM):
            if number:
                signal.raise_signal(number)
            model.set_input({"A": image, "B": image, "A_paths": ["a"], "B_paths": ["b"]})
            with pytest.raises(SystemExit) if number else contextlib.nullcontext() as left:
                model.optimize_parameters()
    finally:
        model.guard.stop()
    assert left.value.code == 143 and "--continue_train" in capsys.readouterr().out
    assert (tmp_path / "c" / "a" / "latest_coronet_state.pth").exists()


def test_signals_are_the_hosts_again_after_the_last_step(tmp_path):
    from models import create_model
    from options.train_options import TrainOptions

    where = ["--dataroot", paired_folder(tmp_path, 2, 32), "--name", "a", "--checkpoints_dir", tmp_path / "c"]
    words = [*where, *TINY, "--coronet_base", "pix2pix", "--n_epochs", 1, "--n_epochs_decay", 0]
    opt = TrainOptions().parse([str(word) for word in words])
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    model = create_model(opt)
    model.setup(opt)
    image, heard = torch.rand(1, 3, 32, 32), []
    for _ in range(2):
        model.set_input({"A": image, "B": image, "A_paths": ["a"], "B_paths": ["b"]})
        model.optimize_parameters()
        heard.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before)
    assert heard == [False, True]


# -- several files at once ----------------------------------------------------
@pytest.mark.parametrize("survived", range(5))
def test_files_of_a_save_are_all_old_or_all_new(tmp_path, monkeypatch, survived):
    """The program dies after so many renames: of the journal, of three files."""

    class Killed(BaseException):
        pass

    def save(text):
        with together():
            for name in "abc":
                write_text(tmp_path / name, text)

    save("old")
    replace, done = os.replace, []

    def dies(source, target):
        if len(done) == survived:
            raise Killed
        done.append(replace(source, target))

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(Killed) if survived < 4 else contextlib.nullcontext():
        save("new")
    monkeypatch.undo()
    settle(tmp_path)
    expected = "new" if survived else "old"
    assert {name: (tmp_path / name).read_text() for name in "abc"} == dict.fromkeys("abc", expected)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_an_error_in_a_group_leaves_all_old_files(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), together():
        write_text(tmp_path / "a", "new")
        write_atomically(tmp_path / "b", lambda temporary: 1 / 0)
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_what_killed_runs_left_is_swept_away(tmp_path):
    (tmp_path / "net.pth.0123abcd.tmp").write_text("half")
    (tmp_path / "mine.tmp").write_text("not ours")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["mine.tmp"]


@pytest.mark.parametrize(
    "text",
    [
        '{"a.0123abcd.tmp": "../b"}',
        '{"../a.0123abcd.tmp": "a"}',
        '{"a.0123abcd.tmp": "b"}',
        '{"a": "a"}',
        '["a"]',
        '{"a.0123abcd.tmp": 1}',
        "{",
        "[" * 100_000,
    ],
)
def test_a_strangers_journal_renames_nothing_else(tmp_path, text):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.0123abcd.tmp").write_text("x")
    (tmp_path / "a.0123abcd.tmp").write_text("x")
    (folder / "save.0.journal").write_text(text)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="not a journal"):
        settle(folder)
    assert sorted(tmp_path.rglob("*")) == before


# -- full disks and read-only folders -----------------------------------------
@pytest.fixture
def mounted(tmp_path):
    """Mounts a small file system of its own; skips where that is not allowed."""
    places = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_files(tmp_path, mounted):
    disk = mounted("size=256k")
    with together():
        save_tensors({"a": torch.zeros(10_000)}, disk / "a.pth")
        save_tensors({"b": torch.zeros(10_000)}, disk / "b.pth")
    with pytest.raises(CheckpointError, match=r"No space left on device; make room") as caught, together():
        save_tensors({"a": torch.ones(10_000)}, disk / "a.pth")
        save_tensors({"b": torch.ones(100_000)}, disk / "b.pth")
    assert "\n" not in str(caught.value) and sorted(os.listdir(disk)) == ["a.pth", "b.pth"]
    assert not torch.load(disk / "a.pth")["a"].any()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_disk_says_is_one_line(tmp_path, code):
    def write(temporary):
        temporary.write_text("half")
        raise OSError(code, os.strerror(code), str(temporary))

    write_text(tmp_path / "a", "old")
    with pytest.raises(CheckpointError) as caught:
        write_atomically(tmp_path / "a", write)
    line = str(caught.value)
    assert os.strerror(code) in line and "; " in line and "\n" not in line
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_training_on_a_full_disk_keeps_its_last_checkpoint(train, mounted, monkeypatch, capsys):
    disk = mounted("size=4m")
    original = CompressedModel.save_networks

    def fill_up_first(self, epoch):
        if self.place.epochs_done == 1:
            room = os.statvfs(disk)
            (disk / "other").write_bytes(bytes(room.f_bavail * room.f_frsize - 100_000))
        original(self, epoch)

    monkeypatch.setattr(CompressedModel, "save_networks", fill_up_first)
    extra = ["--checkpoints_dir", disk, "--save_latest_freq", 3]
    assert train("a", "pix2pix", *extra) == 2
    line = capsys.readouterr().err.strip()
    assert "No space left on device" in line and "make room" in line and "\n" not in line
    (disk / "other").unlink()
    assert load_generator(disk / "a" / "latest_net_G.pth")
    monkeypatch.undo()
    assert train("a", "pix2pix", *extra, "--continue_train") == 0


def test_a_read_only_folder_is_said_before_anything_is_trained(train, mounted, capsys):
    disk = mounted("size=4m,ro")
    with pytest.raises(SystemExit) as left:
        train("a", "pix2pix", "--checkpoints_dir", disk)
    line = capsys.readouterr().err.strip()
    assert left.value.code == 2 and "Read-only file system" in line and "\n" not in line


def test_a_log_that_ends_within_a_line_goes_on(train, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, CompressedModel, 3, signal.SIGTERM)
    assert train("a") == 143
    monkeypatch.undo()
    log = tmp_path / "c" / "a" / "loss_log.jsonl"
    log.write_text(log.read_text() + '{"epoch": 1, "epoch_it')
    assert train("a", "pix2pix", "--continue_train") == 0
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 11))
