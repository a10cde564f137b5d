"""Hypernetworks: convolution weights as functions of latent vectors.

One small network per convolution turns the latents of its input channels
``z_in`` ``(n,)`` and of its output channels ``z_out`` ``(m,)`` into the weight
``(m, n, k, k)``, or ``(n, m, k, k)`` of a transposed convolution. There is no
non-linearity: per weight the map is affine in ``z_in[i] * z_out[j]``.

Sources: DHP (Li et al., ECCV 2020, arXiv 2003.13683) for the three layers, its
public code for initial values; CoroNetGAN (Kumar et al., 2024, arXiv
2403.08261) for the use in image translation. Equations: docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.plan import PINNED, ChannelPlan


class PublishedKernel(nn.Module):
    """Three-layer hypernetwork of one convolution, as published.

    With ``n`` inputs, ``m`` outputs, ``t`` kernel taps and embedding size ``E``::

        Z = z_in z_out^T + b0           latent layer,    (n, m)
        e_ij = Z_ij w1_ij + b1_ij       embedding layer, (n, m, E)
        O_ij = w2_ij e_ij + b2_ij       explicit layer,  (n, m, t)

    (docs/method.md eqs. (1) to (3)). Initially the biases are zero, ``w1 ~ U(-sqrt 3, sqrt 3)`` and
    ``w2 ~ U(-s, s)`` with ``s = sqrt(3 / (E n t))``, so that a weight has variance ``1 / (n t)``.
    """

    def __init__(self, inputs: int, outputs: int, taps: int, embedding: int = 8) -> None:
        super().__init__()
        bound = math.sqrt(3 / (embedding * inputs * taps))
        self.b0 = nn.Parameter(torch.zeros(inputs, outputs))
        self.w1 = nn.Parameter(torch.empty(inputs, outputs, embedding).uniform_(-math.sqrt(3), math.sqrt(3)))
        self.b1 = nn.Parameter(torch.zeros(inputs, outputs, embedding))
        self.w2 = nn.Parameter(torch.empty(inputs, outputs, taps, embedding).uniform_(-bound, bound))
        self.b2 = nn.Parameter(torch.zeros(inputs, outputs, taps))

    def forward(self, z_in: Tensor, z_out: Tensor) -> Tensor:
        """``z_in`` ``(n,)``, ``z_out`` ``(m,)`` -> ``(n, m, t)``."""
        latent = torch.outer(z_in, z_out) + self.b0  # (n, m)
        embedding = latent.unsqueeze(-1) * self.w1 + self.b1  # (n, m, E)
        return torch.einsum("nmte,nme->nmt", self.w2, embedding) + self.b2  # (n, m, t)

    @torch.no_grad()
    def adopt_(self, weight: Tensor, z_in: Tensor, z_out: Tensor) -> None:
        """Make ``forward(z_in, z_out)`` give ``weight`` ``(n, m, t)`` to the last bit."""
        for bias in (self.b0, self.b1, self.b2):
            bias.zero_()
        self.w1.copy_(torch.where(self.w1 < 0, -1.0, 1.0) * self.w1.abs().clamp(min=0.1))
        direction = self.w1 / self.w1.square().sum(-1, keepdim=True)  # (n, m, E)
        gain = weight / torch.outer(z_in, z_out).unsqueeze(-1)  # (n, m, t)
        self.w2.copy_(gain.unsqueeze(-1) * direction.unsqueeze(2))
        self.b2.copy_(weight - self(z_in, z_out))  # nearly equal numbers: their difference is exact


class FoldedKernel(nn.Module):
    """The published map with its last two layers multiplied out.

    ``O_ij = (z_in_i z_out_j + b0_ij) A_ij + B_ij`` is the same family of
    functions as :class:`PublishedKernel` (``A = w2 w1``, ``B = w2 b1 + b2``) with
    about two instead of about eleven numbers per weight; its training dynamics
    differ. ``A`` starts with the published variance ``1 / (n t)``.
    """

    def __init__(self, inputs: int, outputs: int, taps: int) -> None:
        super().__init__()
        self.b0 = nn.Parameter(torch.zeros(inputs, outputs))
        self.scale = nn.Parameter(torch.randn(inputs, outputs, taps) / math.sqrt(inputs * taps))
        self.shift = nn.Parameter(torch.zeros(inputs, outputs, taps))

    def forward(self, z_in: Tensor, z_out: Tensor) -> Tensor:
        """``z_in`` ``(n,)``, ``z_out`` ``(m,)`` -> ``(n, m, t)``."""
        latent = torch.outer(z_in, z_out) + self.b0  # (n, m)
        return latent.unsqueeze(-1) * self.scale + self.shift  # (n, m, t)

    @torch.no_grad()
    def adopt_(self, weight: Tensor, z_in: Tensor, z_out: Tensor) -> None:
        """Make ``forward(z_in, z_out)`` give ``weight`` ``(n, m, t)`` to the last bit."""
        self.b0.zero_()
        self.shift.zero_()
        self.scale.copy_(weight / torch.outer(z_in, z_out).unsqueeze(-1))
        self.shift.copy_(weight - self(z_in, z_out))  # nearly equal numbers: their difference is exact


KERNELS = {"published": PublishedKernel, "folded": FoldedKernel}
"""Forms of the hypernetwork whose weights are generated."""


class Hypernetwork(nn.Module):
    """Latent vectors of a plan and one kernel network for each of its convolutions.

    ``latents``: one vector per prunable channel set, ``N(0, 1)`` at the start (DHP's
    code). Pinned channels have the constant latent one. ``names`` are those of the
    generator's weights, in the order of the forward pass; ``frozen`` ones are left out.
    """

    def __init__(
        self, plan: ChannelPlan, form: str = "published", embedding: int = 8, frozen: Collection[str] = ()
    ) -> None:
        super().__init__()
        options = {"embedding": embedding} if form == "published" else {}
        generated = {name: call for name, call in plan.kernels().items() if name not in frozen}
        self.names = list(generated)
        self.latents = nn.ParameterList(nn.Parameter(torch.randn(s.units)) for s in plan.prunable)
        self.kernels = nn.ModuleList()
        self.calls = list(generated.values())
        self._units: dict[tuple[int, str], np.ndarray] = {}
        for call in self.calls:
            shape = call.weight_shape
            taps = math.prod(shape[2:])
            kernel = KERNELS[form](shape[call.axis_in], shape[call.axis_out], taps, **options)
            self.kernels.append(kernel)
        for index, (name, call) in enumerate(generated.items()):
            for side, axis in (("in", call.axis_in), ("out", call.axis_out)):
                units = plan.slices.get(name, {}).get(axis)
                if units is None:
                    units = np.full(call.weight_shape[axis], PINNED)
                self._units[index, side] = units
                # index 0 is the constant latent, unit u is entry u + 1
                self.register_buffer(f"z_{side}_{index}", torch.from_numpy(units + 1), persistent=False)

    def z(self) -> Tensor:
        """All latents behind the constant one: ``(1 + units,)``."""
        one = next(self.parameters()).new_ones(1)
        return torch.cat([one, *self.latents])

    def weight(self, index: int, z: Tensor) -> Tensor:
        """Weight of convolution ``index`` in its own shape, from all latents ``z``."""
        call = self.calls[index]
        z_in, z_out = z[getattr(self, f"z_in_{index}")], z[getattr(self, f"z_out_{index}")]
        flat = self.kernels[index](z_in, z_out)  # (n, m, t)
        if call.axis_in == 1:
            flat = flat.transpose(0, 1)
        return flat.reshape(*flat.shape[:2], *call.weight_shape[2:])

    @torch.no_grad()
    def follow_(self, plan: ChannelPlan, state: Mapping[Tensor, dict[str, Any]]) -> None:
        """Keep only what makes the weights of ``plan``, in the kernels and in their optimizer's ``state``.

        Latents stay, those of channels that are gone have no part in anything.
        """
        for index, (name, kernel, call) in enumerate(zip(self.names, self.kernels, self.calls)):
            for place, (side, axis) in enumerate((("in", call.axis_in), ("out", call.axis_out))):
                entries: Tensor = getattr(self, f"z_{side}_{index}")
                units, before = plan.slices.get(name, {}).get(axis), self._units[index, side]
                if units is None or len(units) == len(before):
                    continue
                kept = np.flatnonzero(np.isin(before, units))
                self._units[index, side] = units
                selected = torch.from_numpy(kept).to(entries.device)
                setattr(self, f"z_{side}_{index}", entries[selected])
                for parameter in kernel.parameters():
                    for key, value in state.get(parameter, {}).items():
                        if isinstance(value, Tensor) and value.shape == parameter.shape:
                            state[parameter][key] = value.index_select(place, selected)
                    parameter.data = parameter.index_select(place, selected)

    @torch.no_grad()
    def adopt_(self, weights: list[Tensor]) -> None:
        """Make :meth:`weight` give these trained ``weights`` to the last bit.

        Latents are spread evenly over (0.2, 1.8) in the order of the filters' L1 norms, so that
        of a set the weakest filter (Li et al., 2017, arXiv 1608.08710) dies first.
        """
        strength = torch.zeros(1 + sum(len(latent) for latent in self.latents), device=weights[0].device)
        for index, weight in enumerate(weights):
            filters = weight.abs().sum([axis for axis in range(4) if axis != self.calls[index].axis_out])
            strength.index_add_(0, getattr(self, f"z_out_{index}"), (filters / filters.mean()).float())
        start = 1
        for latent in self.latents:
            ranks = strength[start : start + len(latent)].argsort().argsort()
            latent.copy_(0.2 + 1.6 * (ranks + 0.5) / len(latent))
            start += len(latent)
        z = self.z()
        for index, (weight, kernel) in enumerate(zip(weights, self.kernels)):
            flat = weight.transpose(0, 1) if self.calls[index].axis_in == 1 else weight
            z_in, z_out = z[getattr(self, f"z_in_{index}")], z[getattr(self, f"z_out_{index}")]
            assert isinstance(kernel, (PublishedKernel, FoldedKernel))
            kernel.adopt_(flat.flatten(2), z_in, z_out)
