"""int8 for LiteRT, by ai-edge-quantizer: of convolutions alone.

Norms that were rewritten as arithmetic would be quantized too, and lose far more than convolutions do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.export import litert as runtime
from coronet_plugin.export.quantization import Quantization, Write, matched
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import Job

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
WEIGHT = 1
"""Which input of a convolution is its weight, also of a transposed one."""


def begin(job: Quantization, folder: Path) -> Write:
    """Convert in fp32 and run the calibration pictures once; every quantization starts from that."""
    graph_file = folder / "fp32.tflite"
    runtime.convert(Job(job.generator, job.example), graph_file)
    with silenced():
        names = names_of_layers(graph_file, job)
        ranges = _quantizer(graph_file, []).calibrate(_given(graph_file, job.pictures), num_threads=1)

    def write(path: Path, floats: frozenset[str]) -> None:
        with silenced():
            tool = _quantizer(graph_file, [scope for scope, layer in names.items() if layer in floats])
            tool.quantize(ranges).export_model(str(path), overwrite=True)

    return write


def _quantizer(graph_file: Path, floats: list[str]) -> Any:
    """The quantizer of ``graph_file``, for all convolutions but those whose scopes are ``floats``."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    tool = quantizer.Quantizer(str(graph_file))
    for name in CONVOLUTIONS:
        operation = qtyping.TFLOperationName[name]
        tool.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
        for scope in floats:
            exactly = f"^{re.escape(scope)}$"
            tool.update_quantization_recipe(exactly, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return tool


def _given(graph_file: Path, pictures: np.ndarray) -> dict[str, list[dict[str, np.ndarray]]]:
    """``pictures`` as the calibration takes them: by the name of the signature, and of its input."""
    from ai_edge_litert.interpreter import Interpreter

    [(signature, ends)] = Interpreter(str(graph_file)).get_signature_list().items()
    [entrance] = ends["inputs"]
    return {signature: [{entrance: np.ascontiguousarray(picture[None])} for picture in pictures]}


def names_of_layers(graph_file: Path, job: Quantization) -> dict[str, str]:
    """Names of layers by the scopes that ai-edge-quantizer knows operations by."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(str(graph_file))
    [graph] = model.subgraphs
    codes = [flatbuffer.TFL_OP_NAME_TO_CODE[qtyping.TFLOperationName[name]] for name in CONVOLUTIONS]
    shapes = {
        flatbuffer.get_op_scope(op, graph.tensors): tuple(graph.tensors[op.inputs[WEIGHT]].shape)
        for op in graph.operators
        if model.operatorCodes[op.opcodeIndex].builtinCode in codes
    }
    return matched(job.layers, shapes)
