"""The published search: all weights come from a hypernetwork, and latents are shrunk.

The generator's convolution weights are ordinary parameters whose *values* come from the
hypernetwork: just before the optimizer steps, their gradients are taken over and sent through the
hypernetwork (the chain rule, so the gradients are those of generated weights); afterwards the
hypernetwork is updated and the new weights are written. Weights are generated once per step however
often the generator runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from coronet_plugin.budget.goal import STEADY, Goal
from coronet_plugin.distributed import broadcast_
from coronet_plugin.errors import CheckpointError
from coronet_plugin.methods.base import Search, Subject
from coronet_plugin.methods.hypernetwork import Hypernetwork
from coronet_plugin.methods.proximal import DEAD_BELOW, shrink_


class GeneratedSearch(Search):
    """Search by the published hypernetwork or its folded form (docs/method.md eqs. (1) to (5))."""

    def __init__(self, subject: Subject, goal: Goal, steps: int, form: str, embedding: int) -> None:
        super().__init__(subject, goal, steps)
        self.hypernetwork: Hypernetwork | None = Hypernetwork(self.plan, form, embedding)
        self._last_score = np.ones(self.plan.units)
        self.shrinkage = 0.0
        """How much the last proximal step took off every latent: lambda times learning rate."""
        parameters = dict(self.generator.named_parameters())
        self._weights = [parameters[name] for name in self.plan.kernels()]
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def _network(self) -> Hypernetwork:
        """The hypernetwork of a search that has not been released."""
        assert self.hypernetwork is not None
        return self.hypernetwork

    def attach(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        """The hypernetwork gets an optimizer of the same class and settings."""
        self._host, self._group = optimizer, group  # by index: loading a state makes new group objects
        groups: list[dict[str, Any]] = [
            {"params": list(self._network.kernels.parameters())},
            {"params": list(self._network.latents.parameters()), "weight_decay": 0.0},
        ]
        self._optimizer = _companion(optimizer, optimizer.param_groups[group], groups)
        self.synchronise_()

    @torch.enable_grad()
    def take_gradients(self) -> None:
        """Send the gradients of generated weights on to the hypernetwork."""
        z = self._network.z()
        leaf = z.detach().requires_grad_()
        for index, weight in enumerate(self._weights):
            if weight.grad is not None:
                self._network.weight(index, leaf).backward(weight.grad)
                weight.grad = None  # the host's optimizer leaves parameters without gradient alone
        if leaf.grad is not None:
            z.backward(leaf.grad)

    def advance(self, step: int) -> None:
        assert self._optimizer is not None
        for group in self._optimizer.param_groups:
            group["lr"] = self._host.param_groups[self._group]["lr"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._shrink(step)
        self.write_weights_()

    def _shrink(self, step: int) -> None:
        """One proximal step: as large as the way left over the steps left (docs/method.md eq. (5)),
        or as the schedule needs."""
        left = self.steps - step + 1
        if left < 1:
            return
        if self.goal.schedule == STEADY:
            self.shrinkage = self.goal.threshold() / left
        else:
            self.shrinkage = self.goal.threshold(step / self.steps)
        floors = [int(self.goal.protected(self)[s.slice].sum()) for s in self.plan.prunable]
        shrink_(list(self._network.latents), self.shrinkage, floors)

    @torch.no_grad()
    def write_weights_(self) -> None:
        """Write the generated weights into the generator. In place."""
        self._follow_device()
        z = self._network.z()
        for index, weight in enumerate(self._weights):
            weight.copy_(self._network.weight(index, z))

    @torch.no_grad()
    def adopt_weights_(self) -> None:
        self._follow_device()
        self._network.adopt_([weight.detach() for weight in self._weights])

    def synchronise_(self) -> None:
        self._follow_device()
        broadcast_(self._network.parameters())
        self.write_weights_()

    def _follow_device(self) -> None:
        self._network.to(self._weights[0].device)  # a host may have moved the generator

    def score(self) -> np.ndarray:
        """Size of every unit's latent, ``(units,)``."""
        if self.hypernetwork is None:
            return self._last_score
        return self._network.z().detach()[1:].abs().double().cpu().numpy()

    def alive(self) -> np.ndarray:
        """Units whose latents are above the threshold, at least a set's floor."""
        return (self.score() >= DEAD_BELOW) | self.goal.protected(self)

    def release_(self) -> None:
        self._last_score = self.score()
        self.hypernetwork = self._optimizer = None

    def state_dict(self) -> dict[str, Any]:
        if self._optimizer is None:
            return {}
        return {"hypernetwork": self._network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        try:
            self._network.load_state_dict(state["hypernetwork"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                "the saved search used another hypernetwork; continue with the same "
                "--coronet_hypernetwork and --coronet_embedding as the first run"
            ) from error
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        self.write_weights_()


def _companion(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """An optimizer of the same class and settings for other parameters."""
    kind = type(optimizer)
    accepted = inspect.signature(kind.__init__).parameters
    settings = {
        name: group.get(name, value) for name, value in optimizer.defaults.items() if name in accepted
    }
    if "fused" in accepted and not settings.get("foreach") and not settings.get("fused"):
        fused = {**settings, "fused": True, "foreach": False}
        if _runs(kind, groups, fused):  # one pass over all parameters, of which a hypernetwork has many
            return kind(groups, **fused)
    return kind(groups, **settings)


def _runs(kind: type, groups: list[dict[str, Any]], settings: Mapping[str, Any]) -> bool:
    """Whether a step works with these settings: torch before 2.4 takes ``fused`` and fails in the step."""
    trial = torch.zeros_like(next(iter(groups[0]["params"])), requires_grad=True)
    trial.grad = torch.zeros_like(trial)
    try:
        kind([trial], **settings).step()
    except RuntimeError:
        return False
    return True
