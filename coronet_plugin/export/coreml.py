"""Core ML packages. They are written anywhere, and run on macOS and iOS alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.errors import OptionError
from coronet_plugin.export.pytorch import exported_program
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job

NORM_OPERATIONS = ("instance_norm", "batch_norm", "layer_norm", "reduce_mean", "reduce_sum", "rsqrt")
"""Kept in fp32 in fp16 packages: their sums over a picture leave fp16's range."""


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write the package ``path``, an ML program for iOS 16 and macOS 13 or later."""
    with silenced():
        import coremltools

        precision = coremltools.precision.FLOAT32
        if job.dtype == "fp16":
            precision = coremltools.transform.FP16ComputePrecision(
                lambda op: op.op_type not in NORM_OPERATIONS
            )
        model = coremltools.convert(
            exported_program(job).run_decompositions({}),
            inputs=[coremltools.TensorType(name="input", shape=tuple(job.example.shape))],
            outputs=[coremltools.TensorType(name="output")],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=precision,
            convert_to="mlprogram",
        )
        model.save(str(path))
    return {"exporter": "coremltools from torch.export"}


def why_not_run() -> str:
    """Why packages cannot be run on this machine, or nothing."""
    return "" if sys.platform == "darwin" else "Core ML runs on macOS and iOS alone"


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The package on the CPU. Core ML chooses its threads itself."""
    if why_not_run():
        raise OptionError(f"{path.name} cannot be run here: {why_not_run()}")
    import coremltools

    model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)

    def run(values: np.ndarray) -> np.ndarray:
        pictures = [model.predict({"input": picture[None]})["output"] for picture in values]
        return np.concatenate(pictures).astype(np.float32)

    return run
