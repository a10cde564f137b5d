"""How far a long work is, in one line on a terminal; elsewhere nothing."""

from __future__ import annotations

import sys
import time
from types import TracebackType

WIDTH = 30
EVERY_S = 0.1


class Bar:
    """A bar over ``total`` steps (0: not known), on standard error while it lasts."""

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self._started = self._shown = time.monotonic()
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("")

    def advance(self, steps: int = 1) -> None:
        """So many steps more are done."""
        self.done += steps
        now = time.monotonic()
        if now - self._shown >= EVERY_S:
            self._shown = now
            self._write(self.line(now - self._started))

    def line(self, seconds: float) -> str:
        """The bar after so many seconds, with speed and the time left."""
        rate = self.done / max(seconds, 1e-9)
        if not self.total:
            return f"{self.done} {self.unit}, {rate:.1f}/s"
        full = WIDTH * self.done // self.total
        left = (self.total - self.done) / max(rate, 1e-9)
        bar = "#" * full + "." * (WIDTH - full)
        return f"[{bar}] {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {left:.0f} s left"

    def _write(self, line: str) -> None:
        if self._visible:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
