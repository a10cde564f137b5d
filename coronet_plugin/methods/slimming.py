"""Network slimming: every channel has a scale that is trained with the generator and shrunk by an l1 penalty.

Liu et al., ICCV 2017, arXiv 1708.06519; of GANs, with proximal steps: GAN Slimming (Wang et al., ECCV 2020,
arXiv 2008.11062). Their scales are those of norm layers. Upstream's instance norms have none, so a scale
stands before what reads a channel, which is the same: between the two are activations that let a positive
factor through. Like a gate (:mod:`coronet_plugin.methods.gates`) it is part of the weights that read the
channel, and one that is zero can be removed at any time without a change.

The penalty is not chosen: it is what ends the search when asked (docs/method.md eq. (6)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from coronet_plugin.budget.goal import STEADY
from coronet_plugin.channels.cut import scale_
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.gates import ROUNDING, Gates
from coronet_plugin.methods.generated import companion_optimizer
from coronet_plugin.methods.proximal import amount, soft_threshold
from coronet_plugin.methods.registry import method
from coronet_plugin.settings import setting


@method("slimming", "scales of channels trained and shrunk, no loss at the cut")
class Slimming(Gates):
    """Search by scales that are trained; see the module's text."""

    schedule = STEADY
    steady = True
    search_part = Method.search_part

    @dataclass(frozen=True)
    class Config:
        """Raises OptionError for a rate that is none."""

        scale_rate: float = setting(1.0, "learning rate of the scales, in those of the generator")

        def __post_init__(self) -> None:
            if not 0 <= self.scale_rate < float("inf"):
                raise OptionError(f"--coronet_scale_rate must be at least 0, not {self.scale_rate:g}")

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self._scales = nn.Parameter(torch.ones(self.plan.units))
        self.shrinkage = 0.0
        """How much the last proximal step took off the scales: the penalty times the learning rate."""

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        self._host, self._group = optimizer, group
        groups = [{"params": [self._scales], "weight_decay": 0.0}]
        self._optimizer = companion_optimizer(optimizer, optimizer.param_groups[group], groups)

    @torch.no_grad()
    def gradients(self) -> None:
        slopes = self.slopes()
        if slopes is None or not slopes.isfinite().all():
            return
        now = self._scales.detach()
        self._scales.grad = torch.where(now > 0, slopes[:-1].to(now) / now, 0.0)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        before = self.latents
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.scale_rate * self._host.param_groups[self._group]["lr"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._set_(torch.where(before > 0, self._scales.detach().double().clamp(min=ROUNDING), 0.0))
        self.shrinkage = amount(self.goal, step, self.steps)
        mine = torch.where(torch.from_numpy(self.goal.protected()), 0.0, self.shrinkage)
        after = soft_threshold(self.latents, mine)
        after = torch.where(after <= ROUNDING, 0.0, after)
        if bool((before > 0).all()) and not bool((after > 0).all()):
            self.narrows()
        self._set_(after)
        ratio = torch.where(before > 0, self.latents / before, 0.0)
        scale_(self._parameters, self._readers, ratio.numpy())

    @torch.no_grad()
    def _set_(self, scales: torch.Tensor) -> None:
        self.latents = scales
        self._scales.copy_(scales)

    def score(self) -> np.ndarray:
        """The scale of every unit, ``(units,)``; minus infinity for one that is gone."""
        return torch.where(self.latents > 0, self.latents, -torch.inf).numpy()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._set_(self.latents)
        self._optimizer.load_state_dict(state["optimizer"])
