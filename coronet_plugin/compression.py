"""Compress one generator while it trains, in any training loop.

::

    compression = Compression(generator, example, budget=0.1, search_steps=2000).attach(optimizer)
    ...
        optimizer.step()
        if compression.step():      # proximal step; True when the search is over
            compression.slim()
    compression.save("latest_net_G.pth")

The generator stays a plain module throughout: wrappers, deepcopy, export and data parallelism see nothing
unusual. How channels are chosen is in :mod:`coronet_plugin.methods`, how many may stay at each step in
:mod:`coronet_plugin.budget.goal`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.budget.goal import STEADY, Share
from coronet_plugin.budget.latency_meter import LatencyMeter
from coronet_plugin.budget.latency_table import LatencyTable
from coronet_plugin.budget.shared import shared_goal
from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.cut import (
    copy_with,
    on_device,
    replace_in_optimizer_,
    restore_sizes_,
    sliced,
    slim_,
    update_optimizer_,
)
from coronet_plugin.channels.facts import Runner, call, tensors_in
from coronet_plugin.channels.find import EXACT, find_channels
from coronet_plugin.channels.joint import beside
from coronet_plugin.channels.proof import relative_difference
from coronet_plugin.checkpoint.spec import COMPACT, SEARCH, Spec
from coronet_plugin.checkpoint.storage import save_generator, version_path
from coronet_plugin.distributed import agreed, say, world_size
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.files import together
from coronet_plugin.methods import Events, Method, Task
from coronet_plugin.methods.events import Remaining
from coronet_plugin.methods.listening import Listening
from coronet_plugin.methods.readers import Readers
from coronet_plugin.methods.registry import DEFAULT, configure, find, method_of, names
from coronet_plugin.methods.stepping import around_each_step
from coronet_plugin.versions import OLD_TORCH, versions
from coronet_plugin.wrappers import is_compiled, unwrap

WORTHWHILE = 0.1
"""Fraction of the generator's multiply-adds that a removal during the search saves at least."""
COMPILED = 0.35
"""The same of a generator that each removal has compiled anew: some five times on the way to 0.1."""


