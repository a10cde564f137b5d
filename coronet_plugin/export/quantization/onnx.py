"""int8 for ONNX Runtime: a graph with QuantizeLinear and DequantizeLinear around convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.export.onnx import convert
from coronet_plugin.export.quantization import Quantization, Write, matched
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import Job

CONVOLUTIONS = ("Conv", "ConvTranspose")


def begin(job: Quantization, folder: Path) -> Write:
    """Export in fp32 once; every quantization starts from that file."""
    import onnx

    graph_file = folder / "fp32.onnx"
    convert(Job(job.generator, job.example, "fp32", job.dynamic, job.multiple), graph_file)
    nodes = nodes_of_layers(onnx.load(str(graph_file)), job)
    overrides = _overrides(nodes, job.ranges)

    def write(path: Path, floats: frozenset[str]) -> None:
        from onnxruntime import quantization

        with silenced():
            quantization.quantize_static(
                str(graph_file),
                str(path),
                _reader(job.pictures),
                op_types_to_quantize=list(CONVOLUTIONS),
                per_channel=True,
                reduce_range=not job.full_range,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=[node.name for layer, node in nodes if layer in floats],
                extra_options={
                    "TensorQuantOverrides": {
                        k: v for k, (layer, v) in overrides.items() if layer not in floats
                    }
                },
            )

    return write


def nodes_of_layers(model: Any, job: Quantization) -> list[tuple[str, Any]]:
    """(name of the layer, its node) for every convolution of the ONNX graph."""
    nodes = [node for node in model.graph.node if node.op_type in CONVOLUTIONS]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights = {
        node.input[1]: shapes.get(node.input[1], ()) for node in nodes
    }  # a weight used twice counts once
    names = matched(job.layers, weights)
    return [(names[node.input[1]], node) for node in nodes]


def _reader(pictures: np.ndarray) -> Any:
    """A new object of what ONNX Runtime reads pictures from."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.rest, None)
            return None if picture is None else {"input": picture[None]}

    return Reader()


def _overrides(
    nodes: Sequence[tuple[str, Any]], ranges: Mapping[str, Mapping[str, Sequence[float]]]
) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """(layer, its entry of TensorQuantOverrides) by the names of tensors whose range training has found."""
    found = {}
    for layer, node in nodes:
        for end, tensor in (("input", node.input[0]), ("output", node.output[0])):
            if end in ranges.get(layer, {}):
                scale, zero_point = ranges[layer][end]
                entry = {"scale": np.array(scale, np.float32), "zero_point": np.array(zero_point, np.uint8)}
                found[tensor] = (layer, [entry])
    return found
