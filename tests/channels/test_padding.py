"""Modules that mix all channels run on at their dense width: saved, loaded, cut twice, exported, trained."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coronet_plugin import CheckpointError, Compression, find_channels, load_generator, masked, slim
from coronet_plugin.channels.cut import slim_
from coronet_plugin.channels.proof import random_mask

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """Norms over channels, attention at the scale of its width, statistics of channels by hand."""

    def __init__(self, width=16):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mixed = Mixed(width)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        h = self.head(x)
        b, c, height, width = h.shape
        tokens = self.norm(h.flatten(2).transpose(1, 2))
        q, k, v = self.q(tokens), self.k(tokens), self.v(tokens)
        q, k, v = (t.view(b, -1, 4, k.shape[-1] // 4).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = self.mixed(h + self.out(out).transpose(1, 2).reshape(b, c, height, width), bias=h.mean((2, 3)))
        return torch.tanh(self.tail(h))


class Mixed(nn.Module):
    """Instance and layer statistics mixed by a learned number a channel; two inputs, one by its name."""

    def __init__(self, width):
        super().__init__()
        self.rho = nn.Parameter(torch.rand(1, width, 1, 1))

    def forward(self, x, bias):
        all_of_it = (x - x.mean((1, 2, 3), keepdim=True)) / (x.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        mixed = self.rho * F.instance_norm(x) + (1 - self.rho) * all_of_it
        return mixed + bias.softmax(1)[..., None, None]


def build():
    torch.manual_seed(0)
    return Tokens().eval()


@pytest.fixture(scope="module")
def found():
    generator = build()
    plan = find_channels(generator, X)
    assert [s.name for s in plan.sets if s.pinned] == ["tail"] and plan.padded.keys() == {"norm", "mixed"}
    return generator, plan, random_mask(plan, 3)


@torch.no_grad()
def test_pruned_is_masked(found):
    generator, plan, alive = found
    small = slim(generator, plan, alive)
    assert torch.allclose(small(X), masked(generator, plan, alive)(X), atol=1e-5)
    assert not torch.allclose(small(X), generator(X), atol=1e-2)  # something was removed
    assert small.norm.weight.shape == (16,) and small.head.out_channels < 16


@torch.no_grad()
def test_two_cuts_are_one(found):
    generator, plan, alive = found
    first = alive | (np.arange(plan.units) % 3 == 0)
    twice = slim(generator, plan, first)
    slim_(twice, plan.without(~first), alive)
    assert torch.allclose(twice(X), slim(generator, plan, alive)(X), atol=1e-5)
    assert [len(m._forward_pre_hooks) for m in (twice.norm, twice.mixed)] == [1, 1]


@torch.no_grad()
def test_it_is_copied_pickled_and_traced(found):
    generator, plan, alive = found
    small = slim(generator, plan, alive)
    expected = small(X)
    again = pickle.loads(pickle.dumps(copy.deepcopy(small)))
    assert torch.equal(again(X), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        assert torch.allclose(torch.jit.trace(small, X)(X), expected, atol=1e-6)
    if torch.__version__ >= "2.5":  # exporters to ONNX use it from then on
        assert torch.allclose(torch.export.export(small, (X,)).module()(X), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "magnitude"])
def test_a_training_cuts_without_a_change_and_comes_back_from_its_file(tmp_path, method):
    generator = build().train()
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    compression = Compression(generator, X, budget=0.4, search_steps=12, method=method).attach(optimizer)
    for _ in range(12):
        optimizer.zero_grad()
        (generator(X) - X).square().mean().backward()
        optimizer.step()
        if compression.step():
            before = generator(X).detach()
            compression.slim()
            assert method != "exact" or torch.allclose(generator(X), before, atol=1e-5)
    assert compression.remaining <= 0.4
    compression.save(tmp_path / "latest_net_G.pth")
    loaded = load_generator(tmp_path / "latest_net_G.pth", build)
    assert torch.equal(loaded(X), generator(X))
    optimizer.zero_grad()
    (generator(X) - X).square().mean().backward()
    assert generator.norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kept": [3, 1]}, "in order"),
        ({"kept": [0, 99]}, "whole number"),
        ({"inputs": [[0, 1, 2]]}, "pairs"),
        ({"axis": 1}, "expected width, kept"),
    ],
)
def test_a_file_that_pads_wrongly_is_refused(tmp_path, change, said):
    generator = build()
    compression = Compression(generator, X, budget=0.5, search_steps=1, method="uniform")
    compression.attach(torch.optim.Adam(generator.parameters()))
    compression.slim()
    path = tmp_path / "latest_net_G.pth"
    compression.save(path)
    spec = json.loads(path.with_suffix(".json").read_text())
    spec["padded"]["norm"].update(change)
    path.with_suffix(".json").write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match=said):
        load_generator(path, build)
