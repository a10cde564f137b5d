"""A whole benchmark: export, load, time in turn, profile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coronet_plugin.benchmark.candidates import Ready, prepare_all, target_of
from coronet_plugin.benchmark.entries import Entry
from coronet_plugin.benchmark.report import circumstances
from coronet_plugin.benchmark.result import Benchmark
from coronet_plugin.command import NORM_MODE
from coronet_plugin.errors import OptionError
from coronet_plugin.export.normalisation import normalised
from coronet_plugin.export.pipeline import example_for
from coronet_plugin.export.targets import EAGER
from coronet_plugin.measure.machine import load
from coronet_plugin.measure.profile import by_kind, layer_times, losses, onnxruntime_times
from coronet_plugin.measure.timing import pinned, time_in_turn

ONNX = "onnx"


def benchmark(
    entries: Sequence[Entry],
    runtimes: Sequence[str],
    dtypes: Sequence[str],
    threads: Sequence[int],
    folder: Path,
    *,
    repeats: int = 20,
    warmup: int = 3,
    norm_mode: str = NORM_MODE,
    profile: bool = True,
) -> Benchmark:
    """Time all ``entries`` in all ``runtimes``, ``dtypes`` and ``threads``, in one interleaved run.

    ``folder``: for exported files. The process is kept on as many CPUs as the largest number of threads.

    Raises:
        OptionError: an option is unknown, or nothing could be timed.
    """
    for runtime in runtimes:
        target_of(runtime)
    with pinned(max(threads)) as cpus:
        ready = prepare_all(entries, runtimes, dtypes, threads, norm_mode, folder)
        if not ready.models:
            reasons = sorted(set(ready.failures.values())) or ["no runtime offers these formats"]
            raise OptionError(f"nothing can be timed: {'; '.join(reasons)}")
        inputs = {s.name: example_for(s.generator, s.size).numpy() for s in entries}
        about = circumstances(
            runtimes, pinned_to=list(cpus), repeats=repeats, warmup=warmup, norm_mode=norm_mode
        )
        calls = {c: partial(run, inputs[c.generator]) for c, run in ready.models.items()}
        timings = time_in_turn(calls, repeats, warmup)
        profiles = profile_all(entries, ready, inputs, norm_mode, repeats) if profile else {}
    about["load_after"] = load()
    return Benchmark(tuple(entries), timings, ready.failures, about, profiles)


def profile_all(
    entries: Sequence[Entry], ready: Ready, inputs: dict[str, np.ndarray], norm_mode: str, repeats: int
) -> dict[str, Any]:
    """Where every slim generator loses speed, by its name; the first entry is the dense one."""
    dense = entries[0]
    eager = {s.name: _layers(s, inputs[s.name], norm_mode, repeats) for s in entries}
    files = {s.name: ready.files.get((s.name, ONNX, "fp32")) for s in entries}
    native = {
        name: onnxruntime_times(path, inputs[name], repeats)
        for name, path in files.items()
        if path is not None
    }
    profiles = {}
    for slim in entries[1:]:
        found = losses(eager[dense.name], eager[slim.name])
        profiles[slim.name] = {
            "by_kind": by_kind(found),
            "layers": [loss.as_dict() for loss in found],
            EAGER: f"{torch.__version__}, eager, CPU time",
        }
        if dense.name in native and slim.name in native:
            reduction = dense.cost.macs / slim.cost.macs
            profiles[slim.name]["onnxruntime"] = _set_against(
                native[dense.name], native[slim.name], reduction
            )
    return profiles


def _layers(entry: Entry, values: np.ndarray, norm_mode: str, repeats: int) -> Any:
    return layer_times(normalised(entry.generator, norm_mode), torch.from_numpy(values), repeats)


def _set_against(
    dense: dict[str, float], slim: dict[str, float], reduction: float
) -> dict[str, dict[str, float]]:
    """By operation; excess as in :class:`~coronet_plugin.measure.profile.Loss`."""
    found = {
        operation: {
            "dense_ms": dense.get(operation, 0.0),
            "slim_ms": slim.get(operation, 0.0),
            "excess_ms": slim.get(operation, 0.0) - dense.get(operation, 0.0) / reduction,
        }
        for operation in {**dense, **slim}
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]["excess_ms"]))
