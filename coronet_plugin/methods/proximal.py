"""The proximal-gradient step that drives latents to zero.

After the optimizer's step on the loss, the proximal operator of the l1 norm is
applied to every latent vector (DHP; docs/method.md eq. (4)). A set that has
reached its floor is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coronet_plugin.budget.goal import STEADY, Share

DEAD_BELOW = 5e-3
"""A latent smaller than this counts as dead while the search runs (DHP's threshold)."""


def amount(goal: Share, step: int, steps: int) -> float:
    """How much the proximal step after optimizer step number ``step`` of ``steps`` takes off every latent.

    As much as the way left over the steps left (docs/method.md eq. (6)), or as the schedule needs.
    """
    left = steps - step + 1
    if left < 1:
        return 0.0
    return goal.threshold() / left if goal.schedule == STEADY else goal.threshold(step / steps)


def soft_threshold(z: Tensor, amount: float | Tensor) -> Tensor:
    """``sign(z) max(|z| - amount, 0)``, the proximal operator of ``||amount * z||_1``."""
    return torch.sign(z) * torch.clamp(z.abs() - amount, min=0)


@torch.no_grad()
def shrink_(latents: Sequence[Tensor], amount: float, floors: Sequence[int]) -> None:
    """Soft-threshold every latent vector that still has more living entries than its floor.

    ``amount`` is lambda times the latents' learning rate. In place.
    """
    for z, floor in zip(latents, floors):
        if int((z.abs() >= DEAD_BELOW).sum()) > floor:
            z.copy_(soft_threshold(z, amount))
