"""Every style of generator: channels are found, what is found is right, and no more is pinned than before."""

from __future__ import annotations

import pytest
import torch
from generator_styles import STYLES, shake
from styles import PLAIN_ATTENTION
from torch.utils.flop_counter import FlopCounterMode

from coronet_plugin import bake_, cost_of, find_channels, verify

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # the old weight norm is what users have

FAMILIES = {"plain", "skips", "mobile", "attentive", "conditioned", "unusual", "diffusion"}


@pytest.mark.parametrize("name", STYLES)
def test_style_is_pruned_as_far_as_before_and_rightly(name):
    if name == "transformer bottleneck" and torch.__version__.startswith("2.1."):
        pytest.skip("its fast path of transformers ignores hooks, and so their channels stay")
    style = STYLES[name]
    generator, inputs = style.build(), style.inputs()
    plan = find_channels(generator, inputs)
    pins = {s.name: s.pinned for s in plan.sets if s.pinned}
    assert all(len(reason) > 10 for reason in pins.values())
    assert bool(plan.prunable) == style.prunable, pins
    assert style.prunable_channels(plan) >= style.channels, pins
    assert plan.coverage() >= style.coverage, pins
    assert verify(shake(generator), plan, inputs) < 1e-4  # other weights: a plan does not depend on them


BAKED = [
    n
    for n in STYLES
    if n.startswith(("weight norm", "spectral norm", "BigGAN")) or n.endswith("spectral norm")
]


@pytest.mark.parametrize("name", BAKED)
def test_baked_weights_can_be_pruned(name):
    style = STYLES[name]
    generator = style.build()
    assert bake_(generator)
    plan = find_channels(generator, style.inputs())
    assert style.prunable_channels(plan) == 1 and plan.coverage() == 1


@pytest.mark.parametrize("name", STYLES)
def test_cost_is_what_torch_counts(name):
    style = STYLES[name]
    # Of one picture: what is computed from parameters or conditions alone does not come with every one.
    generator, inputs = style.build().eval(), tuple(x[:1] for x in style.inputs())
    # With gradients nn.MultiheadAttention takes no short cut, which would not be counted.
    with FlopCounterMode(display=False) as counter, PLAIN_ATTENTION():
        generator(*inputs)
    cost = cost_of(generator, inputs)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.parameters == sum(p.numel() for p in generator.parameters())


def test_there_are_styles_of_every_family():
    assert len(STYLES) >= 30
    assert {style.family for style in STYLES.values()} - {"libraries"} == FAMILIES
