"""Agents that open and close the gates before channels, and what they do with two networks.

The machinery of agent-gated pruning by the first author of MGGC (Ganjdanesh et al., ECCV 2022, and APTP, ICLR
2025), which is public; how :mod:`coronet_plugin.methods.manifold` puts it together is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from coronet_plugin.channels.cut import copy_with, readers
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.channels.plan import ChannelPlan

CODE = 64
"""Numbers that tell an agent which channel set it is at, and as many that it makes of what its peer says."""


class Agent(nn.Module):
    """A recurrent network that goes over the channel sets of ``plan`` and says how open each gate is.

    Both ways through the sets, ``hidden`` numbers each. What the peer's mean state was the last time is heard
    at every set. All begins with numbers of ``random``; the codes of the sets stay as they are.
    """

    def __init__(self, plan: ChannelPlan, hidden: int, random: torch.Generator) -> None:
        super().__init__()
        sets = plan.prunable
        codes = torch.randn(max(len(sets), CODE), CODE, generator=random)
        self.register_buffer("codes", torch.linalg.qr(codes)[0][: len(sets)])
        self.register_buffer("said", torch.zeros(2 * hidden))
        self.hear = nn.Linear(2 * hidden, CODE)
        self.recurrent = nn.GRU(2 * CODE, hidden, bidirectional=True, batch_first=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.heads = nn.ModuleList(nn.Linear(2 * hidden, s.units) for s in sets)
        for parameter in self.parameters():
            spread = 1 / max(1, parameter.shape[-1]) ** 0.5
            parameter.data = (torch.rand(parameter.shape, generator=random) * 2 - 1) * spread
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    codes: Tensor
    said: Tensor
    """Message to the peer: the mean state when this was asked last, ``(2 * hidden,)``."""

    def forward(self, heard: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all gates ``(units,)``, and what there is to say; ``heard``: what the peer said."""
        inputs = torch.cat([self.codes, self.hear(heard).expand_as(self.codes)], dim=1)
        states = self.norm(self.recurrent(inputs[None])[0][0])
        logits = torch.cat([head(state) for head, state in zip(self.heads, states)])
        return logits, states.mean(0).detach()


def gates(logits: Tensor, base: float, temperature: float, random: torch.Generator) -> Tensor:
    """Gates of 0 or 1 ``(units,)``, drawn; gradients as if they were the soft ones.

    Gumbel-sigmoid: a gate is open where ``sigmoid((logit + noise + base) / temperature)`` is above one half;
    the noise is the difference of two Gumbel variables.
    """
    uniform = torch.rand(logits.shape, generator=random).clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((logits + uniform.log() - (-uniform).log1p() + base) / temperature)
    return (soft > 0.5).to(soft) + (soft - soft.detach())  # in this order: exactly 0 or 1


def soft_cost(plan: ChannelPlan, gates: Tensor, kind: str) -> Tensor:
    """Cost of open ``gates`` ``(units,)``, ``"macs"`` or ``"params"``: a plan's count, with gradients."""
    whole = torch.cat([gates, gates.new_ones(1)])  # the last entry answers for PINNED

    def size(name: str | None, shape: tuple[int, ...]) -> Tensor:
        axes: Mapping[int, Any] = plan.slices.get(name, {}) if name else {}
        widths = [
            whole[torch.from_numpy(axes[i])].sum() if i in axes else whole.new_tensor(length)
            for i, length in enumerate(shape)
        ]
        return torch.stack([width.to(torch.float64) for width in widths]).prod()

    if kind == "params":
        return torch.stack([size(name, shape) for name, shape in plan.shapes.items()]).sum()
    parts = [size(call.weight, call.weight_shape) * call.positions for call in plan.calls]
    for product in plan.products:
        widths = [whole[torch.from_numpy(units)].sum().to(torch.float64) for units in product.ids]
        parts.append(torch.stack(widths).prod() * product.positions)
    return torch.stack(parts).sum()


@dataclass
class Gated:
    """A frozen copy of ``network`` that runs with gates before what reads its channels."""

    network: nn.Module
    plan: ChannelPlan

    def __post_init__(self) -> None:
        self.network = copy_with(self.network).requires_grad_(False).eval()
        for module in self.network.modules():
            if isinstance(module, _NormBase):
                module.train()  # by the statistics of the batch, as the host trains
                module.momentum = 0.0
        self._readers = readers(self.plan)
        self._last = self.plan.calls[-1]

    def weights(self, gates: Tensor) -> dict[str, Tensor]:
        """The parameters that read channels, times the ``gates`` ``(units,)`` of what they read."""
        found = dict(self.network.named_parameters())
        whole = torch.cat([gates, gates.new_ones(1)]).to(next(iter(found.values())))
        gated: dict[str, Tensor] = {}
        for name, axis, units in self._readers:
            weight = gated.get(name, found[name])
            shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
            gated[name] = weight * whole[torch.from_numpy(units).to(whole.device)].view(shape)
        return gated

    def output(self, gates: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        """Run it on ``inputs``: the first tensor of its output."""
        return next(tensors_in(functional_call(self.network, self.weights(gates), inputs)))

    def features(self, gates: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        """Features its last layer reads, behind the gates, averaged over the picture: ``(N, channels)``."""
        seen: list[Tensor] = []
        layer = self.network.get_submodule(self._last.module)
        hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            functional_call(self.network, self.weights(gates), inputs)
        finally:
            hook.remove()
        units = self.plan.slices.get(self._last.weight or "", {}).get(self._last.axis_in)
        found = seen[0].flatten(2).mean(2) if seen[0].ndim > 2 else seen[0]
        if units is None:
            return found
        whole = torch.cat([gates, gates.new_ones(1)]).to(found)
        return found * whole[torch.from_numpy(units).to(found.device)]


def density_distance(original: Tensor, pruned: Tensor) -> Tensor:
    """Squared distance of two densities, estimated by kernels from features ``(N, C)`` each; a scalar.

    Each density is the mean of Gaussians at its features; the integral of the squared difference has a closed
    form, the same sums of Gaussians over all pairs (up to a factor). Bandwidths are 1, 2 and 4 times the mean
    distance of the original's features to their first, the centre of the neighbourhood.
    """
    with torch.no_grad():
        spread = (original[1:] - original[:1]).norm(dim=1).mean().clamp_min(1e-6)
    both = torch.cat([original, pruned])
    squares = (both[:, None] - both[None]).square().sum(2)
    sides = ((original, 1), (pruned, -1))
    signs = torch.cat([x.new_full((len(x),), sign / len(x)) for x, sign in sides])
    kernels = sum(torch.exp(-squares / (4 * (width * spread) ** 2)) for width in (1, 2, 4))
    return signs @ torch.as_tensor(kernels) @ signs
