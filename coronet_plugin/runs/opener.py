"""A generator read from its weight file, of whatever origin: by the spec beside it, or as a dense stock one.

What exporters start from: the module together with what is known of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from coronet_plugin.channels.find import cost_of, example_input
from coronet_plugin.checkpoint.spec import SEARCH, Spec, spec_path
from coronet_plugin.checkpoint.storage import load_generator
from coronet_plugin.checkpoint.upstream import adapt_state_dict, deduce_architecture, read_state_dict
from coronet_plugin.errors import CheckpointError
from coronet_plugin.generators.stock import UNET_DOWNS, build_generator
from coronet_plugin.runs.run import read_options


@dataclass(frozen=True)
class StoredGenerator:
    """A generator and what its file says of it.

    ``generator``: in train mode, as upstream tests. ``architecture``: arguments of
    :func:`~coronet_plugin.generators.stock.build_generator`. ``size``: (H, W) it was trained on, as far as
    known. ``slim`` and ``dense``: ``macs``, ``macs_literature`` and ``parameters`` as it is and at full
    size. ``dropout_known``: False where the file cannot tell and dropout was assumed. ``notes``: what the
    user should know. ``ranges``: of activations, by quantization-aware training
    (:mod:`coronet_plugin.training.qat`).
    """

    name: str
    generator: nn.Module
    architecture: Mapping[str, Any]
    size: tuple[int, int]
    slim: Mapping[str, int]
    dense: Mapping[str, int]
    origin: str
    dropout_known: bool = True
    notes: tuple[str, ...] = ()
    ranges: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)


def read_generator(name: str, path: Path) -> StoredGenerator:
    """The generator in ``path``, by the spec beside it or as a dense stock generator.

    Raises:
        CheckpointError: the file is damaged, or no stock generator.
    """
    return _with_spec(name, path) if spec_path(path).is_file() else _dense(name, path)


def _with_spec(name: str, path: Path) -> StoredGenerator:
    spec = Spec.read(spec_path(path))
    if "netG" not in spec.architecture:
        raise CheckpointError(
            f"{path} holds a generator {spec.architecture.get('class', '')}, whose source coronet_plugin has "
            f"no copy of; with that source, the weights and {spec_path(path).name}, rebuild it by "
            "coronet_plugin.load_generator(path, build=...) and go on from there in Python"
        )
    searching = "the search is not over; it is written at full size"
    return StoredGenerator(
        name=name,
        generator=load_generator(path),
        architecture=spec.architecture,
        size=(int(spec.input_size[0][1]), int(spec.input_size[0][2])),
        slim=spec.slim,
        dense=spec.dense,
        origin=f"{_file(path)}, trained with coronet_plugin {spec.versions.get('coronet_plugin', '')}",
        notes=(searching,) if spec.phase == SEARCH else (),
        ranges=spec.quantization.get("ranges", {}),
    )


def _dense(name: str, path: Path) -> StoredGenerator:
    state = read_state_dict(path)
    architecture = deduce_architecture(state, path)
    options = read_options(path.parent)
    notes = [] if options.values else ["no train_opt.txt beside it: taken to be trained on 256x256"]
    if architecture["netG"] in UNET_DOWNS:  # dropout leaves no trace in their tensors
        architecture["use_dropout"] = not options.flag("no_dropout")
    generator = build_generator(**architecture)
    generator.load_state_dict(adapt_state_dict(state, generator))
    size = options.crop_size
    cost = cost_of(generator, example_input(generator, size)).as_dict()
    known = bool(options.values) or architecture["netG"] not in UNET_DOWNS
    return StoredGenerator(
        name, generator, architecture, (size, size), cost, cost, _file(path), known, tuple(notes)
    )


def _file(path: Path) -> str:
    run = f" of the run {path.resolve().parent.name}" if read_options(path.parent).values else ""
    return path.name + run
