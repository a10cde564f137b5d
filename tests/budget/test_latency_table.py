"""Budgets in milliseconds: whole generators are timed, predictions follow, and the budget is kept."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import BudgetError, Compression, OptionError, find_channels
from coronet_plugin.budget import latency_meter
from coronet_plugin.budget.budget import Budget
from coronet_plugin.budget.latency_meter import Clock, LatencyMeter, choices
from coronet_plugin.budget.latency_table import LatencyTable, Prediction, Row, narrowed, widths_of
from coronet_plugin.budget.shared import shared_goal
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.measure.timing import Times, Timing

X, SMALL = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 16, 16)


def stock(netG="resnet_6blocks", ngf=32) -> nn.Module:
    torch.manual_seed(0)
    return build_generator(3, 3, ngf, netG, "instance", False)


@pytest.fixture(scope="module")
def plan():
    return find_channels(stock(), X)


def law(plan, alive) -> float:
    """A machine that is no sum of our terms: channels are worked on in eights, and small layers run slowly."""
    ms = 0.03
    for each in plan.calls:
        shape = plan.shape_of(each, alive)
        wide = [-(-shape[axis] // 8) * 8 for axis in (each.axis_in, each.axis_out)]
        macs = math.prod(wide) * each.weight_shape[2] ** 2 * each.positions
        ms += 4e-8 * macs**0.97 + 3e-6 * shape[each.axis_out] * each.positions_literature
    return ms


@pytest.fixture
def machine(monkeypatch):
    """Clocks that follow the law; gives what they timed, and by which factor the machine lies each time."""
    seen, factors = [], [1.0]

    def ms(self, alive):
        seen.append(alive)
        return law(self.plan, alive) * factors[len(seen) % len(factors)]

    monkeypatch.setattr(Clock, "_call", lambda *_: None)
    monkeypatch.setattr(Clock, "ms", ms)
    return seen, factors


# -- predictions ---------------------------------------------------------------
def test_a_few_widths_foretell_others(plan, machine):
    predict = Prediction(plan, Clock(stock(), plan, (X,)).table())
    random = np.random.default_rng(3)
    for fraction in (0.9, 0.6, 0.3, 0.2):
        sets = np.clip(fraction * np.exp(random.normal(0, 0.2, len(plan.prunable))), 0.1, 1)
        alive = narrowed(plan, sets)
        assert predict(alive) == pytest.approx(law(plan, alive), rel=0.12)


def test_a_row_more_makes_the_prediction_there_exact(plan, machine):
    clock = Clock(stock(), plan, (X,))
    meter = LatencyMeter(plan, clock.table(), clock)
    random = np.random.default_rng(5)
    alive = narrowed(plan, random.uniform(0.15, 0.9, len(plan.prunable)))
    before = meter(alive)
    assert before != pytest.approx(law(plan, alive), rel=1e-3)
    assert meter.measure_(alive) == law(plan, alive) == pytest.approx(meter(alive), rel=1e-4)
    timed = len(machine[0])
    assert meter.measure_(alive) == law(plan, alive) and len(machine[0]) == timed, "known: not timed again"


def test_a_table_at_which_nothing_is_alike_still_costs_more_where_more_is_left(plan):
    """Whatever was measured, no speed is below nothing: wider is never foretold to be quicker at all."""
    random = np.random.default_rng(0)
    rows = [Row(widths_of(plan, alive), float(random.uniform(1, 9))) for alive in choices(plan, 4)]
    predict = Prediction(plan, LatencyTable("torch", tuple(rows)))
    assert all(predict._speeds >= 0) and predict(choices(plan)[-1]) > 0


# -- the budget is kept --------------------------------------------------------
@pytest.mark.parametrize("method", ["gates", "uniform"])
@pytest.mark.parametrize("budget", [0.5, 0.2])
def test_the_slim_generator_takes_what_was_asked(machine, method, budget, capsys):
    """Within 5 %, though the machine's law is not the table's."""
    generator = stock()
    compression = Compression(generator, SMALL, search_steps=20, budget=budget, kind="latency", method=method)
    optimizer = torch.optim.Adam(generator.parameters(), 1e-4)
    compression.attach(optimizer)
    while not compression.finished and compression.phase == "search":
        generator(SMALL).square().mean().backward()
        optimizer.step()
        compression.step()
    compression.slim()
    asked = budget * law(compression.plan, np.ones(compression.plan.units, dtype=bool))
    assert 0.95 * asked <= law(compression.plan, compression.alive()) <= 1.03 * asked
    assert f"budget {budget}" in capsys.readouterr().out
    assert len(machine[0]) < 30


def test_one_budget_for_two(machine):
    generators = [stock(), stock()]
    goal = shared_goal(generators, [X, X], 0.3, "latency")
    made = [Compression(g, X, search_steps=1, goal=s) for g, s in zip(generators, goal.shares)]
    parts = [share.choose() for share in goal.shares]
    dense = sum(law(c.plan, np.ones(c.plan.units, dtype=bool)) for c in made)
    assert 0.27 * dense <= sum(law(c.plan, part) for c, part in zip(made, parts)) <= 0.31 * dense


def test_widths_suit_runtimes_unless_told_otherwise(machine):
    suits, odd = (
        Compression(stock(), X, search_steps=1, budget=0.4, kind="latency", method="uniform", round_to=multiple)
        for multiple in (None, 1)
    )
    for compression, all_even in ((suits, True), (odd, False)):
        compression.slim()
        widths = widths_of(compression.plan, compression.alive()).values()
        assert all(width % 4 == 0 for width in widths) == all_even, "of 32 channels by fours"
    counted = Compression(stock(), X, search_steps=1, budget=0.4, method="uniform")
    counted.slim()
    assert any(width % 4 for width in widths_of(counted.plan, counted.alive()).values()), "of MACs as ever"


def test_a_machine_too_busy_to_promise_says_so(machine, capsys):
    compression = Compression(stock(), X, search_steps=1, budget=0.4, kind="latency", method="uniform")
    compression.goal.choose()
    machine[1][:] = [1.0, 1.3]
    compression.slim()
    assert "too busy to promise" in capsys.readouterr().out
    machine[1][:] = [1.0]
    Compression(stock(), X, search_steps=1, budget=0.4, kind="latency", method="uniform").slim()
    said = capsys.readouterr().out
    assert "CPU time of one thread" in said and "too busy" not in said


# -- real clocks ---------------------------------------------------------------
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_real_runtime_keeps_the_budget(monkeypatch, runtime):
    """Within a quarter, for CI's machines are never quiet; docs/results.md has figures."""
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
    monkeypatch.setattr(latency_meter, "ENOUGH_S", 0.05)
    monkeypatch.setattr(latency_meter, "FRACTIONS", (1.0, 0.5, 0.25))
    options = {"budget": 0.4, "kind": "latency", "runtime": runtime, "method": "uniform"}
    compression = Compression(stock(ngf=16), X, search_steps=1, **options)
    compression.slim()
    plan = compression.plan
    clock = Clock(stock(ngf=16), plan, (X,), runtime)
    whole = np.ones(plan.units, dtype=bool)
    assert 0.3 < clock.ms(compression.alive()) / clock.ms(whole) < 0.5


