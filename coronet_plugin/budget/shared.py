"""From generators to a goal: find their channels, measure what they cost, and read the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from coronet_plugin.budget.budget import LATENCY, Budget, CountMeter, Meter
from coronet_plugin.budget.goal import Goal, check_removable
from coronet_plugin.budget.latency_meter import Clock, LatencyMeter
from coronet_plugin.budget.latency_table import LatencyTable
from coronet_plugin.channels.facts import Runner, call
from coronet_plugin.channels.find import APPROXIMATE, EXACT, find_channels, keep_frozen
from coronet_plugin.channels.joint import beside
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.distributed import agreed
from coronet_plugin.errors import BudgetError, PlanError


def shared_goal(
    generators: Sequence[nn.Module],
    examples: Sequence[Any],
    budget: str | float,
    kind: str = "macs",
    runtime: str = "torch",
    schedule: str = "cubic",
    round_to: int | None = None,
    prune_frozen: bool = False,
    runs: Sequence[Runner] | None = None,
    sets: str = EXACT,
    table: str = "",
    readers: Sequence[Sequence[nn.Module]] | None = None,
) -> Goal:
    """One budget for what ``generators`` cost together, for which their channels compete.

    Give every generator's :class:`Compression` its part, ``goal=shared_goal(...).shares[i]``, and attach all
    to the same steps, as CycleGAN's are. The other arguments are those of :class:`Compression`.

    Raises:
        BudgetError: the budget cannot be read or reached.
        PlanError: a generator does not run, or none of the channels can be removed.
        OptionError: another argument is out of range.
    """
    asked = Budget.parse(budget, kind)
    runs = runs or [call] * len(generators)
    readers = readers or [()] * len(generators)

    def found(sets: str) -> list[ChannelPlan]:
        each = zip(generators, examples, runs, readers)
        plans = [find_channels(g, example, run, sets, read) for g, example, run, read in each]
        return plans if prune_frozen else [keep_frozen(*each) for each in zip(plans, generators, readers)]

    plans = found(sets)
    try:
        check_removable(plans, asked)
        meters = [
            _meter(generator, plan, example, asked.kind, runtime, beside(read, run), table)
            for generator, plan, example, run, read in zip(generators, plans, examples, runs, readers)
        ]
        multiple = 1 if round_to is None and asked.kind != LATENCY else round_to
        return Goal(plans, meters, asked, schedule, multiple)
    except (BudgetError, PlanError) as error:
        more = _within_reach(plans, found, asked.kind) if sets == EXACT else ""
        if not more or "more than the dense" in str(error):
            raise
        raise type(error)(f"{error}; {more}") from error


def _within_reach(
    plans: Sequence[ChannelPlan], found: Callable[[str], Sequence[ChannelPlan]], kind: str
) -> str:
    """Say how far approximate sets would reach, "" if no less than exact ones."""
    counted = "macs" if kind == LATENCY else kind
    everything = Budget.parse(1.0, counted)
    exact, approximate = (
        Goal(some, [CountMeter(plan, counted) for plan in some], everything).reach
        for some in (plans, found(APPROXIMATE))
    )
    if approximate >= exact:
        return ""
    return (
        f"with sets='approximate' (--coronet_sets approximate), whose cut changes what is computed, "
        f"{approximate:.4f} of the {counted} could be reached"
    )


def _meter(
    generator: nn.Module, plan: ChannelPlan, example: Any, kind: str, runtime: str, run: Runner, table: str
) -> Meter:
    if kind != LATENCY:
        return CountMeter(plan, kind)
    if table:
        return LatencyMeter(plan, LatencyTable.read(table))
    inputs = example if isinstance(example, tuple) else (example,)
    clock = Clock(generator, plan, inputs, runtime, run)
    return LatencyMeter(plan, agreed(clock.table()), clock)  # times differ, decisions must not
