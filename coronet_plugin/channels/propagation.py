"""Follow channels through one forward pass.

The generator is run once on an example. A ``TorchFunctionMode`` sees every
torch function with its real arguments, so Python control flow, modules called
twice and in-place activations need no special treatment. Each tensor carries a
*layout*: along its channel axis, one id per channel. Functions merge ids
(a residual sum), reorder them (concatenation, chunks) or pass them on
(activations, padding); ids that were merged live and die together.

Whatever has no rule (:mod:`coronet_plugin.channels.rules`) is *pinned*: its channels are
never removed, and the reason is kept in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from coronet_plugin.channels.facts import (
    OUTPUT,
    Call,
    Layout,
    Mixes,
    NotUnderstood,
    Padded,
    Runner,
    tensors_in,
)
from coronet_plugin.channels.knowledge import FACTORS, Knowledge
from coronet_plugin.channels.reading import Scale, Width

Rule = Callable[["Propagation", Call], Iterable["Layout | None"]]
"""Layouts of a call's results from those of its arguments; raises :class:`NotUnderstood`."""


def _square_root(root: Callable[[Any], float]) -> Callable[[Any], Any]:
    return lambda number: number**0.5 if isinstance(number, (Width, Scale)) else root(number)


IN_PLACE_WRITES = frozenset({"__setitem__"})


