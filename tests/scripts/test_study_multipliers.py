"""The study of multipliers: what it says of who survives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from run_helpers import ARCHITECTURE

from coronet_plugin import Compression, example_input
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods.implicit import Rates, draw
from scripts.study_multipliers import auc


@pytest.mark.parametrize(("fast_ones_live", "expected"), [(True, 1.0), (False, 0.0)])
def test_auc_of_the_rate_for_survival(fast_ones_live, expected):
    generator = build_generator(**ARCHITECTURE)
    compression = Compression(
        generator, example_input(generator, 32), search_steps=2, architecture=ARCHITECTURE, budget=0.5
    )
    plan, spec = compression.plan, compression.spec()
    values = draw(plan, Rates(), exponent=1, seed=7)
    inner = next(
        s for s in plan.prunable if len(s.producers) == 1 and s.producers[0].endswith("conv_block.1")
    )
    reader = inner.producers[0].replace("conv_block.1", "conv_block.5") + ".weight"  # alone reads it
    rate = values[reader][:, :, 0, 0].mean(0).numpy()
    order = np.argsort(-rate if fast_ones_live else rate)
    kept = sorted(order[: len(order) // 2].tolist())
    sets = [{**entry, "kept": kept if entry["name"] == inner.name else entry["kept"]} for entry in spec.sets]
    assert auc(dataclasses.replace(spec, sets=sets), 32, seed=7) == expected
    assert 0 < auc(dataclasses.replace(spec, sets=sets), 32, seed=8) < 1  # of other numbers it tells little
