"""ONNX files for browsers: of fp16, the weights alone are stored so and the calculation stays in floats.

What calculates in fp16 needs a graphics card that offers it (WebGPU's ``shader-f16``), and on the CPU it is
converted back before every layer. Weights that are read once are half as large to download everywhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.export import onnx as plain
from coronet_plugin.export.targets import TARGETS, Job

BROWSER = replace(
    TARGETS["onnx"],
    module="browser",
    dtypes=("fp32", "fp16"),
    fp16="storage",
    rewrite=("subpixel_convolution",),
)
load = plain.load


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write an ONNX file that calculates in fp32, with its weights in ``job.dtype``."""
    import onnx

    facts = plain.convert(replace(job, dtype="fp32"), path)
    model = onnx.load(str(path))
    for node in model.graph.node:
        del node.metadata_props[:]  # where each stood in the program, a quarter of a slim file
    if job.dtype == "fp16":
        _store_in_fp16(model.graph)
    onnx.save(model, str(path))
    return facts


def _store_in_fp16(graph: Any) -> None:
    """Halve the weights of the ONNX ``graph``; each is cast to fp32, which runtimes do once, on loading."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            name, stored = tensor.name, f"{tensor.name}.fp16"
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, stored))
            casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    for number, cast in enumerate(casts):
        graph.node.insert(number, cast)
