"""Distillation: a teacher's outputs and features pull at the generator's, whatever the host's losses are.

The one mechanism of all methods that have a teacher. The gradient of the differences
(:mod:`coronet_plugin.methods.similarity`) is added to what comes back through the generator's output and
its *taps*, modules whose outputs are compared; no host's loss is touched. Features of a student go through
learned maps (:mod:`coronet_plugin.methods.feature_maps`), so that they may be of other channels than the
teacher's.

The random state is kept around the teacher, so that a training whose teacher weighs nothing is bit-equal to
one without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import copy_with, restore_sizes_
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.channels.find import find_taps, units_of_features
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.generators.registry import is_registered, read_architecture
from coronet_plugin.methods.events import Events, Remaining
from coronet_plugin.methods.feature_maps import Maps
from coronet_plugin.methods.similarity import Terms, whole
from coronet_plugin.methods.teacher import Teacher, matching_widths

SELF = "SELF"
"""In place of a teacher: the generator itself, as it was when it began to be narrowed."""
PUBLISHED = Terms(features=1.0)
"""GAN Compression's, with pairs; without, ``Terms(features=0.01, output=10.0)``."""


class Distillation(Events):
    """Let a generator learn from a teacher beside the host's losses; goes with any method.

    ``teacher``: a module of the same taps, of which a copy is kept; :data:`SELF` for the generator itself at
    the moment when it begins to be narrowed; or None, for one that a method gives with :meth:`teach_`. It
    may be wider. ``taps``: names of modules; by default those of the generator's family, else where its
    widest-used stream of features stands at four places (:func:`~coronet_plugin.channels.find.find_taps`).

    Raises:
        OptionError: when the training begins: the teacher is another kind of generator, a tap is not
            there, or the method narrows the generator before there is anything to learn from it.
    """

    name = "distillation"
    required = True

    def __init__(
        self,
        teacher: nn.Module | str | None = SELF,
        terms: Terms = PUBLISHED,
        taps: Sequence[str] = (),
    ) -> None:
        if isinstance(teacher, str) and teacher != SELF:
            raise OptionError(
                f"the teacher {teacher!r} is a text; give {SELF}, or a module such as load_generator(path)"
            )
        self.terms = terms
        self.teacher: Teacher | None = None
        self.maps: Maps | None = None
        self.alive: np.ndarray | None = None
        """Units ``(units,)`` with which the generator runs in this step, set by a method that says so."""
        self._of_itself = teacher == SELF
        self._given = copy_with(teacher) if isinstance(teacher, nn.Module) else None
        self._asked = tuple(taps)
        self._units: dict[str, np.ndarray] = {}
        self._dense: ChannelPlan | None = None
        self._scale = torch.ones(())

    # -- before the first step -------------------------------------------
    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        self._host, self._group = optimizer, group
        self._look_at_()
        if self._given is not None:
            self.teach_(self._given)

    def _look_at_(self) -> None:
        """Find the taps of the dense generator, and the units of their channels."""
        self._dense = self._present = self.plan
        if self.terms.need_features:
            given = (self.architecture, self.generator, self.plan, self.inputs)
            asked = self._asked or taps_for(*given)
            self._units = units_of_features(self.generator, self.plan, self.inputs, asked)
        self.taps = tuple(self._units)

    def learn_from(self, teacher: nn.Module) -> None:
        """Have this teacher, of which a copy is kept; before the training begins."""
        self._given = copy_with(teacher)

    def teach_(self, module: nn.Module) -> None:
        """Learn from ``module``, which is kept and not trained any more, from the next step on.

        Raises:
            OptionError: it takes other inputs or gives other outputs and features than the generator.
        """
        widths = matching_widths(module, self.taps, self.generator, self.inputs)
        self.teacher = Teacher(module, self.taps)
        self._map_(widths)

    def _map_(self, widths: Mapping[str, int]) -> None:
        self.maps = Maps(self._units, widths)
        self.maps.begin(self._host, self._group, next(self.generator.parameters()))

    def narrowing(self, step: int) -> None:
        if not self._of_itself or self.teacher is not None:
            return
        if not step:
            raise OptionError(
                "the generator is narrow from the first step on and cannot teach itself; choose another "
                "--coronet_method, or a trained dense run as the teacher (--coronet_distill RUN)"
            )
        self.teacher = Teacher(copy_with(self.generator), self.taps)
        self._map_({name: len(units) for name, units in self._units.items()})

    # -- every step ------------------------------------------------------
    def extra_loss(
        self, inputs: tuple[Any, ...], output: Any, features: Mapping[str, Tensor]
    ) -> Tensor | None:
        if self.teacher is None or self.maps is None:
            return None
        wanted, known = self.teacher(inputs)
        self.maps.forget_gradients()
        with torch.autocast(next(tensors_in(inputs)).device.type, enabled=False):
            loss = self.terms.loss(
                ([*map(whole, tensors_in(output))], [*map(whole, tensors_in(wanted))]),
                (
                    [self.maps(name, whole(x), self.alive) for name, x in features.items()],
                    [whole(known[name]) for name in features],
                ),
            )
        if not loss.requires_grad:
            return None
        loss.register_hook(self._note_scale)
        return loss

    def _note_scale(self, gradient: Tensor) -> None:
        self._scale = gradient.detach()  # it is what the host multiplies its losses by

    def gradients(self) -> None:
        if self.maps is not None:
            self.maps.step(self._scale)

    # -- channels go -----------------------------------------------------
    def gated(self, plan: ChannelPlan, factor: np.ndarray) -> None:
        if self.maps is not None:
            self.maps.scale_(factor)

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        if self._dense is not None and plan.sets is not self._dense.sets:  # another generator
            self._look_at_()
            if self.teacher is not None:
                self.teach_(self.teacher.module)
        elif self.maps is not None and remaining is not None:
            self.maps.follow_(plan)
        self._present = plan

    # -- saving ----------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        if self.teacher is None or self.maps is None:
            return {}
        saved = self.teacher.tensors() if self._given is None else self.teacher.fingerprint
        return {"teacher": saved, "widths": self.maps.widths, **self.maps.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if not state:
            if self._given is None:
                self.teacher = self.maps = None
            return
        if self._given is None:
            self._restore_(state)
        assert self.teacher is not None and self.maps is not None
        if self._given is not None and self.teacher.fingerprint != state["teacher"]:
            raise CheckpointError(
                "the teacher is not the one of the saved training; continue with the --coronet_distill of "
                "the first run, and with the weights it had"
            )
        self._map_(self.maps.widths)
        self.maps.follow_(self._present)
        self.maps.load_state_dict(state)

    def _restore_(self, state: Mapping[str, Any]) -> None:
        """Have the teacher that was saved: the dense generator with its tensors then."""
        if self.teacher is None:
            module = copy_with(self.generator)
            assert self._dense is not None
            restore_sizes_(module, self._dense, np.ones(self._dense.units, dtype=bool))
            self.teacher = Teacher(module, self.taps)
        try:
            self.teacher.module.load_state_dict(state["teacher"])
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(
                "the saved teacher is not this generator; continue with the --coronet_distill of the first "
                "run"
            ) from error
        self._map_(state["widths"])


def taps_for(
    architecture: Mapping[str, Any], generator: nn.Module, plan: ChannelPlan, inputs: tuple[Any, ...]
) -> tuple[str, ...]:
    """The taps of the family that a spec's ``architecture`` names, else those found in the ``generator``.

    Raises:
        OptionError: no family names any, and none are found.
    """
    if is_registered(architecture):
        family, config = read_architecture(architecture)
        taps = family.taps(config)
        if taps:
            return taps
    return find_taps(generator, plan, inputs)
