"""Frozen layers keep their channels, with that reason; an option lets them go. What cannot shrink at all says why."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import paired_folder, run_train
from test_custom_generator import sketch  # noqa: F401  a model type of the user's own
from torch import nn
from training_helpers import train

from coronet_plugin import BudgetError, Compression, OptionError, PlanError, Spec, bake_, find_channels
from coronet_plugin.budget.shared import shared_goal
from coronet_plugin.channels.find import FROZEN, keep_frozen

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(block(3, 16), block(16, 20))
        self.decoder = nn.Sequential(block(20, 24), block(24, 28), nn.Conv2d(28, 3, 3, padding=1), nn.Tanh())

    def forward(self, x):
        return self.decoder(self.encoder(x))


def half_frozen() -> EncoderDecoder:
    torch.manual_seed(0)
    generator = EncoderDecoder()
    generator.encoder.requires_grad_(False)
    return generator


def optimizer_for(generator: nn.Module, which: str) -> torch.optim.Optimizer:
    """Given the rest only, or all: with decay and momentum, which would move what has a gradient."""
    chosen = [p for p in generator.parameters() if which == "all" or p.requires_grad]
    return torch.optim.AdamW(chosen, lr=1e-3, weight_decay=0.1)


@pytest.mark.parametrize("held", ["the rest", "all"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "published"},
        {"method": "folded"},
        {"method": "random"},
        {"method": "uniform"},
        {"method": "magnitude"},
    ],
    ids=lambda options: next(iter(options.values()), "exact"),
)
def test_frozen_layers_stay_whole_to_the_last_bit(held, options):
    if options == {"method": "magnitude"}:
        pytest.importorskip("torch_pruning")
    generator = half_frozen()
    before = {name: p.clone() for name, p in generator.encoder.named_parameters()}
    optimizer = optimizer_for(generator, held)
    compression = Compression(generator, X, search_steps=6, budget=0.7, **options).attach(optimizer)
    if compression.finished:
        compression.slim()
    assert {s.name: s.pinned == FROZEN for s in compression.plan.sets} == {
        "encoder.0.0": True, "encoder.1.0": True, "decoder.0.0": False, "decoder.1.0": False, "decoder.2": False,
    }  # fmt: skip
    train(compression, optimizer, 9)
    assert compression.phase == "compact" and compression.remaining <= 0.7
    for name, p in generator.encoder.named_parameters():
        assert torch.equal(p, before[name]) and not p.requires_grad
    assert generator.decoder[0][0].in_channels == 20 and generator.decoder[1][0].in_channels < 24
    assert next(s for s in compression.spec().sets if s["name"] == "encoder.0.0")["pinned"] == FROZEN


@pytest.mark.parametrize("held", ["the rest", "all"])
@pytest.mark.parametrize("method", ["coronet", "random", "uniform", "magnitude"])
def test_an_option_lets_them_go(held, method):
    if method == "magnitude":
        pytest.importorskip("torch_pruning")
    generator = half_frozen()
    optimizer = optimizer_for(generator, held)
    compression = Compression(generator, X, search_steps=8, budget=0.2, method=method, prune_frozen=True)
    compression.attach(optimizer)
    before = generator.encoder[0][0].weight.clone()
    if compression.finished:
        compression.slim()
    train(compression, optimizer, 9)
    assert compression.remaining <= 0.2
    left = generator.encoder[0][0].weight
    assert len(left) < 16 and not left.requires_grad
    assert all((before == row).flatten(1).all(1).any() for row in left)  # what stays is as it was


def test_of_frozen_layers_the_weakest_channels_go():
    """They have no gradients to tell, and the first by number is no reason."""
    generator = half_frozen()
    weak = [1, 4, 5, 9, 11, 13]
    with torch.no_grad():
        generator.encoder[1][0].weight[:, weak] *= 1e-3
    optimizer = optimizer_for(generator, "all")
    compression = Compression(generator, X, search_steps=40, budget=0.6, prune_frozen=True).attach(optimizer)
    train(compression, optimizer, 40)
    first = next(s for s in compression.spec().sets if s["name"] == "encoder.0.0")
    gone = set(range(16)) - set(first["kept"])
    assert gone and (gone <= set(weak) or gone >= set(weak))


def test_a_frozen_reader_and_a_frozen_norm_keep_what_they_read():
    generator = EncoderDecoder()
    generator.decoder.requires_grad_(False)  # reads what the encoder makes
    plan = keep_frozen(find_channels(generator, X), generator)
    assert [s.name for s in plan.prunable] == ["encoder.0.0"]
    generator.requires_grad_()
    generator.encoder[0][1].requires_grad_(False)  # a norm alone
    plan = keep_frozen(find_channels(generator, X), generator)
    assert [s.name for s in plan.sets if s.pinned == FROZEN] == ["encoder.0.0"]


def test_what_is_neither_trained_nor_frozen_is_still_a_mistake():
    generator = EncoderDecoder()
    optimizer = torch.optim.Adam(generator.decoder.parameters())
    with pytest.raises(OptionError, match=r"\(encoder.0.0.weight\); attach the one that does, or freeze"):
        Compression(generator, X, search_steps=5, budget=0.7).attach(optimizer)
    with pytest.raises(OptionError, match="prune_frozen is not for published"):
        Compression(half_frozen(), X, search_steps=5, prune_frozen=True, method="published")


@pytest.mark.parametrize("options", [[], ["--coronet_prune_frozen"]])
def test_in_a_host(sketch, tmp_path, monkeypatch, capsys, options):  # noqa: F811
    build = sketch.SketchGenerator.__init__

    def frozen(self, width=16):
        build(self, width)
        self.down.requires_grad_(False)

    monkeypatch.setattr(sketch.SketchGenerator, "__init__", frozen)
    where = ["--dataroot", paired_folder(tmp_path, 2, 32), "--name", "s", "--checkpoints_dir", tmp_path / "c"]
    where += ["--model", "coronet", "--coronet_base", "sketch", "--load_size", 32, "--crop_size", 32]
    where += ["--n_epochs", 2, "--n_epochs_decay", 0, "--display_id", -1, "--no_html", *options]
    assert run_train(*where, "--coronet_budget", 0.6) == 0
    spec = Spec.read(tmp_path / "c" / "s" / "latest_net_G.json")
    first = next(s for s in spec.sets if s["name"] == "down.0")
    said = re.findall(r"\((\d+) more stay whole for frozen layers\)", capsys.readouterr().out)
    assert (first["pinned"], bool(said)) == ((None, False) if options else (FROZEN, True))
    assert (len(first["kept"]) < 16) == bool(options)


# -- nothing can be removed --------------------------------------------------------
class Centred(nn.Module):
    """Mixes all channels in a module that has a layer, which cannot be left as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        made = self.layer(x - x.mean(1, keepdim=True))
        return made - made.mean(1, keepdim=True)


