"""Diff-Pruning: plain training, then one cut by the slope of a diffusion model's loss over its time steps.

Fang et al., NeurIPS 2023, arXiv 2305.10924. One batch of pictures and of noise is taken for all time steps,
in rising order; gradients of the losses add up until a loss falls below a share of the largest one: what
comes after says little of the pictures' contents. A channel is worth the sum of the absolute products of its
weights and these gradients, and every set is narrowed by one factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coronet_plugin.channels.cut import on_device
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.gates import sum_of_products
from coronet_plugin.methods.registry import method
from coronet_plugin.methods.uniform import evenly_narrowed
from coronet_plugin.settings import setting


@method("diff_pruning", "weights times gradients over the time steps of a diffusion model, one even cut")
class DiffPruning(Method):
    """Plain training and one cut by the losses of :attr:`held_out`; see the module's text.

    ``held_out`` must be set: a sample for each time step, of the generator's inputs and the noise to be told.

    Raises:
        OptionError: it is not set, when the training begins.
    """

    @dataclass(frozen=True)
    class Config:
        """Raises OptionError for a threshold that is no share."""

        diff_threshold: float = setting(
            0.05, "time steps count until their loss is below this share of the largest"
        )

        def __post_init__(self) -> None:
            if not 0 <= self.diff_threshold <= 1:
                raise OptionError(f"--coronet_diff_threshold must be from 0 to 1, not {self.diff_threshold}")

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self._importance = np.ones(self.plan.units)
        self.used = 0
        """Time steps that counted at the cut."""

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        if not len(self.held_out) or self.held_out[0].truth is None:
            raise OptionError(
                "the method diff_pruning is for diffusion models, whose time steps it tries; train one with "
                "examples/diffusion.py, or choose another --coronet_method"
            )

    def score(self) -> np.ndarray:
        """Importance in units of the mean over its set, ``(units,)``; ones before the cut."""
        return self._importance

    def chosen(self) -> np.ndarray:
        training = self.generator.training
        gradients = self._gradients(self.generator.eval())
        self.generator.train(training)
        importance = torch.zeros(self.plan.units + 1, dtype=torch.float64)  # the last is what is pinned
        for name, parameter in self.generator.named_parameters():
            for axis, units in self.plan.slices.get(name, {}).items():
                if name in gradients:
                    index = torch.from_numpy(units % (self.plan.units + 1))
                    part = sum_of_products(parameter.detach().abs(), gradients[name].abs(), axis)
                    importance.index_add_(0, index, part.double().cpu())
        self._importance = importance[:-1].numpy()
        for channel_set in self.plan.prunable:
            mean = self._importance[channel_set.slice].mean()
            self._importance[channel_set.slice] /= mean if mean > 0 else 1.0
        return evenly_narrowed(self.goal)

    def _gradients(self, generator: nn.Module) -> dict[str, Tensor]:
        """Sums over time steps, by the names of the parameters; those in ``.grad`` stay as they are."""
        parameters = {name: p for name, p in generator.named_parameters() if p.requires_grad}
        device, largest = next(generator.parameters()).device, 0.0
        sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        for number in range(len(self.held_out)):
            inputs, truth = self.held_out[number]
            assert truth is not None
            with torch.enable_grad():
                loss = F.mse_loss(generator(*on_device(inputs, device)), truth.to(device))
                found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found):
                if gradient is not None:
                    sums[name] += gradient
            self.used, largest = number + 1, max(largest, loss.item())
            if loss.item() < self.config.diff_threshold * largest:
                break
        return sums
