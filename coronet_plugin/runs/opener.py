"""THE way from a weight file to a generator and all that is known of it.

By the spec beside the file, or, without one, as a dense generator of a registered family, recognised by its
tensors and by the options of the run it lies in. Nothing that a file says is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coronet_plugin.channels.find import cost_of
from coronet_plugin.checkpoint.spec import SEARCH, Spec, spec_path
from coronet_plugin.checkpoint.storage import load_generator, read_family
from coronet_plugin.checkpoint.upstream import adapt_state_dict, read_state_dict, recognise_generator, whose
from coronet_plugin.errors import CheckpointError
from coronet_plugin.generators.registry import Family, families, is_registered, read_architecture
from coronet_plugin.pictures.files import FULL_DEPTH
from coronet_plugin.runs.options import read_options


@dataclass(frozen=True)
class StoredGenerator:
    """A generator and what its file says of it.

    ``generator``: in train mode, as upstream tests. ``family``, ``config``: what it is built by. ``size``:
    (H, W) it was trained on, as far as known. ``slim`` and ``dense``: ``macs``, ``macs_literature`` and
    ``parameters`` as it is and at full size. ``spec``: None for a dense file without one.
    ``dropout_known``: False where the file cannot tell and dropout was assumed. ``notes``: what the user
    should know. ``ranges``: of activations, by quantization-aware training
    (:mod:`coronet_plugin.training.qat`). ``bit_depth``: of the values in pictures of 16 bits a channel.
    """

    name: str
    generator: nn.Module
    family: Family
    config: Any
    size: tuple[int, int]
    slim: Mapping[str, int]
    dense: Mapping[str, int]
    origin: str
    spec: Spec | None = None
    dropout_known: bool = True
    notes: tuple[str, ...] = ()
    ranges: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    bit_depth: int = FULL_DEPTH

    @property
    def architecture(self) -> dict[str, Any]:
        """The generator's entry in a spec: name and config of its family."""
        return self.family.architecture(self.config)

    @property
    def multiple(self) -> int:
        """Number that height and width of the input must be multiples of."""
        return self.family.side_multiple(self.config)

    def example(self, size: tuple[int, int] | None = None) -> tuple[Tensor, ...]:
        """Random inputs of (H, W) ``size``, by default as trained."""
        return self.family.example(self.config, size or self.size)

    @property
    def channels(self) -> int:
        """Channels of the image it takes.

        Raises:
            OptionError: it takes several inputs.
        """
        self.family.check_one_image()
        return int(self.example()[0].shape[1])


def read_generator(name: str, path: Path) -> StoredGenerator:
    """The generator ``name`` in ``path``, by the spec beside it or as a dense one of a registered family.

    Raises:
        CheckpointError: the file is damaged, does not fit its spec, or is of no registered family.
    """
    return _with_spec(name, path) if spec_path(path).is_file() else _dense(name, path)


def takes_one_image(architecture: Mapping[str, Any]) -> bool:
    """True if a generator of this architecture can be built here and is run on one image."""
    return is_registered(architecture) and read_architecture(architecture)[0].inputs == 1


def _with_spec(name: str, path: Path) -> StoredGenerator:
    spec = Spec.read(spec_path(path))
    family, config = read_family(spec, path)
    searching = "the search is not over; it is written as it is now"
    return StoredGenerator(
        name=name,
        generator=load_generator(path),
        family=family,
        config=config,
        size=(int(spec.input_size[0][1]), int(spec.input_size[0][2])),
        slim=spec.slim,
        dense=spec.dense,
        origin=f"{_file(path)}, trained with coronet_plugin {spec.versions.get('coronet_plugin', '')}",
        spec=spec,
        notes=(searching,) if spec.phase == SEARCH else (),
        ranges=spec.quantization.get("ranges", {}),
        bit_depth=read_options(path.parent).integer("bit_depth", spec.options.get("bit_depth", FULL_DEPTH)),
    )


def _dense(name: str, path: Path) -> StoredGenerator:
    state, options = read_state_dict(path), read_options(path.parent)
    recognised = recognise_generator(state, options.of_generators())
    if recognised is None:
        if foreign := whose(state):
            raise CheckpointError(f"{path} fits no generator here: {foreign}")
        raise CheckpointError(
            f"{path} fits none of {', '.join(families())} at full size, and there is no "
            f"{spec_path(path).name} beside it; a slim generator needs its spec, one of another family the "
            "module that registers it (--coronet_family)"
        )
    family, config = recognised
    generator = family.build(config)
    generator.load_state_dict(adapt_state_dict(state, generator))
    size = (options.crop_size, options.crop_size)
    cost = cost_of(generator, family.example(config, size)).as_dict()
    return StoredGenerator(
        name=name,
        generator=generator,
        family=family,
        config=config,
        size=size,
        slim=cost,
        dense=cost,
        origin=_file(path),
        dropout_known=bool(options.values) or "use_dropout" not in family.untold,
        notes=() if options.values else ("no train_opt.txt beside it: taken to be trained on 256x256",),
        bit_depth=options.integer("bit_depth", FULL_DEPTH),
    )


def _file(path: Path) -> str:
    run = f" of the run {path.resolve().parent.name}" if read_options(path.parent).values else ""
    return path.name + run
