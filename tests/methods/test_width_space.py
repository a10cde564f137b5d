"""Spaces of widths: the published ones, and the search in them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from coronet_plugin import OptionError
from coronet_plugin.budget.shared import shared_goal
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods.width_space import SPACES, Evolution, Space, best_widths, fractions_of

X = torch.rand(1, 3, 32, 32)
SIZES = {"channels-64-pix2pix": 7**8, "channels-64-cycleGAN": 5**8, "channels-48": 5184, "channels-32": 3**8}


def goal_of(netG: str = "mobile_resnet_9blocks", ngf: int = 64, **options):
    generator = build_generator(3, 3, ngf, netG, "instance")
    return shared_goal([generator], [X], 0.5, **options)


@pytest.fixture(scope="module")
def goal():
    return goal_of()


@pytest.mark.parametrize("name", SPACES)
def test_published_spaces_have_their_eight_groups_and_sizes(goal, name):
    space = Space.of(goal, fractions_of(name))
    assert len(space.groups) == 8 and space.size == SIZES[name]
    assert [len(group) for group in space.groups] == [1, 1, 1, 3, 3, 3, 1, 1]


@pytest.mark.parametrize(
    ("config_str", "parameters"), [("16_16_32_16_32_32_16_16", 356_867), ("16_16_24_16_32_64_16_24", 355_235)]
)
def test_widths_of_a_published_generator_cost_what_it_does(goal, config_str, parameters):
    """The eight groups are those of GAN Compression, in their order."""
    space = Space.of(goal, fractions_of("channels-64-cycleGAN"))
    eight = [int(width) for width in config_str.split("_")]
    widths = tuple(width * each for width, each in zip(eight, (1, 2, 4, 4, 4, 4, 2, 1)))
    assert all(width in choices for width, choices in zip(widths, space.choices))
    rank = np.concatenate([np.arange(s.units) for s in goal.plan.prunable])
    assert goal.plan.plans[0].cost(space.alive(goal, rank, widths)).parameters == parameters


@pytest.mark.parametrize("netG", ["resnet_6blocks", "unet_128"])
def test_other_generators_have_groups_too(netG):
    goal = (
        goal_of(netG, 16)
        if netG != "unet_128"
        else shared_goal([build_generator(3, 3, 8, netG)], [torch.rand(1, 3, 128, 128)], 0.5)
    )
    space = Space.of(goal, ((1.0, 0.5),))
    assert sorted(itertools.chain(*space.groups)) == list(range(len(goal.plan.prunable)))
    for group in space.groups:
        assert len({goal.plan.prunable[number].units for number in group}) == 1
    if netG == "unet_128":
        with pytest.raises(OptionError, match="for 8 groups of channel sets, the generator has"):
            Space.of(goal, fractions_of("channels-48"))


def test_widths_are_rounded_and_not_below_the_floors():
    goal = goal_of("resnet_6blocks", 16, round_to=8)
    space = Space.of(goal, ((1.0, 0.6, 0.01),))
    assert space.choices[0] == (16, 8) and space.choices[2] == (64, 40, 8)


@pytest.mark.parametrize("text", ["channels-12", "0", "1.5,1", "", "a,b"])
def test_a_space_that_is_none_is_one_line(text):
    with pytest.raises(OptionError, match="neither one of channels-64-pix2pix.*nor fractions"):
        fractions_of(text)


def test_a_narrow_draw_is_as_much_likelier_as_asked():
    space, random = Space(((0,),), ((64, 48, 32, 16),)), np.random.default_rng(0)
    drawn = [space.draw(random, 4.0)[0] for _ in range(4000)]
    counts = [drawn.count(width) for width in (64, 48, 32, 16)]
    assert np.allclose(np.array(counts) / 400, [1, 2, 3, 4], rtol=0.15)


# -- the search ------------------------------------------------------------------
SPACE = Space(tuple((i,) for i in range(6)), ((64, 56, 48, 40, 32, 24, 16),) * 6)
WANTED = (16, 56, 32, 24, 48, 40)


def error(widths) -> float:
    return float(sum(abs(a - b) for a, b in zip(widths, WANTED)))


def test_a_small_space_is_tried_whole_and_each_widths_once():
    space, seen = Space(((0,), (1,), (2,)), ((64, 32, 16),) * 3), []

    def judge(widths):
        seen.append(widths)
        return float("nan") if widths == (16, 16, 16) else -sum(widths)

    best = best_widths(space, lambda w: sum(w) <= 100, judge, Evolution(), np.random.default_rng(0))
    assert sum(best) == 96 and len(seen) == len(set(seen))
    assert set(seen) == {w for w in itertools.product((64, 32, 16), repeat=3) if sum(w) <= 100}


def test_evolution_finds_the_best_and_tries_nothing_that_does_not_fit():
    tried = []

    def judge(widths):
        tried.append(widths)
        return error(widths)

    how = Evolution(whole=10, generations=30)
    best = best_widths(SPACE, lambda w: sum(w) <= sum(WANTED), judge, how, np.random.default_rng(1))
    assert best == WANTED and all(sum(w) <= sum(WANTED) for w in tried)
    assert len(tried) == len(set(tried)) < SPACE.size / 10


def test_evolution_reaches_a_budget_that_chance_does_not():
    """Of 7^6 widths one fits."""
    how = Evolution(whole=10, generations=1, population=4)
    assert best_widths(SPACE, lambda w: sum(w) == 96, error, how, np.random.default_rng(0)) == (16,) * 6


def test_the_same_numbers_find_the_same():
    how = Evolution(whole=10, generations=3, population=20)
    found = [best_widths(SPACE, lambda w: True, error, how, np.random.default_rng(7)) for _ in range(2)]
    assert found[0] == found[1]
