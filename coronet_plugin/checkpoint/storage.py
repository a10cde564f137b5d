"""Generators on disk: a plain state_dict and a spec beside it.

``latest_net_G.pth`` (or ``.safetensors``) holds tensors under the architecture's own keys and nothing
else; ``latest_net_G.json`` is the :class:`~coronet_plugin.checkpoint.spec.Spec`. Together
they rebuild the generator in either phase, without the host and without the
training state. Both appear together or not at all (:mod:`coronet_plugin.files`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.channels.baking import bake_
from coronet_plugin.channels.cut import replace_tensors_, update_widths_
from coronet_plugin.channels.padding import Padding, pad_
from coronet_plugin.checkpoint.spec import Spec, spec_path
from coronet_plugin.checkpoint.spec_check import NUMBERS
from coronet_plugin.checkpoint.tensors import SAFETENSORS, safetensors_of
from coronet_plugin.checkpoint.upstream import adapt_state_dict, read_state_dict
from coronet_plugin.errors import CheckpointError, OptionError, printable
from coronet_plugin.files import settle, together, write_atomically, write_text
from coronet_plugin.generators.registry import Family, read_architecture
from coronet_plugin.wrappers import unwrap


def save_tensors(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a (nested) mapping of tensors and plain values, atomically.

    Raises:
        CheckpointError: the disk is full or the folder read-only; an earlier file stays as it was.
        OptionError: ``path`` ends in ``.safetensors`` and the library is missing.
    """
    if Path(path).suffix == SAFETENSORS:
        data = safetensors_of(state, path)
        write_atomically(path, lambda temporary: temporary.write_bytes(data))
        return

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch reports its own state, not what the disk said
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise

    write_atomically(path, write)


def save_generator(generator: nn.Module, path: str | Path, spec: Spec) -> None:
    """Write ``generator``'s state_dict to ``path`` and ``spec`` beside it, both or neither."""
    state = {name: tensor.detach().cpu() for name, tensor in unwrap(generator).state_dict().items()}
    with together():
        save_tensors(state, path)
        write_text(spec_path(path), spec.to_json())


def version_path(path: str | Path, version: str) -> Path:
    """Where a further version lies: ``latest_average_net_G.pth`` beside ``latest_net_G.pth``."""
    path = Path(path)
    epoch, net, name = path.name.rpartition("_net_")
    return path.with_name(f"{epoch}_{version}{net}{name}" if net else f"{path.stem}_{version}{path.suffix}")


