"""Generate weights: a hypernetwork writes a generator's convolution weights and is trained in their place.

The generator's convolution weights are ordinary parameters whose *values* come from the
hypernetwork: just before the optimizer steps, their gradients are taken over and sent through the
hypernetwork (the chain rule, so the gradients are those of generated weights); afterwards the
hypernetwork is updated and the new weights are written. Weights are generated once per step however
often the generator runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.distributed import broadcast_
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.hypernetwork import Hypernetwork
from coronet_plugin.settings import setting


@dataclass(frozen=True)
class Embedded:
    """The size of the published map. Raises OptionError for an embedding size below one."""

    embedding: int = setting(8, "embedding size of the hypernetwork")

    def __post_init__(self) -> None:
        if self.embedding < 1:
            raise OptionError(f"--coronet_embedding must be at least 1, not {self.embedding}")


class GeneratedWeights:
    """A generator's convolution weights, written by a hypernetwork that an optimizer of its own trains.

    Raises:
        OptionError: the generator has no convolution that is trained.
    """

    def __init__(self, generator: nn.Module, plan: ChannelPlan, form: str, embedding: int) -> None:
        self.generator = generator
        frozen = [name for name, parameter in generator.named_parameters() if not parameter.requires_grad]
        self.hypernetwork = Hypernetwork(plan, form, embedding, frozen)
        if not self.hypernetwork.names:
            raise OptionError(f"{form} generates weights of convolutions that are trained; here is none")
        self._optimizer: torch.optim.Optimizer | None = None
        self.follow_(plan)

    def follow_(self, plan: ChannelPlan) -> None:
        """The generator's parameters were replaced by what ``plan`` says of them."""
        parameters = dict(self.generator.named_parameters())
        self.weights = [parameters[name] for name in self.hypernetwork.names]
        self.hypernetwork.follow_(plan, self._optimizer.state if self._optimizer is not None else {})

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The hypernetwork's own, once it is attached."""
        assert self._optimizer is not None
        return self._optimizer

    def attach(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        """The hypernetwork gets an optimizer of the same class and settings."""
        self._host, self._group = optimizer, group  # by index: loading a state makes new group objects
        groups: list[dict[str, Any]] = [
            {"params": list(self.hypernetwork.kernels.parameters())},
            {"params": list(self.hypernetwork.latents.parameters()), "weight_decay": 0.0},
        ]
        self._optimizer = companion_optimizer(optimizer, optimizer.param_groups[group], groups)

    @torch.enable_grad()
    def take_gradients(self) -> None:
        """Send the gradients of generated weights on to the hypernetwork."""
        z = self.hypernetwork.z()
        leaf = z.detach().requires_grad_()
        for index, weight in enumerate(self.weights):
            if weight.grad is not None:
                self.hypernetwork.weight(index, leaf).backward(weight.grad)
                weight.grad = None  # the host's optimizer leaves parameters without gradient alone
        if leaf.grad is not None:
            z.backward(leaf.grad)

    def step(self) -> None:
        """The hypernetwork's step, at the learning rate of the generator's optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._host.param_groups[self._group]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def write_(self) -> None:
        """Write the generated weights into the generator. In place."""
        self._follow_device()
        z = self.hypernetwork.z()
        for index, weight in enumerate(self.weights):
            weight.copy_(self.hypernetwork.weight(index, z))

    @torch.no_grad()
    def adopt_(self) -> None:
        """Generate what the generator has, to the last bit."""
        self._follow_device()
        self.hypernetwork.adopt_([weight.detach() for weight in self.weights])

    def synchronise_(self) -> None:
        """Give every process the hypernetwork of the first."""
        self._follow_device()
        broadcast_(self.hypernetwork.parameters())

    def _follow_device(self) -> None:
        self.hypernetwork.to(self.weights[0].device)  # a host may have moved the generator

    def state_dict(self) -> dict[str, Any]:
        """Hypernetwork and optimizer; empty before it is attached."""
        if self._optimizer is None:
            return {}
        return {"hypernetwork": self.hypernetwork.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError when ``state`` is of another hypernetwork."""
        try:
            self.hypernetwork.load_state_dict(state["hypernetwork"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                "the saved search used another hypernetwork; continue with the same --coronet_method and "
                "--coronet_embedding as the first run"
            ) from error
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])


class Generating(Method):
    """A method whose weights are generated until the search is over; stands before other bases."""

    generates = True

    def __init__(self, task: Task, config: Any, form: str, embedding: int) -> None:
        self._generated: GeneratedWeights | None
        self._generated = GeneratedWeights(task.generator, task.plan, form, embedding)
        super().__init__(task, config)

    @property
    def generated(self) -> GeneratedWeights:
        """The generated weights of a search that is not over."""
        assert self._generated is not None
        return self._generated

    @property
    def hypernetwork(self) -> Hypernetwork | None:
        """None when the search is over."""
        return None if self._generated is None else self._generated.hypernetwork

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        self.generated.attach(optimizer, group)
        self.synchronise_()

    def write_weights_(self) -> None:
        self.generated.write_()

    def adopt_weights_(self) -> None:
        self.generated.adopt_()

    def synchronise_(self) -> None:
        self.generated.synchronise_()
        self.write_weights_()

    def finish(self) -> None:
        self._generated = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.generated.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.generated.load_state_dict(state)
        self.write_weights_()


def companion_optimizer(
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


def can_fuse(optimizer: torch.optim.Optimizer) -> bool:
    """True if ``optimizer`` could make its steps fused, where its parameters are."""
    kind, group = type(optimizer), optimizer.param_groups[0]
    accepted = inspect.signature(kind.__init__).parameters
    settings = {name: group[name] for name in accepted if name in group and name != "params"}
    return "fused" in accepted and _runs(kind, [group], {**settings, "fused": True, "foreach": False})


def _runs(kind: type, groups: list[dict[str, Any]], settings: Mapping[str, Any]) -> bool:
    """True if a step works with these settings: torch before 2.4 takes ``fused`` and fails in the step."""
    trial = torch.zeros_like(next(iter(groups[0]["params"])), requires_grad=True)
    trial.grad = torch.zeros_like(trial)
    try:
        kind([trial], **settings).step()
    except RuntimeError:
        return False
    return True
