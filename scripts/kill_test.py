"""Kill trainings at random moments, continue them, and compare with one that nobody killed.

    python scripts/kill_test.py --kills 100

Tiny trainings of pix2pix and CycleGAN, with search, cut, image pool and a save every two steps, are ended by
SIGKILL: at any moment, while files are being written, or at the cut. After every kill all files must be
readable and the last completed save still there; at the end every file must equal the uninterrupted run's:
weights, optimizers, schedules, latents, random state, image pools, logs and pictures, bit for bit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch._dynamo  # as an optimizer does at its first step
from PIL import Image

import train
from coronet_plugin.channels import find as planning
from coronet_plugin.checkpoint.storage import load_generator
from coronet_plugin.checkpoint.tensors import read_tensors
from coronet_plugin.files import settle
from coronet_plugin.training.model_type import CompressedModel
from data import aligned_dataset, unaligned_dataset  # noqa: F401 (imported once, not by every training)
from models import coronet_model, cycle_gan_model, pix2pix_model  # noqa: F401
from util.logs import LossPlot

BASES = ("pix2pix", "cycle_gan")
MOMENTS = ("any moment", "during a save", "at the cut")
OPTIONS = (
    "--model coronet --coronet_budget 0.3 --coronet_search_epochs 2.4 --netG resnet_6blocks --norm instance "
    "--ngf 8 --ndf 4 --load_size 36 --crop_size 32 --display_id 0 --n_epochs 3 --n_epochs_decay 2 "
    "--save_latest_freq 2 --save_epoch_freq 2 --print_freq 3 --display_freq 4 --update_html_freq 4 --seed 1 "
    "--pool_size 3 --gpu_ids -1"
).split()
SAVED = "saved.txt"
"""Steps done at each completed save, beside the run's folder."""
OWN_TO_A_START = {"provenance.json", "train_opt.txt", "loss_log.txt", "loss_plot.png"}
"""Files that say when and how often a run was started."""
KILLS_A_RUN = 8
CLOCK = {"seconds", "images_per_s"}


@dataclass
class Counts:
    """Counts of kills by moment, and of trainings that came to their end all the same."""

    kills: Counter[str] = field(default_factory=Counter)
    finished: int = 0


def pictures(folder: Path, count: int = 5, size: int = 36) -> None:
    """Pairs in ``paired/train``, and sets without partners in ``unpaired/trainA`` and ``trainB``."""
    numbers = random.Random(0)

    def picture() -> Image.Image:
        coarse = Image.frombytes("RGB", (4, 4), bytes(numbers.randrange(256) for _ in range(48)))
        return coarse.resize((size, size), Image.Resampling.BICUBIC)

    for part, width in (("paired/train", 2), ("unpaired/trainA", 1), ("unpaired/trainB", 1)):
        (folder / part).mkdir(parents=True)
        for number in range(count - (part[-1] == "B")):
            image = Image.new("RGB", (width * size, size))
            for left in range(width):
                image.paste(picture(), (left * size, 0))
            image.save(folder / part / f"{number}.png")


# -- one training, in a process of its own ------------------------------------
@dataclass(frozen=True)
class Trial:
    """A run to be killed, or the uninterrupted one, in a folder of its own."""

    folder: Path
    base: str
    data: Path
    threads: int

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def saved(self) -> int:
        """Steps that the last completed save had."""
        notes = self.folder / SAVED
        return int(notes.read_text().splitlines()[-1]) if notes.exists() else 0

    def start(self) -> int:
        """Train in a fork of this process, which has everything imported; returns its number."""
        self.folder.mkdir(exist_ok=True)
        process = os.fork()
        if process == 0:
            self._train()
        return process

    def _arguments(self) -> list[str]:
        data = self.data / ("paired" if self.base == "pix2pix" else "unpaired")
        given = ["--dataroot", str(data), "--checkpoints_dir", str(self.folder), "--name", "run", *OPTIONS]
        given += ["--coronet_base", self.base, "--num_threads", str(self.threads)]
        begun = (self.run / "latest_coronet_state.pth").exists() or list(self.run.glob("*.journal"))
        return given + (["--continue_train"] if begun else [])

    def _train(self) -> None:
        code = 1
        try:
            with open(self.log, "a", buffering=1) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                _note_saves(self.folder / SAVED)
                code = train.main(self._arguments())
                sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def _note_saves(file: Path) -> None:
    save = CompressedModel.save_networks

    def save_and_note(self: Any, epoch: Any) -> None:
        save(self, epoch)
        if epoch == "latest":
            with open(file, "a") as notes:
                notes.write(f"{self.progress['shown']['step']}\n")

    CompressedModel.save_networks = save_and_note  # type: ignore[method-assign]


# -- when to kill -------------------------------------------------------------
def wait_for(moment: str, trial: Trial, process: int, seconds: float, chance: random.Random) -> bool:
    """Wait for a random time up to ``seconds``, then for ``moment``; False if the training ended before."""
    began, delay = time.monotonic(), chance.uniform(0, seconds)
    while time.monotonic() - began < delay:
        if ended(process):
            return False
        time.sleep(0.005)
    while moment != MOMENTS[0] and not _is_now(moment, trial):
        if ended(process):
            return False
        time.sleep(0.0002)
    time.sleep(chance.choice((0, 0.001, 0.003, 0.01)))
    return not ended(process)


