"""What days of training would show: files left open, memory that grows, loading processes that die."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT, paired_folder, run_train

import data
from coronet_plugin.errors import DataError
from data import loading_error
from data.aligned_dataset import AlignedDataset

COMPRESSED = (
    "--model coronet --coronet_base pix2pix --coronet_budget 0.3 --norm instance --ngf 8 --n_epochs 5 "
    "--n_epochs_decay 1 --coronet_search_epochs 2 --save_latest_freq 3 --display_freq 2 --update_html_freq 2 --num_threads 2"
).split()


def wait_for_loading_to_end() -> None:
    """Loading processes that are told to end, and the threads that tell them, take a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not multiprocessing.active_children() and not any(
            thread.name.startswith("QueueFeederThread") for thread in threading.enumerate()
        ):
            return
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_no_file_stays_open(tmp_path, run, monkeypatch):
    """Loading processes, saves, pages and logs of every epoch leave as many open files as before."""
    import train

    counts = []
    end = train.Visualizer.end_epoch

    def count(self, epoch, losses):
        end(self, epoch, losses)
        gc.collect()  # what earlier tests left must not be closed in the middle of this one
        wait_for_loading_to_end()
        counts.append(len(os.listdir("/proc/self/fd")))

    monkeypatch.setattr(train.Visualizer, "end_epoch", count)
    assert run_train(*run("a", paired_folder(tmp_path, 4, 36), "pix2pix"), *COMPRESSED) == 0
    assert len(counts) == 6 and max(counts[2:]) <= counts[1]  # the first epoch loads libraries


def test_the_death_of_a_loading_process_is_told_from_what_fails_by_it():
    """It may come while a file is written, which then cannot be ended."""
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")
    except RuntimeError as error:
        assert "a process that loads images died" in str(loading_error(error))
    other = RuntimeError("size mismatch")
    assert loading_error(other) is other


def test_a_loading_process_may_die_while_it_hands_a_batch_over():
    def batches():
        raise ConnectionResetError("Connection reset by peer")
        yield

    with pytest.raises(DataError, match="a process that loads images died"):
        data._next(batches())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_death_of_a_loading_process_is_one_line(tmp_path, run, monkeypatch, capsys, number):
    """As when the system runs out of memory; the checkpoint saved before can be continued."""
    load = AlignedDataset.__getitem__
    main = os.getpid()

    def die(self, index):
        if os.getpid() != main and index == 3 and (tmp_path / "checkpoints/a/latest_net_G.pth").exists():
            os.kill(os.getpid(), number)
        return load(self, index)

    monkeypatch.setattr(AlignedDataset, "__getitem__", die)
    arguments = [*run("a", paired_folder(tmp_path, 6, 36), "pix2pix"), *COMPRESSED, "--save_latest_freq", "1"]
    assert run_train(*arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a process that loads images died" in line and "--num_threads" in line
    monkeypatch.undo()
    assert run_train(*arguments, "--continue_train") == 0


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "watch_memory.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    assert json.loads((tmp_path / "memory.json").read_text())["steps"] == 2000
