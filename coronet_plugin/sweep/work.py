"""Do what a sweep still lacks: train, test, measure, several runs at a time; stop and go on at any point.

What is done is on disk: ``runs/NAME.json`` says that a run is trained, and holds its figures, by phase and
epoch, once it is tested and measured. Whoever works on a run holds a lock, and so do the programs it starts
(:mod:`coronet_plugin.sweep.programs`).
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from coronet_plugin.errors import DataError, UserError
from coronet_plugin.files import write_text
from coronet_plugin.interruption import Interruption
from coronet_plugin.sweep.executors import Executor, Local
from coronet_plugin.sweep.plan import Plan, Trial
from coronet_plugin.sweep.programs import POLL_SECONDS, Failed, Program, last_line, owned

Figures = dict[str, Any]
Measure = Callable[[Trial], Figures]


class Stopped(Exception):
    """The sweep was asked to stop."""


@dataclass
class Work:
    """A sweep that is being done. ``measure``: figures of a tested run; ``say``: is told what happens.

    ``executor``: who trains and tests; figures are measured here.
    """

    plan: Plan
    measure: Measure
    say: Callable[[str], Any]
    executor: Executor = field(default_factory=Local)
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
        with owned(self.plan.folder / "runs" / f"{trial.name}.lock"):
            if "trained" not in record:
                began = time.monotonic()
                words = self.plan.train(trial, sys.executable)
                self.say(f"{trial.name}: training{' goes on' if '--continue_train' in words else ''}")
                self._call(words, trial)
                if not self.plan.state(trial).is_file():
                    raise Failed("its training saved nothing: give --save_epoch_freq 1 after --")
                record = {"trained": ["python", *words[1:]], "seconds": time.monotonic() - began}
                write_record(self.plan, trial, record)
            self.say(f"{trial.name}: testing")
            self._call(self.plan.test(trial, sys.executable), trial)
            with self._measuring:
                self.say(f"{trial.name}: measuring")
                figures = self.measure(trial)
            known = {**record.get("figures", {}), self.plan.look: figures}
            write_record(self.plan, trial, {**record, "figures": known})

    def _call(self, words: Sequence[str], trial: Trial) -> None:
        """Run a program in the host's folder; its words go to ``logs/NAME.log``."""
        log = self.plan.folder / "logs" / f"{trial.name}.log"
        wanted = self.plan.folder / "runs" / f"{trial.name}.{uuid.uuid4().hex}.wanted"
        program = Program(tuple(words), self.plan.script.parent, log, wanted)
        with program.offered():
            code = self.executor.run(program, lambda: bool(self.stop.requested))
        if self.stop.requested:
            raise Stopped
        if code:
            raise Failed(f"{last_line(log)} (exit code {code}; {log})")


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
