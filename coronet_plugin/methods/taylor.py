"""The baseline of the loss's slope: plain training, then one cut by a first-order guess of what that costs.

Without the parameters of a channel the loss changes, to the first order, by the sum of parameter times
gradient over all of them (Molchanov et al., CVPR 2019, arXiv 1906.10771). Absolute values of the last batches
are added up, as Diff-Pruning does over time steps (Fang et al., NeurIPS 2023, arXiv 2305.10924).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from coronet_plugin.channels.cut import Readers
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.gates import sum_of_products
from coronet_plugin.methods.registry import method
from coronet_plugin.settings import setting


@method("taylor", "weights times gradients, one cut at the search's end")
class Taylor(Method):
    """Plain training and one cut by the slope of the loss; see the module's text."""

    @dataclass(frozen=True)
    class Config:
        """Raises OptionError for no batch at all."""

        taylor_batches: int = setting(100, "how many of the last steps before the cut are measured")

        def __post_init__(self) -> None:
            if self.taylor_batches < 1:
                raise OptionError(f"--coronet_taylor_batches must be at least 1, not {self.taylor_batches}")

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self._importance = torch.zeros(self.plan.units + 1, dtype=torch.float64)  # the last is what is pinned
        self._step = 0
        self._known: Readers | None = None

    def before_step(self, step: int) -> None:
        self._step = step

    @torch.no_grad()
    def gradients(self) -> None:
        if self._step <= self.steps - self.config.taylor_batches:
            return
        parts = []
        for name, axis, units in self._slices():
            parameter = self.generator.get_parameter(name)
            if parameter.grad is None:
                parts.append(torch.zeros(len(units), device=parameter.device))
            else:
                parts.append(sum_of_products(parameter.detach(), parameter.grad, axis))
        if not parts:
            return
        device = parts[0].device
        wide = torch.float32 if device.type == "mps" else torch.float64
        sums = torch.zeros(self.plan.units + 1, dtype=wide, device=device)
        together = torch.cat([part.to(device, wide) for part in parts])
        now = sums.index_add_(0, self._slices().index(device), together).abs()
        # a step whose gradients overflowed, as with fp16, says nothing
        self._importance = self._importance.to(device, wide) + torch.where(now.isfinite().all(), now, 0.0)

    def _slices(self) -> Readers:
        """Every slice of a parameter that goes with a unit."""
        if self._known is None:
            parameters = [name for name, _ in self.generator.named_parameters()]
            slices = [
                (n, axis, units) for n in parameters for axis, units in self.plan.slices.get(n, {}).items()
            ]
            self._known = Readers(slices, self.plan.units)
        return self._known

    def score(self) -> np.ndarray:
        """Importance in units of the mean over its set, ``(units,)``."""
        importance = self._importance[:-1].cpu().double().numpy().copy()
        for channel_set in self.plan.prunable:
            mean = importance[channel_set.slice].mean()
            importance[channel_set.slice] /= mean if mean > 0 else 1.0
        return importance

    def state_dict(self) -> dict[str, Any]:
        return {"importance": self._importance.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._importance = state["importance"].clone()
