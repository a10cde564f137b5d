"""The baseline of chance: the search by gates, with random numbers in place of importance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from coronet_plugin.methods.base import Task
from coronet_plugin.methods.gates import Gates
from coronet_plugin.methods.registry import method


@method("random", "chance decides which channels go")
class Random(Gates):
    """The search by gates, but chance decides who is given up."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self._lots = torch.rand(self.plan.units, dtype=torch.float64)

    def gradients(self) -> None:
        pass

    def score(self) -> np.ndarray:
        return torch.where(self._shrinkage == 0, self._lots, -torch.inf).numpy()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lots": self._lots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._lots = state["lots"].clone()
