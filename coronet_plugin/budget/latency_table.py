"""Predict how long a narrower generator takes, from a table measured once.

Every convolution is timed alone at a grid of input and output widths, at the size its input has in the
generator; what the layers do not account for (norms, activations, padding) is taken from one timing
of the whole and goes with the number of values the layers put out. Between widths of the grid the
prediction is linear. Times are of one image on the CPU, wherever the generator lies, in evaluation mode,
in eager PyTorch or in ONNX Runtime: medians, on one thread unless told otherwise.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import copy_with, on_device
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.channels.propagation import Runner, call, tensors_in
from coronet_plugin.errors import OptionError
from coronet_plugin.measure.onnx import open_session, write_by_tracing
from coronet_plugin.measure.timing import inference, time_call

FRACTIONS = (0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)
"""Widths of the grid, as fractions of the dense width."""

Prepare = Callable[[nn.Module, "tuple[Any, ...]", int], Callable[[], Any]]
"""Makes of a module, its inputs and a number of threads what is timed."""


def _torch(module: nn.Module, inputs: tuple[Any, ...], threads: int) -> Callable[[], Any]:
    return partial(module, *inputs)


def _onnxruntime(module: nn.Module, inputs: tuple[Any, ...], threads: int) -> Callable[[], Any]:
    file = io.BytesIO()
    try:
        write_by_tracing(module, inputs, file)
        session = open_session(file.getvalue(), threads)
    except ImportError as error:
        raise OptionError(
            "--coronet_latency_runtime onnxruntime needs two packages: pip install onnx onnxruntime"
        ) from error
    feed = {given.name: x.numpy() for given, x in zip(session.get_inputs(), inputs)}
    return partial(session.run, None, feed)


RUNTIMES: dict[str, Prepare] = {"torch": _torch, "onnxruntime": _onnxruntime}


@dataclass(frozen=True)
class Clock:
    """Times modules on the CPU in a runtime.

    ``now``: reads seconds, see :func:`~coronet_plugin.measure.timing.time_call`.

    Raises:
        OptionError: there is no such runtime.
    """

    runtime: str = "torch"
    threads: int = 1
    now: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            known = ", ".join(RUNTIMES)
            raise OptionError(f"runtime {self.runtime!r} does not exist; choose one of {known}")

    def ms(self, module: nn.Module, inputs: tuple[Any, ...]) -> float:
        """Median time of ``module(*inputs)`` in milliseconds.

        The module and its inputs are on the CPU; the module is left as it was.

        Raises:
            OptionError: the runtime is not installed.
        """
        with inference(module):
            run = RUNTIMES[self.runtime](module, inputs, self.threads)
            return time_call(run, self.threads, self.now).median_ms


ONE_THREAD = Clock()
"""Eager PyTorch on one thread."""


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds by layer and width.

    ``layers``: per call of the plan, the widths in, the widths out and ``ms[i][j]``; None for a layer that
    is not timed alone. ``rest_ms``: everything else of the dense generator.
    """

    layers: list[dict[str, list[Any]] | None]
    rest_ms: float
    threads: int

    @classmethod
    def measure(
        cls,
        generator: nn.Module,
        plan: ChannelPlan,
        inputs: tuple[Any, ...],
        run: Runner = call,
        clock: Clock = ONE_THREAD,
    ) -> LatencyTable:
        """Time ``generator`` as a whole and its layers, on the CPU wherever it lies; it is left as it was.

        Raises:
            OptionError: the clock's runtime is not installed.
        """
        copied, inputs = copy_with(generator).cpu(), on_device(inputs, "cpu")
        whole = clock.ms(copied, inputs)
        layers = list(_grids(copied, plan, _shapes_of(copied, inputs, run), clock))
        timed = sum(layer["ms"][-1][-1] for layer in layers if layer)
        return cls(layers, max(0.0, whole - timed), clock.threads)

    def predict(self, plan: ChannelPlan, alive: np.ndarray | None = None) -> float:
        """Milliseconds of one image when only the units ``alive`` (bool, ``(units,)``) remain."""
        total, values, dense_values = 0.0, 0, 0
        for layer_call, layer in zip(plan.calls, self.layers):
            shape = plan.shape_of(layer_call, alive)
            inputs, outputs = shape[layer_call.axis_in], shape[layer_call.axis_out]
            values += outputs * layer_call.positions_literature
            dense_values += layer_call.weight_shape[layer_call.axis_out] * layer_call.positions_literature
            if layer is not None:
                by_output = [np.interp(outputs, layer["outputs"], row) for row in layer["ms"]]
                total += float(np.interp(inputs, layer["inputs"], by_output))
        return total + self.rest_ms * values / max(1, dense_values)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LatencyMeter:
    """Predicts the milliseconds of one image of the living units of ``plan`` from its ``table``."""

    plan: ChannelPlan
    table: LatencyTable

    def __call__(self, alive: np.ndarray | None = None) -> float:
        return self.table.predict(self.plan, alive)


def _shapes_of(
    generator: nn.Module, inputs: tuple[Any, ...], run: Runner
) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the inputs of every convolution, by module name, in the order of its runs."""
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def remember(name: str) -> Callable[..., None]:
        return lambda module, given: shapes.setdefault(name, []).append(tuple(next(tensors_in(given)).shape))

    hooks = [
        module.register_forward_pre_hook(remember(name))
        for name, module in generator.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    try:
        with inference(generator):
            run(generator, *inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _grids(
    generator: nn.Module, plan: ChannelPlan, shapes: Mapping[str, list[tuple[int, ...]]], clock: Clock
) -> Iterator[dict[str, list[Any]] | None]:
    """The grid of every call of the plan; layers that are alike are timed once."""
    modules = dict(generator.named_modules())
    remaining = {name: list(given) for name, given in shapes.items()}
    found: dict[tuple[Any, ...], dict[str, list[Any]]] = {}
    for layer_call in plan.calls:
        layer, given = modules.get(layer_call.module), remaining.get(layer_call.module)
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) or layer.groups != 1 or not given:
            yield None
            continue
        shape = given.pop(0) if len(given) > 1 else given[0]
        key = (type(layer), layer.extra_repr(), shape)
        if key not in found:
            found[key] = _grid(layer, shape, clock)
        yield found[key]


def _grid(layer: nn.Module, shape: tuple[int, ...], clock: Clock) -> dict[str, list[Any]]:
    """Times of ``layer`` on an input of ``shape`` ``(N, C, H, W)`` at widths of the grid."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    transposed = isinstance(layer, nn.ConvTranspose2d)
    dense = weight.shape[:2] if transposed else (weight.shape[1], weight.shape[0])
    inputs, outputs = (sorted({max(1, round(f * width)) for f in FRACTIONS}) for width in dense)
    ms = []
    for width_in in inputs:
        x = torch.rand(1, width_in, *shape[2:], dtype=weight.dtype)
        ms.append([clock.ms(_narrowed(layer, width_in, width_out), (x,)) for width_out in outputs])
    return {"inputs": inputs, "outputs": outputs, "ms": ms}


def _narrowed(layer: nn.Module, width_in: int, width_out: int) -> nn.Module:
    """A copy of a convolution with its first channels alone."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    transposed = isinstance(layer, nn.ConvTranspose2d)
    rows, columns = (width_in, width_out) if transposed else (width_out, width_in)
    values: dict[Tensor, Tensor] = {weight: weight.detach()[:rows, :columns].contiguous()}
    if isinstance(layer.bias, Tensor):
        values[layer.bias] = layer.bias.detach()[:width_out].contiguous()
    return copy_with(layer, values)
