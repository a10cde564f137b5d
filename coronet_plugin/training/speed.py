"""Train faster: mixed precision, channels last, compiled networks, fused optimizers; several batches a step.

Nothing of a host is changed but what its networks and optimizers do when they are called, so the same options
serve the bundled host's models and those of checkouts. A network's class gets :class:`Faster` in front, whose
``forward`` computes in the asked precision and compiled, and gives single precision back: losses, pictures,
pools and backward passes stay the host's, and copies, files and wrappers see the same network. Outside of
training steps (plans, proofs, what is watched) networks compute as ever.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.distributed import say
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.generated import can_fuse
from coronet_plugin.settings import setting, settings_of
from coronet_plugin.training import host
from coronet_plugin.versions import OLD_TORCH

BF16, FP16 = "bf16", "fp16"
PRECISIONS = {BF16: torch.bfloat16, FP16: torch.float16}
BACKEND = "inductor"
"""Compiler of graphs, by its name in torch."""
GRAPHS = 64
"""How many graphs of a network are kept compiled; torch gives up after eight."""


@dataclass(frozen=True)
class SpeedOptions:
    """Options of speed; every field is one. All are off by default: none has been measured on a GPU."""

    amp: str = setting(
        "",
        "compute networks in mixed precision, bf16 or fp16; losses and weights stay in single precision, and "
        "for fp16 losses are scaled (default: single precision alone)",
        choices=tuple(PRECISIONS),
    )
    channels_last: bool = setting(
        False, "keep images and convolutions in memory channels last, which tensor cores prefer"
    )
    compile: bool = setting(
        False,
        "compile all networks by torch.compile; the search then removes channels in fewer, larger steps, for "
        "each of which the generator is compiled anew",
    )
    fused: bool = setting(False, "let optimizers step in one fused pass over all parameters")
    accumulate: int = setting(
        1,
        "batches whose gradients are added up to their mean for one step of the optimizers (default: "
        "%(default)s)",
        metavar="BATCHES",
    )

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise OptionError(f"--accumulate must be at least 1, not {self.accumulate}")

    @classmethod
    def of(cls, opt: Any) -> SpeedOptions:
        """As the host's options have them, or with ``coronet_`` in front. Raises OptionError for bad ones."""
        values = {}
        for each in settings_of(cls):
            given = [
                host.option(opt, name, default=each.default) for name in (f"coronet_{each.name}", each.name)
            ]
            values[each.name] = next((value for value in given if value != each.default), each.default)
        return cls(**values)


