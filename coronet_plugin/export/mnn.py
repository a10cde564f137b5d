"""MNN files, by MNN's converter from an ONNX file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.errors import ExportError
from coronet_plugin.export import onnx as onnx_files
from coronet_plugin.export.targets import ArrayModel, Job

PROGRAM = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
"""The converter itself. MNN's own command around it, mnnconvert, installs a package by pip if that is not
there and reports each conversion to its makers' server; neither is wanted here."""


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path`` with fp16 weights if asked; MNN calculates in what the device has anyway."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "generator.onnx"
        facts = onnx_files.convert(replace(job, dtype="fp32"), graph)
        arguments = ["-f", "ONNX", "--modelFile", str(graph), "--MNNModel", str(path), "--bizCode", "coronet"]
        arguments += ["--fp16"] if job.dtype == "fp16" else []
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    if not path.is_file():
        lines = (done.stdout + done.stderr).split("\n")
        raise ExportError(f"mnnconvert cannot convert this generator: {[*filter(None, lines)][-1][:200]}")
    return {"exporter": f"mnnconvert from {facts['exporter']}"}


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file in a CPU session with MNN's high precision, that is, fp32."""
    import MNN

    interpreter = MNN.Interpreter(str(path))
    session = interpreter.createSession({"numThread": threads, "precision": "high", "backend": "CPU"})
    entrance = interpreter.getSessionInput(session)

    def run(values: np.ndarray) -> np.ndarray:
        if tuple(entrance.getShape()) != values.shape:
            interpreter.resizeTensor(entrance, values.shape)
            interpreter.resizeSession(session)
        layout = MNN.Tensor_DimensionType_Caffe
        given = MNN.Tensor(values.shape, MNN.Halide_Type_Float, np.ascontiguousarray(values), layout)
        entrance.copyFrom(given)
        interpreter.runSession(session)
        output = interpreter.getSessionOutput(session)
        shape = output.getShape()
        taken = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), layout)
        output.copyToHostTensor(taken)
        return np.array(taken.getNumpyData(), dtype=np.float32).reshape(shape)

    return run
