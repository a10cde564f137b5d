from __future__ import annotations

import torch

from coronet_plugin.methods.proximal import shrink_, soft_threshold


def test_soft_threshold_minimises_the_proximal_objective():
    torch.manual_seed(0)
    z, amount = torch.randn(50).double(), 0.3
    best = soft_threshold(z, amount)

    def objective(x):
        return 0.5 * (x - z) ** 2 + amount * x.abs()

    for step in (-1e-4, 1e-4):
        assert (objective(best + step) >= objective(best) - 1e-12).all()


def test_latents_become_exactly_zero_and_keep_their_sign():
    z = torch.tensor([0.5, -0.5, 0.1, -0.1, 0.0])
    torch.testing.assert_close(soft_threshold(z, 0.2), torch.tensor([0.3, -0.3, 0.0, 0.0, 0.0]))
    assert (soft_threshold(z, 0.2)[2:] == 0).all()


def test_a_set_at_its_floor_is_left_alone():
    at_floor = torch.tensor([1.0, 1.0, 0.001, 0.0])  # two alive
    above = torch.tensor([1.0, 1.0, 1.0, 0.0])
    shrink_([at_floor, above], 0.25, [2, 2])
    torch.testing.assert_close(at_floor, torch.tensor([1.0, 1.0, 0.001, 0.0]))
    torch.testing.assert_close(above, torch.tensor([0.75, 0.75, 0.75, 0.0]))
