"""Inputs and outputs of a generator, by name.

Runtimes know tensors in a row. A generator may take several, and may return them in tuples, lists and
dictionaries of any nesting: :func:`ports_of` names them, :class:`Flat` puts them in a row.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.errors import ExportError, printable


@dataclass(frozen=True)
class Port:
    """One tensor: its name in the file, and shape and type (``float32``) in the example."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"

    @property
    def is_picture(self) -> bool:
        """True if it is (N, C, H, W)."""
        return len(self.shape) == 4


@dataclass(frozen=True)
class Ports:
    """All tensors that go in and come out, in order. ``plain``: for one tensor, the generator gives one."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    plain: bool = True

    @property
    def input_names(self) -> list[str]:
        return [port.name for port in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return [port.name for port in self.outputs]


SINGLE = Ports((Port("input"),), (Port("output"),))
"""Of a generator from one picture to one."""


class Flat(nn.Module):
    """``generator`` with its outputs in a row: a tensor, or a tuple of tensors."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = tuple(tensor for _, tensor in named_tensors(self.generator(*inputs)))
        return found if len(found) > 1 else found[0]


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers and dataclasses, each behind the keys and numbers that lead to it."""
    if isinstance(value, Tensor):
        yield name, value
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Mapping)):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    elif isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    for key, item in value.items() if isinstance(value, Mapping) else ():
        yield from named_tensors(item, f"{name}_{key}" if name else str(key))


@torch.no_grad()
def ports_of(generator: nn.Module, inputs: tuple[Tensor, ...]) -> Ports:
    """Run ``generator`` on ``inputs`` and name both ends.

    One input is called ``input``, several as the arguments of ``forward``; one output is called ``output``,
    several by their keys or, where they have none, by number.

    Raises:
        ExportError: it does not run on them, or returns no tensor.
    """
    try:
        result = generator(*inputs)
    except Exception as error:  # user code may raise anything
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ExportError(
            f"{type(generator).__name__} does not run on {shapes}: {printable(str(error))[:200]}; "
            "pass example=, a tensor or a tuple of all that it takes"
        ) from error
    found = list(named_tensors(result))
    if not found:
        raise ExportError(
            f"{type(generator).__name__} returns {type(result).__name__} without a tensor; export takes "
            "generators that return tensors, also in tuples, lists and dictionaries"
        )
    taken: list[str] = []
    entrances = ["input"] if len(inputs) == 1 else _arguments(generator, len(inputs))
    exits = ["output"] if len(found) == 1 else [name for name, _ in found]
    incoming = [_port(_free(name, "input", taken), tensor) for name, tensor in zip(entrances, inputs)]
    outgoing = [_port(_free(name, "output", taken), tensor) for name, (_, tensor) in zip(exits, found)]
    return Ports(tuple(incoming), tuple(outgoing), isinstance(result, Tensor) and len(inputs) == 1)


def _arguments(generator: nn.Module, count: int) -> list[str]:
    """Names of the first ``count`` arguments of ``forward``."""
    names: list[str] = []
    for parameter in inspect.signature(generator.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(count - len(names))]
        names.append(parameter.name)
    return names[:count]


def _free(name: str, end: str, taken: list[str]) -> str:
    """``name`` as every runtime takes it, and as no other is called."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    name = f"{end}_{name}" if not name or name[0].isdigit() or name in taken else name
    while name in taken:
        name += "_"
    taken.append(name)
    return name


def _port(name: str, tensor: Tensor) -> Port:
    return Port(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
