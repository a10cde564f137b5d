"""Files of tensors from strangers: nothing in them is executed, and they cannot ask for absurd memory.

``torch.load(weights_only=True)`` keeps code out. What it lets through is refused here: archives that
unpack to more than they are, and tensors that claim more elements than are stored. Files that end in
``.safetensors`` are read and written by the library of that name, which holds tensors and nothing else.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from coronet_plugin.errors import CheckpointError, OptionError

SAFETENSORS = ".safetensors"
ENDINGS = (".pth", SAFETENSORS)
"""Of weight files; the first wins where both are there."""
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")
_DEPTH = 100
"""How deeply values may be nested; a training state needs fewer than ten levels."""


def read_tensors(path: str | Path) -> Any:
    """The (nested) tensors and plain values in ``path``, on the CPU.

    Raises:
        CheckpointError: the file is damaged, holds anything else, or claims to be larger than it is.
        OptionError: it needs a library that is missing.
    """
    path = Path(path)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    _refuse_bombs(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen unrelated types for a damaged file
        raise CheckpointError(
            f"{path} cannot be read as tensors; it is damaged or not a weight file ({_reason(error)})"
        ) from error
    for tensor in _tensors(state, path):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            shape = tuple(tensor.shape)
            raise CheckpointError(f"{path} claims a tensor of shape {shape} that it does not hold")
    return state


def is_weight_file(name: str | Path) -> bool:
    """Whether it is named as one; it need not be there."""
    return str(name).endswith(ENDINGS)


def weight_file(path: str | Path) -> Path:
    """``path``, or the file of another ending that lies in its place."""
    path = Path(path)
    others = (path.with_suffix(ending) for ending in ENDINGS)
    return next((file for file in (path, *others) if file.is_file()), path)


def safetensors_of(state: Mapping[str, Any], path: str | Path) -> bytes:
    """The file ``path`` for the tensors ``state``.

    Raises:
        CheckpointError: a value is no tensor, as in the state of a training.
        OptionError: the library is missing.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name} is no tensor, and {SAFETENSORS} files hold nothing else")
    # Tensors that share memory, such as tied weights, are refused unless each has its own.
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    return bytes(_library(path).save(own, {"format": "pt"}))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    library = _library(path)
    try:
        state = library.load_file(path, device="cpu")
        return {name: state[name] for name in sorted(state, key=_place)}
    except Exception as error:  # the library's own kind, and those of the system
        raise CheckpointError(
            f"{path} cannot be read as tensors; it is damaged or no {SAFETENSORS} file ({_reason(error)})"
        ) from error


def _place(name: str) -> list[tuple[int, str]]:
    """Sorts names as layers stand in a network, an order that these files do not keep: by their numbers."""
    return [(int(part) if part.isdecimal() else -1, part) for part in name.split(".")]


def _library(path: str | Path) -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise OptionError(f'{path} needs safetensors: pip install "coronet-plugin[safetensors]"') from error
    return safetensors.torch


def _refuse_bombs(path: Path) -> None:
    """Archives by torch are not compressed, so one whose parts exceed the file was not made by it."""
    with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        if packed or sum(part.file_size for part in parts) > path.stat().st_size:
            raise CheckpointError(f"{path} unpacks to more than it is; it was not written by torch.save")


def _tensors(value: Any, path: Path, depth: int = 0) -> Iterator[Tensor]:
    if depth > _DEPTH:
        raise CheckpointError(f"{path} nests its values more than {_DEPTH} deep; it is no training state")
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part, path, depth + 1)


def _reason(error: Exception) -> str:
    text = str(error)
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        return f"it asks for {forbidden[1]}, and nothing but tensors and plain values is accepted"
    if "eights only load failed" in text or "eights_only" in text:
        return "it holds more than tensors and plain values"
    return text.strip().split("\n")[0][:120] or type(error).__name__
