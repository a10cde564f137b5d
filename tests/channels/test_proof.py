"""A plan is proven before it is used, on generators that do not make it easy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import PlanError, example_input, find_channels, verify
from coronet_plugin.channels.proof import random_mask
from coronet_plugin.generators.stock import build_generator


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(16, 16), conv(16, 3)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def test_a_wrong_plan_is_refused_and_the_layer_named():
    generator = build_generator(3, 3, 16, "resnet_6blocks", "instance", False)
    x = example_input(generator, 32)
    plan = find_channels(generator, x)
    wrong = plan.slices["model.4.weight"][1]
    wrong[:] = np.roll(wrong, 1)  # off by one: what a wrong concatenation offset does
    with pytest.raises(PlanError, match=r"ResnetGenerator.*'model\.1'"):
        verify(generator, plan, x)


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_bias_is_found_though_all_biases_are_equal(seed):
    generator = Net()
    for name, parameter in generator.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    x = torch.zeros(1, 3, 8, 8)
    plan = find_channels(generator, x)
    plan.slices["b.bias"][0][:] = plan.slices["b.bias"][0][::-1].copy()
    with pytest.raises(PlanError, match="'b'"):
        verify(generator, plan, x, seed)


def test_masks_differ_by_set_and_leave_no_set_empty_or_whole():
    generator = build_generator(3, 3, 8, "resnet_6blocks", "instance", False)
    plan = find_channels(generator, example_input(generator, 32))
    masks = [random_mask(plan, seed) for seed in range(20)]
    assert all(0 < mask[s.slice].sum() < s.units for mask in masks for s in plan.prunable)
    assert len({mask.tobytes() for mask in masks}) == 20


def test_of_many_sets_exactly_those_that_fail_are_pinned():
    class Written(nn.Module):
        """The widths of every third layer are written where its features are used; of every fifth, read aside."""

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(conv(3 if i == 0 else 16, 16) for i in range(14))
            self.last = conv(16, 3)

        def forward(self, x):
            for i, layer in enumerate(self.layers):
                x = torch.relu(layer(x))
                if i % 3 == 2:
                    x = x.view(-1, int("16"), *x.shape[2:])
                elif i % 5 == 0:
                    x = x / float(len(x[0]))
            return self.last(x)

    plan = find_channels(Written(), torch.rand(1, 3, 8, 8))
    failing = {f"layers.{i}" for i in range(14) if i % 3 == 2 or i % 5 == 0}
    assert {s.name for s in plan.sets if s.pinned} == {*failing, "last"}
    written = {s.name for s in plan.sets if s.pinned and "does not run" in s.pinned}
    assert written == {f"layers.{i}" for i in range(2, 14, 3)}
    assert verify(Written(), plan, torch.rand(1, 3, 8, 8)) < 1e-4


def test_a_generator_that_answers_differently_each_time_is_refused():
    class Noisy(Net):
        calls = 0

        def forward(self, x):
            Noisy.calls += 1
            return super().forward(x) + Noisy.calls

    with pytest.raises(PlanError, match="another output for the same input"):
        find_channels(Noisy(), torch.rand(1, 3, 8, 8))


def test_random_noise_inside_the_generator_is_no_obstacle():
    class Noise(Net):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    generator, x = Noise(), torch.rand(1, 3, 8, 8)
    before = torch.get_rng_state()
    assert find_channels(generator, x).coverage() == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_input_that_must_not_be_random_is_taken_as_given():
    class Particular(Net):
        def forward(self, x):
            if float(x.min()) < 0:
                raise ValueError("pixels must not be negative")
            return super().forward(x)

    assert find_channels(Particular(), torch.rand(1, 3, 8, 8)).coverage() == 1


def test_generators_of_several_inputs_and_outputs():
    class Conditional(Net):
        def __init__(self):
            super().__init__()
            self.embedding, self.style = nn.Embedding(5, 16), nn.Linear(4, 16)

        def forward(self, x, label, noise):
            h = torch.relu(self.a(x)) * self.embedding(label)[..., None, None]
            h = h + self.style(noise)[..., None, None]
            return {"image": self.c(torch.relu(self.b(h))), "features": [noise]}

    example = (torch.rand(2, 3, 8, 8), torch.tensor([1, 4]), torch.rand(2, 4))
    plan = find_channels(Conditional(), example)
    assert plan.prunable[0].producers == ("a", "embedding", "style")
    assert verify(Conditional(), plan, example) < 1e-4


def test_a_remembered_graph_does_not_stop_the_copy():
    class Remembering(Net):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    generator = Remembering()
    generator(torch.rand(1, 3, 8, 8))
    assert find_channels(generator, torch.rand(1, 3, 8, 8)).coverage() == 1
    assert generator.last.grad_fn is not None
