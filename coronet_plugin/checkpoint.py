"""Generators on disk: a plain state_dict and a spec beside it.

``latest_net_G.pth`` holds tensors under the architecture's own keys and nothing
else; ``latest_net_G.json`` is the :class:`~coronet_plugin.spec.Spec`. Together
they rebuild the generator in either phase, without the host and without the
training state. All files are written under a temporary name and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coronet_plugin.errors import CheckpointError
from coronet_plugin.foreign import adapt_state_dict, read_state_dict
from coronet_plugin.slim import replace_tensors_, update_widths_
from coronet_plugin.spec import Spec, spec_path


def write_atomically(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` on a temporary path, flush it to disk, then rename it to ``path``."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a (nested) mapping of tensors and plain values."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def save_generator(generator: nn.Module, path: str | Path, spec: Spec) -> None:
    """Write ``generator``'s state_dict to ``path`` and ``spec`` beside it."""
    state = {name: tensor.detach().cpu() for name, tensor in generator.state_dict().items()}
    save_tensors(state, path)
    text = spec.to_json()
    write_atomically(spec_path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def load_generator(
    path: str | Path,
    build: Callable[[], nn.Module] | None = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Rebuild the generator whose weights are in ``path`` (``.../latest_net_G.pth``).

    ``build`` makes the dense generator; it is needed for architectures other than
    upstream's four. The result is an ordinary module of that class: no masks, no
    hypernetwork. It is in train mode, as upstream tests; call ``eval()`` for
    running statistics and no dropout.

    Raises:
        CheckpointError: files are missing or damaged, or do not fit the architecture.
    """
    spec = Spec.read(spec_path(path))
    if build is None:
        if "netG" not in spec.architecture:
            name = spec.architecture.get("class", "of an unknown class")
            raise CheckpointError(
                f"{path} holds a generator {name}; pass build=, a function that makes it at full size"
            )
        from coronet_plugin.generators import build_generator

        try:
            generator = build_generator(**spec.architecture)
        except TypeError as error:
            raise CheckpointError(f"{spec_path(path)} has an unusable architecture: {error}") from error
    else:
        generator = build()
    generator.to(device)
    load_into(generator, path, spec)
    return generator


def load_into(generator: nn.Module, path: str | Path, spec: Spec | None) -> None:
    """Load ``path`` into a dense ``generator``, first made as small as ``spec`` says. In place."""
    if spec is not None:
        resize_(generator, spec, path)
    state = read_state_dict(path)
    try:
        generator.load_state_dict(adapt_state_dict(state, generator))
    except CheckpointError as error:
        missing = "" if spec else f"; there is no {spec_path(path).name} beside it, so it was taken for dense"
        raise CheckpointError(f"{path}: {error}{missing}") from error


@torch.no_grad()
def resize_(generator: nn.Module, spec: Spec, path: str | Path) -> None:
    """Give a dense generator the tensor shapes of ``spec``, in place. Values are undefined."""
    tensors = dict(generator.state_dict(keep_vars=True))
    if set(tensors) != set(spec.tensors):
        extra = sorted(set(tensors) ^ set(spec.tensors))[0]
        raise CheckpointError(
            f"the spec of {path} and the generator do not have the same tensors (first: {extra}); "
            "it was made by another architecture (--netG, --norm or --no_dropout)"
        )
    for name, tensor in tensors.items():
        shape = tuple(spec.tensors[name])
        if len(shape) != tensor.ndim or any(not 0 < s <= d for s, d in zip(shape, tensor.shape)):
            raise CheckpointError(
                f"the spec of {path} gives {name} the shape {shape}, which does not fit into the dense "
                f"generator's {tuple(tensor.shape)} (--ngf, --input_nc or --output_nc)"
            )
    replace_tensors_(
        generator,
        {
            tensor: torch.empty(tuple(spec.tensors[name]), dtype=tensor.dtype, device=tensor.device)
            for name, tensor in tensors.items()
            if tuple(spec.tensors[name]) != tuple(tensor.shape)
        },
    )
    for module, attributes in spec.widths.items():
        for attribute, width in attributes.items():
            if hasattr(generator.get_submodule(module), attribute):
                setattr(generator.get_submodule(module), attribute, width)
    update_widths_(generator)