def load_generator(
    path: str | Path,
    build: Callable[[], nn.Module] | None = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Rebuild the generator whose weights are in ``path``: ``.../latest_net_G.pth``, or a packed folder.

    ``build`` makes the dense generator; it is needed for those of no registered family. Norms of
    weights that were made plain before the training (:func:`bake_`) may be in it or not. The
    result is an ordinary module of that class: no masks, no hypernetwork. It is in train mode,
    as upstream tests; call ``eval()`` for running statistics and no dropout.

    Raises:
        CheckpointError: files are missing or damaged, or do not fit the architecture; the folder has several.
    """
    path = _the_one_in(Path(path)) if Path(path).is_dir() else Path(path)
    settle(path.parent)
    if path.is_file() and not spec_path(path).is_file():
        raise CheckpointError(
            f"there is no {spec_path(path).name} beside {path}, without which its widths are not known; "
            "copy both files"
        )
    spec = Spec.read(spec_path(path))
    state = read_state_dict(path)
    check_tensors(state, spec, path)
    if build is None:
        generator = _build(spec, path)
    else:
        generator = unwrap(build()).to(device)
        if not spec.tensors.keys() >= generator.state_dict().keys():
            bake_(generator)  # as the saved one was
    resize_(generator, spec, path)
    if any(parameter.is_meta for parameter in generator.parameters()):
        generator.to_empty(device=device)
    _load(generator, state, path)
    return generator.to(device)


def packed_weights(folder: str | Path) -> dict[str, Path]:
    """The weight files of a folder that ``coronet pack`` wrote, by generator; none in any other folder."""
    return {file.stem: file for file in sorted(Path(folder).glob(f"*{SAFETENSORS}"))}


def _the_one_in(folder: Path) -> Path:
    found = list(packed_weights(folder).values())
    if len(found) != 1:
        named = ", ".join(file.name for file in found) or f"no *{SAFETENSORS}"
        raise CheckpointError(f"{folder} has {named}; name the weight file to load")
    return found[0]


def _build(spec: Spec, path: str | Path) -> nn.Module:
    """The dense generator, never in memory unless it holds more than its file does."""
    family, config = read_family(spec, path)
    with torch.device("meta"):
        generator = family.build(config)
    if sum(parameter.numel() for parameter in generator.parameters()) > NUMBERS:
        raise CheckpointError(f"{spec_path(path)} speaks of a generator of more than {NUMBERS} parameters")
    if not _has_unsaved_tensors(generator):
        return generator
    with torch.random.fork_rng(devices=[]):
        return family.build(config)


def _has_unsaved_tensors(generator: nn.Module) -> bool:
    """True if it computes with tensors that no state_dict has: buffers not saved, or plain attributes."""
    saved = {id(tensor) for tensor in generator.state_dict(keep_vars=True).values()}
    plain = (value for module in generator.modules() for value in vars(module).values())
    return any(isinstance(value, Tensor) for value in plain) or any(
        id(buffer) not in saved for buffer in generator.buffers()
    )


def read_family(spec: Spec, path: str | Path) -> tuple[Family, Any]:
    """The registered family and the config of a spec whose weights are in ``path``.

    Raises:
        CheckpointError: it is of no registered family.
    """
    if "netG" not in spec.architecture:
        raise CheckpointError(
            f"{path} holds a generator {spec.architecture.get('class', 'of an unknown class')}, whose source "
            "coronet_plugin has no copy of; register a family that builds it (--coronet_family, "
            "docs/families.md), or rebuild it in Python by coronet_plugin.load_generator(path, build=...)"
        )
    try:
        return read_architecture(spec.architecture)
    except OptionError as error:
        raise CheckpointError(f"{spec_path(path)} has an unusable architecture: {error}") from error


def check_tensors(state: Mapping[str, Any], spec: Spec, path: str | Path) -> None:
    """Raise CheckpointError unless the spec speaks of tensors that the file has; before anything is built."""
    shapes = {name: list(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    for name, shape in spec.tensors.items():
        if shapes.get(name, shape) != shape:
            raise CheckpointError(
                f"{path} and {spec_path(path).name} do not belong together: {name} is {shapes[name]} in the "
                f"one and does not fit {shape} in the other; they are not of the same save, copy both again"
            )
    if sum(map(math.prod, spec.tensors.values())) > sum(map(math.prod, shapes.values())):
        raise CheckpointError(
            f"the spec of {path} speaks of more values than the file holds; it is not its own"
        )


def load_into(generator: nn.Module, path: str | Path, spec: Spec | None) -> None:
    """Load ``path`` into a dense ``generator``, first made as small as ``spec`` says. In place."""
    state = read_state_dict(path)
    if spec is not None:
        check_tensors(state, spec, path)
        resize_(generator, spec, path)
    missing = "" if spec else f"; there is no {spec_path(path).name} beside it, so it was taken for dense"
    _load(generator, state, path, missing)


def _load(generator: nn.Module, state: Mapping[str, Any], path: str | Path, note: str = "") -> None:
    try:
        generator.load_state_dict(adapt_state_dict(state, generator))
    except (CheckpointError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: {reason}{note}") from error


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
            _set_width(generator, module, attribute, width, path)
    for module, padding in spec.padded.items():
        pad_(_submodule(generator, module, path), Padding.of(padding))
    update_widths_(generator)


def _submodule(generator: nn.Module, module: str, path: str | Path) -> nn.Module:
    try:
        return generator.get_submodule(module)
    except AttributeError as error:
        raise CheckpointError(f"the spec of {path} speaks of a layer {module!r} that is not there") from error


def _set_width(generator: nn.Module, module: str, attribute: str, width: int, path: str | Path) -> None:
    """Change a number of a module; nothing else may be overwritten by what a file says."""
    owner = _submodule(generator, module, path)
    if not hasattr(owner, attribute):
        return
    if type(getattr(owner, attribute)) is not int:
        named = printable(f"{module}.{attribute}")
        raise CheckpointError(f"the spec of {path} gives a width to {named}, which is none")
    setattr(owner, attribute, width)
