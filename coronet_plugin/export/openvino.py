"""OpenVINO's intermediate representation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job, in_a_row


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path`` (.xml) and the weights (.bin) beside it, stored in fp16 if asked."""
    import openvino

    free = (0, *job.sides) if job.dynamic else ()
    shapes = [
        openvino.PartialShape([-1 if axis in free else side for axis, side in enumerate(x.shape)])
        for x in job.inputs
    ]
    with silenced():
        model = openvino.convert_model(job.generator, example_input=job.inputs, input=shapes)
        for port, name in zip(model.inputs, job.ports.input_names):
            port.set_names({name})
        for port, name in zip(model.outputs, job.ports.output_names):
            port.set_names({name})
        openvino.save_model(model, str(path), compress_to_fp16=job.dtype == "fp16")
    return {"exporter": "openvino.convert_model"}


def annotate(path: Path, entries: Mapping[str, str]) -> None:
    """Write ``entries`` into the model's ``rt_info``."""
    import openvino

    model = openvino.Core().read_model(str(path))
    for key, value in entries.items():
        model.set_rt_info(value, key.split("."))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # the weights are mapped, not read
        made = Path(folder) / path.name
        openvino.save_model(model, str(made), compress_to_fp16=False)
        del model
        for suffix in (".bin", ".xml"):
            os.replace(made.with_suffix(suffix), path.with_suffix(suffix))


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file compiled for the CPU, calculating in fp32; OpenVINO's default is bf16 where the CPU has it."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(*values: np.ndarray) -> Any:
        found = compiled(list(values))
        return in_a_row(np.array(found[port]) for port in compiled.outputs)

    return run
