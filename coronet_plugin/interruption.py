"""Ctrl-C and SIGTERM as a request: finish the step, save, and leave with a line that says how to go on.

A training loop asks after every step. A second signal ends the program at once; the last save is whole
in any case (:mod:`coronet_plugin.files`).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from coronet_plugin.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(UserError):
    """The training was asked to stop, and what it did is saved. ``code``: the exit code, 130 or 143."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Interruption:
    """Listens while it is entered; ``requested`` is the signal that came, or None.

    Entered inside another one, or not in the main thread, it listens to nothing.
    """

    listening: Interruption | None = None

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if Interruption.listening is None and threading.current_thread() is threading.main_thread():
            Interruption.listening = self
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        if Interruption.listening is self:
            Interruption.listening = None
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.requested is None:
            self.requested = number
            return
        self.__exit__()
        signal.raise_signal(number)

    @property
    def code(self) -> int:
        """The exit code that shells expect after the signal."""
        return 128 + (self.requested or 0)
