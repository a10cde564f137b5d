"""Remove dead channels physically, and the reference it is tested against.

:func:`slim_` changes a generator in place: parameters and buffers are replaced
by smaller ones, module attributes such as ``in_channels`` follow. The class
stays what it was and no plug-in code is needed to run the result.
:func:`masked` is the same generator at full size with dead channels ignored by
every reader; both compute the same function, which
:mod:`coronet_plugin.channels.proof` checks.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.channels.padding import hooks_of, pad_
from coronet_plugin.channels.plan import PINNED, ChannelPlan
from coronet_plugin.wrappers import unwrap


def slim(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> nn.Module:
    """A smaller copy of ``generator`` with only the units ``alive`` (bool, ``(units,)``)."""
    smaller = copy_with(unwrap(generator))
    slim_(smaller, plan, alive)
    return smaller


@torch.no_grad()
def slim_(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> dict[Tensor, nn.Parameter]:
    """Remove all units that are not ``alive`` from ``generator``, in place.

    Returns the new parameter for every one that was replaced, so that an
    optimizer can be told. Replaced, not resized: a graph that still holds the
    old parameter (a loss kept from the last step) must stay valid.
    """
    smaller: dict[Tensor, Tensor] = {}
    for name in plan.slices:
        tensor = _get(generator, name)
        kept = sliced(tensor.detach(), plan, name, alive, corrected=True)
        if kept.shape != tensor.shape:
            smaller[tensor] = kept
    return _replaced(generator, plan, alive, smaller)


@torch.no_grad()
def restore_sizes_(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> dict[Tensor, nn.Parameter]:
    """Give all tensors of ``generator`` the shapes they have when only ``alive`` remain, in place.

    ``plan``: of the dense generator, of which any part may be there now. Values are undefined. Returns the
    new parameter for every one that was replaced.
    """
    keep = np.append(alive, True)  # the last entry answers for PINNED
    other: dict[Tensor, Tensor] = {}
    for name, axes in plan.slices.items():
        tensor = _get(generator, name)
        shape = [int(np.count_nonzero(keep[axes[i]])) if i in axes else n for i, n in enumerate(tensor.shape)]
        if shape != list(tensor.shape):
            other[tensor] = tensor.new_zeros(shape)
    return _replaced(generator, plan, alive, other)


def _replaced(
    generator: nn.Module, plan: ChannelPlan, alive: np.ndarray, values: Mapping[Tensor, Tensor]
) -> dict[Tensor, nn.Parameter]:
    """Replace tensors by ``values``, and let the modules' attributes follow."""
    replaced = replace_tensors_(generator, values)
    _follow_(generator, plan, alive)
    return replaced


