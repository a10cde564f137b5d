"""Let a module that mixes all channels go on at its dense width when some of them are gone.

A layer norm, a maximum over channels or a softmax counts every channel there is. What mixes channels stays
exactly what it was if the removed ones are handed to it as zeros, which they were before the cut
(:func:`coronet_plugin.channels.cut.readers`), and if what it says of them is thrown away. Two hooks do that:
the module keeps its class, its own few parameters and their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

Places = tuple[tuple[int, int], ...]
"""Number of a tensor, counted through nested arguments or results, and its channel axis."""


@dataclass(frozen=True)
class Padding:
    """``kept`` of ``width`` channels are there; ``inputs`` are padded, ``outputs`` cut."""

    width: int
    kept: tuple[int, ...]
    inputs: Places
    outputs: Places

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Padding:
        """From what :meth:`as_dict` gave."""
        inputs, outputs = (tuple((n, axis) for n, axis in entry[key]) for key in ("inputs", "outputs"))
        return cls(entry["width"], tuple(entry["kept"]), inputs, outputs)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def widen(self, x: Tensor, axis: int) -> Tensor:
        """``x`` at the dense width, with zeros where channels are gone."""
        where = [len(self.kept)] * self.width
        for position, channel in enumerate(self.kept):
            where[channel] = position
        zero = x.new_zeros([1 if i == axis else size for i, size in enumerate(x.shape)])
        return torch.cat([x, zero], axis).index_select(axis, torch.tensor(where, device=x.device))

    def narrow(self, x: Tensor, axis: int) -> Tensor:
        """The channels of ``x`` that are there."""
        return x.index_select(axis, torch.tensor(self.kept, device=x.device))


@dataclass(frozen=True)
class Widen:
    """A hook before a module's forward."""

    padding: Padding

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return _replaced((args, kwargs), self.padding.inputs, self.padding.widen)


@dataclass(frozen=True)
class Narrow:
    """A hook after a module's forward."""

    padding: Padding

    def __call__(self, module: nn.Module, args: Any, out: Any) -> Any:
        return _replaced(out, self.padding.outputs, self.padding.narrow)


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Where a module has what :func:`pad_` sets."""
    return module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs, module._forward_hooks


def pad_(module: nn.Module, padding: Padding) -> None:
    """Let ``module`` run at its dense width from now on; an earlier padding of it is replaced. In place."""
    hooks = hooks_of(module)
    old = [k for each in hooks for k, hook in each.items() if isinstance(hook, (Widen, Narrow))]
    for key in old:
        for each in hooks:
            each.pop(key, None)
    module.register_forward_pre_hook(Widen(padding), with_kwargs=True)
    module.register_forward_hook(Narrow(padding))


def _replaced(value: Any, places: Places, change: Callable[[Tensor, int], Tensor]) -> Any:
    """``value`` with ``change(tensor, axis)`` in place of the tensors at ``places``."""
    axes, count = dict(places), -1

    def visit(item: Any) -> Any:
        nonlocal count
        if isinstance(item, Tensor):
            count += 1
            return change(item, axes[count]) if count in axes else item
        if isinstance(item, dict):
            return type(item)((key, visit(each)) for key, each in item.items())
        if isinstance(item, (list, tuple)):
            parts = [visit(each) for each in item]
            return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
        return item

    return visit(value)
