"""The default search: latents that multiply what is read, and importance from gradients.

The hypernetwork is the folded one without its biases, ``W_ij = z_i A_ij`` with one latent per
*read* channel: a channel whose latent is zero is read by nobody, so removing it changes nothing
(docs/method.md). The map is linear in ``A``, so ``A`` need not be stored: the generator's own
weights are ``W``, trained by the user's own optimizer, and moving a latent from ``a`` to ``b``
multiplies the weights that read its channel by ``b / a``.

* The importance of a channel is a running mean of the squared derivative of the loss with respect to
  the logarithm of its latent, ``dL / d log z_i = sum_j W_ij dL/dW_ij`` (Molchanov et al., CVPR 2019,
  arXiv 1906.10771, eq. (8), at a gate). Channels are compared by their rank in their own set, so
  that all sets narrow alike.
* Some fifty times during the search the channels that will no longer fit the schedule are given up,
  least important first. The proximal step takes their latents from one to zero in equal steps; those of
  all others stay at one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coronet_plugin.channels.cut import readers, scale_
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.events import Remaining
from coronet_plugin.methods.proximal import soft_threshold
from coronet_plugin.methods.registry import DEFAULT, method

ROUNDS = 50
"""How often channels are given up in a search."""
FADING = 0.1
"""Part of the search in which a latent that is given up goes to zero."""
WARM_UP = 0.05
"""Part of the search before the first channel is given up."""
MEMORY = 0.1
"""Horizon of the running mean of the importance, as a part of the search."""
EVERY = 2
"""Importance is measured every so many steps: it reads all weights and gradients once."""
ROWS = 16
"""Rows of a weight that are multiplied at once."""
ROUNDING = 1e-9
"""A latent smaller than this is zero: equal steps from one do not end there exactly."""


@method("gates", "no hypernetwork, no cost, no loss at the cut", DEFAULT, "exact", "none")
class Gates(Method):
    """Search without loss at the cut; see the module's text."""

    lossless = True
    search_part = (
        0.25  # the small generator trains longer, and came out ahead on two of four sets (docs/results.md)
    )

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self.latents = torch.ones(self.plan.units, dtype=torch.float64)
        self._shrinkage = torch.zeros(self.plan.units, dtype=torch.float64)
        """How much each proximal step takes off a latent; above zero for what is given up."""
        # the last entry gathers what is pinned
        self.importance = torch.zeros(self.plan.units + 1, dtype=torch.float32)
        self._seen = 0
        self.discount: Callable[[], np.ndarray] | None = None
        """Rates ``(units,)`` to divide the derivatives by, if any."""
        self._look_at(self.plan)

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        self._look_at(plan)

    def _look_at(self, plan: ChannelPlan) -> None:
        self._readers = readers(plan)
        self._parameters = dict(self.generator.named_parameters())

    # -- importance ------------------------------------------------------
    @torch.no_grad()
    def gradients(self) -> None:
        self._seen += 1
        slopes = None if (self._seen - 1) % EVERY else self.slopes()
        if slopes is None:
            return
        rate = 1 / min(1 + self._seen // EVERY, max(1.0, MEMORY * self.steps / EVERY))
        before, now = self.importance.to(slopes.device), slopes.square()  # a copy the first time alone
        # a step whose gradients overflowed, as with fp16, says nothing
        self.importance = torch.where(now.isfinite(), before.lerp(now, rate), before)

    def slopes(self) -> Tensor | None:
        """Derivative of the loss by every gate's logarithm, ``(units + 1,)``, the last of what is pinned.

        None where no reader has had a gradient.
        """
        found: list[Tensor] = []
        for name, axis, units in self._readers:
            weight = self._parameters[name]
            if weight.grad is None:
                found.append(torch.zeros(len(units), device=weight.device))
            else:
                found.append(sum_of_products(weight.detach(), weight.grad, axis))
        if all(self._parameters[name].grad is None for name, *_ in self._readers):
            return None
        return self._by_unit(found)

    def _by_unit(self, values: list[Tensor]) -> Tensor:
        """Sums of ``values``, which go with the readers, ``(units + 1,)``; the last is of what is pinned."""
        device = values[0].device
        sums = torch.zeros(self.plan.units + 1, dtype=torch.float32, device=device)
        together = torch.cat([value.to(device) for value in values])
        return sums.index_add_(0, self._readers.index(device), together)

    def score(self) -> np.ndarray:
        """Rank of the importance in its set, over (0, 1]; minus infinity for what is given up.

        Ranks, so that all sets shrink alike: raw importance, even in units of its set's mean, gave no
        better widths (docs/results.md). Where no reader has had a gradient, being frozen, the sum of
        squares of the weights that read a unit stands in for it.
        """
        importance = self.importance[:-1].cpu().double().numpy().copy()
        if self.discount is not None:
            importance = importance / self.discount() ** 2
        for part in (s.slice for s in self.plan.prunable if not importance[s.slice].any()):
            importance[part] = self._magnitude()[part]
        kept = (self._shrinkage == 0).numpy()
        score = np.where(kept, importance, -np.inf)
        for channel_set in self.plan.prunable:
            order = score[channel_set.slice].argsort(kind="stable")
            score[channel_set.slice][order] = (np.arange(len(order)) + 1) / len(order)
        return np.where(kept, score, -np.inf)

    @torch.no_grad()
    def _magnitude(self) -> np.ndarray:
        """Sum of squares of the weights that read each unit, ``(units,)``."""
        weights = [(self._parameters[name], axis) for name, axis, _ in self._readers]
        sums = self._by_unit([sum_of_products(weight, weight, axis) for weight, axis in weights])
        return sums[:-1].cpu().double().numpy()

    # -- the proximal step -----------------------------------------------
    def after_step(self, step: int) -> None:
        left = self.steps - step + 1  # proximal steps from here to the cut, this one too
        if left > 0 and step % max(1, self.steps // ROUNDS) == 0:
            warm_up, fading = WARM_UP * self.steps, max(1.0, FADING * self.steps)
            if step >= warm_up:
                # the schedule begins when the first are gone, and what is given up now counts for then
                progress = (step - warm_up) / max(1.0, self.steps - warm_up - fading)
                given_up = torch.from_numpy(~self.goal.choose(progress)) & (self._shrinkage == 0)
                if given_up.any() and not self._shrinkage.any():
                    self.narrows()
                self._shrinkage[given_up] = 1 / min(round(fading), left)
        if self._shrinkage.any():
            before = self.latents
            after = soft_threshold(before, self._shrinkage)
            self.latents = torch.where(after < ROUNDING, 0.0, after)
            ratio = torch.where(before > 0, self.latents / before, 0.0)
            scale_(self._parameters, self._readers, ratio.numpy())

    def gates(self) -> np.ndarray:
        return self.latents.numpy()

    def alive(self) -> np.ndarray:
        return (self.latents > 0).numpy()

    def chosen(self) -> np.ndarray:
        """All whose latents are not zero: they have become as many as fit; before, the best that fit."""
        return self.alive() if self.goal.met else self.goal.choose()

    # -- saving ----------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        return {
            "latents": self.latents.clone(),
            "shrinkage": self._shrinkage.clone(),
            "importance": self.importance.cpu().clone(),
            "seen": self._seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.latents = state["latents"].clone()
        self._shrinkage = state["shrinkage"].clone()
        self.importance = state["importance"].clone()
        self._seen = int(state["seen"])


def sum_of_products(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Sum of ``a * b`` over all axes but ``axis`` (0 or 1), float32.

    A few rows at a time fit into a processor's caches; an accelerator gets all at once.
    """
    if a.ndim == 1:
        return (a * b).float()
    parts, count = [], ROWS if a.device.type == "cpu" else len(a)
    for rows in zip(a.split(count), b.split(count)):
        by_pair = (rows[0] * rows[1]).flatten(2).sum(-1) if a.ndim > 2 else rows[0] * rows[1]
        parts.append(by_pair.float().sum(1 - axis))
    return torch.cat(parts) if axis == 0 else torch.stack(parts).sum(0)
