"""ONNX files, and ONNX Runtime to run them: :mod:`coronet_plugin.measure.onnx` as a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from coronet_plugin.export.pytorch import dynamic_shapes, sample
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job
from coronet_plugin.measure.onnx import can_use_dynamo, open_session, write_by_dynamo, write_by_tracing

FREE = {0: "batch", 2: "height", 3: "width"}


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write by torch's exporter of today, or by the former one where torch or onnxscript lack the other."""
    dynamo = can_use_dynamo()
    with silenced(), torch.no_grad():
        if dynamo:
            write_by_dynamo(job.generator, (sample(job),), path, dynamic_shapes(job))
        else:
            write_by_tracing(job.generator, (job.example,), path, FREE if job.dynamic else None)
    return {"exporter": "torch.onnx, dynamo" if dynamo else "torch.onnx, legacy", "opset": _opset(path)}


def _opset(path: Path) -> int:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return int(next(entry.version for entry in model.opset_import if not entry.domain))


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file in a CPU session of ONNX Runtime."""
    session = open_session(path, threads)
    name = session.get_inputs()[0].name

    def run(values: np.ndarray) -> np.ndarray:
        output: np.ndarray = session.run(None, {name: values})[0]
        return output

    return run
