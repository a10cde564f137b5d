"""OpenVINO's intermediate representation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path`` (.xml) and the weights (.bin) beside it, stored in fp16 if asked."""
    import openvino

    batch, height, width = (-1, -1, -1) if job.dynamic else (1, *job.example.shape[2:])
    shape = openvino.PartialShape([batch, job.example.shape[1], height, width])
    with silenced():
        model = openvino.convert_model(job.generator, example_input=job.example, input=[shape])
        model.inputs[0].set_names({"input"})
        model.outputs[0].set_names({"output"})
        openvino.save_model(model, str(path), compress_to_fp16=job.dtype == "fp16")
    return {"exporter": "openvino.convert_model"}


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file compiled for the CPU, calculating in fp32; OpenVINO's default is bf16 where the CPU has it."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(values: np.ndarray) -> np.ndarray:
        return np.array(compiled(values)[0])

    return run
