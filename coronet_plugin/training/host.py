"""Know hosts, upstream checkouts and the bundled one.

With :mod:`~coronet_plugin.training.data_set` and :mod:`~coronet_plugin.training.projector` the only
module that does. Differences between versions are found by looking (does the option exist, is there a
wrapper), not by version numbers. Host modules are imported when a function runs, because outside a checkout
there is no ``models`` package.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parallel import DistributedDataParallel

from coronet_plugin.channels.find import example_input
from coronet_plugin.checkpoint.upstream import recognise_generator
from coronet_plugin.distributed import data_parallel
from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.generators.registry import Family, check_size
from coronet_plugin.pictures.padding import padded_side
from coronet_plugin.runs.options import Options
from coronet_plugin.wrappers import unwrap

GENERATOR_PREFIX = "G"
TEST = "test"
"""Upstream's model type that tests one generator, on pictures without partners."""
_TESTS = "it only tests, and there is nothing to compress"
NO_BASES = {"coronet": "it would wrap itself", TEST: _TESTS, "slim_test": _TESTS, "base": "it is no model"}
"""Model types that can be no base, and why."""
BOTH_WAYS = ("lambda_A", "lambda_B", "lambda_identity")
"""Options for the weights of losses that translate there and back."""


class HostModel(Protocol):
    """A model of any host; networks are attributes ``net`` and a name, losses ``loss_`` and a name.

    ``optimizers`` and ``schedulers`` are lists, of the same order; ``device`` is where it trains.
    """

    opt: Any
    isTrain: bool
    save_dir: str
    model_names: list[str]
    loss_names: list[str]
    visual_names: list[str]
    optimizers: list[Any]
    schedulers: list[Any]
    device: Any
    image_paths: list[str]

    def set_input(self, input: Any) -> None:
        """Take a batch of the data loader."""

    def forward(self) -> None:
        """Translate the batch."""

    def optimize_parameters(self) -> None:
        """Make one training step with the batch."""

    def save_networks(self, epoch: Any) -> None:
        """Write every network under the name of ``epoch``."""


def option(opt: Any, *names: str, default: Any = None) -> Any:
    """The first of ``names`` that ``opt`` has: current name first, older ones after."""
    for name in names:
        if hasattr(opt, name):
            return getattr(opt, name)
    return default


def epoch_name(opt: Any) -> str:
    """Which saved weights the options ask for, as file names begin: ``latest``, ``20`` or ``iter_100``."""
    iteration = int(option(opt, "load_iter", default=0))
    return f"iter_{iteration}" if iteration else str(option(opt, "epoch", "which_epoch", default="latest"))


def base_class(name: str, is_train: bool = True) -> type[Any]:
    """The host's model class behind ``--model name``; unless ``is_train`` also one that only tests.

    Raises:
        OptionError: there is no such model, or it is the coronet model itself.
    """
    models = importlib.import_module("models")
    there = _bases(models)
    if name in NO_BASES and (is_train or name != TEST):
        raise OptionError(f"--coronet_base {name}: {NO_BASES[name]}; there are {there}")
    if not name.isidentifier():
        raise OptionError(f"--coronet_base {name!r} is no name of a model; there are {there}")
    try:
        return models.find_model_using_name(name)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if error.name != f"models.{name}_model":
            raise
        raise OptionError(f"--coronet_base {name} is not known; there are {there}") from error
    except OptionError as error:  # the bundled host's own
        if (Path(models.__path__[0]) / f"{name}_model.py").is_file():
            raise OptionError(str(error).replace("--model", "--coronet_base", 1)) from error
        raise OptionError(f"--coronet_base {name} is not known; there are {there}") from error


def _bases(models: Any) -> str:
    """Names of the host's model types that can be a base."""
    files = {module.name for module in pkgutil.iter_modules(models.__path__)}
    names = {file[: -len("_model")] for file in files if file.endswith("_model")}
    return ", ".join(sorted(names - NO_BASES.keys()))


