"""Budgets in milliseconds: a table measured once, and predictions that hold."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import BudgetError, Compression, OptionError, find_channels
from coronet_plugin.budget.budget import Budget
from coronet_plugin.budget.latency_table import RUNTIMES, Clock, LatencyTable
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.measure.timing import inference, time_in_turn

X = torch.rand(1, 3, 64, 64)


def stock(netG="resnet_6blocks", ngf=32) -> nn.Module:
    torch.manual_seed(0)
    return build_generator(3, 3, ngf, netG, "instance", False)


@pytest.fixture(scope="module")
def measured():
    generator = stock()
    plan = find_channels(generator, X)
    return (
        generator,
        plan,
        {name: LatencyTable.measure(generator, plan, (X,), clock=Clock(name)) for name in RUNTIMES},
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_whole_is_what_was_measured_and_less_is_less(measured, runtime):
    generator, plan, tables = measured
    dense = tables[runtime].predict(plan)
    path = []
    for fraction in (1.0, 0.5, 0.25):
        alive = np.zeros(plan.units, dtype=bool)
        for s in plan.prunable:
            alive[s.start : s.start + round(fraction * s.units)] = True
        path.append(tables[runtime].predict(plan, alive))
    assert path[0] == dense and path[1] < 0.8 * dense and path[2] < 0.7 * path[1]


def test_a_prediction_comes_near_the_time_of_the_slim_generator(measured):
    """Within a factor of two, on machines that are never quiet; docs/results.md has more figures."""
    dense, slim = stock(), stock()
    compression = Compression(slim, X, search_steps=1, budget=0.4, kind="latency")
    goal = compression.goal
    predicted = goal.target / goal.dense
    compression.slim()
    assert compression.remaining <= 0.4
    with inference(dense), inference(slim):  # CPU time, for other programs are running
        found = time_in_turn({"dense": lambda: dense(X), "slim": lambda: slim(X)}, rounds=15, warmup=0)
    assert predicted / 2 < found["slim"].cpu.min_ms / found["dense"].cpu.min_ms < 2 * predicted


def test_a_copy_is_timed_and_the_generator_is_left_alone():
    """It may lie on another device, and be a large one."""
    generator, ran = stock(ngf=4), []
    generator.register_forward_hook(lambda module, *_: ran.append(module))
    plan = find_channels(generator, X)
    ran.clear()
    LatencyTable.measure(generator, plan, (X,), clock=Clock())
    assert ran and generator not in ran and generator.training


def test_a_time_can_be_asked_for_and_is_kept_in_the_state():
    generator = stock()
    plan = find_channels(generator, X)
    dense = LatencyTable.measure(generator, plan, (X,)).predict(plan)
    wanted = dense / 3  # far from all and from nothing, should the next measurement differ by half
    compression = Compression(generator, X, search_steps=5, budget=f"{wanted:.3f}ms", kind="latency")
    assert compression.goal.target == pytest.approx(wanted, rel=1e-3)
    again = Compression(stock(), X, search_steps=5, budget=f"{wanted:.3f}ms", kind="latency")
    again.load_state_dict(compression.state_dict())
    assert again.goal.meter(None) == compression.goal.meter(None)


def test_a_fraction_of_the_time_is_one_of_the_machine_that_goes_on():
    """The saved table is of a machine that is a hundred times slower: its third is no third of ours."""
    first, then = (Compression(stock(), X, search_steps=5, budget=0.4, kind="latency") for _ in range(2))
    state = copy.deepcopy(first.state_dict())
    for layer in state["latencies"]["layers"]:
        if layer is not None:
            layer["ms"] = [[100 * ms for ms in row] for row in layer["ms"]]
    state["latencies"]["rest_ms"] *= 100
    then.load_state_dict(state)
    dense = then.goal.meter(None)
    assert dense == pytest.approx(100 * first.goal.meter(None), rel=1e-6)
    assert (then.goal.dense, then.goal.target) == (dense, pytest.approx(0.4 * dense))
    assert then.goal.choose().sum() < 0.9 * then.plan.units, "something has to go"


@pytest.mark.parametrize(("text", "ms"), [("20ms", 20.0), ("1.5 s", 1500.0), ("30", 30.0)])
def test_times_are_read(text, ms):
    assert Budget.parse(text, "latency").amount == ms and Budget.parse(text, "latency").absolute


@pytest.mark.parametrize("text", ["20m", "2.6G", "fast", "1.7"])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(BudgetError, match="20ms"):
        Budget.parse(text, "latency")


def test_an_unknown_runtime_is_refused():
    with pytest.raises(OptionError, match="torch, onnxruntime"):
        Compression(stock(), X, search_steps=5, kind="latency", runtime="abacus")
