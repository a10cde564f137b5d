"""Steps that optimizers take with a weight that is a sum of products: of the whole, in those of the parts.

A weight ``W = sum_e s_e w_e`` with fixed shares ``s_e`` whose factors ``w_e`` are trained moves by a multiple
of what it would move by if it were trained itself (docs/method.md, the implicit form). An optimizer that
divides the gradient by its own size moves every factor alike, so the multiple is ``sum_e |s_e|``; one that is
linear in the gradient moves each by its share, so it is ``sum_e s_e**2``. Decay by a fixed fraction of the
weight is no multiple of anything: the whole decays as its parts do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch

from coronet_plugin.errors import OptionError
from coronet_plugin.versions import OLD_TORCH

NORMALISED = ("Adam", "AdamW", "NAdam", "Adamax", "RMSprop", "Adagrad", "Rprop")
"""Optimizers of torch whose step does not depend on the scale of the gradients (but for their epsilon)."""
LINEAR = ("SGD",)
"""Optimizers of torch whose step is linear in the gradients."""


def power(optimizer: torch.optim.Optimizer) -> int:
    """Which power of its share a factor's part in the step is: 1 for normalised steps, 2 for linear ones.

    Raises:
        OptionError: the class, or a setting of it, makes of factors what no fixed multiple of its step is.
    """
    name = type(optimizer).__name__
    if type(optimizer) is not getattr(torch.optim, name, None) or name not in (*NORMALISED, *LINEAR):
        raise OptionError(
            f"the hypernetwork 'implicit' cannot say what steps of {name} do to factors; train with one of "
            f"torch.optim's {', '.join((*NORMALISED, *LINEAR))}, or choose another hypernetwork"
        )
    for group in optimizer.param_groups:
        trouble = _trouble(name, group)
        if trouble:
            raise OptionError(f"the hypernetwork 'implicit' cannot go with {name}'s {trouble}")
    return 2 if name in LINEAR else 1


def _trouble(name: str, group: Mapping[str, Any]) -> str:
    """The setting of optimizer ``name`` that no multiple can follow, and what to do; empty for none."""
    if group.get("differentiable"):
        return "differentiable=True, which keeps every step in a graph; set it to False"
    if group.get("initial_accumulator_value"):
        return "initial_accumulator_value, which makes steps depend on the gradients' scale; set it to 0"
    if group.get("weight_decay") and not _decays(name, group):
        return (
            "weight_decay together with momentum, which mixes them; set one of them to 0"
            if name in LINEAR
            else "weight_decay, which is part of the gradient there and would be normalised with it; "
            "set it to 0 or take AdamW"
        )
    return ""


def _decays(name: str, group: Mapping[str, Any]) -> bool:
    """True if weight decay takes a fixed fraction off a weight at every step, whatever the gradient."""
    if name in LINEAR:
        return not group["momentum"]
    return name == "AdamW" or bool(group.get("decoupled_weight_decay"))


def left_by_decay(group: Mapping[str, Any]) -> Any:
    """Fraction of a weight left by one step's decay, for an optimizer that :func:`power` lets pass."""
    return 1 - group["lr"] * group["weight_decay"] if group.get("weight_decay") else 1


def around_each_step(
    optimizer: torch.optim.Optimizer,
    before: Callable[..., None],
    after: Callable[..., None] | None = None,
) -> None:
    """Let ``optimizer`` call ``before`` first in every step, and ``after`` last."""
    if not OLD_TORCH:
        optimizer.register_step_pre_hook(before)
        if after is not None:
            optimizer.register_step_post_hook(after)
        return
    step = optimizer.step  # torch.compile switches the hooks of all optimizers off there

    @functools.wraps(step)
    def acting(_: Any, *args: Any, **kwargs: Any) -> Any:
        before()
        result = step(*args, **kwargs)
        if after is not None:
            after()
        return result

    optimizer.step = MethodType(acting, optimizer)  # type: ignore[method-assign]
