"""Run one program of a sweep, on whatever machine: what it says, who works on it, and how it is stopped.

A program belongs to a run and holds that run's lock as long as it lives, even if whoever started it is gone:
so a training that outlived a killed sweep, or a killed job, is not begun a second time beside itself. The
sweep wants one program of a run at a time, and says which on disk: one that waits in a cluster's queue for a
sweep that was stopped, or that has begun the run anew since, does not begin when its turn comes.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from coronet_plugin.errors import UserError

POLL_SECONDS = 0.2
forking = threading.Lock()
"""Held while a child begins, which has all locks of this process until then, and while one is asked for."""
NOTICES = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR2") if hasattr(signal, name)]
"""Sent by schedulers before they take a machine away; the second by Slurm, as submitit asks it to."""


class Failed(UserError):
    """A run's program ended with an error."""


@dataclass(frozen=True)
class Program:
    """``words``, run in ``folder``; what it says is added to ``log``.

    ``wanted``: a file that is there as long as the sweep wants it to run (:meth:`offered`), its own: no
    machine of a shared folder can remember it from before. ``environment``: variables that it has besides
    the machine's. Everything lies in folders that all machines of the sweep share.
    """

    words: tuple[str, ...]
    folder: Path
    log: Path
    wanted: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Run to the end; gives the exit code. When not wanted any more, or ``stopped``, it saves and ends.

        Raises:
            Failed: it is not wanted any more, or one that was started earlier is still at work on the run.
        """
        with _noticing() as notice, owned(self._lock) as lock, self.log.open("a", encoding="utf-8") as log:
            if not self.wanted.exists():  # asked under the lock: who gives it up and finds that free is sure
                here = socket.gethostname()
                raise Failed(f"its sweep does not want it any more, or {here} does not share {self.wanted}")
            log.write(f"$ {' '.join(self.words)}\n")
            log.flush()
            with forking:
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
            _sign(lock, child.pid)
            return _wait(child, lambda: notice.is_set() or stopped() or not self.wanted.exists())

    @property
    def _lock(self) -> Path:
        return self.log.with_suffix(".lock")

    @contextlib.contextmanager
    def offered(self) -> Iterator[None]:
        """Wanted while this is entered; those of the run that were offered before and wait never begin.

        Raises:
            Failed: one of them is at work.
        """
        with owned(self._lock):  # and let go for the one that runs, maybe elsewhere
            self.wanted.parent.mkdir(parents=True, exist_ok=True)
            for other in self.wanted.parent.glob(f"{glob.escape(self.log.stem)}.*{self.wanted.suffix}"):
                other.unlink()
            self.wanted.touch()
        try:
            yield
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Not wanted any more: it saves and ends, wherever it runs, and does not begin if it waits."""
        self.wanted.unlink(missing_ok=True)

    def is_at_work(self) -> bool:
        try:
            with owned(self._lock):
                return False
        except Failed:
            return True


@contextlib.contextmanager
def _noticing() -> Iterator[threading.Event]:
    """Set once a scheduler says that it takes the machine away; where signals are heard at all.

    A Ctrl-C comes through besides: Ray's workers block it, and children inherit what their parent blocks.
    """
    notice = threading.Event()
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield notice  # of this machine's sweep, which listens itself
        return
    before = {number: signal.signal(number, lambda *_: notice.set()) for number in NOTICES}
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield notice
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


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
    with path.open("a+", encoding="utf-8") as file:
        try:
            import fcntl

            with forking:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except OSError as error:
            file.seek(0)
            who = f"{path.stem} ({file.read() or 'it does not say which'})"
            raise Failed(f"another process is working on {who}; wait for it or end it") from error
        _sign(file, os.getpid())
        yield file


def _sign(lock: IO[str], process: int) -> None:
    """Write into a lock whose it is."""
    lock.truncate(0)
    lock.write(f"process {process} on {socket.gethostname()}")
    lock.flush()


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
