"""Progress on the console: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from util.logs import is_fraction

MAIN_LOSSES = 5
"""Losses shown beside the bar; the log has all."""


class Console:
    """Shows how far an epoch is; images/s and time left come with the bar."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin_epoch(self, title: str, images: int) -> None:
        """Start a bar over ``images`` if the output is a terminal and tqdm is installed."""
        self.end_epoch()
        if not sys.stdout.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:  # then there are lines
            return
        self._bar = tqdm(
            total=images, desc=title, unit="img", file=sys.stdout, dynamic_ncols=True, leave=False
        )

    def advance(self, images: int) -> None:
        if self._bar is not None:
            self._bar.update(images)

    def losses(self, line: str, losses: Mapping[str, float]) -> None:
        """Show ``losses`` beside the bar; without a bar print ``line``."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.set_postfix_str(short(losses))

    def end_epoch(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def short(losses: Mapping[str, float]) -> str:
    """The main losses, and what is left of the budget, in few characters."""
    main = [f"{name} {value:.3g}" for name, value in losses.items() if not is_fraction(name)]
    left = {name[len("macs_") :]: value for name, value in losses.items() if name.startswith("macs_")}
    budget = [f"MACs {name} {value:.1%}" for name, value in left.items()]
    return ", ".join([*budget, *main[:MAIN_LOSSES]])