class Stack(nn.Sequential):
    def __init__(self, norm=lambda width: Centred(), wrap=lambda layer: layer, free: int = 0) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 16), (16, 16)):
            layers += [wrap(nn.Conv2d(inputs, outputs, 3, padding=1)), norm(outputs), nn.ReLU()]
        layers += [module for _ in range(free) for module in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
        super().__init__(*layers, wrap(nn.Conv2d(16, 3, 3, padding=1)), nn.Tanh())


def spectral(layer: nn.Module) -> nn.Module:
    return nn.utils.spectral_norm(layer)


PINNED = [
    (Stack, "0 and 5 more: mean mixes all channels"),
    (
        lambda: Stack(nn.BatchNorm2d, spectral),
        r"0 and 3 more: .*spectral norm.*coronet_plugin\.bake_\(generator\)",
    ),
    (lambda: Stack().requires_grad_(False), "mean mixes all channels"),
    (
        lambda: Stack(nn.BatchNorm2d).requires_grad_(False),
        "0 and 2 more: a frozen layer makes or reads it .*prune_frozen",
    ),
    (lambda: nn.Sequential(nn.Conv2d(3, 3, 3)), "one layer alone, and it is the generator's output"),
]


@pytest.mark.parametrize(
    "budget", [{"budget": 0.4}, {"budget": "2k", "kind": "params"}, {"budget": 0.4, "kind": "latency"}]
)
@pytest.mark.parametrize(
    ("build", "said"), PINNED, ids=["mixed channels", "spectral norm", "both", "frozen", "one layer"]
)
def test_what_cannot_shrink_is_refused_with_the_reasons(monkeypatch, build, said, budget):
    monkeypatch.setattr(
        "coronet_plugin.budget.latency_meter.Clock.table", None
    )  # before anything is measured
    with pytest.raises(PlanError, match=f"none of the generator's channels can be removed.*{said}") as caught:
        Compression(build(), X, search_steps=5, **budget)
    assert "\n" not in str(caught.value) and "coronet inspect" in str(caught.value)


def test_what_cannot_shrink_can_be_trained_and_what_is_baked_can_shrink():
    Compression(Stack(), X, search_steps=5, budget=1.0)
    generator = Stack(nn.BatchNorm2d, spectral)
    bake_(generator)
    Compression(generator, X, search_steps=5, budget=0.4)


def test_a_shared_budget_of_what_cannot_shrink_is_refused_too():
    with pytest.raises(
        PlanError, match="budget 0.4 asks for: 0 and 5 more: mean mixes all channels.*all reasons"
    ):
        shared_goal([Stack(), Stack()], [X, X], 0.4)


def test_a_budget_out_of_reach_says_what_stays_whole():
    with pytest.raises(
        BudgetError, match=r"smallest possible is 0\.\d+ .*; what stays whole: 0 and \d more: .*bake_"
    ):
        Compression(Stack(nn.BatchNorm2d, spectral, free=2), X, search_steps=5, budget=0.1)
    with pytest.raises(BudgetError, match=r"MACs\)$"):  # nothing but the floors stays
        Compression(Stack(nn.BatchNorm2d), X, search_steps=5, budget=0.001)
