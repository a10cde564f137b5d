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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from coronet_plugin.channels.reading import Scale, Width, power_of

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
    axes: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Channels along the axes of a weight that is computed from parameters."""
    reads: frozenset[tuple[str, int]] = frozenset()
    """Axes of the parameters of such a weight along which it reads channels."""


@dataclass(frozen=True)
class Product:
    """One product of activations, as in attention: ``positions`` times the widths of ``ids`` MACs."""

    module: str
    positions: int
    ids: tuple[np.ndarray, ...]


class Axis(NamedTuple):
    """Channels along an axis of a computed weight, and the axes of parameters of which it is made."""

    ids: np.ndarray
    parts: frozenset[tuple[str, int]]


Grid = dict[int, Axis]
"""Knowledge of a tensor that is computed from parameters, by axis."""


class Source(NamedTuple):
    """Where a tensor comes from by nothing but moves and factors.

    ``rows`` has the tensor's shape and says of every entry which index of ``slices`` (parameter, axis) made
    it. Multiply those slices by a number, and the tensor is multiplied.
    """

    slices: tuple[tuple[str, int], ...]
    rows: Tensor


@dataclass(frozen=True)
class Correction:
    """At the cut, multiply ``rows`` (bool) of a parameter by (share of ``ids`` that is left) ** ``power``.

    Because the code divides what they make by a power of the number of ``ids``, which gets smaller.
    """

    tensor: str
    axis: int
    rows: np.ndarray
    ids: np.ndarray
    power: float

    def covers(self, tensor: str, axis: int, rows: np.ndarray) -> bool:
        """Whether it is about one of these rows."""
        return (self.tensor, self.axis) == (tensor, axis) and bool((self.rows & rows).any())


@dataclass(frozen=True)
class Padded:
    """A module that mixes channels ``ids``, and where it is given and gives them (:mod:`.padding`)."""

    ids: np.ndarray
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...] = ()


class NotUnderstood(Exception):
    """A rule cannot follow this call; its text is the reason for pinning."""


class Mixes(NotUnderstood):
    """It mixes all channels: a module that does nothing else can be handed the dead ones as zeros."""


@dataclass
class Call:
    """A torch function call: its name, arguments and result."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    function: Any = None

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def tensors(self) -> list[Tensor]:
        return list(tensors_in((self.args, self.kwargs)))

    @property
    def plain_name(self) -> str:
        """The name without the underscore of the in-place form."""
        return self.name if self.name.startswith("__") else self.name.rstrip("_")


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


def _square_root(root: Callable[[Any], float]) -> Callable[[Any], Any]:
    return lambda number: number**0.5 if isinstance(number, (Width, Scale)) else root(number)


def call(generator: nn.Module, *inputs: Any) -> Any:
    """The usual :data:`Runner`."""
    return generator(*inputs)


IN_PLACE_WRITES = frozenset({"__setitem__"})
FACTORS = {"mul": 1, "multiply": 1, "div": -1, "divide": -1, "true_divide": -1} | dict.fromkeys(
    ("__rdiv__", "__rsub__", "add", "sub", "pow", "__rpow__", "rsub", "maximum", "minimum", "clamp"), 0
)
"""To which power a function of a tensor and a number multiplies by the number; 0 for one that does not."""
WIDTHS = ("channel", "dim", "width", "feature", "hidden", "embed", "size", "filter", "plane")
"""Part of the name of an attribute that holds a number of channels."""