def generators(model: Any, names: str = "") -> dict[str, nn.Module]:
    """The generators a model owns, unwrapped, by name (``G``, or ``G_A`` and ``G_B``).

    ``names``: comma-separated names to choose; by default all of ``model_names``
    that begin with ``G``.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    owned = list(model.model_names)
    unknown = [name for name in wanted if name not in owned]
    if unknown:
        raise OptionError(f"--coronet_networks {unknown[0]}: the model has {', '.join(owned)}")
    chosen = wanted or [name for name in owned if name.startswith(GENERATOR_PREFIX)]
    if not chosen:
        raise OptionError(
            f"the model's networks are {', '.join(owned)}; say which to compress with --coronet_networks"
        )
    return {name: unwrap(getattr(model, "net" + name)) for name in chosen}


def discriminators(names: Iterable[str]) -> list[str]:
    """Those of the ``names`` that hosts give to discriminators: ``D``, ``D_A``."""
    return [name for name in names if name == "D" or name.startswith("D_")]


def discriminator_of(model: Any, name: str) -> str:
    """The name of the discriminator that judges what the generator ``name`` makes; none if there is none."""
    judge = "D" + name[1:]
    return judge if name.startswith(GENERATOR_PREFIX) and judge in model.model_names else ""


def forget_statistics_(network: nn.Module) -> None:
    """Let instance norms without scale and shift keep no running statistics, in place.

    Checkouts of September 2018 kept them, later ones do not; they serve only in eval mode, and there
    make another generator of the same weights.
    """
    for module in network.modules():
        if isinstance(module, _InstanceNorm) and module.track_running_stats and not module.affine:
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None


def optimizer_of(model: Any, network: nn.Module) -> Any:
    """The optimizer among ``model.optimizers`` that holds ``network``'s parameters but the frozen."""
    wanted = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    for optimizer in model.optimizers:
        if any(id(p) in wanted for group in optimizer.param_groups for p in group["params"]):
            return optimizer
    raise OptionError("none of the model's optimizers trains the generator; name the networks it does train")


def scale_learning_rates_(optimizers: Iterable[Any], factor: float) -> None:
    """Multiply the learning rates of ``optimizers``, each once, before the host makes their schedules."""
    for optimizer in {id(optimizer): optimizer for optimizer in optimizers}.values():
        for group in optimizer.param_groups:
            for rate in {"lr", "initial_lr"} & set(group):
                group[rate] = group[rate] * factor


def architecture(network: nn.Module, opt: Any) -> dict[str, Any]:
    """Find what a spec says of ``network``: a registered family with its config, or just its class.

    The family is given only if it really builds a generator of the same class and
    tensors, so that an edited checkout's generator is never taken for a stock one.
    """
    found = _recognise(network, opt)
    return {"class": type(network).__name__} if found is None else found[0].architecture(found[1])


def example(network: nn.Module, opt: Any) -> Any:
    """Give an input to run ``network`` on once: the example of its family, or an image if it is of none.

    Of crops, or of the next larger size that it takes where pictures come in sizes of their own.

    Raises:
        DataError: it is trained on crops it cannot take.
    """
    found, side = _recognise(network, opt), crop_size(opt)
    if found is None:
        return example_input(network, side)
    if str(option(opt, "preprocess", "resize_or_crop")).endswith("crop"):
        check_size(found[0].name, (side, side))
    if not found[0].rounds_up:
        side = padded_side(side, found[0].side_multiple(found[1]))
    device = next(network.parameters()).device
    return tuple(x.to(device) for x in found[0].example(found[1], (side, side)))


def _recognise(network: nn.Module, opt: Any) -> tuple[Family, Any] | None:
    options = Options({name: str(value) for name, value in vars(opt).items()}, {})
    found = recognise_generator(network.state_dict(), options.of_generators())
    if found is None:
        return None
    with torch.device("meta"):
        built = found[0].build(found[1])
    same_class = type(built).__name__ == type(network).__name__
    return found if same_class and _shapes(built) == _shapes(network) else None


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def total_epochs(opt: Any) -> int:
    """Number of epochs the host will train."""
    return int(option(opt, "n_epochs", "niter", default=100)) + int(
        option(opt, "n_epochs_decay", "niter_decay", default=0)
    )


def crop_size(opt: Any) -> int:
    """Side of the square images the networks see while training, in pixels."""
    return int(option(opt, "crop_size", "fineSize", default=256))


