"""All that is known of hosts: upstream checkouts and the bundled one.

Nothing else in the package imports or inspects the host. Differences between
versions are found by looking (does the option exist, is there a wrapper), not
by version numbers. Host modules are imported when a function runs, because
outside a checkout there is no ``models`` package.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parallel import DistributedDataParallel

from coronet_plugin.distributed import world_size
from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.generators import build_generator
from coronet_plugin.propagation import Runner, call
from coronet_plugin.wrappers import unwrap

GENERATOR_PREFIX = "G"


def option(opt: Any, *names: str, default: Any = None) -> Any:
    """The first of ``names`` that ``opt`` has: current name first, older ones after."""
    for name in names:
        if hasattr(opt, name):
            return getattr(opt, name)
    return default


def base_class(name: str) -> type[Any]:
    """The host's model class behind ``--model name``.

    Raises:
        OptionError: there is no such model, or it is the coronet model itself.
    """
    if name == "coronet":
        raise OptionError(
            "--coronet_base coronet would wrap itself; name the model to compress: pix2pix, ..."
        )
    if not name.isidentifier():
        raise OptionError(f"--coronet_base {name!r} is no name of a model; it is one such as pix2pix")
    models = importlib.import_module("models")
    try:
        found = models.find_model_using_name(name)
    except ModuleNotFoundError as error:
        if error.name != f"models.{name}_model":
            raise
        raise OptionError(
            f"--coronet_base {name}: this checkout has no models/{name}_model.py; "
            "name a model that --model accepts, such as pix2pix or cycle_gan"
        ) from error
    except OptionError as error:  # the bundled host, which names the option it asks
        raise OptionError(str(error).replace("--model", "--coronet_base", 1)) from error
    return found


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
    """The optimizer among ``model.optimizers`` that holds ``network``'s parameters."""
    wanted = {id(parameter) for parameter in network.parameters()}
    for optimizer in model.optimizers:
        if any(id(p) in wanted for group in optimizer.param_groups for p in group["params"]):
            return optimizer
    raise OptionError("none of the model's optimizers trains the generator; name the networks it does train")


def architecture(network: nn.Module, opt: Any) -> dict[str, Any]:
    """What a spec says of ``network``: arguments of ``build_generator``, or just its class.

    The arguments are given only if they really build a generator with the same
    tensors, so that an edited checkout's generator is never taken for a stock one.
    """
    own = {"class": type(network).__name__}
    convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    if not convolutions:
        return own
    arguments = {
        "netG": option(opt, "netG", "which_model_netG"),
        "input_nc": convolutions[0].in_channels,
        "output_nc": convolutions[-1].out_channels,
        "ngf": option(opt, "ngf"),
        "norm": option(opt, "norm", "normG"),
        "use_dropout": not option(opt, "no_dropout", default=False),
    }
    try:
        with torch.device("meta"):
            stock = build_generator(**arguments)
    except UserError:
        return own
    same_class = type(stock).__name__ == type(network).__name__
    same = same_class and _shapes(stock) == _shapes(network)
    return arguments if same else own


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


def steps_per_epoch(opt: Any) -> int:
    """Optimizer steps in one epoch, from the size of the data set.

    Hosts never pass it, so the data set is built once more to be counted. Several
    processes share an epoch.
    """
    data = importlib.import_module("data")
    kind = data.find_dataset_using_name(opt.dataset_mode)
    with same_random_numbers():
        if "opt" in inspect.signature(kind.__init__).parameters:
            dataset = kind(opt)
        else:
            dataset = kind()
            dataset.initialize(opt)
    images = min(len(dataset), option(opt, "max_dataset_size", default=math.inf))
    batch = int(option(opt, "batch_size", "batchSize", default=1)) * world_size()
    return max(1, math.ceil(images / batch))


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


def constructor(base_model: type) -> str:
    """The method that gets the options: ``initialize`` in checkouts of 2018 and their forks."""
    return "initialize" if "initialize" in vars(base_model) else "__init__"


def runner(model: Any, name: str) -> Runner:
    """How the generator ``name`` is run.

    CUT reads features from its generator, and another network of fixed width takes them:
    a run returns them too, so that their channels stay.
    """
    layers = getattr(model, "nce_layers", None)
    network = unwrap(getattr(model, "net" + name))
    if not layers or "encode_only" not in inspect.signature(network.forward).parameters:
        return call
    return lambda generator, image: generator(image, list(layers))


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


def rewrap_(model: Any, name: str) -> None:
    """Put a generator whose parameters were replaced into a new DistributedDataParallel, if it is in one."""
    wrapper = getattr(model, "net" + name)
    if isinstance(wrapper, DistributedDataParallel):
        fresh = DistributedDataParallel(
            wrapper.module,
            device_ids=wrapper.device_ids,
            output_device=wrapper.output_device,
            broadcast_buffers=wrapper.broadcast_buffers,
            find_unused_parameters=wrapper.find_unused_parameters,
        )
        setattr(model, "net" + name, fresh)


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
    """Whether the host's ``test.py`` notes what it tested: the bundled one does, when all is made."""
    return bool(getattr(model, "notes_tests", False))


def results_folder(opt: Any) -> Path | None:
    """Where the host's ``test.py`` has put the page of its results; None if that is not there."""
    epoch, iteration = option(opt, "epoch", "which_epoch"), option(opt, "load_iter", default=0)
    folder = Path(option(opt, "results_dir", default=""), opt.name, f"{option(opt, 'phase')}_{epoch}")
    places = (folder.with_name(f"{folder.name}_iter{iteration}"), folder)  # the former from 2020 on
    return next((place for place in places if place.is_dir()), None)


def observed(model: Any) -> list[torch.Tensor]:
    """What the bundled host's models noted this epoch for ``--lr_policy plateau``; to be changed in place."""
    return getattr(model, "observed", [])


def construct_(model: Any, opt: Any) -> None:
    """Build ``model`` anew from ``opt``, in place, as its host once did."""
    base = importlib.import_module("models.base_model").BaseModel
    getattr(model, constructor(base))(opt)
