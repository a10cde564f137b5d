"""Learned 1x1 convolutions from a student's features to its teacher's, which follow the student's channels.

GAN Compression's (Li et al., CVPR 2020, arXiv 2003.08936). To a search such a map is one more reader of the
channels: it loses those that the generator loses, and what a gate closes is closed for it too, so that a
removal changes no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coronet_plugin.channels.plan import PINNED, ChannelPlan
from coronet_plugin.distributed import average_, broadcast_
from coronet_plugin.errors import CheckpointError, describe
from coronet_plugin.methods.generated import companion_optimizer


class Maps:
    """A learned 1x1 convolution for every tap, from the student's channels to the teacher's.

    ``units``: of the student's channels by tap (:func:`~coronet_plugin.channels.find.units_of_features`).
    ``widths``: the teacher's channels. As many to as many begin as the identity, others as torch begins.
    """

    def __init__(self, units: Mapping[str, np.ndarray], widths: Mapping[str, int]) -> None:
        self.units = dict(units)
        with torch.random.fork_rng([]):
            self.layers = {name: _map(len(units[name]), widths[name]) for name in units}
        self.optimizer: torch.optim.Optimizer | None = None

    def parameters(self) -> list[nn.Parameter]:
        return [p for layer in self.layers.values() for p in layer.parameters()]

    def begin(self, optimizer: torch.optim.Optimizer, group: int, like: Tensor) -> None:
        """Be trained as the generator is: by an optimizer of the same class and settings.

        ``like``: one of its parameters.
        """
        for layer in self.layers.values():
            layer.to(like.device, torch.promote_types(like.dtype, torch.float32))
        broadcast_([p.data for p in self.parameters()])
        self._host, self._group = optimizer, group
        if not self.layers:
            return
        groups = [{"params": self.parameters()}]
        self.optimizer = companion_optimizer(optimizer, optimizer.param_groups[group], groups)

    def __call__(self, name: str, features: Tensor, alive: np.ndarray | None = None) -> Tensor:
        """``features`` of the tap ``name`` in the teacher's channels. ``alive``: units that made them."""
        layer = self.layers[name]
        weight = layer.weight
        if alive is not None:
            kept = np.flatnonzero(np.append(alive, True)[self.units[name]])
            weight = weight[:, torch.from_numpy(kept).to(weight.device)]
        return functional.conv2d(features, weight, layer.bias)

    @property
    def widths(self) -> dict[str, int]:
        """The teacher's channels by tap."""
        return {name: layer.out_channels for name, layer in self.layers.items()}

    def forget_gradients(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self, scale: Tensor) -> None:
        """Their optimizer's step, at the generator's learning rate; gradients are ``scale`` times theirs.

        Gradients that overflowed, as with fp16, are taken for zero.
        """
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if self.optimizer is None or not gradients:
            return
        average_(gradients)
        torch._foreach_div_(gradients, [scale] * len(gradients))
        finite = torch.stack([gradient.isfinite().all() for gradient in gradients]).all()
        for gradient in gradients:
            gradient.masked_fill_(~finite, 0.0)
        closed = {layer: (layer.weight == 0).flatten(2).all(2).all(0) for layer in self.layers.values()}
        for group in self.optimizer.param_groups:
            group["lr"] = self._host.param_groups[self._group]["lr"]
        self.optimizer.step()
        for layer, columns in closed.items():
            layer.weight.masked_fill_(columns[:, None, None], 0.0)  # what a gate closed stays closed
        self.forget_gradients()

    @torch.no_grad()
    def scale_(self, factor: np.ndarray) -> None:
        """Multiply what reads each unit by its ``factor`` ``(units,)``, as the generator's readers were."""
        whole = np.append(factor, 1.0)  # the last entry answers for PINNED
        for name, layer in self.layers.items():
            layer.weight.mul_(torch.from_numpy(whole[self.units[name]]).to(layer.weight)[:, None, None])

    def follow_(self, plan: ChannelPlan) -> None:
        """Lose the channels that the generator lost."""
        left = np.unique(np.concatenate([u for axes in plan.slices.values() for u in axes.values()]))
        for name, units in self.units.items():
            kept = np.isin(units, left) | (units == PINNED)
            if not kept.all():
                self._narrow_(self.layers[name], torch.from_numpy(np.flatnonzero(kept)))
                self.units[name] = units[kept]

    def _narrow_(self, layer: nn.Conv2d, kept: Tensor) -> None:
        old = layer.weight
        index = kept.to(old.device)
        layer.weight = nn.Parameter(old.detach().index_select(1, index))
        layer.in_channels = len(kept)
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            group["params"] = [layer.weight if p is old else p for p in group["params"]]
        if old in self.optimizer.state:
            self.optimizer.state[layer.weight] = {
                key: value.index_select(1, index) if _is_like(value, old) else value
                for key, value in self.optimizer.state.pop(old).items()
            }

    def state_dict(self) -> dict[str, Any]:
        return {
            "layers": {
                name: {key: value.cpu().clone() for key, value in layer.state_dict().items()}
                for name, layer in self.layers.items()
            },
            "optimizer": {} if self.optimizer is None else self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError when ``state`` is of other taps or widths."""
        try:
            for name, layer in self.layers.items():
                layer.load_state_dict(state["layers"][name])
            if self.optimizer is not None:
                self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the saved distillation is of another teacher or of other taps ({describe(error)}); "
                "continue with the options of the first run"
            ) from error


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _map(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 1)
    if inputs == outputs:
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
