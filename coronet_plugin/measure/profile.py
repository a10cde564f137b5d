"""Where the time goes: layer by layer in eager PyTorch, and operation by operation in ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


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
    samples: dict[str, list[float]] = defaultdict(list)
    macs: dict[str, int] = {}
    started: dict[str, float] = {}
    leaves = {name: m for name, m in generator.named_modules() if name and not list(m.children())}

    def before(name: str) -> Any:
        return lambda module, inputs: started.__setitem__(name, time.thread_time())

    def after(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            samples[name].append((time.thread_time() - started[name]) * 1e3)
            macs[name] = macs_of(module, inputs[0], output)

        return note

    hooks = [m.register_forward_pre_hook(before(name)) for name, m in leaves.items()]
    hooks += [m.register_forward_hook(after(name)) for name, m in leaves.items()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats + 1):
            generator(example)
    finally:
        torch.set_num_threads(threads)
        for hook in hooks:
            hook.remove()
    calls = {name: len(times) // (repeats + 1) for name, times in samples.items()}
    return [
        LayerTime(
            name,
            type(leaves[name]).__name__,
            macs[name] * calls[name],
            calls[name] * float(np.median(times[1:])),
        )
        for name, times in samples.items()
    ]


def macs_of(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """True multiply-adds of one call for one image: one per weight and input or output position."""
    if isinstance(module, nn.ConvTranspose2d):
        return module.weight.numel() * x.shape[2] * x.shape[3]
    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * y.shape[2] * y.shape[3]
    return module.weight.numel() * x[0].numel() // x.shape[-1] if isinstance(module, nn.Linear) else 0


def losses(dense: Sequence[LayerTime], slim: Sequence[LayerTime]) -> list[Loss]:
    """What keeps ``slim`` from being faster by its reduction of MACs, worst first; layers of equal names."""
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
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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
