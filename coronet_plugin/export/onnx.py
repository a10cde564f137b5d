"""ONNX files, and ONNX Runtime to run them."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import torch

from coronet_plugin.export.pytorch import dynamic_shapes, sample
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import Job, Runner, in_a_row

OPSET, LEGACY_OPSET = 20, 17


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write by torch's exporter of today, or by the former one where torch or onnxscript lack the other.

    The former makes ``Slice`` chains of reflection padding, and is all that torch before 2.5 has.
    """
    dynamo = can_use_dynamo()
    with silenced(), torch.no_grad():
        (_dynamo if dynamo else _legacy)(job, path)
    return {"exporter": "torch.onnx, dynamo" if dynamo else "torch.onnx, legacy", "opset": _opset(path)}


def can_use_dynamo() -> bool:
    """Whether torch's exporter of today can be used here."""
    return importlib.util.find_spec("onnxscript") is not None and has_dynamo_exporter()


def has_dynamo_exporter() -> bool:
    """Whether this torch's ``torch.onnx.export`` can go through torch.export."""
    return "dynamo" in inspect.signature(torch.onnx.export).parameters


def _dynamo(job: Job, path: Path) -> None:
    program = torch.onnx.export(
        job.generator,
        sample(job),
        input_names=job.ports.input_names,
        output_names=job.ports.output_names,
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=dynamic_shapes(job),
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)


def _legacy(job: Job, path: Path) -> None:
    free = {
        port.name: {0: "batch", 2: "height", 3: "width"} if port.is_picture else {0: "batch"}
        for port in (*job.ports.inputs, *job.ports.outputs)
    }
    extra: dict[str, Any] = {"dynamo": False} if has_dynamo_exporter() else {}
    torch.onnx.export(
        job.generator,
        job.inputs,
        str(path),
        input_names=job.ports.input_names,
        output_names=job.ports.output_names,
        opset_version=LEGACY_OPSET,
        dynamic_axes=free if job.dynamic else None,
        **extra,
    )


def _opset(path: Path) -> int:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return int(next(entry.version for entry in model.opset_import if not entry.domain))


def load(path: Path, threads: int = 1) -> Runner:
    """The file in a CPU session of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return lambda *values: in_a_row(session.run(None, dict(zip(names, values))))
