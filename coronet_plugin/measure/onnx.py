"""ONNX files by torch's two exporters, and sessions of ONNX Runtime to run them."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

OPSET, LEGACY_OPSET = 20, 17
Names = tuple[list[str], list[str]]
NAMES: Names = (["input"], ["output"])
LEVEL = 3
"""Of ONNX Runtime's log: errors alone."""


def can_use_dynamo() -> bool:
    """True if torch's exporter of today can be used here."""
    return importlib.util.find_spec("onnxscript") is not None and has_dynamo_exporter()


def has_dynamo_exporter() -> bool:
    """True if this torch's ``torch.onnx.export`` can go through torch.export."""
    return "dynamo" in inspect.signature(torch.onnx.export).parameters


def write_by_dynamo(
    module: nn.Module,
    inputs: tuple[Any, ...],
    path: Path,
    names: Names = NAMES,
    dynamic_shapes: tuple[Any, ...] | None = None,
) -> None:
    """Write ``module`` by torch's exporter of today; ``dynamic_shapes``: free sizes, as for torch.export.

    ``names``: of all inputs and all outputs.
    """
    program = torch.onnx.export(
        module,
        inputs,
        input_names=names[0],
        output_names=names[1],
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=dynamic_shapes,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)
    _forget_origins(path)


def _forget_origins(path: Path) -> None:
    """Remove what torch notes of where each node is from, in place.

    It names folders of this machine, and is a quarter of a small file.
    """
    import onnx

    model = onnx.load(str(path))
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        parts = [graph, *graph.node, *graph.value_info]
        if isinstance(graph, onnx.GraphProto):  # of functions these are names alone
            parts += [*graph.input, *graph.output, *graph.initializer]
        for part in parts:
            if "metadata_props" in part.DESCRIPTOR.fields_by_name:  # onnx 1.16 and newer
                part.ClearField("metadata_props")
        graphs += [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    onnx.save(model, str(path))


def write_by_tracing(
    module: nn.Module,
    inputs: tuple[Any, ...],
    file: Path | IO[bytes],
    names: Names = NAMES,
    free: Mapping[str, Mapping[int, str]] | None = None,
) -> None:
    """Write ``module`` by torch's former exporter; ``free``: names of free axes, by input and output.

    It is quick, and all that torch before 2.5 has; it makes ``Slice`` chains of reflection padding.

    Raises:
        ImportError: onnx is not installed.
    """
    import onnx  # noqa: F401  what it writes with

    extra: dict[str, Any] = {"dynamo": False} if has_dynamo_exporter() else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch advertises the other
        torch.onnx.export(
            module,
            inputs,
            str(file) if isinstance(file, Path) else file,  # type: ignore[arg-type]
            input_names=names[0],
            output_names=names[1],
            opset_version=LEGACY_OPSET,
            dynamic_axes=free,
            **extra,
        )


def open_session(
    model: Path | bytes,
    threads: int = 1,
    profile: Path | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Any:
    """A session of ONNX Runtime on ``threads`` threads; ``profile``: how the file of its profile begins.

    ``providers``: what runs it, by ONNX Runtime's names; the first that can take an operation does.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = LEVEL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=list(providers))
