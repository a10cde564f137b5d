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

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

OUTPUT = "it is the generator's output"
"""Why the channels of what is returned are pinned."""
IMAGE = 0
"""The id of every channel that no layer of the generator produces."""


class Layout(NamedTuple):
    """``ids[i]`` is the id of channel ``i`` along axis ``axis`` of a tensor."""

    ids: np.ndarray
    axis: int


@dataclass(frozen=True)
class LayerCall:
    """One run of a layer with a weight: what its MACs depend on.

    ``positions``: how often each weight is used for one image (true MACs);
    ``positions_literature``: the same, counted at output resolution.
    """

    module: str
    weight: str | None
    weight_shape: tuple[int, ...]
    axis_in: int
    axis_out: int
    positions: int
    positions_literature: int
    transposed: bool
    groups: int


@dataclass(frozen=True)
class Product:
    """One product of activations, as in attention: ``positions`` times the widths of ``ids`` MACs."""

    module: str
    positions: int
    ids: tuple[np.ndarray, ...]


class NotUnderstood(Exception):
    """A rule cannot follow this call; its text is the reason for pinning."""


@dataclass
class Call:
    """A torch function call: its name, arguments and result."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def tensors(self) -> list[Tensor]:
        return list(tensors_in((self.args, self.kwargs)))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


Rule = Callable[["Propagation", Call], Iterable["Layout | None"]]
"""Layouts of a call's results from those of its arguments; raises :class:`NotUnderstood`."""

Runner = Callable[..., Any]
"""How a generator is run: ``run(generator, *inputs)`` gives its outputs, tensors in any nesting."""


def call(generator: nn.Module, *inputs: Any) -> Any:
    """The usual :data:`Runner`."""
    return generator(*inputs)


IN_PLACE_WRITES = frozenset({"__setitem__"})


