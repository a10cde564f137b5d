"""Budgets: reading them, meeting them from below, refusing what cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from coronet_plugin import BudgetError, example_input, find_channels
from coronet_plugin.budget.budget import Budget, CountMeter
from coronet_plugin.budget.widths import TOLERANCE, choose_alive, floor_of, protected, threshold
from coronet_plugin.generators.stock import build_generator

SIZES = {"unet_256": 256, "unet_128": 128}


@pytest.fixture(scope="module")
def plans():
    found = {}
    for netG in ("resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"):
        generator = build_generator(3, 3, 64, netG, "instance")
        found[netG] = find_channels(generator, example_input(generator, SIZES.get(netG, 64)))
    return found


@pytest.mark.parametrize(
    ("text", "amount", "absolute"),
    [("0.1", 0.1, False), (".5", 0.5, False), ("2.6G", 2.6e9, True), ("350k", 350e3, True), ("1000", 1000.0, True), ("1", 1.0, False), (2e6, 2e6, True),
     ("1.5 m", 1.5e6, True), ("350000", 350000.0, True), (0.25, 0.25, False), ("5e-2", 0.05, False)],
)  # fmt: skip
def test_budgets_are_read(text, amount, absolute):
    budget = Budget.parse(text)
    assert (budget.amount, budget.absolute) == (pytest.approx(amount), absolute)


@pytest.mark.parametrize(
    "text", ["", "ten", "-0.1", "0", "0.1x", "nan", "inf", "1/2", "10%", "1.7", "5", "999", "1000.5", 1.7]
)
def test_unreadable_budgets_are_refused_with_an_example(text):
    with pytest.raises(BudgetError, match=r"0\.1"):
        Budget.parse(text)


def test_unknown_kind_is_refused():
    with pytest.raises(BudgetError, match="macs, params, latency"):
        Budget.parse("0.1", "watts")


@pytest.mark.parametrize("kind", ["watts", "latency", "parameters", ""])
def test_what_is_not_counted_is_never_taken_for_parameters(plans, kind):
    with pytest.raises(BudgetError, match="only macs, params"):
        plans["unet_128"].cost().of_kind(kind)
    with pytest.raises(BudgetError, match="only macs, params"):
        CountMeter(plans["unet_128"], kind)(None)


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("netG", ["resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"])
def test_every_budget_is_met_from_below_within_half_a_percent(plans, netG, kind):
    plan = plans[netG]
    dense = plan.cost().of_kind(kind)
    for seed, fraction in enumerate((0.9, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02)):
        score = np.abs(np.random.default_rng(seed).normal(size=plan.units))
        target = Budget.parse(fraction, kind).target(CountMeter(plan, kind), protected(plan, score))
        cost = plan.cost(choose_alive(plan, score, CountMeter(plan, kind), target)).of_kind(kind)
        assert (1 - TOLERANCE) * fraction * dense <= cost <= fraction * dense, (fraction, cost / dense)


def test_the_best_units_are_kept_and_every_set_keeps_its_floor(plans):
    plan = plans["resnet_6blocks"]
    score = np.abs(np.random.default_rng(0).normal(size=plan.units))
    score[plan.prunable[0].slice] *= 1e-6  # a set that would die out
    target = Budget.parse("0.1").target(CountMeter(plan, "macs"), protected(plan, score))
    alive = choose_alive(plan, score, CountMeter(plan, "macs"), target)
    assert alive[plan.prunable[0].slice].sum() >= floor_of(plan.prunable[0]) == 4
    floors = protected(plan, score)
    free = ~floors
    # all but the few units used to fill the budget up lie above one global threshold
    cut = np.sort(score[free & ~alive])[-1]
    assert (score[free & alive] < cut).mean() < 0.05


def test_the_threshold_is_the_best_score_that_has_to_go(plans):
    plan = plans["unet_128"]
    meter, score = CountMeter(plan, "macs"), np.random.default_rng(0).random(plan.units)
    floors, target = protected(plan, score), 0.2 * plan.cost().macs
    cut = threshold(plan, score, meter, target)
    assert meter((score > cut) | floors) <= target < meter((score >= cut) | floors)
    assert threshold(plan, score, meter, meter(None)) == 0


def test_an_unreachable_budget_names_the_smallest_reachable(plans):
    plan = plans["resnet_9blocks"]
    floors = protected(plan, np.ones(plan.units))
    with pytest.raises(BudgetError, match="smallest possible is 0.00") as caught:
        Budget.parse("0.001").target(CountMeter(plan, "macs"), floors)
    smallest = float(str(caught.value).split("smallest possible is ")[1].split(" ")[0])
    assert Budget.parse(smallest).target(CountMeter(plan, "macs"), floors) >= plan.cost(floors).macs


def test_a_budget_above_the_dense_cost_is_refused(plans):
    with pytest.raises(BudgetError, match="more than the dense"):
        Budget.parse("900G").target(
            CountMeter(plans["unet_128"], "macs"),
            protected(plans["unet_128"], np.ones(plans["unet_128"].units)),
        )
