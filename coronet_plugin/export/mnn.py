"""MNN files, by MNN's converter from an ONNX file."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.errors import ExportError
from coronet_plugin.export import onnx as onnx_files
from coronet_plugin.export.silence import last_of, silenced
from coronet_plugin.export.targets import ArrayModel, Job, in_a_row

PROGRAM = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
"""The converter itself. MNN's own command around it, mnnconvert, installs a package by pip if that is not
there and reports each conversion to its makers' server; neither is wanted here."""
CONVERT_ANNOTATES = True
"""Entries are one JSON object, the ``bizCode`` of the file."""


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path`` with fp16 weights if asked; MNN calculates in what the device has anyway."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "generator.onnx"
        facts = onnx_files.convert(replace(job, dtype="fp32"), graph)
        arguments = ["-f", "ONNX", "--modelFile", str(graph), "--MNNModel", str(path)]
        arguments += ["--bizCode", json.dumps({key: json.loads(job.entries[key]) for key in job.entries})]
        arguments += ["--fp16"] if job.dtype == "fp16" else []
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    if not path.is_file():
        said = last_of(done.stdout + done.stderr)
        raise ExportError(f"mnnconvert cannot convert this generator: {said}")
    return {"exporter": f"mnnconvert from {facts['exporter']}"}


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file in a CPU session with MNN's high precision, that is, fp32."""
    import MNN
    import MNN.nn

    interpreter = MNN.Interpreter(str(path))
    with silenced():  # it tells its precision, of every candidate of a latency budget
        session = interpreter.createSession({"numThread": threads, "precision": "high", "backend": "CPU"})
    names = MNN.nn.load_module_from_file(str(path), [], []).get_info()  # a session forgets their order
    layout = MNN.Tensor_DimensionType_Caffe

    def run(*values: np.ndarray) -> Any:
        entrances = [interpreter.getSessionInput(session, name) for name in names["inputNames"]]
        if any(tuple(x.getShape()) != v.shape for x, v in zip(entrances, values)):
            for entrance, value in zip(entrances, values):
                interpreter.resizeTensor(entrance, value.shape)
            interpreter.resizeSession(session)
        for entrance, value in zip(entrances, values):
            kind = MNN.Halide_Type_Float if value.dtype.kind == "f" else MNN.Halide_Type_Int
            value = np.ascontiguousarray(value, np.float32 if value.dtype.kind == "f" else np.int32)
            entrance.copyFrom(MNN.Tensor(value.shape, kind, value, layout))
        interpreter.runSession(session)
        return in_a_row(taken(interpreter.getSessionOutput(session, name)) for name in names["outputNames"])

    def taken(output: Any) -> np.ndarray:
        shape = output.getShape()
        tensor = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), layout)
        output.copyToHostTensor(tensor)
        return np.array(tensor.getNumpyData(), dtype=np.float32).reshape(shape)

    return run