class Faster:
    """In front of a network's class; see the module's text."""

    speed: Speed

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network in the asked precision during training steps; the output is in single precision."""
        return self.speed.run(self, super().forward, args, kwargs)  # type: ignore[misc]


class Speed:
    """How fast a host's ``model`` trains and tests.

    Raises:
        OptionError: what is asked for cannot be had here.
    """

    def __init__(self, model: Any, options: SpeedOptions) -> None:
        self.model, self.options = model, options
        self.graphs = 0
        """How many graphs were compiled, of all networks."""
        self.waiting = 0
        """Batches whose gradients wait for the next step."""
        self._active = not model.isTrain
        self._stepping = False
        self._asked: dict[int, bool] = {}
        """Whether the optimizers that were asked to step in the last batch did, by their ids."""
        self._governed: list[Any] = []
        self._compiled: dict[int, Callable[..., Any]] = {}
        self._device = torch.device(model.device).type
        self._check()
        self._scaler = _scaler(self._device) if options.amp == FP16 and model.isTrain else None

    def _check(self) -> None:
        options = self.options
        if options.compile and OLD_TORCH:
            raise OptionError(f"--compile needs torch 2.6 or newer, and this is {torch.__version__}")
        if options.compile and len(getattr(self.model, "gpu_ids", ())) > 1:
            raise OptionError(
                "--compile does not go with several GPUs in one process; start one each by torchrun"
            )
        if options.amp == BF16 and self._device == "cuda" and not _has_bf16():
            raise OptionError("--amp bf16: this GPU computes none; choose --amp fp16")
        if options.amp == FP16 and self._device != "cuda" and torch.__version__ < "2.3":
            raise OptionError("--amp fp16 needs a GPU, or torch 2.3 or newer; choose --amp bf16")

    # -- networks and optimizers -----------------------------------------
    def prepare_(self) -> None:
        """Make networks and optimizers ready, after they were made, replaced or loaded. In place."""
        options = self.options
        for name, network in host.networks(self.model).items():
            kind = next(each for each in type(network).__mro__ if not issubclass(each, Faster))
            if (options.amp or options.compile) and not isinstance(network, Faster):
                network.__class__ = type(kind.__name__, (Faster, kind), {"speed": self})
            if options.compile and id(network) not in self._compiled:
                self._compiled[id(network)] = self._compile(name, kind.forward)  # type: ignore[attr-defined]
            if options.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for optimizer in getattr(self.model, "optimizers", ()):
            if options.fused:
                _fuse_(optimizer)
            if options.channels_last:
                _align_(optimizer)
            self._govern_(optimizer)

    def _compile(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        for limit in ("recompile_limit", "cache_size_limit"):  # the former name, until torch 2.6
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, GRAPHS)
        compiler = torch._dynamo.lookup_backend(BACKEND)  # type: ignore[attr-defined]

        def backend(graph: Any, inputs: Any) -> Any:
            began = time.monotonic()
            compiled = compiler(graph, inputs)
            self.graphs += 1
            say(f"coronet: compiled net{name} in {time.monotonic() - began:.1f} s, graph {self.graphs}")
            return compiled

        return torch.compile(forward, backend=backend)

    def run(self, network: Any, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """``forward`` of ``network``: compiled and in mixed precision, if that is asked for now."""
        if not self._active:
            return forward(*args, **kwargs)
        compiled = self._compiled.get(id(network))
        act = forward if compiled is None else MethodType(compiled, network)
        if not self.options.amp:
            return act(*args, **kwargs)
        with torch.autocast(self._device, PRECISIONS[self.options.amp]):
            return _in_full(act(*args, **kwargs))

    # -- steps -----------------------------------------------------------
    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """While this lasts, a host's model makes its step with one batch."""
        if len(self._governed) != len(self.model.optimizers):  # CUT makes one in its first step
            self.prepare_()
        self._active, self._asked = True, {}
        backward = Tensor.backward
        try:
            if self._scaler is not None or self.options.accumulate > 1:
                Tensor.backward = self._scaled(backward)  # type: ignore[method-assign]
            yield
        finally:
            self._active = False
            Tensor.backward = backward  # type: ignore[method-assign]
        if self._scaler is not None and self._asked:
            self._scaler.update()
        self.waiting = (self.waiting + 1) % self.options.accumulate

    def skipped(self, optimizer: Any) -> bool:
        """Whether gradients overflowed in the last batch, and the scaler let ``optimizer`` make no step."""
        return self._scaler is not None and not self._asked.get(id(optimizer), True)

    def _scaled(self, backward: Callable[..., None]) -> Callable[..., None]:
        """``Tensor.backward`` of a host's losses: of their mean over the batches, and scaled for fp16."""

        def of_loss(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            if not self._stepping:  # what is computed within an optimizer's step has its gradients
                loss = loss / self.options.accumulate
                loss = loss if self._scaler is None else self._scaler.scale(loss)
            return backward(loss, *args, **kwargs)

        return of_loss

    def _govern_(self, optimizer: Any) -> None:
        """Let ``optimizer`` step when the last of the batches came, by the scaler if there is one."""
        if any(optimizer is known for known in self._governed):
            return
        self._governed.append(optimizer)
        if self._scaler is None and self.options.accumulate == 1:
            return
        # fused ones could free gradients of the scale themselves; methods have to see them free of it before
        optimizer._step_supports_amp_scaling = False
        plain_step, plain_zero = optimizer.step, optimizer.zero_grad

        @functools.wraps(plain_step)  # schedulers leave a mark on it
        def step(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            if self._stepping or not self._active:
                self._asked[id(optimizer)] = True
                return plain_step(*args, **kwargs)
            if self.waiting < self.options.accumulate - 1:
                return None
            self._stepping, self._asked[id(optimizer)] = True, False
            try:
                if self._scaler is None:
                    return plain_step(*args, **kwargs)
                return self._scaler.step(optimizer, *args, **kwargs)  # which calls this, or skips the step
            finally:
                self._stepping = False

        def zero_grad(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            if self.waiting == 0 or self._stepping or not self._active:
                plain_zero(*args, **kwargs)

        optimizer.step = MethodType(step, optimizer)
        optimizer.zero_grad = MethodType(zero_grad, optimizer)

    # -- saving ----------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """State for a bit-equal continuation: the scaler's, and gradients that wait for the next step."""
        state: dict[str, Any] = {"scaler": {} if self._scaler is None else self._scaler.state_dict()}
        if self.waiting:
            found = {key: p.grad for key, p in self._parameters() if p.grad is not None}
            state |= {"waiting": self.waiting, "gradients": {k: g.detach().cpu() for k, g in found.items()}}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, once networks and optimizers are loaded; makes them ready."""
        self.prepare_()
        if self._scaler is not None and state.get("scaler"):
            self._scaler.load_state_dict(state["scaler"])
        self.waiting = int(state.get("waiting", 0)) % self.options.accumulate
        gradients = state.get("gradients", {}) if self.waiting else {}
        for key, parameter in self._parameters():
            gradient = gradients.get(key)
            parameter.grad = None if gradient is None else torch.empty_like(parameter).copy_(gradient)

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        for i, optimizer in enumerate(self.model.optimizers):
            held = [p for group in optimizer.param_groups for p in group["params"]]
            yield from ((f"{i}.{j}", parameter) for j, parameter in enumerate(held))


def _has_bf16() -> bool:
    """Whether the GPU computes in bfloat16; torch emulates it on others, slower than single precision."""
    return bool(torch.version.hip) or torch.cuda.get_device_capability() >= (8, 0)


def _scaler(device: str) -> Any:
    kind = getattr(torch.amp, "GradScaler", None)  # from torch 2.3 on
    return kind(device) if kind else torch.cuda.amp.GradScaler()


def _in_full(output: Any) -> Any:
    """``output`` with its tensors of half precision in single precision."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype in PRECISIONS.values() else output
    if isinstance(output, (list, tuple)) and not hasattr(output, "_fields"):
        return type(output)(_in_full(each) for each in output)
    if isinstance(output, dict):
        return {key: _in_full(each) for key, each in output.items()}
    return output


def _fuse_(optimizer: Any) -> None:
    """Let ``optimizer`` step fused, whatever it knows already. Raises OptionError where it cannot."""
    name = type(optimizer).__name__
    if not can_fuse(optimizer):
        raise OptionError(
            f"--fused: {name} of torch {torch.__version__} has no fused steps here; leave it out"
        )
    for group in optimizer.param_groups:
        group.update(fused=True, foreach=False)
        for parameter in group["params"]:
            count = optimizer.state.get(parameter, {}).get("step")
            if isinstance(count, Tensor):
                optimizer.state[parameter]["step"] = count.to(parameter.device)


def _align_(optimizer: Any) -> None:
    """Let what ``optimizer`` knows of parameters lie in memory as they do."""
    for parameter, known in optimizer.state.items():
        for key, value in known.items():
            like = isinstance(value, Tensor) and value.shape == parameter.shape
            if like and value.stride() != parameter.stride():
                known[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def speed_of(model: nn.Module, opt: Any) -> Speed:
    """The speed that the options ``opt`` ask for, of a ``model`` that is set up."""
    speed = Speed(model, SpeedOptions.of(opt))
    speed.prepare_()
    return speed
