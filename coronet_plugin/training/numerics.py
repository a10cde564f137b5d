"""Numbers that are not finite: found early, said where, and never saved.

Losses are looked at after every step on the CPU (some microseconds), and every :data:`EVERY` steps on an
accelerator, which has to be waited for. All weights are looked at before they are saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

STOP, ROLLBACK = "stop", "rollback"
ON_NAN = (STOP, ROLLBACK)
"""Answers to them, by ``--coronet_on_nan``."""
EVERY = 10
"""Steps between two looks at the losses on an accelerator."""


def due(model: Any, step: int) -> bool:
    """True if the losses are to be looked at after step number ``step``."""
    return step % EVERY == 0 or getattr(model, "device", torch.device("cpu")).type == "cpu"


def bad_loss(model: Any) -> str | None:
    """The first of a host model's losses that is not finite, and its value: ``"loss G_L1 is nan"``."""
    found = numbers_in({name: getattr(model, "loss_" + name, 0.0) for name in model.loss_names})
    return next(
        (f"loss {name} is {value}" for name, value in found.items() if not math.isfinite(value)), None
    )


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Means of ``values``, tensors or numbers, by name; an accelerator is waited for once."""
    tensors = {name: v.detach().mean().float() for name, v in values.items() if isinstance(v, Tensor)}
    read = dict(zip(tensors, torch.stack(list(tensors.values())).tolist())) if tensors else {}
    return {name: read[name] if name in read else float(value) for name, value in values.items()}


@torch.no_grad()
def bad_weights(networks: Mapping[str, nn.Module]) -> str | None:
    """Which of ``networks`` have tensors with values that are not finite, each with the first such tensor."""
    found = []
    for name, network in networks.items():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                found.append(f"net{name} ({key})")
                break
    return f"not finite: weights of {', '.join(found)}" if found else None