def test_a_copy_is_timed_and_the_generator_is_left_alone():
    """It may lie on another device, and be a large one."""
    generator, ran = stock(ngf=4), []
    generator.register_forward_hook(lambda module, *_: ran.append(module))
    plan = find_channels(generator, X)
    ran.clear()
    Clock(generator, plan, (X,)).ms(choices(plan)[0])
    assert ran and generator not in ran and generator.training


def test_what_slows_everything_down_does_not_count(plan, monkeypatch):
    """Half of the time somebody else takes the caches: the reference is slowed down alike."""
    clock, slow = Clock(stock(), plan, (X,)), []
    whole, half = choices(plan)[0], choices(plan)[2]

    def timings(*_, **__):
        factor = 1.5 if slow else 1.0
        return {"it": taking(factor * 30.0), "reference": taking(factor * 30.0)}

    monkeypatch.setattr(latency_meter, "time_in_turn", timings)
    quiet = clock.ms(whole)
    slow.append(True)
    assert quiet > 0 and clock.ms(half) == pytest.approx(quiet)


def taking(ms: float) -> Times:
    return Times(Timing.of([ms / 1e3] * 3), Timing.of([ms / 1e3] * 3))


# -- state and files -----------------------------------------------------------
def test_a_time_can_be_asked_for_and_is_kept_in_the_state(plan, machine):
    wanted = law(plan, np.ones(plan.units, dtype=bool)) / 3
    compression = Compression(stock(), X, search_steps=5, budget=f"{wanted:.4f}ms", kind="latency")
    assert compression.goal.target == pytest.approx(wanted, rel=1e-3)
    machine[1][:] = [2.0]  # goes on on a slower machine: what was measured counts
    again = Compression(stock(), X, search_steps=5, budget=f"{wanted:.4f}ms", kind="latency")
    again.load_state_dict(compression.state_dict())
    assert again.goal.meter(None) == compression.goal.meter(None)
    assert again.goal.target == compression.goal.target and again.goal.dense == compression.goal.dense


def test_a_fraction_is_one_of_the_machine_that_was_measured(machine):
    """The saved table is of a machine that is a hundred times slower: its third is no third of ours."""
    first, then = (Compression(stock(), X, search_steps=5, budget=0.4, kind="latency") for _ in range(2))
    state = first.state_dict()
    for row in state["latencies"]["rows"]:
        row["ms"] *= 100
    then.load_state_dict(state)
    dense = then.goal.meter(None)
    assert dense == pytest.approx(100 * first.goal.meter(None), rel=1e-4)
    assert (then.goal.dense, then.goal.target) == (dense, pytest.approx(0.4 * dense))


def test_a_table_from_elsewhere_decides_and_nothing_is_timed(plan, machine, tmp_path, capsys):
    table = Clock(stock(), plan, (X,), "ncnn").table()
    table.write(tmp_path / "phone.json", {"device": "a phone"})
    timed = len(machine[0])
    options = {"budget": 0.4, "kind": "latency", "method": "uniform", "table": str(tmp_path / "phone.json")}
    compression = Compression(stock(), X, search_steps=1, **options)
    compression.slim()
    assert len(machine[0]) == timed and compression.remaining <= 0.4
    assert "foretold" in capsys.readouterr().out
    with pytest.raises(OptionError, match="same architecture"):
        Compression(stock("resnet_9blocks"), X, search_steps=1, **options)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format": "coronet-latency-table", "version": 1, "runtime": "ncnn", "rows": [{"ms": 3}]}'],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(OptionError, match=r"no latency table .*coronet bench --table") as caught:
        LatencyTable.read(tmp_path / "table.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="no latency table"):
        LatencyTable.read(tmp_path / "nowhere.json")


def test_a_table_says_what_it_is_about(plan, machine, tmp_path):
    table = Clock(stock(), plan, (X,)).table()
    table.write(tmp_path / "table.json", {"device": "this one"})
    written = json.loads((tmp_path / "table.json").read_text())
    assert (written["device"], written["runtime"]) == ("this one", "torch")
    assert LatencyTable.read(tmp_path / "table.json") == table


# -- options -------------------------------------------------------------------
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
