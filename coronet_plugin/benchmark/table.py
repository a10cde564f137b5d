"""Latency tables of this machine, and kits of files that make them on another: ``coronet bench --table``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coronet_plugin.benchmark import time_table
from coronet_plugin.benchmark.entries import Entry
from coronet_plugin.budget.latency_meter import RUNTIMES, Clock, choices
from coronet_plugin.budget.latency_table import FORMAT, VERSION, narrowed, widths_of
from coronet_plugin.channels.cut import slim
from coronet_plugin.channels.find import find_channels
from coronet_plugin.errors import OptionError
from coronet_plugin.export.pipeline import example_for
from coronet_plugin.export.runnable import ONNXRUNTIME, exported
from coronet_plugin.export.targets import EAGER
from coronet_plugin.files import write_text
from coronet_plugin.measure.machine import describe_machine

UNEVEN = 9
"""Generators whose channel sets are not all alike, in a table that nothing will correct later."""
REFERENCE = 0.35


def runtime_for(runtimes: Sequence[str]) -> str:
    """The one runtime of a table, by the names of budgets.

    Raises:
        OptionError: there are several, or no budget can be in it.
    """
    names = [ONNXRUNTIME if name == "onnx" else name for name in runtimes]
    if len(names) != 1 or names[0] not in RUNTIMES:
        raise OptionError(f"a latency table is of one runtime: --runtimes with one of {', '.join(RUNTIMES)}")
    return names[0]


def write_table(entry: Entry, runtime: str, path: Path) -> None:
    """Time ``entry`` at several widths on this machine and write ``path``."""
    example = (example_for(entry.generator, entry.size),)
    plan = find_channels(entry.generator, example)
    table = Clock(entry.generator, plan, example, runtime).table(UNEVEN)
    table.write(path, {"generator": entry.about(), "device": describe_machine()["cpu"]})


def write_kit(entry: Entry, runtime: str, folder: Path) -> list[Path]:
    """Write files of ``entry`` at several widths, and the script that times them where nothing is installed.

    Raises:
        OptionError: the runtime has no files.
    """
    if runtime == EAGER:
        raise OptionError("eager PyTorch has no files to take elsewhere; use 'coronet bench --table' there")
    example = (example_for(entry.generator, entry.size),)
    plan = find_channels(entry.generator, example)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    wanted = [*choices(plan, UNEVEN), narrowed(plan, [REFERENCE] * len(plan.prunable))]
    for number, alive in enumerate(wanted):
        smaller = slim(entry.generator, plan, alive).eval()
        path, _ = exported(smaller, example, runtime, folder, f"generator_{number:02}")
        rows.append({"widths": widths_of(plan, alive), "file": path.name})
    kit = {
        "runtime": runtime,
        "inputs": [list(x.shape) for x in example],
        "reference": rows.pop()["file"],
        "table": {"format": FORMAT, "version": VERSION, "generator": entry.about()},
        "rows": rows,
    }
    write_text(folder / "kit.json", json.dumps(kit, indent=1) + "\n")
    script = folder / "time_table.py"
    shutil.copyfile(time_table.__file__, script)
    return [script, folder / "kit.json"]
