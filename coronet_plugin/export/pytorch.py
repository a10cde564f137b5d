"""PyTorch's own files: TorchScript (``.pt``) and archives of torch.export (``.pt2``)."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import ArrayModel, Job, in_a_row
from coronet_plugin.measure.timing import torch_threads


def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write a frozen trace, or an exported program, by the suffix of ``path``."""
    return _torchscript(job, path) if path.suffix == ".pt" else _pt2(job, path)


@torch.no_grad()
def _torchscript(job: Job, path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch advertises torch.export
        traced = torch.jit.trace(job.generator, job.inputs, check_trace=False)  # the file is checked
        torch.jit.freeze(traced).save(str(path))
    return {"exporter": "torch.jit.trace"}


def _pt2(job: Job, path: Path) -> dict[str, Any]:
    torch.export.save(exported_program(job), path)
    return {"exporter": "torch.export"}


def exported_program(job: Job) -> torch.export.ExportedProgram:
    """The generator as a program of torch.export; batch, height and width free if ``job.dynamic``."""
    with silenced(), _sizes_of_1_are_free():
        free: dict[str, Any] = {"dynamic_shapes": dynamic_shapes(job)} if job.dynamic else {}
        return torch.export.export(job.generator, sample(job), **free)  # torch 2.1 has no such argument


def _sizes_of_1_are_free() -> contextlib.AbstractContextManager[Any]:
    """Let torch.export treat a dimension of size 1 like any other, where this torch can (since 2.7)."""
    try:
        from torch.fx.experimental import _config as config
    except ImportError:  # torch 2.1
        return contextlib.nullcontext()
    if not hasattr(config, "backed_size_oblivious"):
        return contextlib.nullcontext()
    patch: contextlib.AbstractContextManager[Any] = config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return patch


def sample(job: Job) -> tuple[Tensor, ...]:
    """The example to trace with. Dimensions of size 1, deep in a U-Net, would be taken for always 1."""
    if not job.dynamic:
        return job.inputs
    doubled = [2 if axis in (0, *job.sides) else 1 for axis in range(4)]
    return tuple(x.repeat(doubled) if x.ndim == 4 else x.repeat(2, *[1] * (x.ndim - 1)) for x in job.inputs)


def dynamic_shapes(job: Job) -> tuple[Any, ...] | None:
    """Free dimensions of every input, in torch.export's words; those of pictures are the same for all."""
    if not job.dynamic:
        return None
    from torch.export import Dim

    multiple = job.multiple
    height, width = (multiple * Dim(name, min=1, max=8192 // multiple) for name in ("rows", "columns"))
    batch = Dim("batch", min=1, max=64)
    rows, columns = job.sides
    free = tuple({0: batch, rows: height, columns: width} if x.ndim == 4 else {0: batch} for x in job.inputs)
    arguments = inspect.signature(job.generator.forward).parameters.values()
    return (free,) if any(a.kind is a.VAR_POSITIONAL for a in arguments) else free  # one name for them all


def annotate(path: Path, entries: Mapping[str, str]) -> None:
    """Write ``entries`` as extra files of the archive, a file an entry."""
    if path.suffix == ".pt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location="cpu")
        module.save(str(path), _extra_files=dict(entries))
    else:
        torch.export.save(torch.export.load(path), path, extra_files=dict(entries))


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The file as a function of arrays."""
    if path.suffix == ".pt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return as_array_model(torch.jit.load(str(path), map_location="cpu"), threads)
    return as_array_model(torch.export.load(path).module(), threads)


def as_array_model(module: Callable[..., Any], threads: int | None = None) -> ArrayModel:
    """``module``, in the mode it is in, as a function of arrays.

    torch has one setting of ``threads`` for the process, so every call makes it and puts it back; by default
    it is left alone.
    """

    def run(*values: np.ndarray) -> Any:
        with torch_threads(threads or torch.get_num_threads()), torch.no_grad():
            return in_a_row(x.numpy() for x in tensors_in(module(*map(torch.from_numpy, values))))

    return run