def _follow_(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> None:
    """Let the modules' attributes follow their tensors."""
    for module_name, widths in plan.module_widths(alive).items():
        module = generator.get_submodule(module_name)
        for attribute, width in widths.items():
            if hasattr(module, attribute):
                setattr(module, attribute, width)
    for module_name, padding in plan.paddings(alive).items():
        pad_(generator.get_submodule(module_name), padding)
    update_widths_(generator)


def replace_in_optimizer_(
    optimizer: torch.optim.Optimizer, replaced: Mapping[Tensor, nn.Parameter]
) -> dict[Tensor, Any]:
    """Let ``optimizer`` hold the new parameters, of which it knows nothing; gives what it knew of the old."""
    for group in optimizer.param_groups:
        group["params"] = [replaced.get(p, p) for p in group["params"]]
    return {old: optimizer.state.pop(old) for old in replaced if old in optimizer.state}


def update_optimizer_(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    replaced: Mapping[Tensor, nn.Parameter],
    plan: ChannelPlan,
    alive: np.ndarray,
) -> None:
    """Let ``optimizer`` go on after :func:`slim_` with what it knows of the weights that stay.

    Its groups and their settings are kept. ``parameters``: by name, as they were before; ``replaced``: what
    :func:`slim_` returned for ``plan`` and ``alive``.
    """
    known = replace_in_optimizer_(optimizer, replaced)
    for name, old in parameters.items():
        if old in known:
            optimizer.state[replaced[old]] = {  # type: ignore[index]
                key: sliced(value, plan, name, alive) if _is_like(value, old) else value
                for key, value in known[old].items()
            }


def sliced(
    tensor: Tensor, plan: ChannelPlan, name: str, alive: np.ndarray, corrected: bool = False
) -> Tensor:
    """Give the part that stays of ``tensor``, the parameter or buffer ``name`` or one that goes with it.

    ``corrected``: it is multiplied by what makes smaller numbers of channels good; what goes with a
    parameter without being one, such as a moment of its gradients, is not. Channels-last weights stay
    channels-last.
    """
    last = tensor.ndim == 4 and not tensor.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    keep = np.append(alive, True)  # the last entry answers for PINNED
    for axis, units in plan.slices.get(name, {}).items():
        factor = plan.factors(name, axis, alive) if corrected else None
        if factor is not None:
            shape = [-1 if i == axis else 1 for i in range(tensor.ndim)]
            tensor = tensor * torch.from_numpy(factor).to(tensor).view(shape)
        index = torch.from_numpy(np.flatnonzero(keep[units])).to(tensor.device)
        tensor = tensor.index_select(axis, index)
    return tensor.contiguous(memory_format=layout)


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


Place = tuple[str, int, np.ndarray]
"""Name of a parameter, axis, and the unit of every index along it."""


class Readers:
    """Places where channels are read, of a plan of so many ``units``; each knows its units, or PINNED."""

    def __init__(self, places: Iterable[Place], units: int) -> None:
        self.places, self.units = list(places), units
        self._index: dict[torch.device, Tensor] = {}

    def __iter__(self) -> Iterator[Place]:
        return iter(self.places)

    def only(self, names: Collection[str]) -> Readers:
        """Those in the parameters ``names``."""
        return Readers([place for place in self.places if place[0] in names], self.units)

    def index(self, device: torch.device) -> Tensor:
        """Units of all places, one place after another, on ``device``; what is PINNED counts as one more.

        Copied there once: an accelerator is waited for at every copy to it.
        """
        if device not in self._index:
            units = np.concatenate([units for *_, units in self.places])
            self._index[device] = torch.from_numpy(units % (self.units + 1)).to(device)
        return self._index[device]


def readers(plan: ChannelPlan) -> Readers:
    """Where channels are read: scaling these slices of parameters by zero takes a unit out of the function.

    Layers that read a unit have its slices of their weights. A product of activations has no weight:
    of units that one reads, all parameters of the layers that make them are given instead.
    """
    found: dict[tuple[str, int], np.ndarray] = {}
    for name, axis in sorted({part for call in plan.calls for part in call.reads}):
        found[name, axis] = plan.slices[name][axis]
    for call in plan.calls:
        if call.weight is None or call.weight not in plan.shapes:
            continue
        units = plan.slices.get(call.weight, {}).get(call.axis_in)
        if units is not None:
            found[call.weight, call.axis_in] = units
    multiplied = np.zeros(plan.units + 1, dtype=bool)
    for product in plan.products:
        for units in product.ids:
            multiplied[units] = True
    multiplied[-1] = False
    for name in plan.shapes if multiplied.any() else ():
        for axis, units in {**plan.slices.get(name, {}), **plan.gated.get(name, {})}.items():
            if (name, axis) not in found and multiplied[units].any():
                found[name, axis] = np.where(multiplied[units], units, PINNED)
    return Readers([(name, axis, units) for (name, axis), units in found.items()], plan.units)


@torch.no_grad()
def scale_(parameters: Mapping[str, Tensor], where: Readers, factor: np.ndarray) -> None:
    """Multiply the slices that read each unit by its ``factor`` ``(units,)``. In place.

    The factor is sent to the parameters' device once, and no one waits for it.
    """
    if not where.places:
        return
    scaled = [parameters[name] for name, *_ in where]
    device, wide = scaled[0].device, torch.promote_types(scaled[0].dtype, torch.float32)
    whole = sent(np.append(factor, 1.0), device, wide)  # the last entry answers for PINNED
    values = whole[where.index(device)].split([len(units) for *_, units in where])
    shaped = [
        value.view([-1 if i == axis else 1 for i in range(parameter.ndim)]).to(parameter)
        for value, parameter, (_, axis, _) in zip(values, scaled, where)
    ]
    torch._foreach_mul_(scaled, shaped)


def sent(values: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``values`` as a tensor on ``device``, where an accelerator is not waited for."""
    tensor = torch.from_numpy(values).to(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def masked(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> nn.Module:
    """A full-size copy that ignores dead channels: zeros where they are read."""
    copied = copy_with(unwrap(generator))
    scale_(dict(copied.named_parameters()), readers(plan), alive.astype(np.float64))
    return copied


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


@contextlib.contextmanager
def narrowed(generator: nn.Module, plan: ChannelPlan, alive: np.ndarray) -> Iterator[None]:
    """While this lasts, ``generator`` computes what :func:`slim` makes of it, at that cost.

    Slices stand in for its parameters, which get the gradients; those of units that are not ``alive`` are
    zero. What a run writes into buffers (running statistics) is kept.
    """
    parts: dict[Tensor, Tensor] = {}
    for name in plan.slices:
        whole = _get(generator, name)
        part = sliced(whole, plan, name, alive, corrected=True)
        if part.shape != whole.shape:
            parts[whole] = part
    before = [(vars(module), dict(vars(module))) for module in generator.modules()]
    replaced = []
    for module in generator.modules():
        for place in (module._parameters, module._buffers):
            for name, tensor in list(place.items()):
                if tensor is not None and tensor in parts:
                    place[name] = parts[tensor]  # type: ignore[assignment]
                    replaced.append((place, name, tensor))
    padded = [generator.get_submodule(name) for name in plan.paddings(alive)]
    hooks = [(place, dict(place)) for module in padded for place in hooks_of(module)]
    _follow_(generator, plan, alive)
    resized = [
        (now, k, old[k]) for now, old in before for k in old if isinstance(old[k], int) and now[k] != old[k]
    ]
    try:
        yield
    finally:
        for place, name, tensor in replaced:
            place[name] = tensor  # type: ignore[assignment]
        for attributes, name, width in resized:
            attributes[name] = width
        for hooked, known in hooks:
            hooked.clear()
            hooked.update(known)
        for name in plan.slices:
            whole = _get(generator, name)
            if whole in parts and not whole.requires_grad:
                _write_back_(whole, parts[whole], plan, name, alive)


@torch.no_grad()
def _write_back_(whole: Tensor, part: Tensor, plan: ChannelPlan, name: str, alive: np.ndarray) -> None:
    keep = np.append(alive, True)
    index = [torch.arange(length) for length in whole.shape]
    for axis, units in plan.slices[name].items():
        index[axis] = torch.from_numpy(np.flatnonzero(keep[units]))
    whole[torch.meshgrid(*index, indexing="ij")] = part.detach()


def on_device(inputs: Any, device: torch.device | str) -> Any:
    """``inputs`` with their tensors, in nested lists, tuples and dictionaries, on ``device``."""
    return copy.deepcopy(inputs, {id(x): x.to(device) for x in tensors_in(inputs)})


def _get(generator: nn.Module, name: str) -> Tensor:
    owner, _, attribute = name.rpartition(".")
    return getattr(generator.get_submodule(owner), attribute)


def _is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
