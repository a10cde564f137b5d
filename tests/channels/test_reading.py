"""Numbers that code reads from shapes: they are ordinary numbers that remember what they count."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from coronet_plugin.channels.reading import Scale, Width, power_of


@pytest.fixture
def compared():
    return []


@pytest.fixture
def width(compared):
    return Width(np.arange(12), Fraction(1), lambda *pair: compared.append(pair))


def test_it_is_its_number_for_everybody_else(width):
    assert (int(width), width + 1, width - 2, 24 // width, width % 5, [0] * width) == (
        12,
        13,
        10,
        2,
        2,
        [0] * 12,
    )
    assert torch.zeros(2, width, 3).view(-1, width).shape == (6, 12)
    assert type(copy.deepcopy(width)) is int and type(pickle.loads(pickle.dumps(width))) is int
    assert hash(width) == hash(12) and {width: 1}[12] == 1


@pytest.mark.parametrize(
    ("make", "value", "factor"),
    [
        (lambda w: w // 4, 3, Fraction(1, 4)),
        (lambda w: 2 * w, 24, 2),
        (lambda w: (3 * w) // 4, 9, Fraction(3, 4)),
    ],
)
def test_what_is_in_proportion_is_a_width(width, make, value, factor):
    made = make(width)
    assert isinstance(made, Width) and (made, made.factor) == (value, factor)


def test_what_is_not_whole_is_no_width(width):
    assert type(width // 5) is int and width // 5 == 2


@pytest.mark.parametrize(
    ("make", "value", "power"),
    [
        (lambda w: w**-0.5, 12**-0.5, -0.5),
        (lambda w: 1 / w, 1 / 12, -1),
        (lambda w: w / 3, 4.0, 1),
        (lambda w: 2.0 / w**0.5 * 3, 6 / 12**0.5, -0.5),
        (lambda w: -((1.0 / (w * 0.5)) ** 2), -1 / 36, -2),
    ],
)
def test_powers_are_known(width, make, value, power):
    made = make(width)
    assert isinstance(made, Scale) and made == pytest.approx(value)
    assert power_of(made)[1] == power and power_of(made)[0] is width.ids


def test_comparisons_are_told(width, compared):
    assert width == 12 and width != 3 and width != 4
    assert compared == [(width, 12)]
