"""Tell those who take part in a training what happens to its generator, by the hooks that this needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import narrowed
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.events import Events, overrides


class Listening:
    """Calls events of ``parts`` while ``generator`` trains.

    ``step``: number of optimizer steps made so far; ``scaled``: makes of a loss what the host makes of its.

    Raises:
        OptionError: one of the ``parts`` wants features of a module that is not there.
    """

    def __init__(
        self,
        generator: nn.Module,
        parts: Sequence[Events],
        step: Callable[[], int],
        scaled: Callable[[Tensor], Tensor],
    ) -> None:
        self._step, self._scaled = step, scaled
        self._early = [part for part in parts if overrides(part, "before_step")]
        self._losing = [part for part in parts if overrides(part, "extra_loss")]
        self._narrowing = [part for part in parts if overrides(part, "runs_with")]
        self.names = [part.name for part in parts if part in (*self._early, *self._losing, *self._narrowing)]
        """Of those of ``parts`` that take part in the generator's runs."""
        self._narrow: list[AbstractContextManager[None]] = []
        self._features: dict[str, Tensor] = {}
        self._units: np.ndarray | None = None
        self._began = self._first = self._waiting = False
        self._any = False
        """Whether the generator is run on what other networks made alone: seen of a step without a loss."""
        self._handles: list[Any] = []
        if self._early or self._losing or self._narrowing:
            self._handles.append(generator.register_forward_pre_hook(_Hook(self._before)))
        if self._narrowing:
            self._handles.append(generator.register_forward_hook(_Hook(self._widen), always_call=True))
        for name in {name: None for part in self._losing for name in part.taps}:
            self._handles.append(submodule(generator, name).register_forward_hook(_Hook(self._keep(name))))
        if self._losing:
            self._handles.append(generator.register_forward_hook(_Hook(self._after)))

    def next_step(self) -> None:
        """The next run of the generator is the first of a step."""
        self._any = self._any or (self._began and self._waiting)
        self._began = self._first = False

    def stop(self) -> None:
        """Call no more events."""
        for handle in self._handles:
            handle.remove()

    def _before(self, generator: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not generator.training or not torch.is_grad_enabled():
            return
        if not self._began:
            self._began = self._waiting = True
            self._begin_step()
        # a loss on what another generator made would reach that one, too
        given = not any(x.requires_grad for x in tensors_in(inputs))
        self._first = self._waiting and (given or self._any)
        self._waiting = self._waiting and not self._first
        if self._units is not None:
            self._narrow.append(narrowed(generator, self._narrowing[0].plan, self._units))
            self._narrow[-1].__enter__()

    def _begin_step(self) -> None:
        step = self._step() + 1
        for part in self._early:
            part.before_step(step)
        for part in self._narrowing:
            self._units = part.runs_with(step)

    def _widen(self, *_: Any) -> None:
        if self._narrow:
            self._narrow.pop().__exit__(None, None, None)

    def _keep(self, name: str) -> Callable[..., None]:
        def keep(_: nn.Module, inputs: Any, output: Any) -> None:
            if self._first and isinstance(output, Tensor):
                self._features[name] = output

        return keep

    def _after(self, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add the gradients of extra losses to those that come back through output and features."""
        if not self._first:
            return
        self._first = False
        features, self._features = self._features, {}
        for part in self._losing:
            tapped = {name: features[name] for name in part.taps if name in features}
            leaves = {id(x): _leaf(x) for x in tensors_in((output, *tapped.values()))}
            given = copy.deepcopy(output, dict(leaves))
            with torch.enable_grad():
                loss = part.extra_loss(inputs, given, {name: leaves[id(x)] for name, x in tapped.items()})
            if loss is None:
                continue
            self._scaled(loss).backward()
            for x in tensors_in((output, *tapped.values())):
                extra = leaves[id(x)].grad
                if extra is not None and x.requires_grad:
                    x.register_hook(_adding(extra))
                    leaves[id(x)].grad = None  # it may be an output and a feature


def _leaf(x: Tensor) -> Tensor:
    """The values of ``x`` in single precision at least: an extra loss is computed without autocast."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()


def _adding(extra: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient + extra.to(gradient.dtype)


def submodule(generator: nn.Module, name: str) -> nn.Module:
    """The module ``name``. Raises OptionError if there is none."""
    try:
        return generator.get_submodule(name)
    except AttributeError as error:
        known = ", ".join([each for each, _ in generator.named_modules() if each][:6])
        raise OptionError(
            f"{type(generator).__name__} has no layer {name!r} to take features from; it has {known}, ..."
        ) from error


class _Hook:
    """A hook of the generator itself: copies of the generator do not have it."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> None:
        self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_no_hook, ())


def _no_hook() -> Callable[..., None]:
    """Stand in for the hook in a copy of the generator, in memory or in a file."""
    return _nothing


def _nothing(*_: Any) -> None:
    pass
