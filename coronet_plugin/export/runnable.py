"""A generator as a call in a runtime, unchecked: what is timed to keep a budget in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coronet_plugin.channels.facts import Runner
from coronet_plugin.command import NORM_MODE
from coronet_plugin.export.normalisation import normalised
from coronet_plugin.export.pipeline import prepared_for
from coronet_plugin.export.ports import Flat, ports_of
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import EAGER, TARGETS, Job
from coronet_plugin.measure.onnx import write_by_tracing

ONNXRUNTIME = "onnxruntime"


def runnable(
    generator: nn.Module, inputs: tuple[Any, ...], runtime: str, folder: Path, run: Runner
) -> Callable[[], Any]:
    """A call of ``generator`` on ``inputs``, on one thread, as ``runtime`` runs exported files.

    Norms are as an export has them by default. Files are written to ``folder`` and may be needed as long as
    the call. For ONNX Runtime torch's former exporter writes them: its files take as long, and it is quick.
    ``run``: how the generator is run in eager PyTorch.

    Raises:
        OptionError: the runtime is not installed.
        ExportError: it cannot run this generator.
    """
    if runtime == EAGER:
        module = normalised(generator, NORM_MODE).eval()
        return partial(run, module, *inputs)
    path, job = exported(generator, inputs, runtime, folder)
    target = TARGETS["onnx" if runtime == ONNXRUNTIME else runtime]
    return partial(target.load(path), *(x.numpy() for x in job.inputs))


def exported(
    generator: nn.Module, inputs: tuple[Any, ...], runtime: str, folder: Path, name: str = "generator"
) -> tuple[Path, Job]:
    """Write ``generator`` for ``runtime``; gives the first file, and what it was made of."""
    target = TARGETS["onnx" if runtime == ONNXRUNTIME else runtime]
    target.require()
    prepared = prepared_for(generator, Request(target), inputs)
    ports = ports_of(prepared, inputs)
    job = Job(prepared if ports.plain else Flat(prepared), inputs, ports=ports)
    path = folder / f"{name}{target.suffixes[0]}"
    if runtime == ONNXRUNTIME:
        with torch.no_grad():
            write_by_tracing(job.generator, job.inputs, path, (ports.input_names, ports.output_names))
    else:
        target.convert(job, path)
    return path, job
