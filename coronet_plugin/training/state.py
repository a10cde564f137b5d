"""Keep what a continued run needs beyond the networks, so that it equals an uninterrupted one.

Optimizers, schedulers, latents and hypernetworks, random state, image pools, the number of
epochs done and, where the host's loop can say it, the place within an epoch: in one file of
tensors and plain values, written together with the networks.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from coronet_plugin.checkpoint.tensors import read_tensors
from coronet_plugin.compression import Compression
from coronet_plugin.distributed import is_main
from coronet_plugin.errors import CheckpointError
from coronet_plugin.files import settle
from coronet_plugin.training import host
from coronet_plugin.training.host import HostModel
from coronet_plugin.training.place import Place


def collect(model: HostModel, place: Place, compressions: Mapping[str, Compression]) -> dict[str, Any]:
    """The training state of a host's ``model``, which is at ``place``, and of its compressed generators.

    A host that does not say where it is and saves before its hook between epochs does so after the
    epoch's last step.
    """
    progress = host.progress(model)
    return {
        "compressions": {name: c.state_dict() for name, c in compressions.items()},
        "epochs_done": place.epochs_done + int(not progress and place.epoch_is_whole),
        "steps_this_epoch": place.steps_this_epoch,
        "progress": progress,
        "observed": list(host.observed(model)),
        "optimizers": [optimizer.state_dict() for optimizer in model.optimizers],
        "schedulers": [_schedule(scheduler) for scheduler in model.schedulers],
        "pools": {name: list(pool.images) for name, pool in host.image_pools(model).items()},
        "random": random_state(),
    }


def read(path: Path) -> dict[str, Any]:
    """Read a training state, of the last save that was completed.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    settle(path.parent)
    if not path.exists():
        raise CheckpointError(
            f"{path} is not there: only the latest checkpoint can be continued; drop --epoch, "
            "or start anew without --continue_train"
        )
    state = read_tensors(path)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a training state; it was not written by this plug-in")
    return state


@contextlib.contextmanager
def explain_misfit(path: Path) -> Iterator[None]:
    """While a state is put back, make of whatever it lacks or has in a wrong form one clear error."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        what = str(error).strip().split("\n")[0][:120]
        raise CheckpointError(
            f"{path} does not fit this training ({type(error).__name__}: {what}); continue with the options "
            "of the first run, or start anew without --continue_train"
        ) from error


def restore_(model: HostModel, place: Place, state: Mapping[str, Any]) -> None:
    """Put a training state back into a model that was set up and loaded. In place."""
    restore_optimizers_(model, state)
    for scheduler, saved in zip(model.schedulers, state["schedulers"]):
        if isinstance(scheduler, LambdaLR):
            for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr()):
                group["lr"] = rate  # saved before or after the epoch's update, which hosts do differently
        else:
            scheduler.load_state_dict(saved)
    restore_pools_(model, state)
    host.observed(model)[:] = [value.to(model.device) for value in state.get("observed", [])]
    _place_(model, place, state)
    if is_main():  # other processes must not draw the same numbers
        set_random_state(state["random"])


def restore_optimizers_(model: HostModel, state: Mapping[str, Any]) -> None:
    """Give the optimizers of ``model`` what they knew, and the learning rates of then. In place."""
    for optimizer, saved in zip(model.optimizers, state["optimizers"]):
        optimizer.load_state_dict(saved)
        optimizer._opt_called = True  # it has stepped; else schedulers warn when an epoch was all but over


def restore_pools_(model: HostModel, state: Mapping[str, Any]) -> None:
    """Give ``model`` the generated images that its discriminators were shown. In place."""
    for name, pool in host.image_pools(model).items():
        pool.images = [image.to(model.device) for image in state["pools"].get(name, [])]
        pool.num_imgs = len(pool.images)


def _place_(model: HostModel, place: Place, state: Mapping[str, Any]) -> None:
    """Let a loop that said where it was go on there; any other begins the epoch anew."""
    if not hasattr(model, "progress"):
        return
    model.progress = state.get("progress", {})
    if model.progress.get("epoch") == host.option(model.opt, "epoch_count", default=1):
        place.steps_this_epoch = int(state["steps_this_epoch"])


def _schedule(scheduler: Any) -> dict[str, Any]:
    """State of a scheduler that a safe loader reads back; none of one that goes by ``opt.epoch_count``."""
    state = {} if isinstance(scheduler, LambdaLR) else scheduler.state_dict()
    return {
        k: v for k, v in state.items() if isinstance(v, (int, float, str, bool, list, tuple)) or v is None
    }


def random_state() -> dict[str, Any]:
    """Where this process is in the random numbers of Python, numpy and torch, in plain values and tensors."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": (version, list(words), gauss),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on where :func:`random_state` was."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
