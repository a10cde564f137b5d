"""Records of a training run on disk: lines of text, lines of JSON, a plot."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from coronet_plugin.files import write_atomically, write_text

FRACTIONS = ("macs_", "width_")
"""Losses that begin so are shares between 0 and 1 that the coronet model reports."""


class TextLog:
    """``loss_log.txt``, for people and for scripts that read upstream's; always appended to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.write(f"================ Training Loss ({time.strftime('%c')}) ================")

    def write(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


class JsonLog:
    """``loss_log.jsonl``: one object a line.

    Keys: ``epoch``, ``epoch_iter`` (images in this epoch), ``step`` (optimizer steps in
    all), ``images`` (in all), ``seconds`` (of training in all), ``images_per_s`` (since
    the line before), ``lr`` (or null) and ``losses`` by name. A run that starts at
    ``first_epoch`` keeps the records of earlier epochs and drops the others; if ``last_step`` is given,
    those of later steps go and those up to it stay, in the middle of an epoch too.
    """

    def __init__(self, path: str, first_epoch: int = 1, last_step: int | None = None) -> None:
        self.path = path
        self.records = [
            record
            for record in _read(path)
            if (record["epoch"] < first_epoch if last_step is None else record["step"] <= last_step)
        ]
        write_text(path, "".join(json.dumps(record) + "\n" for record in self.records))

    @property
    def last(self) -> dict[str, Any]:
        """The newest record; before the first one, one of zeros."""
        nothing = {"epoch": 0, "epoch_iter": 0, "step": 0, "images": 0, "seconds": 0.0}
        return self.records[-1] if self.records else nothing

    def write(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _read(path: str) -> list[dict[str, Any]]:
    """Records up to the first line that is not one, such as one cut off by an interruption."""
    records: list[dict[str, Any]] = []
    if not os.path.isfile(path):
        return records
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not isinstance(record, dict) or "epoch" not in record:
                break
            records.append(record)
    return records


class LossPlot:
    """``loss_plot.png``: losses over optimizer steps, and fractions in a panel of their own.

    Drawn at most every ``pause`` seconds, because drawing takes longer than a short epoch.
    """

    def __init__(self, path: str, pause: float = 30.0) -> None:
        self.path = path
        self.pause = pause
        self._drawn = -float("inf")
        self._missing = False

    def draw(self, records: list[dict[str, Any]], force: bool = False) -> None:
        """Draw ``records`` of a :class:`JsonLog`; without matplotlib say so once and do nothing."""
        due = force or time.monotonic() - self._drawn >= self.pause
        if not due or self._missing or not records:
            return
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            self._missing = True
            print("note: no loss plot, because matplotlib is not installed")
            return
        losses, fractions = _curves(records)
        panels = [curves for curves in (losses, fractions) if curves]
        figure = Figure(figsize=(9, 4 * len(panels)), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, curves in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels):
            for name, (steps, values) in curves.items():
                axes.plot(steps, values, label=name, marker="." if len(steps) < 3 else None, linewidth=1)
            axes.set_xlabel("optimizer step")
            axes.set_ylabel("share left" if curves is fractions else "loss")
            if curves is fractions:
                axes.set_ylim(0, 1.05)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small", ncols=4)
        write_atomically(
            self.path, lambda temporary: figure.savefig(temporary, format="png", dpi=100), flush=False
        )
        self._drawn = time.monotonic()


Curves = dict[str, tuple[list[int], list[float]]]


def _curves(records: list[dict[str, Any]]) -> tuple[Curves, Curves]:
    """Steps and values by name: losses, and fractions."""
    losses: Curves = {}
    fractions: Curves = {}
    for record in records:
        for name, value in record["losses"].items():
            steps, values = (fractions if is_fraction(name) else losses).setdefault(name, ([], []))
            steps.append(record["step"])
            values.append(value)
    return losses, fractions


def is_fraction(name: str) -> bool:
    """True if a loss is a share of something that is left."""
    return name.startswith(FRACTIONS)


def loss_text(losses: Mapping[str, float]) -> str:
    """Losses as upstream writes them."""
    return " ".join(f"{name}: {value:.3f}" for name, value in losses.items())
