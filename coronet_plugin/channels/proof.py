"""The proof of a plan: slim and masked generator compute the same.

A plan is tried on a copy of the generator with *random* parameters and statistics
(a gate that starts at zero would hide everything behind it, equal statistics every
wrong slice), on random input and random masks. A failure in single precision is
tried again in double before it counts. Nothing is used that fails; the channel set
that is to blame is found by bisection and pinned.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import copy_with, masked, slim
from coronet_plugin.channels.facts import Runner, call, tensors_in
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import PlanError, describe
from coronet_plugin.wrappers import unwrap

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest relative difference that is rounding, by precision; 0.05 for others."""
GAINS = (1.0, 0.2)
"""Of the random weights, one trial each: strong signals show what is deep, weak ones what saturates."""
ELSE = "computes something else"
"""How the failure of a generator that runs begins."""
QUICK = 2e9
"""MACs below which there are three rounds of trials: what happens to be dead in one shows in another."""


def verify(generator: nn.Module, plan: ChannelPlan, example: Any, seed: int = 0, run: Runner = call) -> float:
    """Check that removing channels computes what ignoring them does.

    ``example`` and ``run``: as for :func:`~coronet_plugin.channels.find.find_channels`.

    Returns the largest difference relative to the largest output.

    Raises:
        PlanError: the outputs differ or the slim generator does not run; names the layer to blame.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    worst = 0.0
    for conditions in _trials(plan, run, seed):
        found, failure, examiner = _examine(unwrap(generator), plan, inputs, conditions)
        worst = max(worst, found)
        if failure:
            name, why = examiner.culprit(plan, failure)
            raise PlanError(
                f"the channel sets of {type(generator).__name__} are not used: without some of the channels "
                f"of layer {name!r} the generator {why}"
            )
    return worst


def prove(
    generator: nn.Module,
    plan: ChannelPlan,
    inputs: tuple[Any, ...],
    run: Runner = call,
    approximate: bool = False,
) -> ChannelPlan:
    """``plan`` with every set pinned that fails :func:`verify`.

    ``approximate``: one of which all channels are read at once need not compute the same, only run.
    """
    begun: ChannelPlan | None = None
    while plan.units and plan is not begun:  # what is pinned last must not have excused another
        begun = plan
        for number, conditions in enumerate(_trials(plan, run)):
            first = plan
            plan = _without_failures(generator, plan, inputs, conditions, approximate)
            if number == 0 and plan is not first:
                begun = plan  # nothing else has been tried yet
    return plan


def _without_failures(
    generator: nn.Module,
    plan: ChannelPlan,
    inputs: tuple[Any, ...],
    conditions: Conditions,
    approximate: bool,
) -> ChannelPlan:
    """``plan`` with every set pinned, or called approximate, that fails one trial."""
    _, failure, examiner = _examine(generator, plan, inputs, conditions)
    running = right = 0  # so many sets, of the first, can lose channels and it still does
    while failure:
        name, why = examiner.culprit(plan, failure, right if failure.startswith(ELSE) else running)
        running = [s.name for s in plan.prunable].index(name)
        right = running if why.startswith(ELSE) else min(right, running)
        reason = f"without some of its channels the generator {why}"
        (blamed,) = (s for s in plan.prunable if s.name == name)
        excused = approximate and why.startswith(ELSE) and plan.mixed(blamed)
        plan = plan.mark(name, reason) if excused else plan.pin(name, reason)
        failure = examiner.without_units(plan, plan.units)[1] if plan.units else ""
    return plan


def _trials(plan: ChannelPlan, run: Runner, seed: int = 0) -> list[Conditions]:
    gains = GAINS * (3 if plan.cost().macs < QUICK else 1)
    return [Conditions(run, seed + number, gain) for number, gain in enumerate(gains)]


def _examine(
    generator: nn.Module, plan: ChannelPlan, inputs: tuple[Any, ...], conditions: Conditions
) -> tuple[float, str, Examiner]:
    """Largest relative difference, what went wrong ("" for nothing), and what found it."""
    found, failure, examiner = _first_that_runs(generator, plan, inputs, conditions)
    if failure.startswith(ELSE):
        with suppress(PlanError):  # a generator may not take double precision
            exact = replace(conditions, dtype=torch.float64)
            found, failure, examiner = _first_that_runs(generator, plan, inputs, exact)
    return found, failure, examiner


@dataclass(frozen=True)
class Conditions:
    """How a trial runs: the runner, seed and gain of what is random, the precision (None: as it is)."""

    run: Runner
    seed: int
    gain: float
    dtype: torch.dtype | None = None


def _first_that_runs(
    generator: nn.Module, plan: ChannelPlan, inputs: tuple[Any, ...], conditions: Conditions
) -> tuple[float, str, Examiner]:
    """Try the plan on random input, or on ``inputs`` if the generator does not take that."""
    copied = _randomised(generator, conditions.seed, conditions.gain)
    copied = copied if conditions.dtype is None else copied.to(conditions.dtype)
    reason: DoesNotRun | None = None
    for values in (tuple(_noise(value, conditions.seed) for value in inputs), inputs):
        examiner = Examiner(copied, tuple(_cast(value, conditions.dtype) for value in values), conditions)
        try:
            return (*examiner.without_units(plan, plan.units), examiner)
        except DoesNotRun as error:
            reason = error
    raise PlanError(f"the generator {type(copied).__name__} does not run: {reason}") from reason


class DoesNotRun(Exception):
    """The full-size generator does not take an input."""


@dataclass(frozen=True)
class Examiner:
    """A copy of the generator with random parameters, and inputs, on which plans are tried."""

    generator: nn.Module
    inputs: tuple[Any, ...]
    conditions: Conditions

    def without_units(self, plan: ChannelPlan, end: int) -> tuple[float, str]:
        """Relative difference of slim and masked generator, and what went wrong ("" for nothing).

        The mask is random; units from ``end`` on stay.
        """
        alive = self._mask(plan, end)
        if any(s.approximate for s in plan.prunable):
            _, failure = self._slim_output(plan, alive)
            if failure:
                return np.inf, failure
            for channel_set in plan.prunable:  # what the others compute is seen without these
                alive[channel_set.slice] |= channel_set.approximate is not None
        try:
            reference = self._output(masked(self.generator, plan, alive))
        except Exception as error:  # user code may raise anything
            raise DoesNotRun(describe(error)) from error
        smaller, failure = self._slim_output(plan, alive)
        if failure:
            return np.inf, failure
        found = relative_difference(smaller, reference)
        if found <= TOLERANCES.get(reference[0].dtype, 0.05):
            return found, ""
        return found, f"{ELSE} (relative difference {found:.2g})"

    def culprit(self, plan: ChannelPlan, why: str, good: int = 0) -> tuple[str, str]:
        """Name of the set with which removal begins to fail, and how; ``why``: how it fails in the end.

        Removing from the first ``good`` sets is known to work.

        Raises:
            PlanError: it fails without any removal: the generator gives other output each time.
        """
        if not good and self._fails(plan, 0, why):
            raise PlanError(
                f"the generator {type(self.generator).__name__} gives another output for the same input "
                "each time, so that no channel set of it can be checked"
            )
        sets = plan.prunable
        low, high = good, len(sets)  # removing from the first ``low`` sets works, from ``high`` it fails
        while high - low > 1:
            middle = (low + high) // 2
            failure = self._fails(plan, sets[middle].start, why)
            low, high, why = (low, middle, failure) if failure else (middle, high, why)
        return sets[low].name, why

    def _fails(self, plan: ChannelPlan, end: int, why: str) -> str:
        """Find out what is wrong without units before ``end``; whether it runs, without the masked one."""
        if why.startswith(ELSE):
            return self.without_units(plan, end)[1]
        return self._slim_output(plan, self._mask(plan, end))[1]

    def _mask(self, plan: ChannelPlan, end: int) -> np.ndarray:
        alive = random_mask(plan, self.conditions.seed)
        alive[end:] = True
        return alive

    def _slim_output(self, plan: ChannelPlan, alive: np.ndarray) -> tuple[list[Tensor], str]:
        try:
            return self._output(slim(self.generator, plan, alive)), ""
        except Exception as error:  # user code may raise anything
            return [], f"does not run: {describe(error)}"

    @torch.no_grad()
    def _output(self, generator: nn.Module) -> list[Tensor]:
        """All tensors that ``generator`` returns, with the same random numbers each time."""
        inputs = copy.deepcopy(self.inputs)  # a forward may write into them
        with _seeded(self.conditions.seed, next(tensors_in(inputs), None)):
            return [t.detach().clone() for t in tensors_in(self.conditions.run(generator, *inputs))]


def random_mask(plan: ChannelPlan, seed: int) -> np.ndarray:
    """Living units, bool ``(units,)``: each set keeps another random share, and at least one.

    What one keeps does not depend on the others.
    """
    alive = np.ones(plan.units, dtype=bool)
    for channel_set in plan.prunable:
        random = np.random.default_rng([seed, zlib.crc32(channel_set.name.encode())])
        kept = random.random(channel_set.units) < random.uniform(0.2, 0.8)
        kept[random.integers(channel_set.units)] = True
        if kept.all():
            kept[random.integers(channel_set.units)] = channel_set.units == 1
        alive[channel_set.slice] = kept
    return alive


def _randomised(generator: nn.Module, seed: int, gain: float) -> nn.Module:
    """A copy in eval mode with random numbers for all that is learned or measured.

    Weights get standard deviation ``gain * sqrt(2 / fan in)``: at gain one, deep layers matter
    as much as shallow ones.
    """
    random = torch.Generator().manual_seed(seed)
    values: dict[Tensor, Tensor] = {}
    for tensor in [*generator.parameters(), *generator.buffers()]:
        if not tensor.is_floating_point():
            continue
        old = tensor.detach()
        if isinstance(tensor, nn.Parameter) and old.ndim > 1:
            spread = gain * math.sqrt(2 * len(old) / max(1, old.numel()))
            values[tensor] = (torch.randn(old.shape, generator=random) * spread).to(old)
        else:  # a variance must stay positive
            noise = torch.rand(old.shape, generator=random) * 0.5
            values[tensor] = old + noise.to(old)
    return copy_with(generator, values).eval()


def _noise(value: Any, seed: int) -> Any:
    """Random numbers in [-1, 1] in place of a floating-point tensor; anything else as it is."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(seed))
    return (noise * 2 - 1).to(value)


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    if dtype is not None and isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value


@contextmanager
def _seeded(seed: int, example: Tensor | None) -> Iterator[None]:
    devices = [example.device] if example is not None and example.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def relative_difference(first: list[Tensor], second: list[Tensor]) -> float:
    """Largest difference relative to the largest value of the second; infinite for other shapes."""
    if [t.shape for t in first] != [t.shape for t in second]:
        return np.inf
    worst = 0.0
    for a, b in zip(first, second):
        scale = float(b.double().abs().max()) if b.numel() else 0.0
        gap = float((a.double() - b.double()).abs().max()) if b.numel() else 0.0
        worst = max(worst, gap / scale if scale else (np.inf if gap else 0.0))
    return worst
