"""The figures of a benchmark: table for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coronet_plugin.benchmark.candidates import Candidate
from coronet_plugin.benchmark.figure import draw
from coronet_plugin.benchmark.result import COLUMNS, GOAL, Benchmark, best, compared_ms, rows
from coronet_plugin.channels.cost import human
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.files import write_text
from coronet_plugin.measure.machine import describe_machine, load
from coronet_plugin.versions import versions

FORMAT, VERSION = "coronet-benchmark", 1


def as_text(benchmark: Benchmark) -> str:
    """The table, what each generator costs, and the best runtime of every slim one."""
    lines = [f"{s.name}: {human(s.cost.macs)} MACs, {s.origin}" for s in benchmark.entries]
    head = f"{'generator':<24} {'runtime':<30} {'dtype':<5} {'thr':>3} {'wall ms':>9} {'CPU ms':>9} "
    lines += ["", head + f"{'speed-up':>8} {'MACs':>6} {'realised':>8}"]
    for row in rows(benchmark):
        name = f"{row['generator']:<24} {row['runtime']:<30} {row['dtype']:<5} {row['threads']:>3} "
        if row["wall_ms"] is None:
            lines.append(f"{name}failed: {row['note']}")
            continue
        times = f"{row['wall_ms']:>9.2f} {row['cpu_ms']:>9.2f} "
        lines.append(f"{name}{times}{_number(row['speedup'], 8)} {_number(row['macs_reduction'], 6)} "
                     f"{_number(row['realised'], 8)}")  # fmt: skip
    lines += ["", *best_lines(benchmark), *_profile_lines(benchmark)]
    return "\n".join(lines)


def best_lines(benchmark: Benchmark) -> list[str]:
    lines = []
    for entry in benchmark.entries[1:]:
        fastest = best(benchmark, entry.name)
        known = [
            c for c in benchmark.timings if c.generator == entry.name and benchmark.realised(c) is not None
        ]
        if fastest is None or not known:
            continue
        least = compared_ms(fastest, benchmark.timings[fastest])
        lines.append(
            f"{entry.name}: fastest in {fastest.label} ({least:.2f} ms"
            f"), where {_percent(benchmark.realised(fastest))} of the MACs' reduction comes out as speed"
        )
        most = max(known, key=lambda c: benchmark.realised(c) or 0)
        lines.append(f"{entry.name}: most comes out in {most.label}: {_percent(benchmark.realised(most))}")
    return lines


def _profile_lines(benchmark: Benchmark) -> list[str]:
    lines = []
    for name, profile in benchmark.profiles.items():
        lines += ["", f"{name}, eager PyTorch, 1 thread: CPU ms, and ms beyond the dense one's by the MACs"]
        for kind, entry in profile["by_kind"].items():
            times = f"{entry['dense_ms']:>9.2f} -> {entry['slim_ms']:>8.2f}"
            lines.append(f"  {kind:<28} {times}  {entry['excess_ms']:>+8.2f}")
        for kind, entry in profile.get("onnxruntime", {}).items():
            lines.append(f"  onnxruntime {kind:<16} {entry['dense_ms']:>9.2f} -> {entry['slim_ms']:>8.2f}  "
                         f"{entry['excess_ms']:>+8.2f}")  # fmt: skip
    return lines


def _number(value: float | None, width: int) -> str:
    return f"{'' if value is None else f'{value:.2f}':>{width}}"


def _percent(value: float | None) -> str:
    return "an unknown part" if value is None else f"{value:.0%}"


def as_csv(benchmark: Benchmark) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(benchmark))
    return text.getvalue()


def as_data(benchmark: Benchmark) -> dict[str, Any]:
    """Everything, for JSON. ``timings`` hold all percentiles."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "goal": GOAL,
        "compared": "CPU time with 1 thread, wall time with more; medians",
        "generators": [entry.about() for entry in benchmark.entries],
        "rows": [
            {**row, "timing": benchmark.timings[c].as_dict() if c in benchmark.timings else None}
            for row in rows(benchmark)
            for c in [Candidate(row["generator"], row["runtime"], row["dtype"], row["threads"])]
        ],
        "profiles": dict(benchmark.profiles),
        "circumstances": dict(benchmark.circumstances),
    }


def circumstances(runtimes: Sequence[str], **more: Any) -> dict[str, Any]:
    """The circumstances that the figures hold for: machine, load, versions."""
    found = versions()
    for runtime in runtimes:
        if runtime.split("+")[0] in TARGETS:
            found.update(TARGETS[runtime.split("+")[0]].versions())
    return {"machine": describe_machine(), "load_before": load(), "versions": found, **more}


def write(benchmark: Benchmark, folder: Path) -> list[Path]:
    """``benchmark.txt``, ``.csv``, ``.json`` and ``.svg`` in ``folder``."""
    paths = [folder / f"benchmark.{ending}" for ending in ("txt", "csv", "json", "svg")]
    write_text(paths[0], as_text(benchmark) + "\n")
    write_text(paths[1], as_csv(benchmark))
    write_text(paths[2], json.dumps(as_data(benchmark), indent=1) + "\n")
    draw(benchmark, paths[3])
    return paths
