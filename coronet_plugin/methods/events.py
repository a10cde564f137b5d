"""Take part in the training of one generator: the events that every method and every companion may use.

In the order in which they come::

    begin            once, when the optimizer is known
    before_step      before the generator's first forward pass of every step
    runs_with        then: the units with which it runs in this step
    extra_loss       after that pass: a loss from its inputs, its output and named intermediate features
    gradients        before the optimizer steps: all gradients are there
    after_step       after the optimizer has stepped
    narrowing        the generator is dense for the last time
    gated            the method multiplied what reads each channel
    resized          parameters were replaced by smaller ones
    finish           the search is over, the generator is cut; may give another module to go on with

Methods (:mod:`coronet_plugin.methods.base`) choose channels besides; companions, such as averaged weights or
rounding to int8, go with any method. What is not overridden costs nothing: a generator has no hooks
unless one who takes part asks for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.plan import ChannelPlan

Remaining = Callable[[str, Tensor], Tensor]


class Events:
    """Does nothing at any event; to be inherited from."""

    name: ClassVar[str] = ""
    """Under which its state is saved."""
    generator: nn.Module
    """Set before :meth:`begin`, and again when another module takes its place."""
    plan: ChannelPlan
    """Of the dense generator; set with it."""
    inputs: tuple[Any, ...]
    """An example of what the generator is run on; set with it."""
    architecture: Mapping[str, Any]
    """Of the generator, as in its spec; set with it."""
    required: ClassVar[bool] = False
    """Whether a training that had it cannot go on without it, nor one without it with it."""
    taps: Sequence[str] = ()
    """Names of modules of the generator whose outputs :meth:`extra_loss` is given."""

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        """``optimizer`` holds the generator's weights in its parameter group number ``group``."""

    def before_step(self, step: int) -> None:
        """Optimizer step number ``step`` (from 1) comes, and the generator is about to run for it."""

    def runs_with(self, step: int) -> np.ndarray | None:
        """Units ``(units,)`` with which the generator runs in step number ``step``, as if cut to them.

        Its parameters stay, and get the gradients. None: with all it has. In a training the method alone
        says it.
        """
        return None

    def extra_loss(
        self, inputs: tuple[Any, ...], output: Any, features: Mapping[str, Tensor]
    ) -> Tensor | None:
        """A loss to be minimised besides the host's, a scalar, or None.

        ``inputs`` and ``output``: of the generator's first run of the step on what no other network made
        (in CycleGAN: on real pictures), or of the first if there is none; ``features``: outputs of
        :attr:`taps` in it. They are leaves: the loss reaches the generator through them alone, and
        parameters of one's own get their gradients too.
        """
        return None

    def gradients(self) -> None:
        """The optimizer is about to step."""

    def after_step(self, step: int) -> None:
        """Optimizer step number ``step`` (from 1) was made."""

    def narrowing(self, step: int) -> None:
        """After ``step`` steps the method is about to take something from the dense generator.

        It may come more than once, and comes again when a saved training is put back.
        """

    def gated(self, plan: ChannelPlan, factor: np.ndarray) -> None:
        """Readers of each unit of ``plan`` were multiplied by its ``factor`` ``(units,)``, by no gradient."""

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        """The generator's parameters were replaced by others, of which ``plan`` speaks.

        ``remaining(name, tensor)``: what stays of a tensor that goes with the parameter or buffer ``name``;
        None when the generator became another one, or is about to be loaded.
        """

    def finish(self) -> nn.Module | None:
        """The search is over and the generator is cut: let go of memory.

        Returns a module to go on with instead, the generator itself if it became another one, or None.
        """
        return None

    @contextlib.contextmanager
    def in_files(self) -> Iterator[Mapping[str, Any]]:
        """While this lasts, the generator has the weights that files get; gives entries for its spec."""
        yield {}

    def versions(self) -> Mapping[str, AbstractContextManager[Any]]:
        """Further versions of the generator to be saved, by what their files are called besides.

        While one is entered, the generator has its weights.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal continuation needs, besides the generator and its optimizer."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; an empty one is that of before the first step.

        Raises:
            CheckpointError: it is of another training.
        """


def overrides(events: Events, name: str) -> bool:
    """True if ``events`` does anything at the event ``name``."""
    return getattr(type(events), name) is not getattr(Events, name)
