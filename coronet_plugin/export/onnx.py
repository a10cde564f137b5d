"""ONNX files, and ONNX Runtime to run them: :mod:`coronet_plugin.measure.onnx` as a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from coronet_plugin.export.pytorch import dynamic_shapes, sample
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job, in_a_row
from coronet_plugin.measure.onnx import can_use_dynamo, open_session, write_by_dynamo, write_by_tracing


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write by torch's exporter of today, or by the former one where torch or onnxscript lack the other."""
    dynamo = can_use_dynamo()
    names = job.ports.input_names, job.ports.output_names
    with silenced(), torch.no_grad():
        if dynamo:
            write_by_dynamo(job.generator, sample(job), path, names, dynamic_shapes(job))
        else:
            write_by_tracing(job.generator, job.inputs, path, names, _free(job) if job.dynamic else None)
    return {"exporter": "torch.onnx, dynamo" if dynamo else "torch.onnx, legacy", "opset": _opset(path)}


def _free(job: Job) -> dict[str, dict[int, str]]:
    height, width = job.sides
    return {
        port.name: {0: "batch", height: "height", width: "width"} if port.is_picture else {0: "batch"}
        for port in (*job.ports.inputs, *job.ports.outputs)
    }


def _opset(path: Path) -> int:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return int(next(entry.version for entry in model.opset_import if not entry.domain))


def annotate(path: Path, entries: Mapping[str, str]) -> None:
    """Write ``entries`` into the model's ``metadata_props``."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path))


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file in a CPU session of ONNX Runtime."""
    session = open_session(path, threads)
    names = [port.name for port in session.get_inputs()]
    return lambda *values: in_a_row(session.run(None, dict(zip(names, values))))