class Compression:
    """The search, the budget and the cut of one generator.

    Args:
        generator: any module with convolutions; it is changed in place. Of one in DataParallel,
            DistributedDataParallel or torch.compile, the module inside.
        example: an input ``(N, C, H, W)`` at the size to count MACs for, or a tuple.
        budget: a fraction of the dense cost (``0.1``), a count (``"2.6G"``) or a time (``"20ms"``).
        kind: what the budget is about: ``"macs"`` (true multiply-adds), ``"params"``, or ``"latency"`` of
            one image on one CPU thread. Candidates are timed whole, as they come
            (:mod:`coronet_plugin.budget.latency_meter`).
        runtime: for a latency, one of :data:`~coronet_plugin.budget.latency_meter.RUNTIMES`.
        table: for a latency, a file of times from another machine instead; nothing is timed here.
        goal: instead of a budget, this generator's share of one that several have
            (:func:`shared_goal`).
        search_steps: optimizer steps until the budget is met.
        method: a name (:func:`coronet_plugin.methods.names`), or a configuration of a method, such as
            ``methods.configure("published", embedding=4)``.
        companions: who else takes part in the training (:class:`~coronet_plugin.methods.events.Events`).
        schedule: how the cost falls, one of :data:`~coronet_plugin.budget.goal.SCHEDULES`; methods whose
            latents all shrink can also do so ``"steady"``, by equal amounts, and do by default.
        round_to: widths in the end are multiples of this many channels. By default 1, and for a latency
            such as suit the runtimes (:data:`~coronet_plugin.budget.widths.SUITS_RUNTIMES`).
        widths: end with exactly these widths, in channels by the names of the sets, instead of a budget.
        gradual: remove dead channels for good already during the search, whenever that saves enough
            (:attr:`worthwhile`), so that steps get cheaper as it goes; lossless methods alone can. Parameters
            are then replaced during the search: after a step that did, ``resized`` is true, and
            DistributedDataParallel has to be wrapped again. By default, unless training is distributed.
        prune_frozen: remove channels of frozen layers (``requires_grad`` off), too. By default every set that
            one makes or reads is pinned. Methods that generate no weights alone can.
        sets: ``"approximate"`` removes, too, channels whose removal changes what is computed
            (:func:`~coronet_plugin.channels.find.find_channels`); by how much is measured at the cut,
            printed, kept in :attr:`change` and written into the spec.
        keep_weights: begin with the weights the generator has, to the last bit; methods without generated
            weights always do.
        run: how the generator is run, as for :func:`~coronet_plugin.channels.find.find_channels`.
        readers: modules that read the generator's features, such as the projector of a contrastive loss.
            Their first layers lose the inputs that the generator loses, and the optimizers that
            :meth:`attach` is told of follow; they are run by ``run(generator, *readers, *inputs)``.
            Save and load them and their optimizers as the generator's.
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
        table: str = "",
        goal: Share | None = None,
        method: str | Any = DEFAULT,
        companions: Sequence[Events] = (),
        schedule: str = "",
        round_to: int | None = None,
        widths: Mapping[str, int] | None = None,
        gradual: bool | None = None,
        prune_frozen: bool = False,
        sets: str = EXACT,
        keep_weights: bool = False,
        run: Runner = call,
        readers: Sequence[nn.Module] = (),
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        if search_steps < 1:
            raise OptionError(f"the search must last at least one step, not {search_steps}")
        self.worthwhile = COMPILED if is_compiled(generator) else WORTHWHILE
        """Fraction of the generator's multiply-adds that a removal during the search saves at least."""
        self.generator = generator = unwrap(generator)
        self.inputs = example if isinstance(example, tuple) else (example,)
        self.architecture = dict(architecture or {"class": type(generator).__name__})
        self.config = configure(method) if isinstance(method, str) else method
        chosen = method_of(self.config)
        if prune_frozen and chosen.generates:
            raise OptionError(f"what is frozen is not generated: prune_frozen is not for {chosen.name}")
        schedule = schedule or chosen.schedule
        if goal is None:
            budget = budget if widths is None else 1.0
            options = (budget, kind, runtime, schedule, round_to)
            own = shared_goal(
                [generator],
                [self.inputs],
                *options,
                prune_frozen=prune_frozen,
                runs=[run],
                sets=sets,
                table=table,
                readers=[readers],
            )
            goal = own.shares[0]
        self.goal = goal
        self.plan = goal.plan
        if widths is not None:
            self.goal.goal.fix_widths_(self.plan.units_for(widths))
        self.phase = SEARCH
        self.steps = 0
        self.gradual = world_size() == 1 if gradual is None else gradual
        if any(s.approximate for s in self.plan.prunable):
            self.gradual = False  # one cut, whose change is measured
        self.run = beside(readers, run)
        self.change: float | None = None
        """By how much the cut of approximate sets changed the output on the example, of its largest value."""
        self.resized = False
        """Whether the last step replaced parameters of the generator."""
        self._search_steps = search_steps
        self._present = self.plan
        self._looked_at = self.plan.units
        self._kept = np.ones(self.plan.units, dtype=bool)
        self.dense = self.plan.cost()
        """Cost of the generator at full size."""
        self.optimizer: torch.optim.Optimizer | None = None
        """The host's, once it is attached."""
        self._group = 0
        self._stepped = False
        self._listening: Listening | None = None
        self.method = self._new_method()
        self.companions = {each.name: each for each in self.method.companions()}
        self._readers = Readers(readers, self.plan) if readers else None
        for companion in (*companions, *([self._readers] if self._readers else [])):
            if companion.name in self.companions:
                raise OptionError(
                    f"the method {self.method.name} brings its own {companion.name}; leave out what asks for "
                    "another, such as --coronet_distill"
                )
            self.companions[companion.name] = companion
        for companion in self.companions.values():
            companion.generator, companion.plan = generator, self.plan
            companion.inputs, companion.architecture = self.inputs, self.architecture
        if keep_weights:
            self.method.adopt_weights_()
        self.method.write_weights_()

    def _new_method(self) -> Method:
        task = Task(self.generator, self.inputs, self.plan, self.goal, self._search_steps)
        made = method_of(self.config)(task, self.config)
        if self.goal.schedule == STEADY and not made.steady:
            able = ", ".join(name for name in names() if find(name).steady)
            raise OptionError(f"the schedule {STEADY!r} is for {able} alone, whose latents all shrink")
        made.architecture = self.architecture
        made.narrows = self._narrows
        self.goal.method = made
        return made

    def _narrows(self) -> None:
        for companion in self.companions.values():
            companion.narrowing(self.steps)

    def adopt_weights_(self) -> None:
        """Go on from the weights the generator has now, to the last bit."""
        self.method.adopt_weights_()

    def refresh_(self) -> None:
        """Agree with the generator and with other processes, after a host loaded or moved networks."""
        if self.phase == SEARCH:
            self.method.write_weights_()
            self.method.synchronise_()

    # -- training --------------------------------------------------------
    def attach(
        self,
        optimizer: torch.optim.Optimizer,
        scaler: Any = None,
        readers: Sequence[torch.optim.Optimizer] = (),
    ) -> Compression:
        """Search in step with ``optimizer``, which holds the generator.

        Its learning rate, with any schedule, is followed at every step. Parameters that are not
        generated (biases, norms) stay with ``optimizer``. ``scaler``: the gradient scaler that multiplies
        the losses, if there is one (``torch.amp.GradScaler``). ``readers``: the optimizers that train the
        generator's readers, if others do; a list may grow later. A method that cuts before the training
        begins does it now. Returns this object.

        In a distributed training (:mod:`torch.distributed`) every process begins with the search of the
        first; gradients averaged by DistributedDataParallel keep them equal.

        Raises:
            OptionError: the optimizer does not hold all of the generator's weights but the frozen ones.
        """
        held = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
        parameters = dict(self.generator.named_parameters())
        weights = {n: parameters[n] for n in self.plan.kernels() if parameters[n].requires_grad}
        missing = [name for name, weight in weights.items() if id(weight) not in held]
        if missing:
            raise OptionError(
                f"the optimizer does not hold the generator's weights ({missing[0]}); attach the one that "
                "does, or freeze, before the compression is made, what is not trained: requires_grad_(False)"
            )
        self.optimizer, self._scaler = optimizer, scaler
        if self._readers is not None:
            self._readers.optimizers = [optimizer] if readers == () else readers
        self._group = min((held[id(weight)] for weight in weights.values()), default=0)
        for part in self._parts():
            part.begin(optimizer, self._group)
        around_each_step(optimizer, self._before_the_optimizer)
        self._listen()
        if self.finished:
            self.slim()
        return self

    def _parts(self) -> list[Events]:
        """Who takes part now, the method first."""
        return [*([self.method] if self.phase == SEARCH else []), *self.companions.values()]

    def _listen(self) -> None:
        if self._listening is not None:
            self._listening.stop()
        scaled = (lambda loss: loss) if self._scaler is None else self._scaler.scale
        self._listening = Listening(self.generator, self._parts(), lambda: self.steps, scaled)

    @property
    def in_runs(self) -> list[str]:
        """Names of those who take part in every run of the generator, by hooks."""
        return [] if self._listening is None else self._listening.names

    def _before_the_optimizer(self, *_: Any) -> None:
        self._stepped = True
        for part in self._parts():
            part.gradients()

    def step(self, skipped: bool = False) -> bool:
        """After the optimizer's step: the method's own, with its proximal step.

        Returns True when the search is over and the generator waits for :meth:`slim`.
        Does nothing if the optimizer did not step, unless that is to be counted as a step ``skipped`` by a
        gradient scaler, because the search has to end with a number of batches.
        """
        self.resized = False
        if self.optimizer is None or self._listening is None:
            raise OptionError("attach(optimizer) comes before step()")
        self._listening.next_step()
        if self._stepped or skipped:
            self._stepped = False
            self.steps += 1
            if self.phase == SEARCH:
                self._advance()
            for companion in self.companions.values():
                companion.after_step(self.steps)
            if self.phase == SEARCH:
                self._remove_dead()
        return self.finished

    def _advance(self) -> None:
        before = self.method.gates()
        self.method.after_step(self.steps)
        now = self.method.gates()
        if now is not before and not np.array_equal(now, before):
            factor = np.divide(now, before, out=np.zeros(len(now)), where=before != 0)
            for companion in self.companions.values():
                companion.gated(self._present, factor)

    def _remove_dead(self) -> None:
        """Remove what is dead already now, if nothing is lost and it is worth the trouble."""
        if not (self.gradual and self.method.lossless):
            return
        alive = self.method.alive()
        count = int(alive.sum())
        if count == self._looked_at or count == int(self._kept.sum()):
            return
        self._looked_at = count
        if self.plan.cost(alive).macs <= (1 - self.worthwhile) * self.plan.cost(self._kept).macs:
            self.remove_(alive)

    # -- how much is left ------------------------------------------------
    @property
    def finished(self) -> bool:
        """True when the search has lasted as long as asked and slimming is due."""
        return self.phase == SEARCH and self.steps >= self.method.steps

    def alive(self) -> np.ndarray:
        """Units that still work, ``(units,)``."""
        return self._kept if self.phase == COMPACT else self.method.alive()

    def cost(self) -> Cost:
        """Cost of what is alive."""
        return self.plan.cost(self.alive())

    @property
    def remaining(self) -> float:
        """Fraction of the dense cost that is alive, in what the budget is about."""
        return self.goal.meter(self.alive()) / self.goal.meter(None)

    @property
    def width(self) -> float:
        """Fraction of the prunable channels that is alive."""
        alive = self.alive()
        kept = sum(s.channels * alive[s.slice].sum() / s.units for s in self.plan.prunable)
        return float(kept) / max(1, sum(s.channels for s in self.plan.prunable))

    # -- the cut ---------------------------------------------------------
    def slim(self) -> nn.Module:
        """Remove channels for good so that the budget is met, and return the generator.

        The generator is made smaller in place, unless the method gives another one to go on with. The
        optimizer keeps its groups, its schedule and what it knows of the weights that stay. In a distributed
        training, wrap the generator in DistributedDataParallel again.
        """
        if self.phase == SEARCH:
            alive = agreed(self.method.chosen())
            promised = self.goal.promise(alive)
            if promised:
                asked = f"budget {self.goal.goal.budget.text}: {self.goal.target:.4g} ms"
                say(f"coronet: the generator is cut; {promised} ({asked})")
            self._make_compact(alive)
        return self.generator

    def _make_compact(self, alive: np.ndarray, measured: bool = True) -> None:
        before = self._output() if measured and self.plan.is_approximate(alive) else None
        self.remove_(alive)
        if before is not None:
            self.change = relative_difference(self._output(), before)
            say(
                "coronet: approximate channel sets were cut, which changed the output by "
                f"{self.change:.2%} of its largest value"
            )
        other = self.method.finish()
        self.phase = COMPACT
        if other is self.generator:
            self._now_has(alive, None)
        elif other is not None:
            self._go_on_with(other)
        for companion in self.companions.values():
            companion.finish()
        if self._listening is not None:
            self._listen()

    @torch.no_grad()
    def _output(self) -> list[Tensor]:
        """Run the generator on the example as a test does."""
        copied = copy_with(self.generator).eval()
        device = next(copied.parameters()).device
        return list(tensors_in(self.run(copied, *on_device(self.inputs, device))))

    def remove_(self, alive: np.ndarray) -> None:
        """Remove all units but ``alive`` from the generator and from what its optimizer knows."""
        if self._kept.all() and not alive.all():
            self._narrows()
        parameters, before = dict(self.generator.named_parameters()), self._present
        replaced = slim_(self.generator, before, alive)
        if self.optimizer is not None:
            update_optimizer_(self.optimizer, parameters, replaced, before, alive)
        self._now_has(alive, lambda name, tensor: sliced(tensor, before, name, alive))
        if OLD_TORCH and "torch._dynamo" in sys.modules:  # it would train what was replaced
            sys.modules["torch._dynamo"].reset()

    def _now_has(self, kept: np.ndarray, remaining: Remaining | None) -> None:
        self._kept = kept
        self._present = self.plan.without(~kept)
        self.resized = True
        for part in self._parts():
            part.resized(self._present, remaining)

    def _go_on_with(self, other: nn.Module) -> None:
        """Let ``other`` be the generator from now on: in the optimizer, and for whoever takes part.

        Raises:
            OptionError: there are readers, which were made for the features of the one before.
        """
        if self._readers is not None:
            raise OptionError(
                f"the method {self.method.name} goes on with another generator, whose features are not those "
                "that the readers were made for; choose another method, or train without readers"
            )
        if self.optimizer is not None:
            left = {id(p) for p in self.generator.parameters()}
            for group in self.optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in left]
            self.optimizer.param_groups[self._group]["params"] += list(other.parameters())
        self.generator = other
        self.plan = self._present = find_channels(other, self.inputs)
        for part in self._parts():
            part.generator, part.plan = other, self.plan
        self._kept = np.ones(self.plan.units, dtype=bool)
        for part in self._parts():
            part.resized(self._present, None)

    # -- saving ----------------------------------------------------------
    def spec(self, options: Mapping[str, Any] | None = None) -> Spec:
        """Describe the generator as it is now."""
        budget = self.goal.goal.budget
        return Spec(
            phase=self.phase,
            architecture=self.architecture,
            input_size=[list(x.shape[1:]) for x in self.inputs if isinstance(x, Tensor)],
            budget={"kind": budget.kind, "requested": budget.text, "target": self.goal.goal.target},
            dense=self.dense.as_dict(),
            slim=self.plan.cost(self._kept).as_dict(),
            sets=self.plan.sets_as_dicts(self._kept),
            tensors={name: list(t.shape) for name, t in self.generator.state_dict().items()},
            widths=self.plan.module_widths(self._kept),
            padded={name: p.as_dict() for name, p in self.plan.paddings(self._kept).items()},
            search={
                "steps": min(self.steps, self.method.steps),
                "of": self.method.steps,
                "method": self.method.name,
                "config": asdict(self.config),
                "schedule": self.goal.schedule,
                **({} if self.change is None else {"change": self.change}),
            },
            options=dict(options or {}),
            versions=versions(),
        )

    @contextlib.contextmanager
    def in_files(self, options: Mapping[str, Any] | None = None) -> Iterator[Spec]:
        """While this lasts, the generator has the weights that files get; gives their spec."""
        with contextlib.ExitStack() as stack:
            entries: dict[str, Any] = {}
            for companion in self.companions.values():
                entries |= stack.enter_context(companion.in_files())
            yield replace(self.spec(options), **entries)

    def save(self, path: str | Path, options: Mapping[str, Any] | None = None) -> None:
        """Write the generator's state_dict to ``path`` and its spec beside it; further versions as well."""
        with together():
            with self.in_files(options) as spec:
                save_generator(self.generator, path, spec)
            for companion in self.companions.values():
                for name, version in companion.versions().items():
                    with version, self.in_files(options) as spec:
                        save_generator(self.generator, version_path(path, name), spec)

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal continuation needs, besides the generator and the host's optimizer."""
        state: dict[str, Any] = {
            "phase": self.phase,
            "steps": self.steps,
            "kept": torch.from_numpy(self._kept),
            "companions": {name: each.state_dict() for name, each in self.companions.items()},
            "required": self._required(),
            "change": self.change,
        }
        if self.phase == SEARCH:
            state["search"] = {"method": self.method.name, **self.method.state_dict()}
        meter = self.goal.meter
        if isinstance(meter, LatencyMeter):
            state["latencies"] = meter.table.as_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, at any time: the generator gets the widths it had; load its weights after.

        Raises:
            CheckpointError: the state is of a generator with other channel sets, or of another method.
        """
        kept = state["kept"].numpy()
        if kept.shape != self._kept.shape:
            raise CheckpointError(
                f"the saved search has {len(kept)} latents, this generator {len(self._kept)}; "
                "continue with the options of the first run (--netG, --ngf, --coronet_prune_frozen)"
            )
        if list(state.get("required", [])) != self._required():
            differing = set(state.get("required", [])) ^ set(self._required())
            raise CheckpointError(
                f"one of the saved training and this one has {', '.join(sorted(differing))}, the other not; "
                "continue with the --coronet_method, --coronet_multipliers, --coronet_angle, "
                "--coronet_distill and readers of the first run"
            )
        if self._readers is not None:
            self._readers.check(state["companions"].get(Readers.name, {}))
        self.steps = int(state["steps"])
        if state["phase"] == COMPACT:
            if self.phase == SEARCH:
                self._make_compact(kept, measured=False)  # its weights are not loaded yet
                self.change = state.get("change")
            elif not np.array_equal(kept, self._kept):
                raise CheckpointError(
                    "the saved generator has other widths; continue with the --coronet_budget and "
                    "--coronet_method of the first run"
                )
        else:
            self._search_again(kept, state["search"])
        if "rows" in state.get("latencies", {}) and isinstance(self.goal.meter, LatencyMeter):
            self.goal.meter.go_on_with_(LatencyTable.of(state["latencies"]))
            self.goal.goal.weigh_()
        for name, companion in self.companions.items():
            companion.load_state_dict(state.get("companions", {}).get(name, {}))

    def _required(self) -> list[str]:
        return [name for name, companion in self.companions.items() if companion.required]

    def _search_again(self, kept: np.ndarray, state: Mapping[str, Any]) -> None:
        if find(state["method"]) is not type(self.method):
            raise CheckpointError(
                f"the saved search is {state['method']}, this one {self.method.name}; continue with the "
                "--coronet_method of the first run"
            )
        if self.phase == COMPACT:
            self.phase = SEARCH
            self.method = self._new_method()
        if not np.array_equal(kept, self._kept):
            replaced = restore_sizes_(self.generator, self.plan, kept)
            if self.optimizer is not None:
                replace_in_optimizer_(self.optimizer, replaced)
            self._now_has(kept, None)
        if self.optimizer is not None and self._listening is not None:
            self._listen()
        self.method.load_state_dict(state)