@dataclass
class Propagation(TorchFunctionMode):
    """What one forward pass taught about the channels of ``generator``."""

    generator: nn.Module
    rules: Mapping[str, Rule]
    origins: list[str | None] = field(default_factory=lambda: [None])
    tensors: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    norms: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    calls: list[LayerCall] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    consumers: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._parents = [IMAGE]
        self._pins: list[tuple[int, str]] = []
        self._layouts: dict[int, Layout] = {}
        self._alive: list[Tensor] = []  # an id() must not be reused while we run
        self._modules: list[str] = []
        self._batch = 1
        self.touched = False
        """Whether any parameter of the generator was used."""
        self.outputs: dict[str, np.ndarray] = {}
        """Ids of the channels of what every module put out last, where they are known."""
        named = [*self.generator.named_parameters(), *self.generator.named_buffers()]
        self._names = {id(tensor): name for name, tensor in named}

    # -- running ---------------------------------------------------------
    def follow(self, inputs: tuple[Any, ...], run: Runner) -> Any:
        """Run the generator on ``inputs`` and follow its channels."""
        first = next(tensors_in(inputs), None)
        if first is not None and first.ndim in (2, 4, 5):  # otherwise one image without a batch axis
            self._batch = first.shape[0]
        for tensor in tensors_in(inputs):
            if tensor.ndim >= 3:
                axis = tensor.ndim - 3
                self.set_layout(tensor, Layout(np.zeros(tensor.shape[axis], dtype=np.int64), axis))
        handles = []
        for name, module in self.generator.named_modules():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name)))
        try:
            with torch.no_grad(), self:
                out = run(self.generator, *inputs)
        finally:
            for handle in handles:
                handle.remove()
        for tensor in tensors_in(out):
            layout = self.layout(tensor)
            if layout is not None:
                self.pin(layout.ids, OUTPUT)
        return out

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._modules.append(name)

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            self._modules.pop()
            layout = self._layouts.get(id(output))
            if layout is not None:
                self.outputs[name] = layout.ids

        return hook

    @property
    def module(self) -> str:
        """Name of the module that is running."""
        return self._modules[-1] if self._modules else ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # an attribute such as ``T``
            name = getattr(func.__self__, "__name__", name)
        out = func(*args, **kwargs)
        results = list(tensors_in(out))
        if results or name in IN_PLACE_WRITES:
            self._visit(Call(name, args, kwargs, out), results)
        return out

    def _visit(self, call: Call, results: list[Tensor]) -> None:
        self._alive.extend(results)
        arguments = call.tensors()
        tracked = [t for t in arguments if self.layout(t) is not None]
        parameters = any(id(t) in self._names for t in arguments)
        self.touched = self.touched or parameters
        rule = self.rules.get(call.name.rstrip("_") if not call.name.startswith("__") else call.name)
        if not tracked and not parameters and not getattr(rule, "counts", False):
            return
        try:
            if rule is None:
                raise NotUnderstood(f"{call.name} is not understood")
            for result, layout in zip(results, rule(self, call)):
                self.set_layout(result, layout)
        except NotUnderstood as error:
            for tensor in tracked:
                self.doubt(self.layout(tensor).ids, str(error))  # type: ignore[union-attr]
            for result in results:
                self._layouts.pop(id(result), None)

    # -- layouts ---------------------------------------------------------
    def layout(self, tensor: Any) -> Layout | None:
        """The layout of ``tensor``; a parameter with one axis gets one on first sight."""
        found = self._layouts.get(id(tensor))
        if found is None and id(tensor) in self._names:
            wide = [axis for axis, size in enumerate(tensor.shape) if size > 1]
            if len(wide) == 1 and tensor.is_floating_point():
                found = self.parameter_layout(tensor, wide[0])
        return found

    def is_activation(self, tensor: Tensor) -> bool:
        """True for a tensor computed on the way, whose channels are known."""
        return id(tensor) in self._layouts

    def set_layout(self, tensor: Tensor, layout: Layout | None) -> None:
        self._alive.append(tensor)
        if layout is None:
            self._layouts.pop(id(tensor), None)
        else:
            self._layouts[id(tensor)] = layout

    def parameter_layout(self, tensor: Tensor, axis: int) -> Layout:
        """Layout of a parameter or buffer along ``axis``: the same ids at every use."""
        name = self._names[id(tensor)]
        slices = self.tensors.setdefault(name, {})
        if axis not in slices:
            slices[axis] = self.fresh(tensor.shape[axis], None)
        return Layout(slices[axis], axis)

    def name_of(self, tensor: Any) -> str | None:
        """Qualified name of a parameter or buffer, None for any other tensor."""
        return self._names.get(id(tensor))

    def rename(self, result: Tensor, parameter: Tensor) -> None:
        """``result`` is ``parameter`` but for a factor: slice the one, and the other follows."""
        self._alive.append(result)
        self._names[id(result)] = self._names[id(parameter)]

    def layer_of(self, weight: Tensor) -> str:
        """Name of the layer with this weight: its module's, or the parameter's if that is not ``weight``."""
        name = self.name_of(weight) or self.module
        return name[: -len(".weight")] if name.endswith(".weight") else name

    def per_image(self, count: int) -> int:
        """``count`` positions of a batch, for one image."""
        return count // self._batch if count % self._batch == 0 else count

    # -- ids -------------------------------------------------------------
    def fresh(self, count: int, origin: str | None) -> np.ndarray:
        """``count`` new ids, produced by the layer ``origin``."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        self.origins.extend([origin] * count)
        return np.arange(start, start + count)

    def find(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index

    def merge(self, left: np.ndarray, right: np.ndarray) -> None:
        """Channel ``left[i]`` and channel ``right[i]`` live and die together."""
        if len(left) != len(right):
            raise NotUnderstood(f"{len(left)} channels meet {len(right)}")
        for a, b in zip(left.tolist(), right.tolist()):
            low, high = sorted((self.find(a), self.find(b)))
            self._parents[high] = low

    def merge_all(self, ids: np.ndarray) -> None:
        """All of ``ids`` live and die together."""
        self.merge(ids[1:], ids[:-1])

    def pin(self, ids: np.ndarray, reason: str) -> None:
        self._pins.extend((index, reason) for index in ids.tolist())

    def doubt(self, ids: np.ndarray, reason: str) -> None:
        """Pin ``ids`` for what the running module does with them."""
        self.pin(ids, f"{reason} (in {self.module})" if self.module else reason)

    def pinned(self) -> dict[int, str]:
        """Reason by root id, for every root that must never be removed."""
        reasons: dict[int, str] = {}
        for index, reason in self._pins:
            reasons.setdefault(self.find(index), reason)
        reasons.setdefault(self.find(IMAGE), "it meets the input image")
        return reasons

    def register(self, tensor: Any, axis: int, ids: np.ndarray) -> None:
        """Slice ``axis`` of a parameter or buffer together with ``ids``."""
        if not isinstance(tensor, Tensor):
            return
        if self.name_of(tensor) is not None:
            self.merge(self.parameter_layout(tensor, axis).ids, ids)
            return
        layout = self.layout(tensor)
        if layout is None or layout.axis != axis:
            raise NotUnderstood("a layer's parameter is computed from tensors whose channels are not known")
        self.merge(layout.ids, ids)
