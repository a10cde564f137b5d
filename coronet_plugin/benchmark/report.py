"""The figures of a benchmark: table for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from coronet_plugin.benchmark.candidates import Candidate
from coronet_plugin.benchmark.subjects import Subject
from coronet_plugin.channels.cost import human
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.measure.interleaved import Timing

FORMAT, VERSION = "coronet-benchmark", 1
GOAL = 0.8
"""Part of the MACs' reduction that should come out as speed."""


@dataclass(frozen=True)
class Benchmark:
    """All that was measured. The first subject is what the others are set against."""

    subjects: tuple[Subject, ...]
    timings: Mapping[Candidate, Timing]
    failures: Mapping[Candidate, str]
    circumstances: Mapping[str, Any]
    profiles: Mapping[str, Any] = field(default_factory=dict)

    def subject(self, name: str) -> Subject:
        return next(subject for subject in self.subjects if subject.name == name)

    def reduction(self, candidate: Candidate) -> float:
        """How many times fewer MACs than the first subject."""
        return self.subjects[0].cost.macs / self.subject(candidate.subject).cost.macs

    def speedup(self, candidate: Candidate) -> float | None:
        """How many times faster than the first subject, all else equal; None if that did not run."""
        first = Candidate(self.subjects[0].name, candidate.runtime, candidate.dtype, candidate.threads)
        if first not in self.timings:
            return None
        return compared_ms(first, self.timings[first]) / compared_ms(candidate, self.timings[candidate])

    def realised(self, candidate: Candidate) -> float | None:
        """The part of the reduction of MACs that came out as speed-up; None for the first subject."""
        speedup = self.speedup(candidate)
        if speedup is None or candidate.subject == self.subjects[0].name:
            return None
        return speedup / self.reduction(candidate)


def compared_ms(candidate: Candidate, timing: Timing) -> float:
    """What ratios are taken of: CPU time for one thread, as others disturb it least; else wall time."""
    return timing.cpu_ms if candidate.threads == 1 else timing.wall_ms


COLUMNS = (
    *("generator", "runtime", "dtype", "threads", "wall_ms", "cpu_ms"),
    *("speedup", "macs_reduction", "realised", "note"),
)


def rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    """One row per candidate by :data:`COLUMNS`, grouped by all but the generator; failures have a note."""
    order = [subject.name for subject in benchmark.subjects]
    everything = sorted(
        [*benchmark.timings, *benchmark.failures],
        key=lambda c: (c.runtime, c.dtype, c.threads, order.index(c.subject)),
    )
    return [_row(benchmark, candidate) for candidate in everything]


def _row(benchmark: Benchmark, candidate: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(generator=candidate.subject, runtime=candidate.runtime, dtype=candidate.dtype)
    row.update(threads=candidate.threads, macs_reduction=benchmark.reduction(candidate))
    row["note"] = benchmark.failures.get(candidate, "")
    if candidate in benchmark.timings:
        timing = benchmark.timings[candidate]
        row.update(wall_ms=timing.wall_ms, cpu_ms=timing.cpu_ms, speedup=benchmark.speedup(candidate))
        row["realised"] = benchmark.realised(candidate)
    return row


def as_text(benchmark: Benchmark) -> str:
    """The table, what each generator costs, and the best runtime of every slim one."""
    lines = [f"{s.name}: {human(s.cost.macs)} MACs, {s.origin}" for s in benchmark.subjects]
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


def best(benchmark: Benchmark, subject: str) -> Candidate | None:
    """The candidate that runs ``subject`` fastest, in the time that is compared."""
    own = [c for c in benchmark.timings if c.subject == subject]
    return min(own, key=lambda c: compared_ms(c, benchmark.timings[c]), default=None)


def best_lines(benchmark: Benchmark) -> list[str]:
    lines = []
    for subject in benchmark.subjects[1:]:
        fastest = best(benchmark, subject.name)
        known = [
            c for c in benchmark.timings if c.subject == subject.name and benchmark.realised(c) is not None
        ]
        if fastest is None or not known:
            continue
        least = compared_ms(fastest, benchmark.timings[fastest])
        lines.append(
            f"{subject.name}: fastest in {fastest.label} ({least:.2f} ms"
            f"), where {_percent(benchmark.realised(fastest))} of the MACs' reduction comes out as speed"
        )
        most = max(known, key=lambda c: benchmark.realised(c) or 0)
        lines.append(f"{subject.name}: most comes out in {most.label}: {_percent(benchmark.realised(most))}")
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
        "generators": [subject.about() for subject in benchmark.subjects],
        "rows": [
            {**row, "timing": benchmark.timings[c].as_dict() if c in benchmark.timings else None}
            for row in rows(benchmark)
            for c in [Candidate(row["generator"], row["runtime"], row["dtype"], row["threads"])]
        ],
        "profiles": dict(benchmark.profiles),
        "circumstances": dict(benchmark.circumstances),
    }


def circumstances(runtimes: Sequence[str], **more: Any) -> dict[str, Any]:
    """What the figures hold for: processor and what it can do, load, versions."""
    from coronet_plugin.measure.machine import instruction_set, load, processor

    versions = {"torch": torch.__version__, "python": platform.python_version()}
    for runtime in runtimes:
        if runtime.split("+")[0] in TARGETS:
            versions.update(TARGETS[runtime.split("+")[0]].versions())
    machine = {"processor": processor(), "instruction_set": instruction_set(), "load_before": load()}
    return {**machine, "versions": versions, **more}


def write(benchmark: Benchmark, folder: Path) -> list[Path]:
    """``benchmark.txt``, ``.csv``, ``.json`` and ``.svg`` in ``folder``."""
    import json

    from coronet_plugin.benchmark.figure import draw
    from coronet_plugin.files import write_text

    paths = [folder / f"benchmark.{ending}" for ending in ("txt", "csv", "json", "svg")]
    write_text(paths[0], as_text(benchmark) + "\n")
    write_text(paths[1], as_csv(benchmark))
    write_text(paths[2], json.dumps(as_data(benchmark), indent=1) + "\n")
    draw(benchmark, paths[3])
    return paths
