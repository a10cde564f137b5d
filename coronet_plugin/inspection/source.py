"""What ``coronet inspect`` is pointed at: a stock name, weights, a run, or a generator of the user's own.

Turns the text a user typed into inspections, one for each generator. Weight files are
data and never executed; the user's code runs only when it is named as ``file.py:Name``
or ``package.module:Name``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coronet_plugin import example_input, find_channels
from coronet_plugin.checkpoint.spec import SEARCH, Spec, spec_path
from coronet_plugin.checkpoint.upstream import adapt_state_dict, deduce_architecture, read_state_dict
from coronet_plugin.errors import CheckpointError, OptionError, PlanError
from coronet_plugin.generators.stock import RESNET_BLOCKS, UNET_DOWNS, build_generator
from coronet_plugin.inspection.facts import (
    Inspection,
    alive_units,
    inspect_generator,
    inspect_plan,
    inspect_spec,
)
from coronet_plugin.inspection.own_generator import is_own, load_own
from coronet_plugin.runs.run import find_weights, read_options

STOCK = (*RESNET_BLOCKS, *UNET_DOWNS)
SIZE = 256
"""Height and width of the example where nothing else tells."""
ARCHITECTURE = ("ngf", "input_nc", "output_nc", "norm", "use_dropout")


@dataclass(frozen=True)
class Choices:
    """What the user chose besides the model. None (or empty) where nothing was chosen.

    ``size``: (H, W) of the example input. ``channels``: those of the example for a generator of
    the user's own, which is called with ``kwargs``. ``architecture``: some of ``ngf``,
    ``input_nc``, ``output_nc``, ``norm`` and ``use_dropout``, for stock names.
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
    if model in STOCK:
        _refuse(choices, "channels", "kwargs", model=model)
        return {model: _inspect_stock(model, choices)}
    if is_own(model):
        _refuse(choices, "architecture", model=model)
        return {model.rpartition(":")[2]: _inspect_own(model, choices)}
    _refuse(choices, "architecture", "channels", "kwargs", model=model)
    _check_known(model, Path(choices.checkpoints_dir))
    weights = find_weights(model, choices.checkpoints_dir, choices.epoch)
    return {name: inspect_weights(path, choices.size) for name, path in weights.items()}


def _refuse(choices: Choices, *names: str, model: str) -> None:
    """Raise OptionError if one of the choices ``names`` was made, which does not fit ``model``."""
    for name in names:
        if getattr(choices, name) not in (None, {}):
            given = next(iter(choices.architecture)) if name == "architecture" else name
            use = "names of stock generators" if name == "architecture" else "generators of your own"
            raise OptionError(f"--{given} is for {use}; {model} is none of them, leave it out")


def _check_known(model: str, checkpoints_dir: Path) -> None:
    """Raise OptionError unless ``model`` is a weight file or a run, by its name or folder."""
    if model.endswith(".pth") or (model and ((checkpoints_dir / model).is_dir() or Path(model).is_dir())):
        return
    runs = sorted(path.name for path in checkpoints_dir.glob("*") if path.is_dir())
    there = f"has {', '.join(runs)}" if runs else "has none"
    raise OptionError(
        f"{model!r} is not known; expected a stock generator ({', '.join(STOCK)}), a weight file (.pth), "
        f"a run ({checkpoints_dir} {there}), or a generator of your own (path/to/file.py:Name)"
    )


# -- stock generators --------------------------------------------------------
def _inspect_stock(netG: str, choices: Choices) -> Inspection:
    """A stock generator, by default as upstream trains it: CycleGAN's ResNets, pix2pix's U-Nets."""
    upstream = {"norm": "instance"} if netG in RESNET_BLOCKS else {"norm": "batch", "use_dropout": True}
    defaults = {"input_nc": 3, "output_nc": 3, "ngf": 64, "use_dropout": False, **upstream}
    architecture = {**defaults, **choices.architecture, "netG": netG}
    generator = build_generator(**architecture)
    example = _example(generator, choices.size, architecture["input_nc"])
    with _mendable("--size"):
        return inspect_generator(generator, example, netG, describe(architecture))


