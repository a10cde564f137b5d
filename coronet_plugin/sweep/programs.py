"""Run one program of a sweep, on whatever machine: what it says, who works on it, and how it is stopped.

A program belongs to a run and holds that run's lock as long as it lives, even if whoever started it is gone:
so a training that outlived a killed sweep, or a killed job, is not begun a second time beside itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from coronet_plugin.errors import UserError

POLL_SECONDS = 0.2


class Failed(UserError):
    """A run's program ended with an error."""


@dataclass(frozen=True)
class Program:
    """``words``, run in ``folder``; what it says is added to ``log``.

    ``stop``: a file that asks it, once it is there, to save and end. ``environment``: variables that it has
    besides the machine's. Everything lies in folders that all machines of the sweep share.
    """

    words: tuple[str, ...]
    folder: Path
    log: Path
    stop: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Run to the end; gives the exit code. ``stopped`` asks for its end, too.

        Raises:
            Failed: one that was started earlier is still at work on the run.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with _interruptible(), owned(self.log.with_suffix(".lock")) as lock, self.log.open("a") as log:
            log.write(f"$ {' '.join(self.words)}\n")
            log.flush()
            child = subprocess.Popen(
                self.words,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for us to hand on, once
                pass_fds=(lock.fileno(),) if os.name == "posix" else (),
            )
            return _wait(child, lambda: stopped() or self.stop.exists())


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a Ctrl-C come through: Ray's workers block it, and children inherit what their parent blocks."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> int:
    """The exit code; a stop is handed on once, and the child may take its time to save."""
    told = False
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(POLL_SECONDS)
        if not told and stopped():
            told = True
            child.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)


@contextlib.contextmanager
def owned(path: Path) -> Iterator[IO[str]]:
    """The lock of a run, held by this process and its children. Raises Failed if others have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except OSError as error:
            raise Failed(f"another process is working on {path.stem}; wait for it or end it") from error
        yield file


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