@dataclass
class Propagation(TorchFunctionMode):
    """Follow the channels of ``generator`` through one forward pass."""

    generator: nn.Module
    rules: Mapping[str, Rule]
    follow_weights: Callable[[Propagation, Call], None] | None = None
    origins: list[str | None] = field(default_factory=lambda: [None])
    tensors: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    norms: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    calls: list[LayerCall] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    consumers: dict[str, np.ndarray] = field(default_factory=dict)
    corrections: list[Correction] = field(default_factory=list)
    approximate: list[tuple[np.ndarray, str]] | None = None
    """Channels that code mixes out of reach, and how; None if those are pinned."""
    sealed: frozenset[str] = frozenset()
    """Modules whose inside is not followed: they are handed the dead channels as zeros."""
    padded: dict[str, Padded] = field(default_factory=dict)
    gated: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    """Parameters of such modules by channel: they stay, and zeros in them make zeros of what is gone."""
    mixers: dict[str, str] = field(default_factory=dict)
    """Modules that were seen to mix all channels."""

    def __post_init__(self) -> None:
        super().__init__()
        self._parents = [IMAGE]
        self._pins: list[tuple[int, str]] = []
        self._layouts: dict[int, Layout] = {}
        self._alive: list[Tensor] = []  # an id() must not be reused while we run
        self._modules: list[str] = []
        self._inside: str | None = None  # a sealed module
        self._sources: dict[int, Source] = {}
        self._nonnegative: set[int] = set()
        self._attributes: list[tuple[nn.Module, str, int]] = []
        self._grids: dict[int, Grid] = {}
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

    def depart(self, ids: np.ndarray, reason: str) -> None:
        """Without some of ``ids`` something else is computed: pinned, or approximate if that is asked for."""
        if self.approximate is None:
            self.doubt(ids, reason)
        else:
            self.approximate.append((ids, f"{reason} (in {self.module})" if self.module else reason))

    # -- layouts ---------------------------------------------------------
    def layout(self, tensor: Any) -> Layout | None:
        """The layout of ``tensor``; a parameter with one axis gets one on first sight."""
        if self._inside:
            return None
        found = self._layouts.get(id(tensor))
        if found is None and id(tensor) in self._names:
            wide = [axis for axis, size in enumerate(tensor.shape) if size > 1]
            if len(wide) == 1 and tensor.is_floating_point():
                found = self.parameter_layout(tensor, wide[0])
        return found

    def is_activation(self, tensor: Tensor) -> bool:
        """True for a tensor computed on the way, whose channels are known."""
        return id(tensor) in self._layouts and not self._inside

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

    def needs_zeros(self, ids: np.ndarray) -> None:
        """Somebody reads all channels without weights of its own: what is gone has to be zero."""
        self.products.append(Product(self.module, 0, (ids,)))

    def set_nonnegative(self, tensor: Tensor) -> None:
        """No value of ``tensor`` is below zero, whatever the weights."""
        self._nonnegative.add(id(tensor))

    def is_nonnegative(self, tensor: Tensor) -> bool:
        """Whether that is known."""
        return id(tensor) in self._nonnegative

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

    # -- weights computed from parameters -------------------------------
    def is_computed(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` was computed from parameters, axis by axis."""
        return id(tensor) in self._grids

    def is_kernel(self, tensor: Any) -> bool:
        """Whether ``tensor`` is a parameter of several axes, or was computed from some."""
        named = id(tensor) in self._names and sum(size > 1 for size in tensor.shape) > 1
        return named or self.is_computed(tensor)

    def grid(self, tensor: Tensor) -> Grid:
        """The channels along every axis of a weight, or along that of other tensors."""
        if self.is_computed(tensor):
            return self._grids[id(tensor)]
        name = self.name_of(tensor)
        if name is None:
            layout = self.layout(tensor)
            return {} if layout is None else {layout.axis: Axis(layout.ids, frozenset())}
        return {
            axis: Axis(self.parameter_layout(tensor, axis).ids, frozenset({(name, axis)}))
            for axis, size in enumerate(tensor.shape)
            if size > 1
        }

    def set_grid(self, tensor: Any, grid: Grid) -> None:
        if isinstance(tensor, Tensor) and grid and self.name_of(tensor) is None:
            self._alive.append(tensor)
            self._grids[id(tensor)] = dict(grid)

    def fills(self, features: Tensor, weight: Tensor) -> bool:
        """Whether ``features`` have all the wide axes of a ``weight`` that is added to or scales them."""
        if self.is_kernel(features) or self.layout(features) is None or features.ndim < weight.ndim:
            return False
        return all(n == 1 or n == m for n, m in zip(weight.shape[::-1], features.shape[::-1]))

    def follow_written(self, call: Call, axis: int, ids: np.ndarray) -> None:
        """An axis of a view has a size written in the code: attributes that say it shrink with ``ids``."""
        given = call.args[1:]
        sizes = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
        if call.plain_name in ("view", "reshape") and axis < len(sizes) and type(sizes[axis]) is int:
            for count in {sizes[axis], sizes[axis] // self._batch}:
                name = self.attribute(count) if count > 1 else ""
                if name:
                    self.set_attribute(name, ids[:count])

    # -- widths that code reads ------------------------------------------
    def _read_widths(self, tensor: Tensor, out: Any, dim: Any = None) -> Any:
        """A shape, or one number of it, in which the number of channels remembers what it counts."""
        layout = self.layout(tensor)
        if layout is None or (layout.ids == IMAGE).all():
            return out
        width = Width(layout.ids, Fraction(1), self._compare)
        if isinstance(out, int):
            return width if isinstance(dim, int) and dim % tensor.ndim == layout.axis else out
        return torch.Size(width if axis == layout.axis else size for axis, size in enumerate(out))

    def _compare(self, width: Width, number: int) -> None:
        """Code compares a width with a number: an attribute of its module may say the same."""
        attribute = self.attribute(number)
        if attribute:
            self.set_attribute(attribute, width.counted)

    def attribute(self, number: int) -> str:
        """The attribute of the running module that is ``number`` and by its name a width, or ""."""
        for name, value in vars(self.generator.get_submodule(self.module)).items():
            is_number = type(value) in (int, Width) and int(value) == number
            if is_number and any(word in name.lower() for word in WIDTHS):
                return name
        return ""

    def set_attribute(self, name: str, ids: np.ndarray) -> None:
        """The attribute ``name`` of the running module is the number of ``ids``."""
        known = self.norms.setdefault(self.module, {})
        self.merge(known.setdefault(name, ids), ids)
        owner = self.generator.get_submodule(self.module)
        if type(value := getattr(owner, name)) is int:  # what else is computed with it follows, too
            self._attributes.append((owner, name, value))
            setattr(owner, name, Width(ids, Fraction(1), self._compare))

    # -- where a number can be made good ---------------------------------
    def set_source(self, tensor: Tensor, parameters: list[tuple[Tensor, int]], axis: int) -> None:
        """Index ``i`` of axes of ``parameters``, and nothing else, makes channel ``i`` of ``tensor``."""
        slices = tuple((self._names[id(p)], axis) for p, axis in parameters if id(p) in self._names)
        if len(slices) < len(parameters):
            return
        rows = torch.arange(tensor.shape[axis]).view([-1 if i == axis else 1 for i in range(tensor.ndim)])
        self._sources[id(tensor)] = Source(slices, rows.expand(tensor.shape))

    def _carry_source(self, call: Call) -> None:
        """The results of a call that moves values come from where its argument does."""
        source = self._sources.get(id(call.args[0])) if call.args else None
        if source is None or source.rows.shape != call.args[0].shape:
            return
        rows = call.function(source.rows.contiguous(), *call.args[1:], **call.kwargs)
        for result, moved in zip(tensors_in(call.out), tensors_in(rows)):
            self._sources[id(result)] = Source(source.slices, moved)

    def same_source(self, result: Tensor, *operands: Tensor) -> None:
        """``result`` is as many times as large as one of ``operands`` is."""
        source = next((s for x in operands if (s := self._sources.get(id(x))) is not None), None)
        if source is not None and id(result) not in self._sources:
            self._sources[id(result)] = source

    def _follow_factors(self, call: Call, tensors: list[Tensor]) -> None:
        """Multiplication and division by numbers: those that depend on a width are made good at the cut."""
        sign = FACTORS.get(call.plain_name)
        if sign is None or len(call.args) < 2:
            return
        read = [found for each in call.args[:2] if (found := power_of(each)) is not None]
        for ids, power in read:
            try:
                if sign == 0 or len(tensors) != 1 or call.args[0] is not tensors[0]:
                    raise NotUnderstood("a number of channels is computed with")
                self.depends(tensors[0], ids, sign * power)
            except NotUnderstood as error:
                self.depart(ids, str(error))
        if sign and len(tensors) == 1 and isinstance(call.out, Tensor):
            self.same_source(call.out, *tensors)

    def depends(self, tensor: Tensor, ids: np.ndarray, power: float) -> None:
        """The code multiplies ``tensor`` by the number of ``ids`` to the ``power``: made good at the cut."""
        source = self._sources.get(id(tensor))
        if source is None:
            raise NotUnderstood("a number of channels is computed with")
        for name, axis in source.slices:
            self._correct(name, axis, source.rows.unique().long().numpy(), ids, -power)

    def correct(self, parameter: Tensor, axis: int, which: np.ndarray, ids: np.ndarray, power: float) -> None:
        """At the cut, multiply indices ``which`` by (share of ``ids`` that is left) ** ``power``."""
        self._correct(self._names[id(parameter)], axis, which, ids, power)

    def _correct(self, name: str, axis: int, which: np.ndarray, ids: np.ndarray, power: float) -> None:
        rows = np.isin(np.arange(len(self.tensors[name][axis])), which)
        if not any(c.covers(name, axis, rows) for c in self.corrections):  # a layer may run twice
            self.corrections.append(Correction(name, axis, rows, ids, power))

    # -- ids -------------------------------------------------------------
    def fresh(self, count: int, origin: str | None) -> np.ndarray:
        """``count`` new ids, produced by the layer ``origin``."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        self.origins.extend([origin] * count)
        return np.arange(start, start + count)

    def name_origin(self, ids: np.ndarray, origin: str) -> None:
        """Channels that were seen before their layer are made by it."""
        for index in ids.tolist():
            if index != IMAGE and self.origins[index] is None:
                self.origins[index] = origin

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

    def departing(self) -> dict[int, str]:
        """Reason by root id, for every root that is approximate."""
        reasons: dict[int, str] = {}
        for ids, reason in self.approximate or ():
            for index in ids.tolist():
                reasons.setdefault(self.find(index), reason)
        return reasons

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
