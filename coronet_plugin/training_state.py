"""What a continued run needs beyond the networks, so that it equals an uninterrupted one.

Optimizers, schedulers, latents and hypernetworks, random state, image pools and
the number of epochs done, in one file of tensors and plain values.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coronet_plugin import host
from coronet_plugin.distributed import is_main
from coronet_plugin.errors import CheckpointError


def collect(model: Any) -> dict[str, Any]:
    """The training state of a host's model with compressed generators.

    Hosts that save before their hook between epochs do so after the epoch's last step.
    """
    whole = model._steps_this_epoch >= model._steps_per_epoch
    return {
        "compressions": {name: c.state_dict() for name, c in model.compressions.items()},
        "epochs_done": model._epochs_done + int(whole),
        "optimizers": [optimizer.state_dict() for optimizer in model.optimizers],
        "schedulers": [_plain(scheduler.state_dict()) for scheduler in model.schedulers],
        "pools": {name: list(pool.images) for name, pool in host.image_pools(model).items()},
        "random": _random_state(),
    }


def read(path: Path) -> dict[str, Any]:
    """Read a training state.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path} is not there: only the latest checkpoint can be continued; drop --epoch, "
            "or start anew without --continue_train"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} is damaged and cannot be continued: {error}") from error
    return state


def restore_(model: Any, state: dict[str, Any]) -> None:
    """Put a training state back into a model that was set up and loaded. In place."""
    for optimizer, saved in zip(model.optimizers, state["optimizers"]):
        optimizer.load_state_dict(saved)
    for scheduler, saved in zip(model.schedulers, state["schedulers"]):
        if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):  # goes by opt.epoch_count
            scheduler.load_state_dict(saved)
    for name, pool in host.image_pools(model).items():
        pool.images = [image.to(model.device) for image in state["pools"].get(name, [])]
        pool.num_imgs = len(pool.images)
    if is_main():  # other processes must not draw the same numbers
        _set_random_state(state["random"])


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Only values that a safe loader reads back; functions are rebuilt from the options."""
    return {
        k: v for k, v in state.items() if isinstance(v, (int, float, str, bool, list, tuple)) or v is None
    }


def _random_state() -> dict[str, Any]:
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


def _set_random_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
