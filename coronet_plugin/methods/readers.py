"""Modules that read a generator's features, and lose the inputs that it loses.

CUT's projector is one: layers applied to sampled features, trained by an optimizer of its own. To a search
its first layers are readers of channels like any other: a gate that closes a channel closes it for them, so
that a removal changes nothing of what they put out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from coronet_plugin.channels.cut import (
    readers,
    replace_in_optimizer_,
    restore_sizes_,
    scale_,
    slim_,
    update_optimizer_,
)
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.methods.events import Events, Remaining
from coronet_plugin.wrappers import unwrap


class Readers(Events):
    """Lets ``modules`` follow the generator, and with them their :attr:`optimizers`."""

    name = "readers"
    required = True

    def __init__(self, modules: Sequence[nn.Module], plan: ChannelPlan) -> None:
        """Raises OptionError where ``plan``, the generator's, was made without the ``modules``."""
        if plan.readers is None:
            raise OptionError("the shared goal was made without the readers; give them to shared_goal, too")
        self.modules = nn.ModuleList(unwrap(module) for module in modules)
        self.optimizers: Sequence[torch.optim.Optimizer] = ()
        """Of the modules; looked at when they are cut, so that it may grow."""
        self._dense, self._units = plan.readers, plan.units
        self._sizes = {name: [*tensor.shape] for name, tensor in self.modules.state_dict().items()}
        """Of the tensors before any cut."""
        self._kept = np.ones(self._units, dtype=bool)
        self._closed = np.zeros(self._units, dtype=bool)
        self._look_at(self._dense)

    def _look_at(self, present: ChannelPlan) -> None:
        self._present, self._where = present, readers(present)
        self._parameters = dict(self.modules.named_parameters())

    def gated(self, plan: ChannelPlan, factor: np.ndarray) -> None:
        self._closed = factor == 0
        scale_(self._parameters, self._where, factor)

    def after_step(self, step: int) -> None:
        if self._closed.any():  # moments move what a gate closed
            scale_(self._parameters, self._where, np.where(self._closed, 0.0, 1.0))

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        """Lose the inputs that the generator lost; become as it is where it is about to be loaded."""
        alive = _units_in(plan)
        if (alive <= self._kept).all():
            before, parameters = self._present, self._parameters
            replaced = slim_(self.modules, before, alive)
            for optimizer in self.optimizers:
                update_optimizer_(optimizer, parameters, replaced, before, alive)
        else:
            replaced = restore_sizes_(self.modules, self._dense, alive)
            for optimizer in self.optimizers:
                replace_in_optimizer_(optimizer, replaced)
        self._kept = alive
        self._look_at(self._dense.without(~alive))

    def state_dict(self) -> dict[str, Any]:
        return {"closed": torch.from_numpy(self._closed), "sizes": self._sizes}

    def check(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError where ``state`` is of other readers, before anything is changed for it."""
        saved = state.get("sizes", self._sizes)  # a state written before lacks them
        if saved != self._sizes:
            name = next(n for n in (*saved, *self._sizes) if saved.get(n) != self._sizes.get(n))
            sizes = [shapes.get(name, "missing") for shapes in (saved, self._sizes)]
            raise CheckpointError(
                f"the saved readers are not these: {name} is {sizes[0]} there and {sizes[1]} "
                "here; continue with what made them in the first run (CUT: --netF, --netF_nc, --nce_layers)"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._closed = state["closed"].numpy() if state else np.zeros(self._units, dtype=bool)


def _units_in(plan: ChannelPlan) -> np.ndarray:
    """Units of which a tensor of ``plan`` still has entries, bool ``(units,)``."""
    left = np.zeros(plan.units + 1, dtype=bool)  # the last entry answers for PINNED
    for axes in plan.slices.values():
        for units in axes.values():
            left[units] = True
    return left[:-1]
