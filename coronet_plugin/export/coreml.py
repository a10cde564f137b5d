"""Core ML packages. They are written anywhere, and run on macOS and iOS alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from coronet_plugin.errors import OptionError
from coronet_plugin.export.processing import FromBytes
from coronet_plugin.export.pytorch import exported_program
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job, one_at_a_time

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
        inputs, outputs = _types(job)
        model = coremltools.convert(
            exported_program(_without_bytes(job)).run_decompositions({}),
            inputs=inputs,
            outputs=outputs,
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=precision,
            convert_to="mlprogram",
        )
        model.save(str(path))
    return {"exporter": "coremltools from torch.export"}


def annotate(path: Path, entries: Mapping[str, str]) -> None:
    """Write ``entries`` into the model's user-defined metadata."""
    import coremltools

    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    model.user_defined_metadata.update(entries)
    model.save(str(path))


def _types(job: Job) -> tuple[list[Any], list[Any]]:
    """Ends of the package: tensors, or images, which Core ML scales itself on their way in."""
    import coremltools

    if job.bytes:
        [x], rgb = job.inputs, coremltools.colorlayout.RGB
        shape = (x.shape[0], x.shape[3], x.shape[1], x.shape[2])
        if shape[1] != 3:
            raise OptionError(f"--embed_preprocessing for coreml is for RGB, not for {shape[1]} channels")
        image = coremltools.ImageType(
            job.ports.input_names[0], shape, scale=1 / 127.5, bias=[-1.0] * 3, color_layout=rgb
        )
        return [image], [coremltools.ImageType(job.ports.output_names[0], color_layout=rgb)]
    inputs = [
        coremltools.TensorType(name, x.shape, numpy_type(x))
        for name, x in zip(job.ports.input_names, job.inputs)
    ]
    return inputs, [coremltools.TensorType(name) for name in job.ports.output_names]


def _without_bytes(job: Job) -> Job:
    """The job with floats at both ends; those that come out are levels, of which images are made."""
    if not job.bytes:
        return job
    assert isinstance(job.generator, FromBytes)
    example = job.inputs[0].permute(0, 3, 1, 2).float() / 127.5 - 1
    return replace(job, generator=job.generator.levels, example=example, bytes=False)


def numpy_type(tensor: Tensor) -> Any:
    """Type of numbers that Core ML takes for a tensor: whole numbers have 32 bits."""
    return np.float32 if tensor.is_floating_point() else np.int32


def why_not_run() -> str:
    """Why packages cannot be run on this machine, or nothing."""
    return "" if sys.platform == "darwin" else "Core ML runs on macOS and iOS alone"


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The package on the CPU. Core ML chooses its threads itself."""
    if why_not_run():
        raise OptionError(f"{path.name} cannot be run here: {why_not_run()}")
    import coremltools

    model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    about = model.get_spec().description

    def one(*values: np.ndarray) -> list[np.ndarray]:
        found = model.predict({port.name: v for port, v in zip(about.input, values)})
        return [found[port.name].astype(np.float32) for port in about.output]

    return one_at_a_time(one)
