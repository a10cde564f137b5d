"""Records of what is seen when a generator is run: layouts, calls, products, corrections; how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

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


Runner = Callable[..., Any]
"""How a generator is run: ``run(generator, *inputs)`` gives its outputs, tensors in any nesting."""


def call(generator: nn.Module, *inputs: Any) -> Any:
    """The usual :data:`Runner`."""
    return generator(*inputs)
