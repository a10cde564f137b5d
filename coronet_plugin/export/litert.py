"""LiteRT (TensorFlow Lite) files, by litert-torch; fp16 weights by ai-edge-quantizer, which comes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path``; with fp16, weights are stored in fp16 and calculated with in what the device has."""
    with silenced():
        import litert_torch

        litert_torch.convert(job.generator, (job.example,)).export(str(path))
        if job.dtype == "fp16":
            _store_in_fp16_(path)
    return {"exporter": "litert-torch", "input": _entry(path, "input"), "output": _entry(path, "output")}


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


def _entry(path: Path, end: str) -> dict[str, Any]:
    """Name and shape of the input or output, as the file has them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    [details] = interpreter.get_input_details() if end == "input" else interpreter.get_output_details()
    shape = [int(side) for side in details["shape"]]
    return {
        "name": details["name"],
        "layout": "NCHW",
        "shape": shape,
        "dtype": np.dtype(details["dtype"]).name,
        "range": [-1, 1],
    }


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file in an interpreter with the XNNPACK delegate, which is its default; pictures one at a time."""
    from ai_edge_litert.interpreter import Interpreter

    with silenced():
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    [entrance], [exit_] = interpreter.get_input_details(), interpreter.get_output_details()

    def one(picture: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entrance["index"], picture)
        interpreter.invoke()
        output: np.ndarray = interpreter.get_tensor(exit_["index"])
        return output

    return lambda values: np.concatenate([one(values[i : i + 1]) for i in range(len(values))])
