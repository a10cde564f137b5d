"""All that a benchmark measured, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coronet_plugin.benchmark.candidates import Candidate
from coronet_plugin.benchmark.entries import Entry
from coronet_plugin.measure.timing import Times

GOAL = 0.8
"""Part of the MACs' reduction that should come out as speed."""


@dataclass(frozen=True)
class Benchmark:
    """All that was measured. The first entry is what the others are set against."""

    entries: tuple[Entry, ...]
    timings: Mapping[Candidate, Times]
    failures: Mapping[Candidate, str]
    circumstances: Mapping[str, Any]
    profiles: Mapping[str, Any] = field(default_factory=dict)

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def reduction(self, candidate: Candidate) -> float:
        """Factor of MACs saved against the first entry."""
        return self.entries[0].cost.macs / self.entry(candidate.generator).cost.macs

    def speedup(self, candidate: Candidate) -> float | None:
        """Factor of time saved against the first entry, all else equal; None if that did not run."""
        first = Candidate(self.entries[0].name, candidate.runtime, candidate.dtype, candidate.threads)
        if first not in self.timings:
            return None
        return compared_ms(first, self.timings[first]) / compared_ms(candidate, self.timings[candidate])

    def realised(self, candidate: Candidate) -> float | None:
        """The part of the reduction of MACs that came out as speed-up; None for the first entry."""
        speedup = self.speedup(candidate)
        if speedup is None or candidate.generator == self.entries[0].name:
            return None
        return speedup / self.reduction(candidate)


def compared_ms(candidate: Candidate, times: Times) -> float:
    """The time to take ratios of: CPU time for one thread, which others disturb least; else wall time."""
    return (times.cpu if candidate.threads == 1 else times.wall).median_ms


COLUMNS = (
    *("generator", "runtime", "dtype", "threads", "wall_ms", "cpu_ms"),
    *("speedup", "macs_reduction", "realised", "note"),
)


def rows(benchmark: Benchmark) -> list[dict[str, Any]]:
    """One row per candidate by :data:`COLUMNS`, grouped by all but the generator; failures have a note."""
    order = [entry.name for entry in benchmark.entries]
    everything = sorted(
        [*benchmark.timings, *benchmark.failures],
        key=lambda c: (c.runtime, c.dtype, c.threads, order.index(c.generator)),
    )
    return [_row(benchmark, candidate) for candidate in everything]


def _row(benchmark: Benchmark, candidate: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(generator=candidate.generator, runtime=candidate.runtime, dtype=candidate.dtype)
    row.update(threads=candidate.threads, macs_reduction=benchmark.reduction(candidate))
    row["note"] = benchmark.failures.get(candidate, "")
    if candidate in benchmark.timings:
        wall, cpu = benchmark.timings[candidate]
        row.update(wall_ms=wall.median_ms, cpu_ms=cpu.median_ms, speedup=benchmark.speedup(candidate))
        row["realised"] = benchmark.realised(candidate)
    return row


def best(benchmark: Benchmark, entry: str) -> Candidate | None:
    """The candidate that runs ``entry`` fastest, in the time that is compared."""
    own = [c for c in benchmark.timings if c.generator == entry]
    return min(own, key=lambda c: compared_ms(c, benchmark.timings[c]), default=None)
