"""Remove dead channels physically, and the reference it is tested against.

:func:`slim_` changes a generator in place: parameters and buffers are replaced
by smaller ones, module attributes such as ``in_channels`` follow. The class
stays what it was and no plug-in code is needed to run the result.
:func:`masked` is the same generator at full size with dead channels ignored by
every reader; both compute the same function, which :func:`verify` checks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels import ChannelPlan
from coronet_plugin.errors import PlanError


def slim(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> nn.Module:
    """A smaller copy of ``generator`` with only the units ``alive`` (bool, ``(units,)``)."""
    smaller = copy.deepcopy(generator)
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
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            transposed = isinstance(module, nn.ConvTranspose2d)
            whole, per_group = weight.shape[:2]
            if module.groups > 1:  # groups are removed whole
                dense = module.in_channels if transposed else module.out_channels
                module.groups = module.groups * whole // dense
            widths = (whole, per_group * module.groups)
            module.in_channels, module.out_channels = widths if transposed else widths[::-1]
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = weight.shape


def masked(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> nn.Module:
    """A full-size copy whose layers ignore dead channels: their input slices are zero."""
    copied = copy.deepcopy(generator)
    keep = np.append(alive, True)
    with torch.no_grad():
        for call in plan.calls:
            units = plan.slices.get(call.weight or "", {}).get(call.axis_in)
            if call.weight is None or units is None:
                continue
            weight = _get(copied, call.weight)
            dead = torch.from_numpy(np.flatnonzero(~keep[units])).to(weight.device)
            weight.data.index_fill_(call.axis_in, dead, 0.0)
    return copied


@torch.no_grad()
def difference(first: nn.Module, second: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Largest absolute difference of two generators' outputs in eval mode, 0 for equal."""
    outputs = []
    for generator in (first, second):
        training = {module: module.training for module in generator.modules()}
        generator.eval()
        try:
            outputs.append(generator(*inputs))
        finally:
            for module, flag in training.items():
                module.training = flag
    return float((outputs[0].double() - outputs[1].double()).abs().max())


def verify(
    generator: nn.Module, plan: ChannelPlan, example: Any, seed: int = 0, tolerance: float = 1e-4
) -> float:
    """Check on a random half of the units that slimming computes what masking does.

    Returns the largest difference. The default tolerance is for single precision
    through tens of layers; a wrong plan is off by orders of magnitude.

    Raises:
        PlanError: the outputs differ or the slim generator does not run.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    alive = np.random.default_rng(seed).random(plan.units) < 0.5
    for channel_set in plan.prunable:  # no set may be empty
        alive[channel_set.start] = True
    try:
        found = difference(slim(generator, plan, alive), masked(generator, plan, alive), inputs)
    except RuntimeError as error:
        raise PlanError(f"the generator does not run once channels are removed: {error}") from error
    if not found <= tolerance:
        raise PlanError(
            f"removing channels changes what the generator computes (difference {found:.2g}, "
            f"allowed {tolerance:.2g}); the channel sets of {type(generator).__name__} are not used"
        )
    return found


def _get(generator: nn.Module, name: str) -> Tensor:
    owner, _, attribute = name.rpartition(".")
    return getattr(generator.get_submodule(owner), attribute)
