"""Steps of one angle: every layer's step is as long as asked, measured by the layer's own weight.

A weight behind a norm counts by its direction alone, and in any layer what a step changes goes by its
length relative to the weight (LARS: You et al. 2017, arXiv 1708.03888; LAMB: You et al., ICLR 2020, arXiv
1904.00962; Bernstein et al., NeurIPS 2020, arXiv 2002.03432). A learning rate fixes that length only
through the scale of the initial weights, so that the best one differs between networks; the angle says it
directly. The optimizer says where to, and its schedule how fast it fades.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.events import Events, Remaining
from coronet_plugin.methods.stepping import around_each_step


class AngularSteps(Events):
    """Scale the step of every weight of a generator's layers to ``angle`` times the weight's norm.

    Times the fraction of its initial learning rate that the optimizer is at. Weights are the parameters of
    two axes or more; biases and norms move as always, and so does a weight that is all zero. Decay is a part
    of the step. With generated weights it does nothing: they are no parameters of the optimizer.

    Raises:
        OptionError: the angle is not between 0 and 1.
    """

    name = "angle"
    required = True

    def __init__(self, angle: float) -> None:
        if not 0 < angle < 1:
            raise OptionError(f"a step's angle must be above 0 and below 1, such as 0.025, not {angle:g}")
        self.angle = angle
        self._first_rates: list[float] = []
        self._pending: list[tuple[list[Tensor], list[Tensor], Any]] = []
        """Of each group: weights, what they were before the step, and the length of the step to be."""

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        self._optimizer = optimizer
        groups = optimizer.param_groups  # a schedule that was made before may have begun with a warm-up
        self._first_rates = self._first_rates or [float(g.get("initial_lr", g["lr"])) for g in groups]
        self._find_weights()
        around_each_step(optimizer, self._before, self._after)

    def _find_weights(self) -> None:
        self._weights = {weight for weight in self.generator.parameters() if weight.ndim > 1}

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        self._find_weights()

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        self._pending = []
        for group, first in zip(self._optimizer.param_groups, self._first_rates):
            weights = [w for w in group["params"] if w in self._weights and w.grad is not None]
            if weights:
                before = [weight.detach().clone() for weight in weights]
                self._pending.append((weights, before, self.angle * group["lr"] / (first or 1.0)))

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        for weights, before, angle in self._pending:
            now = [weight.detach() for weight in weights]
            sizes = torch.stack(torch._foreach_norm(before))
            lengths = torch.stack(torch._foreach_norm(torch._foreach_sub(now, before)))
            factors = torch.where((sizes > 0) & (lengths > 0), angle * sizes / lengths, 1.0)
            for weight, old, factor in zip(now, before, factors):
                torch.lerp(old, weight, factor, out=weight)
        self._pending = []

    def state_dict(self) -> dict[str, Any]:
        return {"first_rates": list(self._first_rates)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._first_rates = [float(rate) for rate in state.get("first_rates", [])] or self._first_rates
