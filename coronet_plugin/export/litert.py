"""LiteRT (TensorFlow Lite) files, by litert-torch; fp16 weights by ai-edge-quantizer, which comes with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job, one_at_a_time


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path``; with fp16, weights are stored in fp16 and calculated with in what the device has."""
    with silenced():
        import litert_torch

        litert_torch.convert(job.generator, job.inputs).export(str(path))
        if job.dtype == "fp16":
            _store_in_fp16_(path)
    inputs, outputs = ports_in(path)
    return {"exporter": "litert-torch", "inputs": _entries(inputs), "outputs": _entries(outputs)}


def _store_in_fp16_(path: Path) -> None:
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    tool = quantizer.Quantizer(str(path))
    tool.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    tool.quantize().export_model(str(path), overwrite=True)


def ports_in(file: Path | Any) -> tuple[list[Any], list[Any]]:
    """Read the inputs and outputs of a file, or of an interpreter of one, in the order of the generator.

    A file has them in an order of its own; its signature numbers them (``args_0``, ``output_0``).
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file)) if isinstance(file, Path) else file
    [signature] = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(signature)
    return _by_number(runner.get_input_details()), _by_number(runner.get_output_details())


def _by_number(details: dict[str, Any]) -> list[Any]:
    return [details[name] for name in sorted(details, key=lambda name: int(name.rpartition("_")[2]))]


def _entries(ports: list[Any]) -> list[dict[str, Any]]:
    """Name, shape and type of inputs or outputs, as the file has them."""
    return [
        {
            "name": port["name"],
            "shape": [int(side) for side in port["shape"]],
            "dtype": np.dtype(port["dtype"]).name,
        }
        for port in ports
    ]


def annotate(path: Path, entries: Mapping[str, str]) -> None:
    """Write ``entries`` into the model's ``metadata``, a buffer of text each."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    model.metadata = [*(model.metadata or ())]
    for key, value in entries.items():
        text, entry = schema.BufferT(), schema.MetadataT()
        text.data = np.frombuffer(value.encode(), np.uint8)
        entry.name, entry.buffer = key, len(model.buffers)
        model.buffers.append(text)
        model.metadata.append(entry)
    flatbuffer_utils.write_model(model, str(path))


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file in an interpreter with the XNNPACK delegate, which is its default; pictures one at a time."""
    from ai_edge_litert.interpreter import Interpreter

    with silenced():
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    inputs, outputs = ports_in(interpreter)

    def one(*values: np.ndarray) -> list[np.ndarray]:
        for port, value in zip(inputs, values):
            interpreter.set_tensor(port["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(port["index"]) for port in outputs]

    return one_at_a_time(one)
