"""Compress one generator while it trains, in any training loop.

::

    compression = Compression(generator, example, budget=0.1, search_steps=2000).attach(optimizer)
    ...
        optimizer.step()
        if compression.step():      # proximal step; True when the search is over
            compression.slim()
    compression.save("latest_net_G.pth")

The generator stays a plain module throughout: wrappers, hooks, deepcopy, export and data
parallelism see nothing unusual. How channels are chosen is in :mod:`coronet_plugin.methods`, how many
may stay at each step in :mod:`coronet_plugin.budget.goal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.budget.budget import LATENCY, Budget, JointPlan, meter_of
from coronet_plugin.budget.goal import Goal
from coronet_plugin.budget.latency_table import Clock, LatencyTable
from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.cut import slim_, update_optimizer_
from coronet_plugin.channels.find import find_channels
from coronet_plugin.channels.propagation import Runner, call
from coronet_plugin.checkpoint.spec import COMPACT, SEARCH, Spec
from coronet_plugin.checkpoint.storage import save_generator
from coronet_plugin.distributed import agreed, broadcast_, world_size
from coronet_plugin.errors import CheckpointError, OptionError, PlanError
from coronet_plugin.methods import CORONET, EXACT, default_schedule, make_search
from coronet_plugin.methods.base import Subject
from coronet_plugin.versions import versions

WORTHWHILE = 0.1
"""Fraction of the generator's multiply-adds that a removal during the search saves at least."""


