"""Where the time goes: layer by layer in eager PyTorch, and operation by operation in ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.find import trace
from coronet_plugin.measure.onnx import open_session
from coronet_plugin.measure.timing import Stopwatch, torch_threads


@dataclass(frozen=True)
class LayerTime:
    """A layer by its name in the generator: its class, true MACs, and milliseconds of CPU time per call."""

    name: str
    kind: str
    macs: int
    ms: float


@dataclass(frozen=True)
class Loss:
    """Where a slim generator loses part of its speed-up.

    ``excess_ms``: time beyond what it would take if it were faster than in the dense generator by the
    reduction of MACs of the whole. Over all layers these sum up to what is lost.
    """

    name: str
    kind: str
    dense_ms: float
    slim_ms: float
    excess_ms: float
    macs_reduction: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def layer_times(generator: nn.Module, example: Tensor, repeats: int = 10) -> list[LayerTime]:
    """CPU time of every layer without children, on one thread, in the order they run; the median of calls.

    ``example``: (N, C, H, W). The thread setting is left as it was.
    """
    leaves = {name: m for name, m in generator.named_modules() if name and not list(m.children())}
    watches: dict[str, Stopwatch] = defaultdict(Stopwatch)
    hooks = []
    for name, module in leaves.items():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: watches[name].start()))
        hooks.append(module.register_forward_hook(lambda *_, name=name: watches[name].stop()))
    try:
        with torch_threads(1):
            for _ in range(repeats + 1):
                generator(example)
    finally:
        for hook in hooks:
            hook.remove()
    macs = trace(generator, (example,)).macs_by_layer()
    found = []
    for name, watch in watches.items():
        each = len(watch.cpu) // (repeats + 1)  # calls in one run of the generator
        ms = each * watch.times(warmup=each).cpu.median_ms
        found.append(LayerTime(name, type(leaves[name]).__name__, macs.get(name, 0), ms))
    return found


def losses(dense: Sequence[LayerTime], slim: Sequence[LayerTime]) -> list[Loss]:
    """Layers, matched by name, that keep ``slim`` from being faster by its reduction of MACs; worst first."""
    reduction = sum(layer.macs for layer in dense) / max(1, sum(layer.macs for layer in slim))
    before = {layer.name: layer for layer in dense}
    found = [
        Loss(
            now.name,
            now.kind,
            before[now.name].ms,
            now.ms,
            now.ms - before[now.name].ms / reduction,
            before[now.name].macs / now.macs if now.macs else None,
        )
        for now in slim
        if now.name in before
    ]
    return sorted(found, key=lambda loss: -loss.excess_ms)


def by_kind(found: Sequence[Loss]) -> dict[str, dict[str, float]]:
    """Sums over layers of one class, the largest excess first."""
    sums: dict[str, dict[str, float]] = {}
    for loss in found:
        entry = sums.setdefault(loss.kind, {"dense_ms": 0.0, "slim_ms": 0.0, "excess_ms": 0.0})
        for key in entry:
            entry[key] += getattr(loss, key)
    return dict(sorted(sums.items(), key=lambda item: -item[1]["excess_ms"]))


def onnxruntime_times(path: Path, values: np.ndarray, repeats: int = 10) -> dict[str, float]:
    """Milliseconds of ONNX Runtime by operation, the largest first.

    Sums over nodes of the least of ``repeats`` calls with ``values`` (N, C, H, W): its profiler knows wall
    time alone, and the least is what other programs disturb least.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(path, profile=Path(folder) / "profile")
        for _ in range(repeats):
            session.run(None, {session.get_inputs()[0].name: values})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return least_by_operation(events)


def least_by_operation(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sum over nodes of each node's least duration, in ms, by operation, from ONNX Runtime's profile."""
    least: dict[tuple[str, str], float] = {}
    for event in events:
        operation = event.get("args", {}).get("op_name")
        if event.get("cat") == "Node" and operation and event["name"].endswith("_kernel_time"):
            key = (operation.replace("FusedConv", "Conv"), event["name"])  # with the activation after it
            least[key] = min(least.get(key, float("inf")), event["dur"] / 1e3)
    sums: dict[str, float] = defaultdict(float)
    for (operation, _), duration in least.items():
        sums[operation] += duration
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
