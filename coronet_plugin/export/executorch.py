"""ExecuTorch programs (.pte), delegated to XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.errors import OptionError
from coronet_plugin.export.pytorch import exported_program
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job, one_at_a_time

CONVERT_ANNOTATES = True
"""Entries are methods of the program that take nothing and give a text."""


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path``. The record says how many calls go to XNNPACK and how many are left to plain kernels."""
    with silenced():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(
            exported_program(job), partitioner=[XnnpackPartitioner()], constant_methods=dict(job.entries)
        )
        calls = delegation(edge.exported_program().graph)
        path.write_bytes(edge.to_executorch().buffer)
    return {"exporter": "executorch with XNNPACK", **calls}


def delegation(graph: Any) -> dict[str, int]:
    """Calls of a delegate, and calls of plain kernels, in a lowered graph."""
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    delegated = sum("executorch_call_delegate" in name for name in names)
    return {"delegate_calls": delegated, "plain_calls": sum("getitem" not in n for n in names) - delegated}


_THREADS: list[int] = []
"""Threads of the process's pool, once a program is loaded: programs keep pointers into the pool."""


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The program in ExecuTorch's runtime; pictures one at a time.

    Raises:
        OptionError: this process has run a program on another number of threads.
    """
    import torch

    if _THREADS and [threads] != _THREADS:
        raise OptionError(f"ExecuTorch has {_THREADS[0]} threads in this process; use another for {threads}")
    with silenced():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if not _THREADS:
            portable_lib._unsafe_reset_threadpool(threads)
            _THREADS.append(threads)
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")

    def one(*values: np.ndarray) -> list[np.ndarray]:
        return [x.numpy().copy() for x in method.execute([torch.from_numpy(v) for v in values])]

    return one_at_a_time(one)
