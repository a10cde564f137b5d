"""int8 for OpenVINO, by NNCF."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from coronet_plugin.export import openvino as runtime
from coronet_plugin.export.quantization import Quantization, Write, matched
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import Job

CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData")


def begin(job: Quantization, folder: Path) -> Write:
    """Convert in fp32 once; every quantization starts from that file."""
    import openvino

    graph_file = folder / "fp32.xml"
    runtime.convert(Job(job.generator, job.example, "fp32", job.dynamic, job.multiple), graph_file)
    given = [np.ascontiguousarray(picture[None]) for picture in job.pictures]

    def write(path: Path, floats: frozenset[str]) -> None:
        with silenced():
            import nncf
            from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

            logging.getLogger("nncf").setLevel(logging.ERROR)
            model = openvino.Core().read_model(str(graph_file))
            names = names_of_layers(model, job)
            quantized = nncf.quantize(
                model,
                nncf.Dataset(given),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(given),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.DISABLE if job.full_range else OverflowFix.ENABLE
                ),
                ignored_scope=nncf.IgnoredScope(names=[ours for ours in names if names[ours] in floats]),
            )
            openvino.save_model(quantized, str(path), compress_to_fp16=False)

    return write


def names_of_layers(model: object, job: Quantization) -> dict[str, str]:
    """Names of layers by OpenVINO's names of their operations."""
    found = [op for op in model.get_ordered_ops() if op.get_type_name() in CONVOLUTIONS]  # type: ignore[attr-defined]
    shapes = {op.get_friendly_name(): tuple(op.input(1).get_partial_shape().to_shape()) for op in found}
    return matched(job.layers, shapes)