class Compression:
    """The search, the budget and the cut of one generator.

    Args:
        generator: any module with convolutions; it is changed in place.
        example: an input ``(N, C, H, W)`` at the size to count MACs for, or a tuple.
        budget: a fraction of the dense cost (``0.1``), a count (``"2.6G"``) or a time (``"20ms"``).
        kind: what the budget is about: ``"macs"`` (true multiply-adds), ``"params"``, or ``"latency"`` of
            one image on this machine's CPU, measured once per layer
            (:mod:`coronet_plugin.budget.latency_table`).
        runtime: for a latency, ``"torch"`` or ``"onnxruntime"``.
        search_steps: optimizer steps until the budget is met.
        method: ``"coronet"``, or a baseline: ``"uniform"``, ``"random"``, ``"magnitude"``.
        hypernetwork: of the method ``coronet``: ``"exact"`` (:mod:`coronet_plugin.methods.exact`),
            ``"published"`` or ``"folded"`` (:mod:`coronet_plugin.methods.hypernetwork`); the last two replace
            the generator's weights by generated ones at once.
        embedding: embedding size of the published form.
        schedule: how the cost falls, one of :data:`~coronet_plugin.budget.goal.SCHEDULES`; the published
            and the folded form can also shrink ``"steady"``, by equal amounts, and do by default.
        round_to: widths in the end are multiples of this many channels.
        widths: end with exactly these widths, in channels by the names of the sets, instead of a budget.
        gradual: remove dead channels for good already during the search, whenever that saves enough
            (:data:`WORTHWHILE`), so that steps get cheaper as it goes; the exact form alone can. Parameters
            are then replaced during the search: after a step that did, ``resized`` is true, and
            DistributedDataParallel has to be wrapped again. By default, unless training is distributed.
        keep_weights: begin with the weights the generator has, to the last bit; the exact form and the
            baselines always do.
        run: how the generator is run, as for :func:`~coronet_plugin.channels.find.find_channels`.
        architecture: what the spec says of the generator; see :class:`~coronet_plugin.checkpoint.spec.Spec`.

    Raises:
        BudgetError: the budget cannot be read or reached.
        PlanError: the generator does not run, or none of its channels can be removed.
        OptionError: another argument is out of range.
    """

    def __init__(
        self,
        generator: nn.Module,
        example: Any,
        *,
        search_steps: int,
        budget: str | float = 0.1,
        kind: str = "macs",
        runtime: str = "torch",
        method: str = CORONET,
        hypernetwork: str = EXACT,
        embedding: int = 8,
        schedule: str = "",
        round_to: int = 1,
        widths: Mapping[str, int] | None = None,
        gradual: bool | None = None,
        keep_weights: bool = False,
        run: Runner = call,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        if search_steps < 1:
            raise OptionError(f"the search must last at least one step, not {search_steps}")
        self.generator = generator
        self.inputs = example if isinstance(example, tuple) else (example,)
        self.architecture = dict(architecture or {"class": type(generator).__name__})
        self.plan = find_channels(generator, self.inputs, run)
        self.budget = Budget.parse(budget if widths is None else 1.0, kind)
        self.latencies: LatencyTable | None = None
        if kind == LATENCY:
            measured = LatencyTable.measure(generator, self.plan, self.inputs, run, Clock(runtime))
            self.latencies = LatencyTable(**agreed(measured.as_dict()))  # times differ, decisions must not
        self.method = method if method != CORONET else hypernetwork
        self.phase = SEARCH
        self.steps = 0
        self.gradual = world_size() == 1 if gradual is None else gradual
        self.resized = False
        """Whether the last step replaced parameters of the generator."""
        self._present = self.plan
        self._looked_at = self.plan.units
        self._kept = np.ones(self.plan.units, dtype=bool)
        schedule = schedule or default_schedule(method, hypernetwork)
        self.goal = Goal([self.plan], self.budget, self.meter, schedule, round_to)
        if widths is not None:
            self.goal.fix_widths_(self.plan.units_for(widths))
        self._check_possible()
        subject = Subject(generator, self.inputs, self.plan)
        self.search = make_search(subject, self.goal, search_steps, method, hypernetwork, embedding)
        self._host: torch.optim.Optimizer | None = None
        self._hook: Any = None
        self._stepped = False
        if keep_weights:
            self.search.adopt_weights_()
        self.search.write_weights_()

    def _check_possible(self) -> None:
        if self.goal.target < self.goal.dense and not self.plan.units:
            reasons = "; ".join(f"{s.name}: {s.pinned}" for s in self.plan.sets[:3] if s.pinned)
            raise PlanError(
                f"no channel of {type(self.generator).__name__} can be removed ({reasons}); "
                "'coronet inspect' shows all reasons"
            )

    def adopt_weights_(self) -> None:
        """Go on from the weights the generator has now, to the last bit."""
        self.search.adopt_weights_()

    def refresh_(self) -> None:
        """Agree with the generator and with other processes, after a host loaded or moved networks."""
        if self.phase == SEARCH:
            self.search.write_weights_()
            self.search.synchronise_()

    def meter(self, alive: np.ndarray | None = None) -> float:
        """Cost of the units ``alive`` in the unit of the budget."""
        if self.latencies is not None:
            return self.latencies.predict(self.plan, alive)
        return meter_of(self.plan, self.budget.kind)(alive)

    # -- training --------------------------------------------------------
    def attach(self, optimizer: torch.optim.Optimizer) -> Compression:
        """Search in step with ``optimizer``, which holds the generator.

        Its learning rate, with any schedule, is followed at every step. Parameters that are not
        generated (biases, norms) stay with ``optimizer``. Returns this object.

        In a distributed training (:mod:`torch.distributed`) every process begins with the search of the
        first; gradients averaged by DistributedDataParallel keep them equal.

        Raises:
            OptionError: the optimizer does not hold the generator's weights.
        """
        held = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
        parameters = dict(self.generator.named_parameters())
        weights = [parameters[name] for name in self.plan.kernels()]
        if any(id(weight) not in held for weight in weights):
            raise OptionError("the optimizer does not hold the generator's weights; attach the one that does")
        self._host = optimizer
        self.search.attach(optimizer, held[id(weights[0])] if weights else 0)
        self._hook = optimizer.register_step_pre_hook(self._take_gradients)
        return self

    def _take_gradients(self, *_: Any) -> None:
        self._stepped = True
        if self.phase == SEARCH:
            self.search.take_gradients()

    def step(self) -> bool:
        """After the optimizer's step: the search's own, with its proximal step.

        Returns True when the search is over and the generator waits for :meth:`slim`.
        Does nothing in the compact phase, or if the optimizer did not step.
        """
        self.resized = False
        if self.phase == COMPACT:
            return False
        if self._host is None:
            raise OptionError("attach(optimizer) comes before step()")
        if self._stepped:
            self._stepped = False
            self.steps += 1
            self.search.advance(self.steps)
            self._remove_dead()
        return self.finished

    def _remove_dead(self) -> None:
        """Remove what is dead already now, if nothing is lost and it is worth the trouble."""
        if not (self.gradual and self.search.lossless):
            return
        alive = self.search.alive()
        count = int(alive.sum())
        if count == self._looked_at or count == int(self._kept.sum()):
            return
        self._looked_at = count
        if self.plan.cost(alive).macs <= (1 - WORTHWHILE) * self.plan.cost(self._kept).macs:
            self._remove(alive)

    # -- how much is left ------------------------------------------------
    @property
    def finished(self) -> bool:
        """True when the search has lasted as long as asked and slimming is due."""
        return self.phase == SEARCH and self.steps >= self.search.steps

    def alive(self) -> np.ndarray:
        """Units that still work, ``(units,)``."""
        return self._kept if self.phase == COMPACT else self.search.alive()

    def cost(self) -> Cost:
        """Cost of what is alive."""
        return self.plan.cost(self.alive())

    @property
    def remaining(self) -> float:
        """Fraction of the dense cost that is alive, in what the budget is about."""
        return self.meter(self.alive()) / self.meter()

    @property
    def width(self) -> float:
        """Fraction of the prunable channels that is alive."""
        alive = self.alive()
        kept = sum(s.channels * alive[s.slice].sum() / s.units for s in self.plan.prunable)
        return float(kept) / max(1, sum(s.channels for s in self.plan.prunable))

    # -- the cut ---------------------------------------------------------
    def slim(self) -> nn.Module:
        """Remove channels for good so that the budget is met, and return the generator.

        The generator is made smaller in place. The optimizer keeps its groups, its schedule and what it
        knows of the weights that stay. In a distributed training, wrap the generator in
        DistributedDataParallel again.
        """
        if self.phase == SEARCH:
            device = next(self.generator.parameters()).device
            decided = torch.from_numpy(self.search.chosen().astype(np.uint8)).to(device)
            broadcast_([decided])
            self._make_compact(decided.cpu().numpy().astype(bool))
        return self.generator

    def _make_compact(self, alive: np.ndarray) -> None:
        self._remove(alive)
        self.search.release_()
        self.phase = COMPACT
        if self._hook is not None:
            self._hook.remove()

    def _remove(self, alive: np.ndarray) -> None:
        """Remove all units but ``alive`` from the generator and from what its optimizer knows."""
        parameters, before = dict(self.generator.named_parameters()), self._present
        replaced = slim_(self.generator, before, alive)
        self._kept = alive
        self._present = self.plan.without(~alive)
        self.resized = True
        self.search.follow_(self._present)
        if self._host is not None:
            update_optimizer_(self._host, parameters, replaced, before, alive)

    # -- saving ----------------------------------------------------------
    def spec(self, options: Mapping[str, Any] | None = None) -> Spec:
        """What is to be known of the generator as it is now."""
        return Spec(
            phase=self.phase,
            architecture=self.architecture,
            input_size=[list(x.shape[1:]) for x in self.inputs if isinstance(x, Tensor)],
            budget={"kind": self.budget.kind, "requested": self.budget.text, "target": self.goal.target},
            dense=self.plan.cost().as_dict(),
            slim=self.plan.cost(self._kept).as_dict(),
            sets=self.plan.sets_as_dicts(self._kept),
            tensors={name: list(t.shape) for name, t in self.generator.state_dict().items()},
            widths=self.plan.module_widths(self._kept),
            search={
                "steps": self.steps,
                "of": self.search.steps,
                "method": self.method,
                "schedule": self.goal.schedule,
            },
            options=dict(options or {}),
            versions=versions(),
        )

    def save(self, path: str | Path, options: Mapping[str, Any] | None = None) -> None:
        """Write the generator's state_dict to ``path`` and its spec beside it."""
        save_generator(self.generator, path, self.spec(options))

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal continuation needs, besides the generator and the host's optimizer."""
        state: dict[str, Any] = {
            "phase": self.phase,
            "steps": self.steps,
            "kept": torch.from_numpy(self._kept),
        }
        if self.phase == SEARCH:
            state["search"] = {"method": self.method, **self.search.state_dict()}
        if self.latencies is not None:
            state["latencies"] = self.latencies.as_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``. In the compact phase the generator is made small; load its weights after.

        Raises:
            CheckpointError: the state is of a generator with other channel sets.
        """
        kept = state["kept"].numpy()
        if kept.shape != self._kept.shape:
            raise CheckpointError(
                f"the saved search has {len(kept)} latents, this generator {len(self._kept)}; "
                "continue with the options of the first run (--netG, --ngf)"
            )
        self.steps = int(state["steps"])
        if state["phase"] == COMPACT:
            if self.phase == SEARCH:
                self._make_compact(kept)
            elif not np.array_equal(kept, self._kept):
                raise CheckpointError(
                    "the saved generator has other widths; continue with the --coronet_budget and "
                    "--coronet_method of the first run"
                )
            return
        if not kept.all():
            self._remove(kept)
        if "latencies" in state and self.latencies is not None:
            self.latencies = LatencyTable(**state["latencies"])
        if state["search"]["method"] != self.method:
            raise CheckpointError(
                f"the saved search is {state['search']['method']}, this one {self.method}; continue with the "
                "--coronet_method and --coronet_hypernetwork of the first run"
            )
        self.search.load_state_dict(state["search"])


def share_budget(
    compressions: Sequence[Compression], budget: str | float, kind: str = "macs", round_to: int = 1
) -> None:
    """Give several generators one budget for what they cost together, instead of one each.

    Their searches then compete for it. All must be attached to the same steps, as CycleGAN's are.

    Raises:
        BudgetError: the budget cannot be read or reached.
        OptionError: a generator's own budget is of another kind.
    """
    if any(compression.budget.kind != kind for compression in compressions):
        raise OptionError(
            f"the shared budget is about {kind}, a generator's own is not; choose one kind for all"
        )
    joint, parsed = JointPlan([c.plan for c in compressions]), Budget.parse(budget, kind)

    def meter(alive: np.ndarray | None) -> float:
        return sum(c.meter(part) for c, part in zip(compressions, joint.split(alive)))

    goal = Goal(joint.plans, parsed, meter, compressions[0].goal.schedule, round_to)
    for compression in compressions:
        compression.budget = parsed
        compression.goal = compression.search.goal = goal
        goal.members.append(compression.search)
