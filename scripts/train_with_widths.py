"""train.py with two methods that narrow channel sets unequally: does it pay at equal multiply-adds?

    python scripts/train_with_widths.py --dataroot ... --model coronet --coronet_method gates_taylor

``gates`` compares units by their rank in their own set, so that all sets narrow alike. ``gates_taylor`` asks
how wide one threshold for importance per multiply-add would leave each set; ``gates_probed`` how much the
output changes, per multiply-add, when a part of one set's units is closed. Either way a set becomes at most
:data:`CAP` times as wide or as narrow as alike. Options are those of train.py.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from coronet_plugin.budget.widths import Widths, choose_alive  # noqa: E402
from coronet_plugin.channels.cut import scale_  # noqa: E402
from coronet_plugin.methods.base import Task  # noqa: E402
from coronet_plugin.methods.events import Events  # noqa: E402
from coronet_plugin.methods.gates import ROUNDS, WARM_UP, Gates  # noqa: E402
from coronet_plugin.methods.registry import method  # noqa: E402

CAP = 2.0
"""How many times as wide as alike a set may become, or as narrow."""
PROBES = 8
"""Steps whose inputs sets are probed on, spread over the warm-up."""
CLOSED = 0.25
"""Part of a set's units, the least important, that a probe closes."""


class Unequal(Gates):
    """Gates whose sets have factors ``(sets,)`` of their width."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self.factors = np.ones(len(self.plan.prunable))

    def score(self) -> np.ndarray:
        """Rank in the set as in ``gates``, stretched so that a threshold leaves factor times as much."""
        score = super().score()
        for channel_set, factor in zip(self.plan.prunable, self.factors):
            score[channel_set.slice] = 1 - (1 - score[channel_set.slice]) / factor
        return score

    def saved(self) -> np.ndarray:
        """Cost of the last of each set's units, ``(sets,)``, where nothing is removed."""
        whole = self.goal.meter(None)
        found = []
        for channel_set in self.plan.prunable:
            alive = np.ones(self.plan.units, dtype=bool)
            alive[channel_set.start] = False
            found.append(whole - self.goal.meter(alive))
        return np.maximum(np.array(found), 1e-12)


@method("gates_taylor", "gates; widths by one threshold for importance per multiply-add")
class ByTaylor(Unequal):
    """Eq. (8) of Molchanov et al., CVPR 2019 (arXiv 1906.10771), over a unit's cost, for all sets at once."""

    def after_step(self, step: int) -> None:
        if step >= WARM_UP * self.steps and step % max(1, self.steps // ROUNDS) == 0 and step <= self.steps:
            self.factors = self._found()
        super().after_step(step)

    def _found(self) -> np.ndarray:
        cost = np.concatenate([np.full(s.units, c) for s, c in zip(self.plan.prunable, self.saved())])
        importance = self.importance[:-1].double().cpu().numpy()
        target = self.goal.target / self.goal.dense * self.goal.meter(None)
        rank = np.concatenate([(np.arange(s.units) + 1) / s.units for s in self.plan.prunable])
        per_cost = np.log(importance + 1e-30) - np.log(cost)
        by_cost, alike = (
            choose_alive(self.plan, score, self.goal.meter, target, Widths.of(self.plan))
            for score in (per_cost, rank)
        )
        ratio = [by_cost[s.slice].sum() / alike[s.slice].sum() for s in self.plan.prunable]
        return np.clip(ratio, 1 / CAP, CAP)


class Inputs(Events):
    """Keeps what the generator was run on in the steps that are probed."""

    name = "inputs"

    def __init__(self, wanted: range) -> None:
        self.wanted, self.last, self.step = wanted, (), 0

    def before_step(self, step: int) -> None:
        self.step = step

    def extra_loss(self, inputs: tuple[Any, ...], output: Any, features: Mapping[str, Tensor]) -> None:
        self.last = tuple(each.detach() for each in inputs) if self.step in self.wanted else ()


@method("gates_probed", "gates; widths by how much closing a part of one set changes the output")
class ByProbing(Unequal):
    """A factor: the root of a set's change of the output per multiply-add, over the geometric mean of all."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        end = max(2, round(WARM_UP * self.steps))
        self.inputs_seen = Inputs(range(max(1, end - PROBES), end))
        self.change = np.zeros(len(self.plan.prunable))

    def companions(self) -> list[Events]:
        return [self.inputs_seen]

    def after_step(self, step: int) -> None:
        if step in self.inputs_seen.wanted and self.inputs_seen.last:
            self.change += self._probed(self.inputs_seen.last)
            closed = CLOSED * np.array([s.units for s in self.plan.prunable])
            sensitivity = np.sqrt(self.change / (closed * self.saved()))
            sensitivity = np.maximum(sensitivity, 1e-6 * sensitivity.max())
            self.factors = np.clip(sensitivity / np.exp(np.log(sensitivity).mean()), 1 / CAP, CAP)
        super().after_step(step)

    @torch.no_grad()
    def _probed(self, inputs: tuple[Tensor, ...]) -> np.ndarray:
        """Mean squared change of the output for each set, relative to the output's variance."""
        twin: nn.Module = copy.deepcopy(self.generator)
        parameters = dict(twin.named_parameters())
        expected, found = _run(twin, inputs), []
        for channel_set in self.plan.prunable:
            factor = np.ones(self.plan.units)
            order = channel_set.start + self.importance[:-1].cpu().numpy()[channel_set.slice].argsort()
            factor[order[: max(1, round(CLOSED * channel_set.units))]] = 0
            for name, weight in self.generator.named_parameters():
                parameters[name].copy_(weight)
            scale_(parameters, self._readers, factor)
            found.append(float((_run(twin, inputs) - expected).square().mean() / expected.var()))
        return np.array(found)


def _run(generator: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Its output with the random numbers, such as dropout's, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return generator(*inputs)


if __name__ == "__main__":
    sys.exit(train.main())