def describe(architecture: Mapping[str, Any]) -> str:
    """An architecture but for its name: ``ngf 64, 3 to 3 channels, instance norm, no dropout``."""
    dropout = "with dropout" if architecture.get("use_dropout") else "no dropout"
    channels = f"{architecture['input_nc']} to {architecture['output_nc']} channels"
    norm = f"{architecture.get('norm', 'batch')} norm"
    return f"ngf {architecture['ngf']}, {channels}, {norm}, {dropout}"


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
        raise PlanError(f"{error} Set {options}.") from error


# -- weight files ------------------------------------------------------------
def inspect_weights(path: Path, size: tuple[int, int] | None = None) -> Inspection:
    """A generator from its weight file, with the spec beside it or without one.

    ``size``: (H, W) to count for; by default the one it was trained with, as far as known.

    Raises:
        CheckpointError: the file is missing, damaged, of no stock architecture, or not what the spec says.
    """
    state = read_state_dict(path)
    if spec_path(path).is_file():
        spec = Spec.read(spec_path(path))
        _check_spec(path, spec, state)
        return _inspect_spec(path, spec, size)
    architecture = deduce_architecture(state, path)
    generator = build_generator(**architecture)
    generator.load_state_dict(adapt_state_dict(state, generator))
    trained = read_options(path.parent).crop_size
    example = _example(generator, size or (trained, trained), architecture["input_nc"])
    with _mendable("--size"):
        about = f"{architecture['netG']}, {describe(architecture)}"
        return inspect_generator(generator, example, _title(path), about)


def _check_spec(path: Path, spec: Spec, state: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless the weight file has the tensors of the spec."""
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    if shapes != spec.tensors:
        name = min(k for k in shapes.keys() | spec.tensors.keys() if shapes.get(k) != spec.tensors.get(k))
        raise CheckpointError(
            f"{path} and {spec_path(path).name} do not belong together: {name} is {shapes.get(name)} in the "
            f"one and {spec.tensors.get(name)} in the other; copy both files from the same run"
        )


def _inspect_spec(path: Path, spec: Spec, size: tuple[int, int] | None) -> Inspection:
    """Channel sets of the dense generator, and what the spec says is left of them."""
    if "netG" not in spec.architecture:
        about = f"{spec.architecture.get('class', 'a class of your own')}, {_asked(spec)}"
        return inspect_spec(spec, _title(path), about)
    try:
        generator = build_generator(**spec.architecture)
    except TypeError as error:
        raise CheckpointError(f"{spec_path(path)} has an unusable architecture: {error}") from error
    channels, *trained = spec.input_size[0]
    example = _example(generator, size or (trained[0], trained[1]), channels)
    about = f"{spec.architecture['netG']}, {describe(spec.architecture)}, {_asked(spec)}"
    with _mendable("--size"):
        plan = find_channels(generator, example)
    try:
        alive = alive_units(spec, plan)
    except PlanError:  # written when other channel sets were found
        return inspect_spec(spec, _title(path), about)
    return inspect_plan(plan, example, _title(path), about, spec.phase, alive)


def _asked(spec: Spec) -> str:
    kind = "MACs" if spec.budget["kind"] == "macs" else "parameters"
    when = f", search at step {spec.search['steps']} of {spec.search['of']}" if spec.phase == SEARCH else ""
    return f"budget {spec.budget['requested']} of the {kind}{when}"


def _title(path: Path) -> str:
    return "/".join(path.parts[-2:])


# -- generators of the user's own --------------------------------------------
def _inspect_own(model: str, choices: Choices) -> Inspection:
    generator = load_own(model, choices.kwargs)
    example = _example(generator, choices.size, choices.channels)
    with _mendable("--size, --channels or --kwargs"):
        return inspect_generator(generator, example, type(generator).__name__, model)
