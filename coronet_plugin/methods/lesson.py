"""Learn from a teacher: match its features through learned 1x1 maps, and its output.

As GAN Compression does (Li et al., CVPR 2020, arXiv 2003.08936)::

    weight_features * sum over taps of mean (A_i(s_i) - t_i)^2  +  weight_output * mean |S - T|

with features ``s_i`` of the student and ``t_i`` of the teacher, outputs ``S`` and ``T``, and a convolution
``A_i`` with bias. A student of few channels reads the columns of ``A_i`` that are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coronet_plugin.channels.cut import copy_with, restore_sizes_
from coronet_plugin.channels.find import units_of_features
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.channels.propagation import tensors_in
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.events import Events, Remaining
from coronet_plugin.methods.generated import companion_optimizer
from coronet_plugin.methods.listening import submodule


class Lesson(Events):
    """A student's part in a training with a teacher; nothing happens while there is no teacher.

    ``taps``: names of the layers to match, which student and teacher have. ``features`` and ``output``:
    weights of the two terms. ``units``: those the student runs with, ``(units,)``; None for all.
    ``given``: whether the teacher was trained before.
    """

    name = "lesson"
    required = True

    def __init__(self, features: float, output: float, taps: Sequence[str]) -> None:
        self.weights = features, output
        self.taps = tuple(taps)
        self.teacher: nn.Module | None = None
        self.given = False
        self.units: np.ndarray | None = None
        self.seed = 0
        self.maps = nn.ModuleDict()
        self._optimizer: torch.optim.Optimizer | None = None

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        self._host, self._group = optimizer, group
        if not self.taps:
            return
        groups = [{"params": list(self.maps.parameters())}]
        self._optimizer = companion_optimizer(optimizer, optimizer.param_groups[group], groups)

    def look_at_(self, inputs: tuple[Any, ...]) -> None:
        """Make the maps, by running student and teacher once on ``inputs``.

        Raises:
            OptionError: their features or outputs do not fit.
        """
        mine, own = run(self.generator, inputs, self.taps)
        theirs, output = (mine, own) if self.teacher is None else run(self.teacher, inputs, self.taps)
        if [x.shape for x in own] != [x.shape for x in output]:
            raise OptionError(
                f"the teacher gives {_sizes(output)} where the generator gives {_sizes(own)}; take a teacher "
                "of the same task"
            )
        self.channels = units_of_features(self.generator, self.plan, inputs, self.taps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for name in self.taps:
                s, t = mine[name], theirs[name]
                if s.shape[2:] != t.shape[2:] or s.ndim != 4:
                    raise OptionError(
                        f"the teacher's features of {name} are {_sizes([t])}, the generator's {_sizes([s])}; "
                        "take a teacher of the same architecture, or other --coronet_taps"
                    )
                self.maps[_key(name)] = nn.Conv2d(s.shape[1], t.shape[1], 1).to(s.device, s.dtype)

    # -- training --------------------------------------------------------
    def extra_loss(
        self, inputs: tuple[Any, ...], output: Any, features: Mapping[str, Tensor]
    ) -> Tensor | None:
        if self.teacher is None:
            return None
        theirs, target = run(self.teacher, inputs, self.taps)
        loss = features_loss([self.mapped(name, s) for name, s in features.items()], list(theirs.values()))
        outputs = output_loss(list(tensors_in(output)), target)
        return torch.as_tensor(self.weights[0] * loss + self.weights[1] * outputs)

    def mapped(self, name: str, features: Tensor) -> Tensor:
        """The student's ``features`` (N, C, H, W) of layer ``name`` in the teacher's channels."""
        layer = self.maps[_key(name)].to(features.device)
        assert isinstance(layer, nn.Conv2d)
        weight: Tensor = layer.weight
        if self.units is not None:
            keep = np.append(self.units, True)[self.channels[name]]
            weight = weight[:, torch.from_numpy(np.flatnonzero(keep)).to(weight.device)]
        return F.conv2d(features, weight, layer.bias)

    def gradients(self) -> None:
        if self._optimizer is None:
            return
        for group in self._optimizer.param_groups:
            group["lr"] = self._host.param_groups[self._group]["lr"]
        gradients = [p.grad for p in self.maps.parameters() if p.grad is not None]
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        present = [units for axes in plan.slices.values() for units in axes.values()]
        self.units = np.isin(np.arange(self.plan.units), np.concatenate(present))

    # -- saving ----------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"maps": self.maps.state_dict()}
        if self._optimizer is not None:
            state["optimizer"] = self._optimizer.state_dict()
        if self.teacher is not None and not self.given:
            state["teacher"] = {name: x.detach().cpu() for name, x in self.teacher.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self.maps.load_state_dict(state["maps"])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        if "teacher" in state:
            self.teacher = copy_with(self.generator)
            restore_sizes_(self.teacher, self.plan, np.ones(self.plan.units, dtype=bool))
            self.teacher.load_state_dict(state["teacher"])


# -- the loss --------------------------------------------------------------------
def features_loss(mapped: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor | float:
    """Sum over taps of the mean squared difference of a student's ``mapped`` features and a teacher's."""
    return sum((s - t).square().mean() for s, t in zip(mapped, features))


def output_loss(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor | float:
    """Mean absolute difference of outputs."""
    return sum((s - t).abs().mean() for s, t in zip(outputs, targets))


@torch.no_grad()
def run(
    generator: nn.Module, inputs: tuple[Any, ...], taps: Sequence[str] = ()
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Features of ``taps`` and outputs, in evaluation mode; random numbers and modes stay what they were."""
    features: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, output: features.update({name: output})

    handles = [submodule(generator, name).register_forward_hook(keep(name)) for name in taps]
    modes = [(module, module.training) for module in generator.modules()]
    try:
        with torch.random.fork_rng(devices=[x.device for x in tensors_in(inputs) if x.is_cuda][:1]):
            output = generator.eval()(*inputs)
    finally:
        for module, mode in modes:
            module.training = mode
        for handle in handles:
            handle.remove()
    return features, list(tensors_in(output))


def _key(name: str) -> str:
    return name.replace(".", "/")  # names of submodules have no dots


def _sizes(tensors: Sequence[Tensor]) -> str:
    return ", ".join("x".join(map(str, x.shape[1:])) for x in tensors)
