"""Channel sets whose removal changes what is computed: only if asked for, measured, printed, written down."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from coronet_plugin import BudgetError, Compression, OptionError, PlanError, find_channels, slim, verify
from coronet_plugin.channels.proof import random_mask

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Mixing(nn.Module):
    """A mean over channels in the middle of a forward; a width written into the code where ``fixed``."""

    def __init__(self, fixed=False, plain=0):
        super().__init__()
        self.head, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.more = nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1) for _ in range(plain)])
        self.tail = nn.Conv2d(16, 3, 3, padding=1)
        self.fixed = fixed

    def forward(self, x):
        h = self.body(torch.relu(self.head(x)))
        h = h - h.mean(1, keepdim=True)
        if self.fixed:
            h = h.reshape(-1, int("16"), *h.shape[2:])
        return torch.tanh(self.tail(self.more(h)))


def build(**options):
    torch.manual_seed(0)
    return Mixing(**options)


def test_they_are_pinned_unless_asked_for():
    exact, both = (find_channels(build(), X, sets=sets) for sets in ("exact", "approximate"))
    assert [s.name for s in exact.prunable] == ["head"]
    assert [(s.name, s.approximate) for s in both.prunable] == [
        ("head", None),
        ("body", "mean mixes all channels"),
    ]
    assert verify(build(), both, X) < 1e-5  # of the exact ones
    small = slim(build(), both, random_mask(both, 0))
    assert small.body.out_channels < 16 and small(X).shape == X.shape


def test_what_does_not_run_stays_pinned():
    plan = find_channels(build(fixed=True), X, sets="approximate")
    (body,) = [s for s in plan.sets if s.name == "body"]
    assert "does not run" in body.pinned and body.approximate is None


def test_what_is_exact_anyway_is_not_called_approximate():
    plan = find_channels(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.Conv2d(8, 3, 3)), X, sets="approximate"
    )
    assert [s.approximate for s in plan.prunable] == [None]


def test_the_change_is_measured_printed_and_written(tmp_path, capsys):
    generator = build()
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    compression = Compression(generator, X, budget=0.2, search_steps=10, sets="approximate").attach(optimizer)
    for _ in range(10):
        generator(X).square().mean().backward()
        optimizer.step()
        compression.step()
    with torch.no_grad():
        before = generator(X)
        change = float((compression.slim()(X) - before).abs().max() / before.abs().max())
    assert compression.change == pytest.approx(change, rel=1e-3) and change > 1e-3
    assert f"changed the output by {change:.2%}" in capsys.readouterr().out
    compression.save(tmp_path / "latest_net_G.pth")
    spec = json.loads((tmp_path / "latest_net_G.json").read_text())
    assert spec["search"]["change"] == compression.change
    assert spec["sets"][1]["approximate"] == "mean mixes all channels"
    again = Compression(build(), X, budget=0.2, search_steps=10, sets="approximate")
    again.load_state_dict(compression.state_dict())
    assert again.change == compression.change and "approximate" not in capsys.readouterr().out


def test_an_exact_training_says_nothing_of_a_change(capsys):
    generator = build(plain=1)
    compression = Compression(generator, X, budget=0.7, search_steps=1, method="uniform")
    compression.attach(torch.optim.Adam(generator.parameters()))
    compression.slim()
    assert compression.change is None and "approximate" not in capsys.readouterr().out


def test_a_budget_refused_says_what_they_would_reach():
    with pytest.raises(
        BudgetError, match=r"smallest possible is 0\.\d+.*--coronet_sets approximate.* 0\.\d+ of the macs"
    ):
        Compression(build(), X, budget=0.3, search_steps=4)
    with pytest.raises(PlanError, match=r"none of .*--coronet_sets approximate"):
        Compression(
            nn.Sequential(nn.Conv2d(3, 8, 3), Centred(), nn.Conv2d(8, 3, 3)), X, budget=0.6, search_steps=4
        )
    with pytest.raises(BudgetError) as caught:  # they would not help
        Compression(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)), X, budget=0.01, search_steps=4)
    assert "approximate" not in str(caught.value)


class Centred(nn.Module):
    """Has a layer, so that it cannot be left at its dense width."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        made = self.layer(x - x.mean(1, keepdim=True))
        return made - made.mean(1, keepdim=True)


def test_only_the_two_choices_exist():
    with pytest.raises(OptionError, match="choose one of exact, approximate"):
        find_channels(build(), X, sets="all")
