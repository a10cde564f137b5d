"""All that is known of the tensors of a run so far, on which rules rely and to which they add.

By tensor: its layout, that of a weight computed from parameters, where it comes from by moves and factors,
whether it can be negative. By name: how parameters are sliced and which attributes count channels. Numbers of
channels that code reads (:mod:`.reading`) are followed into what it multiplies by them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.facts import (
    IMAGE,
    Axis,
    Call,
    Correction,
    Grid,
    LayerCall,
    Layout,
    NotUnderstood,
    Padded,
    Product,
    Source,
    tensors_in,
)
from coronet_plugin.channels.ids import Ids
from coronet_plugin.channels.reading import Width, power_of

FACTORS = {"mul": 1, "multiply": 1, "div": -1, "divide": -1, "true_divide": -1} | dict.fromkeys(
    ("__rdiv__", "__rsub__", "add", "sub", "pow", "__rpow__", "rsub", "maximum", "minimum", "clamp"), 0
)
"""To which power a function of a tensor and a number multiplies by the number; 0 for one that does not."""
WIDTHS = ("channel", "dim", "width", "feature", "hidden", "embed", "size", "filter", "plane")
"""Part of the name of an attribute that holds a number of channels."""


class Knowledge(Ids):
    """Of one run of ``generator``.

    ``approximate``: collects channels that code mixes out of reach, and how; None if those are pinned.
    """

    def __init__(self, generator: nn.Module, approximate: list[tuple[np.ndarray, str]] | None = None) -> None:
        super().__init__()
        self.generator, self.approximate = generator, approximate
        self.tensors: dict[str, dict[int, np.ndarray]] = {}
        self.norms: dict[str, dict[str, np.ndarray]] = {}
        self.calls: list[LayerCall] = []
        self.products: list[Product] = []
        self.consumers: dict[str, np.ndarray] = {}
        self.corrections: list[Correction] = []
        self.padded: dict[str, Padded] = {}
        self.gated: dict[str, dict[int, np.ndarray]] = {}
        """Parameters of padded modules by channel: zeros in them make zeros of what is gone."""
        self._layouts: dict[int, Layout] = {}
        self._alive: list[Tensor] = []  # an id() must not be reused while we run
        self._modules: list[str] = []
        self._inside: str | None = None  # a sealed module
        self._sources: dict[int, Source] = {}
        self._nonnegative: set[int] = set()
        self._attributes: list[tuple[nn.Module, str, int]] = []
        self._grids: dict[int, Grid] = {}
        self._batch = 1
        named = [*generator.named_parameters(), *generator.named_buffers()]
        self._names = {id(tensor): name for name, tensor in named}

    @property
    def module(self) -> str:
        """Name of the module that is running."""
        return self._modules[-1] if self._modules else ""

    # -- what cannot be followed -------------------------------------------
    def doubt(self, ids: np.ndarray, reason: str) -> None:
        """Pin ``ids`` for what the running module does with them."""
        self.pin(ids, f"{reason} (in {self.module})" if self.module else reason)

    def depart(self, ids: np.ndarray, reason: str) -> None:
        """Without some of ``ids`` something else is computed: pinned, or approximate if that is asked for."""
        if self.approximate is None:
            self.doubt(ids, reason)
        else:
            self.approximate.append((ids, f"{reason} (in {self.module})" if self.module else reason))

    def departing(self) -> dict[int, str]:
        """Reason by root id, for every root that is approximate."""
        reasons: dict[int, str] = {}
        for ids, reason in self.approximate or ():
            for index in ids.tolist():
                reasons.setdefault(self.find(index), reason)
        return reasons

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