def _is_now(moment: str, trial: Trial) -> bool:
    if moment == MOMENTS[1]:
        return any(name.endswith((".tmp", ".journal")) for name in _names(trial.run))
    return trial.log.exists() and "is slim after" in trial.log.read_text()


def _names(folder: Path) -> Sequence[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return ()


_codes: dict[int, int] = {}


def ended(process: int) -> bool:
    if process not in _codes:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            _codes[process] = os.waitstatus_to_exitcode(status)
    return process in _codes


# -- what must be true --------------------------------------------------------
def check_after_kill(trial: Trial) -> int:
    """Every file is readable and the last completed save is there; returns the step it goes on from."""
    run = trial.run
    if run.is_dir():
        settle(run)
    for weights in run.glob("*_net_*.pth"):
        read_tensors(weights)
        if "_net_G" in weights.name:
            load_generator(weights)
    for picture in run.rglob("*.png"):
        with Image.open(picture) as image:
            image.load()
    for page in run.rglob("*.html"):
        assert page.read_text().rstrip().endswith("</html>"), page
    state = run / "latest_coronet_state.pth"
    there = int(read_tensors(state)["progress"]["shown"]["step"]) if state.exists() else 0
    assert there >= trial.saved(), f"saved {trial.saved()} steps, found {there}"
    return there


def differences(first: Path, second: Path) -> list[str]:
    """Names of files that are in one run alone or differ."""
    files = [{str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} for run in (first, second)]
    names = [names - OWN_TO_A_START for names in files]
    found = sorted(names[0] ^ names[1])
    return found + [name for name in sorted(names[0] & names[1]) if not _equal(first / name, second / name)]


def _equal(first: Path, second: Path) -> bool:
    if first.suffix == ".pth":
        return same(read_tensors(first), read_tensors(second))
    if first.suffix == ".jsonl":
        return _records(first) == _records(second)
    return first.read_bytes() == second.read_bytes()


def _records(log: Path) -> list[dict[str, Any]]:
    entries = map(json.loads, log.read_text().splitlines())
    return [{key: value for key, value in entry.items() if key not in CLOCK} for entry in entries]


def same(first: Any, second: Any) -> bool:
    """True if two nested values are equal to the last bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


# -- the test -----------------------------------------------------------------
def kill_test(
    folder: Path, kills: int, seed: int = 0, bases: Sequence[str] = BASES, threads: int = 0
) -> Counts:
    """Kill trainings ``kills`` times in all, in ``folder``; each training comes to its end all the same.

    Raises:
        AssertionError: something is not as promised.
    """
    torch.set_num_threads(1)
    pictures(folder)
    planning.prove = lambda generator, plan, *_: plan  # half of a start's time, and every time the same
    LossPlot(str(folder / "any.png")).draw([{"step": 1, "losses": {"any": 1.0}}])  # loads matplotlib
    chance, counts = random.Random(seed), Counts()
    whole = {base: Trial(folder / f"whole_{base}", base, folder, threads) for base in bases}
    seconds = {base: _finish(trial, trial.start()) for base, trial in whole.items()}
    for number in itertools.count():
        base = bases[number % len(bases)]
        trial = Trial(folder / f"killed_{number}_{base}", base, folder, threads)
        _kill_until_done(trial, kills, 0.7 * seconds[base], chance, counts)
        found = differences(whole[base].run, trial.run)
        assert not found, f"{trial.run} differs from the uninterrupted run in {', '.join(found)}"
        counts.finished += 1
        shutil.rmtree(trial.folder)
        if sum(counts.kills.values()) >= kills:
            return counts
    raise AssertionError


def _kill_until_done(trial: Trial, kills: int, seconds: float, chance: random.Random, counts: Counts) -> None:
    here = 0
    while sum(counts.kills.values()) < kills and here < KILLS_A_RUN:
        process = trial.start()
        moment = chance.choices(MOMENTS, (5, 4, 1))[0]
        if not wait_for(moment, trial, process, seconds, chance):
            _finish(trial, process)
            return
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        there = check_after_kill(trial)
        here += 1
        counts.kills[moment] += 1
        print(
            f"kill {sum(counts.kills.values())}: {trial.base}, {moment}; goes on after step {there}",
            flush=True,
        )
    _finish(trial, trial.start())


def _finish(trial: Trial, process: int) -> float:
    """Wait for the end of a training; returns the seconds it took."""
    began = time.monotonic()
    while not ended(process):
        time.sleep(0.01)
    assert _codes[process] == 0, f"{trial.log} ends with\n{trial.log.read_text()[-2000:]}"
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--bases", nargs="+", default=BASES, choices=BASES, help="models (default: both)")
    parser.add_argument("--num_threads", type=int, default=0, help="processes that load images")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill_test_") as folder:
        counts = kill_test(Path(folder), options.kills, options.seed, options.bases, options.num_threads)
    each = ", ".join(f"{number} {moment}" for moment, number in counts.kills.items())
    print(
        f"{sum(counts.kills.values())} kills ({each}) in {counts.finished} trainings, "
        f"{time.monotonic() - began:.0f} s: no unreadable file, no completed save lost, "
        "all ended bit for bit like the uninterrupted ones"
    )


if __name__ == "__main__":
    main()