@contextlib.contextmanager
def one_line_of_norms(training: bool) -> Iterator[None]:
    """Say in one line that a norm layer was given a single value, which has no variance.

    Raises DataError in place of what torch raises.
    """
    try:
        yield
    except ValueError as error:
        if "Expected more than 1" not in str(error):
            raise
        what = " ".join(str(error).split())
        remedy = (
            "choose a --batch_size that leaves no single image for the last batch, or larger images"
            if training
            else "test.py gives one image at a time: use --eval, or larger images"
        )
        raise DataError(f"a norm layer was given one value per channel ({what}); {remedy}") from error


@contextlib.contextmanager
def one_way(opt: Any, active: bool) -> Iterator[None]:
    """While this lasts, if ``active``, CycleGAN's losses of cycles and of identity weigh nothing."""
    weights = {name: getattr(opt, name) for name in BOTH_WAYS if active and hasattr(opt, name)}
    vars(opt).update(dict.fromkeys(weights, 0.0))
    try:
        yield
    finally:
        vars(opt).update(weights)


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """Leave the random state as it was, so that a run with the plug-in sees the numbers of one without."""
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def networks(model: HostModel) -> dict[str, nn.Module]:
    """All networks of ``model``, unwrapped, by name."""
    return {name: unwrap(getattr(model, "net" + name)) for name in model.model_names}


def constructor(base_model: type) -> str:
    """The method that gets the options: ``initialize`` in checkouts of 2018 and their forks."""
    return "initialize" if "initialize" in vars(base_model) else "__init__"


@contextlib.contextmanager
def without_loading(model: Any, opt: Any) -> Iterator[None]:
    """While this lasts, the host's ``setup`` loads no networks: the plug-in does it itself.

    Some hosts load with a method of their own, some in the middle of ``setup``; all ask first
    whether the model is training and not continued.
    """
    training, absent = model.isTrain, object()
    continued = getattr(opt, "continue_train", absent)
    if not hasattr(model, "optimizers"):
        model.optimizers = []
    model.isTrain, opt.continue_train = True, False
    try:
        yield
    finally:
        model.isTrain = training
        if continued is absent:
            del opt.continue_train
        else:
            opt.continue_train = continued


def rewrap_(model: Any, name: str, generator: nn.Module) -> None:
    """Let ``generator``, which was resized or is another one, be ``name`` of ``model``, wrapped as before."""
    wrapper = getattr(model, "net" + name)
    wrapped = generator
    if isinstance(wrapper, DistributedDataParallel):
        wrapped = data_parallel(
            generator,
            wrapper.broadcast_buffers,
            device_ids=wrapper.device_ids,
            output_device=wrapper.output_device,
            find_unused_parameters=wrapper.find_unused_parameters,
        )
    elif unwrap(wrapper) is generator:
        return  # it was resized in place
    elif isinstance(wrapper, nn.DataParallel):
        wrapped = nn.DataParallel(generator, wrapper.device_ids, wrapper.output_device, wrapper.dim)
    setattr(model, "net" + name, wrapped)


def image_pools(model: Any) -> dict[str, Any]:
    """The image pools (histories of generated images) a model keeps, by attribute name."""
    return {
        name: value
        for name, value in vars(model).items()
        if hasattr(value, "images") and hasattr(value, "num_imgs") and hasattr(value, "pool_size")
    }


def progress(model: Any) -> dict[str, Any]:
    """Where the training loop says it is: ``model.progress`` in the bundled host, elsewhere nothing.

    Plain values and tensors, given back to it when the run is continued. ``epoch``: the number of the
    epoch it is in the middle of, if it is.
    """
    return dict(getattr(model, "progress", {}))


def notes_tests(model: Any) -> bool:
    """True if the host's ``test.py`` notes what it tested: the bundled one does, when all is made."""
    return bool(getattr(model, "notes_tests", False))


def results_folder(opt: Any) -> Path | None:
    """Where the host's ``test.py`` has put the page of its results; None if that is not there."""
    epoch, iteration = option(opt, "epoch", "which_epoch"), option(opt, "load_iter", default=0)
    folder = Path(option(opt, "results_dir", default=""), opt.name, f"{option(opt, 'phase')}_{epoch}")
    places = (folder.with_name(f"{folder.name}_iter{iteration}"), folder)  # the former from 2020 on
    return next((place for place in places if place.is_dir()), None)


def observed(model: Any) -> list[torch.Tensor]:
    """Values the bundled host noted this epoch for ``--lr_policy plateau``; to be changed in place."""
    return getattr(model, "observed", [])
