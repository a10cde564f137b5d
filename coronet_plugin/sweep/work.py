"""Do what a sweep still lacks: train, test, measure, several runs at a time; stop and go on at any point.

What is done is on disk: ``runs/NAME.json`` says that a run is trained, and holds its figures, by phase and
epoch, once it is tested and measured. Whoever works on a run holds a lock that its children inherit, so
that a training which outlived a killed sweep is not begun a second time beside itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, Any

from coronet_plugin.errors import DataError, UserError
from coronet_plugin.files import write_text
from coronet_plugin.interruption import Interruption
from coronet_plugin.sweep.plan import Plan, Trial

POLL_SECONDS = 0.2
Figures = dict[str, Any]
Measure = Callable[[Trial], Figures]


class Failed(UserError):
    """A run's program ended with an error."""


class Stopped(Exception):
    """The sweep was asked to stop."""


@dataclass
class Work:
    """A sweep that is being done. ``measure``: figures of a tested run; ``say``: is told what happens."""

    plan: Plan
    measure: Measure
    say: Callable[[str], Any]
    stop: Interruption = field(default_factory=Interruption)
    _measuring: Lock = field(default_factory=Lock)

    def all(self, trials: Sequence[Trial], jobs: int = 1) -> dict[Trial, str]:
        """Do what is left of ``trials``, ``jobs`` at a time; gives what failed, and why.

        When Ctrl-C or SIGTERM came, ``stop.requested`` says so; trainings have then saved what they did.
        """
        failures: dict[Trial, str] = {}

        def one(trial: Trial) -> None:
            try:
                with contextlib.suppress(Stopped):
                    self.run(trial)
            except (UserError, OSError) as error:
                failures[trial] = str(error)
                self.say(f"{trial.name} failed: {error}")

        with self.stop, ThreadPoolExecutor(jobs) as pool:
            waiting = {pool.submit(one, trial) for trial in trials}
            while waiting:  # in short waits, between which signals are noted
                done, waiting = wait(waiting, POLL_SECONDS)
                for future in done:
                    future.result()
        return failures

    def run(self, trial: Trial) -> None:
        """Whatever a run still lacks.

        Raises:
            Failed: its program ended with an error or saved nothing, or another one is at it.
            Stopped: the sweep was asked to stop.
        """
        if self.stop.requested:
            raise Stopped
        record = read_record(self.plan, trial)
        if is_done(self.plan, trial):
            self.say(f"{trial.name}: done before")
            return
        with self.owned(trial) as lock:
            if "trained" not in record:
                began = time.monotonic()
                words = self.plan.train(trial, sys.executable)
                self.say(f"{trial.name}: training{' goes on' if '--continue_train' in words else ''}")
                self._call(words, trial, lock)
                if not self.plan.state(trial).is_file():
                    raise Failed("its training saved nothing: give --save_epoch_freq 1 after --")
                record = {"trained": ["python", *words[1:]], "seconds": time.monotonic() - began}
                write_record(self.plan, trial, record)
            self.say(f"{trial.name}: testing")
            self._call(self.plan.test(trial, sys.executable), trial, lock)
            with self._measuring:
                self.say(f"{trial.name}: measuring")
                figures = self.measure(trial)
            known = {**record.get("figures", {}), self.plan.look: figures}
            write_record(self.plan, trial, {**record, "figures": known})

    def _call(self, words: list[str], trial: Trial, lock: IO[str]) -> None:
        """Run a program in the host's folder; its words go to ``logs/NAME.log``."""
        path = self.plan.folder / "logs" / f"{trial.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            child = subprocess.Popen(
                words,
                cwd=self.plan.script.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for us to hand on, once
                pass_fds=(lock.fileno(),) if os.name == "posix" else (),
            )
            code = self._wait(child)
        if self.stop.requested:
            raise Stopped
        if code:
            raise Failed(f"{last_line(path)} (exit code {code}; {path})")

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        """The exit code; a stop is handed on once, and the child may take its time to save."""
        told = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(POLL_SECONDS)
            if self.stop.requested and not told:
                told = True
                child.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)

    @contextlib.contextmanager
    def owned(self, trial: Trial) -> Iterator[IO[str]]:
        """The lock of a run, held by this process and its children. Raises Failed if others have it."""
        path = self.plan.folder / "runs" / f"{trial.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows
                pass
            except OSError as error:
                raise Failed(f"another process is working on {trial.name}; wait for it or end it") from error
            yield file


# -- what is on disk -----------------------------------------------------------
def begin(plan: Plan) -> None:
    """Note the options of a new sweep in its folder. Raises DataError if it was begun with others."""
    path = plan.folder / "options.json"
    wanted = {"options": list(plan.options), "images": plan.images}
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            raise DataError(
                f"{plan.folder} has runs with other options ({' '.join(found['options'])}; "
                f"--num_test {found['images']}): give the same, or another --output"
            )
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(wanted, indent=1) + "\n")


def read_record(plan: Plan, trial: Trial) -> dict[str, Any]:
    """Read how much of a run is done; empty if nothing is."""
    try:
        found = json.loads((plan.folder / "runs" / f"{trial.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(found)


def write_record(plan: Plan, trial: Trial, record: dict[str, Any]) -> None:
    """Keep what is done of a run."""
    write_text(plan.folder / "runs" / f"{trial.name}.json", json.dumps(record, indent=1) + "\n")


def is_done(plan: Plan, trial: Trial) -> bool:
    """True if a run has figures, and the test results that they are about."""
    return plan.look in read_record(plan, trial).get("figures", {}) and any(
        plan.pictures(trial).glob("*.png")
    )


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