class Propagation(Knowledge, TorchFunctionMode):
    """Follow the channels of ``generator`` through one forward pass.

    ``sealed``: modules whose inside is not followed; they are handed the dead channels as zeros.
    """

    def __init__(
        self,
        generator: nn.Module,
        rules: Mapping[str, Rule],
        follow_weights: Callable[[Propagation, Call], None] | None = None,
        approximate: list[tuple[np.ndarray, str]] | None = None,
        sealed: frozenset[str] = frozenset(),
    ) -> None:
        TorchFunctionMode.__init__(self)
        Knowledge.__init__(self, generator, approximate)
        self.rules, self.follow_weights, self.sealed = rules, follow_weights, sealed
        self.mixers: dict[str, str] = {}
        """Modules that were seen to mix all channels."""
        self.touched = False
        """Whether any parameter of the generator was used."""
        self.outputs: dict[str, np.ndarray] = {}
        """Ids of the channels of what every module put out last, where they are known."""

    # -- running ---------------------------------------------------------
    def follow(self, inputs: tuple[Any, ...], run: Runner) -> Any:
        """Run the generator on ``inputs`` and follow its channels."""
        first = next(tensors_in(inputs), None)
        if first is not None and first.ndim in (2, 4, 5):  # otherwise one image without a batch axis
            self._batch = first.shape[0]
        for tensor in tensors_in(inputs):
            if tensor.ndim >= 4 or tensor.ndim == 3 and first.ndim == 3:  # type: ignore[union-attr]
                axis = tensor.ndim - 3
                self.set_layout(tensor, Layout(np.zeros(tensor.shape[axis], dtype=np.int64), axis))
        handles = []
        for name, module in self.generator.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave(name)))
        try:
            with torch.no_grad(), self, mock.patch.object(math, "sqrt", _square_root(math.sqrt)):
                out = run(self.generator, *inputs)
        finally:
            for handle in handles:
                handle.remove()
            for owner, attribute, value in self._attributes:
                setattr(owner, attribute, value)
        for tensor in tensors_in(out):
            layout = self.layout(tensor)
            if layout is not None:
                self.pin(layout.ids, OUTPUT)
        return out

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._modules.append(name)
            if name in self.sealed and not self._inside:
                self._seal(name, list(tensors_in((args, kwargs))))

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            left = self._modules.pop()
            if left == self._inside:
                self._inside = None
                self._unseal(left, list(tensors_in(output)))
            layout = self._layouts.get(id(output))
            if layout is not None:
                self.outputs[name] = layout.ids

        return hook

    def _seal(self, name: str, arguments: list[Tensor]) -> None:
        found = [(i, layout) for i, x in enumerate(arguments) if (layout := self.layout(x)) is not None]
        if not found or len({len(layout.ids) for _, layout in found}) != 1:
            return
        ids, inputs = found[0][1].ids, tuple((i, layout.axis) for i, layout in found)
        known = self.padded.setdefault(name, Padded(ids, inputs))
        if known.inputs != inputs or len(known.ids) != len(ids):
            self.doubt(np.concatenate([known.ids, ids]), "a module that mixes channels is called in two ways")
            return
        for each in (known.ids, *(layout.ids for _, layout in found[1:])):
            self.merge(ids, each)
        self.needs_zeros(ids)
        for own, parameter in self.generator.get_submodule(name).named_parameters():
            if parameter.numel() == len(ids) in parameter.shape:
                self.gated[f"{name}.{own}"] = {parameter.shape.index(len(ids)): ids}
        self._inside = name
        self._axes = {arguments[i].ndim: layout.axis for i, layout in reversed(found)}

    def can_be_sealed(self, module: str) -> bool:
        """Whether nothing in ``module`` has a width of its own to lose."""
        inside = f"{module}."
        layers = [call for call in self.calls if f"{call.module}.".startswith(inside)]
        return (
            bool(module)
            and all(call.weight_shape[call.axis_out] == 1 for call in layers)
            and not any(
                f"{product.module}.".startswith(inside) and product.positions for product in self.products
            )
        )

    def _unseal(self, name: str, results: list[Tensor]) -> None:
        known = self.padded[name]
        outputs = []
        for i, x in enumerate(results):
            axis = self._axes.get(x.ndim)
            if axis is not None and x.shape[axis] == len(known.ids):
                outputs.append((i, axis))
                self.set_layout(x, Layout(known.ids, axis))
        self.padded[name] = replace(known, outputs=tuple(outputs))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # an attribute such as ``T``
            name = getattr(func.__self__, "__name__", name)
        out = func(*args, **kwargs)
        if name in ("shape", "size"):
            return self._read_widths(args[0], out, *args[1:], **kwargs)
        results = list(tensors_in(out))
        if results or name in IN_PLACE_WRITES:
            self._visit(Call(name, args, kwargs, out, func), results)
        return out

    def _visit(self, call: Call, results: list[Tensor]) -> None:
        self._alive.extend(results)
        arguments = call.tensors()
        tracked = [t for t in arguments if self.layout(t) is not None]
        parameters = any(id(t) in self._names for t in arguments)
        self.touched = self.touched or parameters
        rule = self.rules.get(call.plain_name)
        counts = getattr(rule, "counts", False)
        if not self._inside:
            self._follow_factors(call, arguments)
            if self.follow_weights is not None:
                self.follow_weights(self, call)
        if not counts and (self._inside or not (tracked or parameters)):
            return
        try:
            if rule is None:
                raise NotUnderstood(f"{call.name} is not understood")
            for result, layout in zip(results, rule(self, call)):
                self.set_layout(result, None if self._inside else layout)
            if getattr(rule, "moves", False):
                self._carry_source(call)
                if call.args and self.is_nonnegative(call.args[0]):
                    self._nonnegative.update(map(id, results))
            elif call.plain_name != call.name and call.plain_name not in FACTORS:  # values change in place
                self._sources.pop(id(call.out), None)
        except NotUnderstood as error:
            if isinstance(error, Mixes):
                self.mixers.setdefault(self.module, str(error))
                if self.approximate is not None and tracked:
                    self._mix(tracked, results, str(error))
                    return
            for tensor in tracked:
                self.doubt(self.layout(tensor).ids, str(error))  # type: ignore[union-attr]
            for result in results:
                self._layouts.pop(id(result), None)

    def _mix(self, tracked: list[Tensor], results: list[Tensor], reason: str) -> None:
        """Take it that mixing works about as well with fewer channels, if those gone are zero."""
        for tensor in tracked:
            ids = self.layout(tensor).ids  # type: ignore[union-attr]
            self.needs_zeros(ids)
            self.depart(ids, reason)
        for result in results:
            like = [x for x in tracked if x.shape == result.shape]
            self.set_layout(result, self.layout(like[0]) if like else None)
