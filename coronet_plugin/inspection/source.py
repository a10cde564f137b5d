"""The target of ``coronet inspect``: a family, weights, a run, or a generator of the user's own.

Turns the text a user typed into inspections, one for each generator. Weight files are
data and never executed; the user's code runs only when it is named as ``file.py:Name``
or ``package.module:Name``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coronet_plugin.channels.find import example_input, find_channels
from coronet_plugin.checkpoint.spec import SEARCH, Spec, spec_path
from coronet_plugin.checkpoint.storage import check_tensors
from coronet_plugin.checkpoint.tensors import is_weight_file
from coronet_plugin.checkpoint.upstream import read_state_dict
from coronet_plugin.errors import OptionError, PlanError
from coronet_plugin.generators.config import checked
from coronet_plugin.generators.registry import Family, families, find_family, is_registered
from coronet_plugin.inspection.facts import (
    Inspection,
    alive_units,
    inspect_generator,
    inspect_plan,
    inspect_spec,
)
from coronet_plugin.inspection.own_generator import is_own, load_own
from coronet_plugin.runs.opener import StoredGenerator, read_generator
from coronet_plugin.runs.run import find_weights

SIZE = 256
"""Height and width of the example where nothing else tells."""


@dataclass(frozen=True)
class Choices:
    """Choices of the user besides the model. None (or empty) where nothing was chosen.

    ``size``: (H, W) of the example input. ``channels``: those of the example for a generator of
    the user's own, which is called with ``kwargs``; for a family they are entries of its config, as
    is ``architecture``.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    architecture: Mapping[str, Any] = field(default_factory=dict)
    checkpoints_dir: str = "./checkpoints"
    epoch: str = "latest"


def inspect_model(model: str, choices: Choices | None = None) -> dict[str, Inspection]:
    """Inspect what ``model`` names; gives inspections by the name of the generator (``G``, ``G_A``).

    Raises:
        OptionError: there is nothing of that name, an option does not fit it, or the user's code fails.
        CheckpointError: weights or specs are damaged or do not fit together.
        PlanError: the generator does not run on the example.
    """
    choices = choices or Choices()
    family = find_family(model)
    if family is not None:
        _refuse(choices, "channels", model=model)
        return {model: _inspect_family(family, choices)}
    if is_own(model):
        _refuse(choices, "architecture", model=model)
        return {model.rpartition(":")[2]: _inspect_own(model, choices)}
    _refuse(choices, "architecture", "channels", "kwargs", model=model)
    _check_known(model, Path(choices.checkpoints_dir))
    weights = find_weights(model, choices.checkpoints_dir, choices.epoch)
    return {name: inspect_weights(name, path, choices.size) for name, path in weights.items()}


def _refuse(choices: Choices, *names: str, model: str) -> None:
    """Raise OptionError if one of the choices ``names`` was made, which does not fit ``model``."""
    for name in names:
        if getattr(choices, name) not in (None, {}):
            given = next(iter(choices.architecture)) if name == "architecture" else name
            use = "names of families" if name == "architecture" else "generators of your own"
            raise OptionError(f"--{given} is for {use}; {model} is none of them, leave it out")


def _check_known(model: str, checkpoints_dir: Path) -> None:
    """Raise OptionError unless ``model`` is a weight file or a run, by its name or folder."""
    if is_weight_file(model) or (model and ((checkpoints_dir / model).is_dir() or Path(model).is_dir())):
        return
    runs = sorted(path.name for path in checkpoints_dir.glob("*") if path.is_dir())
    there = f"has {', '.join(runs)}" if runs else "has none"
    raise OptionError(
        f"{model!r} is not known; expected a family of generators ({', '.join(families())}), a weight file "
        f"(.pth or .safetensors), a run ({checkpoints_dir} {there}), or a generator of your own "
        "(path/to/file.py:Name)"
    )


# -- families ----------------------------------------------------------------
def _inspect_family(family: Family, choices: Choices) -> Inspection:
    """A generator with the family's default config, but for what the user chose."""
    config = _chosen_config(family, {**choices.architecture, **choices.kwargs})
    example = family.example(config, choices.size or (SIZE, SIZE))
    with _mendable("--size"):
        return inspect_generator(family.build(config), example, family.name, family.describe(config))


def _chosen_config(family: Family, chosen: Mapping[str, Any]) -> Any:
    default = dataclasses.asdict(family.default_config())
    for name in chosen.keys() - default.keys():
        raise OptionError(f"{name} is none of what {family.name} is made by: {', '.join(default)}")
    return checked(family.config, {**default, **chosen})


def _example(generator: nn.Module, size: tuple[int, int] | None, channels: int | None = None) -> Tensor:
    height, width = size or (SIZE, SIZE)
    if next(generator.parameters(), None) is None:
        raise OptionError(f"{type(generator).__name__} has no parameters; there is nothing to inspect")
    return example_input(generator, max(height, width), channels)[..., :height, :width]


@contextlib.contextmanager
def _mendable(options: str) -> Iterator[None]:
    """Add to a PlanError the options which choose the example."""
    try:
        yield
    except PlanError as error:
        raise PlanError(f"{str(error).rstrip('.')}. Set {options}.") from error


# -- weight files ------------------------------------------------------------
def inspect_weights(name: str, path: Path, size: tuple[int, int] | None = None) -> Inspection:
    """The generator ``name`` from its weight file, with the spec beside it or without one.

    ``size``: (H, W) to count for; by default the one it was trained with, as far as known. One of no
    registered family is shown as its spec says.

    Raises:
        CheckpointError: the file is missing, damaged, of no registered family, or not what the spec says.
    """
    spec = Spec.read(spec_path(path)) if spec_path(path).is_file() else None
    if spec is not None and not is_registered(spec.architecture):
        check_tensors(read_state_dict(path), spec, path)
        named = spec.architecture.get("netG", spec.architecture.get("class", "a class of your own"))
        return inspect_spec(spec, _title(path), f"{named}, {_asked(spec)}")
    stored = read_generator(name, path)
    example = stored.example(size)
    title, about = _title(path), f"{stored.family.name}, {stored.family.describe(stored.config)}"
    with _mendable("--size"):
        if stored.spec is None:
            return inspect_generator(stored.generator, example, title, about)
        return _inspect_compressed(stored, stored.spec, example, title, f"{about}, {_asked(stored.spec)}")


def _inspect_compressed(
    stored: StoredGenerator, spec: Spec, example: tuple[Tensor, ...], title: str, about: str
) -> Inspection:
    """Channel sets of the dense generator, and what the spec says is left of them."""
    plan = find_channels(stored.family.build(stored.config), example)
    try:
        alive = alive_units(spec, plan)
    except PlanError:  # written when other channel sets were found
        return inspect_spec(spec, title, about)
    return inspect_plan(plan, example, title, about, spec.phase, alive)


def _asked(spec: Spec) -> str:
    kind = spec.budget["kind"]
    of = {"macs": " of the MACs", "params": " of the parameters"}.get(kind, f" ({kind})")
    when = f", search at step {spec.search['steps']} of {spec.search['of']}" if spec.phase == SEARCH else ""
    return f"budget {spec.budget['requested']}{of}{when}"


def _title(path: Path) -> str:
    return "/".join(path.parts[-2:])


# -- generators of the user's own --------------------------------------------
def _inspect_own(model: str, choices: Choices) -> Inspection:
    generator = load_own(model, choices.kwargs)
    example = _example(generator, choices.size, choices.channels)
    with _mendable("--size, --channels or --kwargs"):
        return inspect_generator(generator, example, type(generator).__name__, model)
