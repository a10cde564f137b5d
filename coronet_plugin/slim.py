"""Remove dead channels physically, and the reference it is tested against.

:func:`slim_` changes a generator in place: parameters and buffers are replaced
by smaller ones, module attributes such as ``in_channels`` follow. The class
stays what it was and no plug-in code is needed to run the result.
:func:`masked` is the same generator at full size with dead channels ignored by
every reader; both compute the same function, which
:mod:`coronet_plugin.verification` checks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from coronet_plugin.channels import ChannelPlan
from coronet_plugin.propagation import tensors_in


def slim(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> nn.Module:
    """A smaller copy of ``generator`` with only the units ``alive`` (bool, ``(units,)``)."""
    smaller = copy_with(generator)
    slim_(smaller, plan, alive)
    return smaller


@torch.no_grad()
def slim_(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> dict[Tensor, nn.Parameter]:
    """Remove all units that are not ``alive`` from ``generator``, in place.

    Returns the new parameter for every one that was replaced, so that an
    optimizer can be told. Replaced, not resized: a graph that still holds the
    old parameter (a loss kept from the last step) must stay valid.
    """
    keep = np.append(alive, True)  # the last entry answers for PINNED
    smaller: dict[Tensor, Tensor] = {}
    for name, axes in plan.slices.items():
        tensor = _get(generator, name)
        kept = tensor.detach()
        for axis, units in axes.items():
            index = torch.from_numpy(np.flatnonzero(keep[units])).to(tensor.device)
            kept = kept.index_select(axis, index)
        if kept.shape != tensor.shape:
            smaller[tensor] = kept.contiguous()
    replaced = replace_tensors_(generator, smaller)
    for module_name, attributes in plan.widths.items():
        module = generator.get_submodule(module_name)
        for attribute, units in attributes.items():
            if hasattr(module, attribute):
                setattr(module, attribute, int(keep[units].sum()))
    update_widths_(generator)
    return replaced


def replace_tensors_(generator: nn.Module, values: Mapping[Tensor, Tensor]) -> dict[Tensor, nn.Parameter]:
    """Put new parameters and buffers in place of the keys of ``values``, wherever they are used."""
    fresh: dict[Tensor, nn.Parameter] = {}
    for module in generator.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter in values:
                if parameter not in fresh:
                    fresh[parameter] = nn.Parameter(values[parameter], parameter.requires_grad)
                setattr(module, name, fresh[parameter])
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer in values:
                setattr(module, name, values[buffer])
    return fresh


def update_widths_(generator: nn.Module) -> None:
    """Make ``in_channels``, ``num_features`` and the like agree with the weights, in place."""
    for module in generator.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            continue
        if isinstance(module, _ConvNd):
            whole, per_group = weight.shape[:2]
            if module.groups > 1:  # groups are removed whole
                dense = module.in_channels if module.transposed else module.out_channels
                module.groups = module.groups * whole // dense
            widths = (whole, per_group * module.groups)
            module.in_channels, module.out_channels = widths if module.transposed else widths[::-1]
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = weight.shape
        elif isinstance(module, nn.Embedding):
            module.embedding_dim = weight.shape[1]


def masked(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> nn.Module:
    """A full-size copy that ignores dead channels.

    Layers that read them have zeros in those slices of their weights. A product of
    activations has no weight: dead channels that one reads are made zero instead,
    in all parameters of the layers that make them.
    """
    keep = np.append(alive, True)
    values = {name: t.detach().clone() for name, t in generator.named_parameters() if name in plan.slices}
    for call in plan.calls:
        units = plan.slices.get(call.weight or "", {}).get(call.axis_in)
        if units is not None and call.weight in values:
            _zero_(values[call.weight], call.axis_in, ~keep[units])
    multiplied = np.zeros(plan.units + 1, dtype=bool)
    for product in plan.products:
        for units in product.ids:
            multiplied[units] = True
    if multiplied[:-1].any():
        for name, value in values.items():
            for axis, units in plan.slices[name].items():
                _zero_(value, axis, (multiplied & ~keep)[units])
    parameters = dict(generator.named_parameters())
    return copy_with(generator, {parameters[name]: value for name, value in values.items()})


def _zero_(value: Tensor, axis: int, dead: np.ndarray) -> None:
    value.index_fill_(axis, torch.from_numpy(np.flatnonzero(dead)).to(value.device), 0.0)


def copy_with(generator: nn.Module, values: Mapping[Tensor, Tensor] | None = None) -> nn.Module:
    """A deep copy with other parameters and buffers in place of the keys of ``values``.

    Tensors with a graph that modules remember (old weight norm does) are copied without it.
    """
    memo: dict[int, Any] = {}
    for module in generator.modules():
        for tensor in tensors_in(list(vars(module).values())):
            if tensor.grad_fn is not None:
                memo[id(tensor)] = tensor.detach().clone()
    for old, new in (values or {}).items():
        memo[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    return copy.deepcopy(generator, memo)


def _get(generator: nn.Module, name: str) -> Tensor:
    owner, _, attribute = name.rpartition(".")
    return getattr(generator.get_submodule(owner), attribute)
