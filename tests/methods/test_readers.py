"""A projector that reads a generator's features, as in CUT, is cut and trained with it."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_helpers import batch, small

from coronet_plugin import find_channels
from coronet_plugin.channels.joint import Joint, joined
from coronet_plugin.channels.proof import verify
from coronet_plugin.compression import Compression
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.training import projector

EXAMPLE = torch.zeros(1, 3, 32, 32)
WIDTHS = (8, 16, 32)


class Tapped(nn.Module):
    """A generator that returns features when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small().model

    def forward(self, x: Tensor, taps: tuple[int, ...] = ()) -> Any:
        features = []
        for number, layer in enumerate(self.model):
            x = layer(x)
            if number in taps:
                features.append(x)
        return (x, features) if taps else x


class Projector(nn.Module):
    """An MLP for each feature map, applied to some of its positions; of unit length."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, 24)) for width in WIDTHS
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        found = []
        for part, x in zip(self.parts, features):
            rows = x.permute(0, 2, 3, 1).flatten(1, 2)[:, torch.arange(0, 60, 3), :].flatten(0, 1)
            rows = part(rows)
            found.append(rows / (rows.pow(2).sum(1, keepdim=True).sqrt() + 1e-7))
        return found


def run(generator: nn.Module, projector: nn.Module, x: Tensor) -> Any:
    made, features = generator(x, (3, 6, 12))
    return made, projector(features)


def begun(**options: Any) -> tuple[Compression, list[torch.optim.Optimizer], Projector]:
    generator, projector = Tapped(), Projector()
    optimizers = [torch.optim.Adam(net.parameters(), lr=2e-3) for net in (generator, projector)]
    options = {"search_steps": 12, "budget": 0.2, **options}
    compression = Compression(generator, EXAMPLE, readers=[projector], run=run, **options)
    return compression.attach(optimizers[0], readers=optimizers[1:]), optimizers, projector


def go_on(
    compression: Compression, optimizers: list[torch.optim.Optimizer], projector: nn.Module, steps: int
) -> None:
    for _ in range(steps):
        x = batch(compression.steps)
        (made, theirs), (_, mine) = (run(compression.generator, projector, each) for each in (x, -x))
        loss = (made + x).abs().mean() - sum((a * b).mean() for a, b in zip(theirs, mine))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if compression.step():
            compression.slim()


def outputs(generator: nn.Module, projector: nn.Module) -> list[Tensor]:
    with torch.no_grad():
        made, found = run(generator, projector, batch(77))
    return [made, *found]


def test_features_that_are_read_lose_channels() -> None:
    generator, projector = Tapped(), Projector()
    plan = find_channels(generator, EXAMPLE, run, readers=[projector])
    alone = find_channels(generator, EXAMPLE)
    assert [(s.name, s.producers, s.units) for s in plan.prunable] == [
        (s.name, s.producers, s.units) for s in alone.prunable
    ]
    assert plan.cost() == alone.cost()  # readers are not the generator's to pay
    assert plan.readers is not None and set(plan.readers.slices) >= {
        f"0.parts.{i}.0.weight" for i in range(3)
    }
    kept = find_channels(generator, EXAMPLE, lambda generator, x: generator(x, (3, 6, 12)))
    assert kept.units < plan.units  # returned without a reader, they are output


def test_the_cut_changes_nothing_of_the_generator_and_of_what_is_projected() -> None:
    compression, optimizers, projector = begun(gradual=False)
    go_on(compression, optimizers, projector, 11)
    hidden = {p.shape for part in projector.parts for p in part[2].parameters()}
    x = batch(compression.steps)
    made, found = run(compression.generator, projector, x)
    sum(y.square().sum() for y in (made, *found)).backward()
    for optimizer in optimizers:
        optimizer.step()
    assert compression.step()
    before = outputs(compression.generator, projector)
    dense = [part[0].weight for part in projector.parts]
    compression.slim()
    for now, then in zip(outputs(compression.generator, projector), before):
        assert torch.allclose(now, then, atol=2e-6)
    narrowed = [part[0].in_features for part in projector.parts]
    assert all(now < then for now, then in zip(narrowed, WIDTHS))
    assert [part[0].weight.shape[1] for part in projector.parts] == narrowed
    assert {p.shape for part in projector.parts for p in part[2].parameters()} == hidden
    held = {id(p) for group in optimizers[1].param_groups for p in group["params"]}
    assert held == {id(p) for p in projector.parameters()}
    for part, whole in zip(projector.parts, dense):
        assert whole not in optimizers[1].state
        assert optimizers[1].state[part[0].weight]["exp_avg"].shape == part[0].weight.shape
    assert compression.cost().macs <= 0.2 * compression.dense.macs
    go_on(compression, optimizers, projector, 2)


@pytest.mark.parametrize("stops", [3, 9, 14], ids=["early", "after removals", "after the cut"])
def test_a_continued_training_is_the_same_bit_for_bit(stops: int) -> None:
    compression, optimizers, projector = begun()
    go_on(compression, optimizers, projector, stops)
    networks = (compression.generator, projector)
    weights = [copy.deepcopy(net.state_dict()) for net in networks]
    moments = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    state = copy.deepcopy(compression.state_dict())
    go_on(compression, optimizers, projector, 16 - stops)

    again, others, another = begun()
    again.load_state_dict(state)
    for net, saved in zip((again.generator, another), weights):
        net.load_state_dict(saved)
    for optimizer, moment in zip(others, moments):
        optimizer.load_state_dict(moment)
    again.refresh_()
    go_on(again, others, another, 16 - stops)
    for one, other in zip(networks, (again.generator, another)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_going_back_to_a_wider_state_gives_readers_their_inputs_back() -> None:
    compression, optimizers, projector = begun()
    go_on(compression, optimizers, projector, 1)
    state = copy.deepcopy(compression.state_dict())
    saved = [copy.deepcopy(net.state_dict()) for net in (compression.generator, projector)]
    go_on(compression, optimizers, projector, 12)
    compression.load_state_dict(state)
    for net, weights in zip((compression.generator, projector), saved):
        net.load_state_dict(weights)
    assert [part[0].in_features for part in projector.parts] == list(WIDTHS)
    go_on(compression, optimizers, projector, 12)
    assert all(part[0].in_features < width for part, width in zip(projector.parts, WIDTHS))


@pytest.mark.parametrize("phase", ["search", "compact"])
def test_a_state_of_other_readers_is_refused_before_anything_changes(phase: str) -> None:
    compression, optimizers, projector = begun()
    go_on(compression, optimizers, projector, 1 if phase == "search" else 13)
    state = copy.deepcopy(compression.state_dict())
    assert state["phase"] == phase

    generator, other = Tapped(), Projector()
    other.parts[1][0] = nn.Linear(WIDTHS[1], 20)
    other.parts[1][2] = nn.Linear(20, 24)
    options = {"search_steps": 12, "budget": 0.2, "run": run}
    again = Compression(generator, EXAMPLE, readers=[other], **options)
    again.attach(torch.optim.Adam(generator.parameters(), lr=1e-3))
    before = copy.deepcopy(generator.state_dict())
    with pytest.raises(CheckpointError, match=r"0.parts.1.0.weight is \[24, 16\] there and \[20, 16\] here"):
        again.load_state_dict(state)
    assert again.phase == "search" and again.steps == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())

    alone = Compression(Tapped(), EXAMPLE, search_steps=12, budget=0.5)
    with pytest.raises(CheckpointError, match="saved search has|has readers, the other not"):
        alone.load_state_dict(state)


def test_a_method_that_goes_on_with_another_module_refuses_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    compression, optimizers, projector = begun(search_steps=2)
    monkeypatch.setattr(compression.method, "finish", Tapped)
    with pytest.raises(OptionError, match="goes on with another generator.*without readers"):
        go_on(compression, optimizers, projector, 4)


def test_one_optimizer_may_hold_both() -> None:
    generator, projector = Tapped(), Projector()
    optimizer = torch.optim.Adam([*generator.parameters(), *projector.parameters()], lr=1e-3)
    compression = Compression(
        generator, EXAMPLE, readers=[projector], run=run, search_steps=4, budget=0.2
    ).attach(optimizer)
    go_on(compression, [optimizer], projector, 6)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for net in (generator, projector) for p in net.parameters()}


def test_the_joint_plan_is_proven() -> None:
    joint = Joint(Tapped(), [Projector()])
    plan = find_channels(joint, EXAMPLE, joined(run))
    assert verify(joint, plan, EXAMPLE, seed=7, run=joined(run)) < 1e-4


def test_a_frozen_reader_keeps_its_inputs() -> None:
    generator, projector = Tapped(), Projector().requires_grad_(False)
    compression = Compression(generator, EXAMPLE, readers=[projector], run=run, search_steps=4, budget=0.8)
    compression.attach(torch.optim.Adam(generator.parameters()))
    compression.slim()
    assert [part[0].in_features for part in projector.parts] == list(WIDTHS)


def test_a_goal_made_without_the_readers_is_refused() -> None:
    generator, projector = Tapped(), Projector()
    goal = Compression(generator, EXAMPLE, search_steps=4, budget=0.5).goal
    with pytest.raises(OptionError, match="made without the readers"):
        Compression(generator, EXAMPLE, goal=goal, readers=[projector], run=run, search_steps=4)
    assert np.isfinite(goal.meter(None))


class Lazy(nn.Module):
    """A projector that makes its layers from the features it is shown, with the interface of CUT's."""

    use_mlp, mlp_init = True, False

    def create_mlp(self, features: list[Tensor]) -> None:
        self.parts = nn.ModuleList(nn.Linear(x.shape[1], 6) for x in features)
        self.mlp_init = True

    def forward(self, features: list[Tensor], count: int, positions: list[list[int]]) -> Any:
        rows = [x.flatten(2).transpose(1, 2)[:, torch.tensor(p), :] for x, p in zip(features, positions)]
        return [part(x) for part, x in zip(self.parts, rows)], positions


class Encoding(Tapped):
    def forward(self, x: Tensor, layers: Any = (), encode_only: bool = False) -> Any:
        out = super().forward(x, tuple(layers))
        return out[1] if encode_only else out


def test_a_host_that_makes_its_projector_late_gets_it_cut() -> None:
    model = SimpleNamespace(netG=Encoding(), netF=Lazy(), nce_layers=[3, 6, 12])
    projector.make_readers_(model, "G", EXAMPLE)
    assert projector.readers(model, "G") == (model.netF,)
    compression = Compression(
        model.netG,
        EXAMPLE,
        readers=projector.readers(model, "G"),
        run=projector.runner(model, "G"),
        search_steps=4,
        budget=0.2,
    )
    trained: list[torch.optim.Optimizer] = [torch.optim.Adam(model.netG.parameters())]
    compression.attach(trained[0], readers=trained)
    trained.append(torch.optim.Adam(model.netF.parameters()))  # hosts make it with the first batch
    compression.slim()
    assert all(part.in_features < width for part, width in zip(model.netF.parts, WIDTHS))
    assert {id(p) for p in trained[1].param_groups[0]["params"]} == {id(p) for p in model.netF.parameters()}
