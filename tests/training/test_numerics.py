"""Numbers that are not finite, floors of channel sets, generators that collapse, mixed precision."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import paired_folder, run_train
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import pictures, small, started, stepping

from coronet_plugin import Cost, example_input, load_generator
from coronet_plugin.budget.budget import CountMeter
from coronet_plugin.budget.widths import choose_alive, floor_of
from coronet_plugin.channels.find import find_channels
from coronet_plugin.checkpoint.tensors import read_tensors
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.training import numerics
from coronet_plugin.training.collapse import EVERY, LOOKS, CollapseWatch
from models.pix2pix_model import Pix2PixModel

TINY = (
    "--model coronet --coronet_base pix2pix --coronet_budget 0.3 --netG resnet_6blocks --norm instance --ngf 8 "
    "--ndf 4 --load_size 36 --crop_size 32 --display_id 0 --num_threads 0 --n_epochs 2 --n_epochs_decay 1 "
    "--coronet_search_epochs 1.5 --print_freq 1 --seed 1 --no_html --save_latest_freq 2"
).split()


@pytest.fixture
def train(tmp_path):
    root = paired_folder(tmp_path, 4, 36)

    def go(*extra: object) -> int:
        return run_train(
            "--dataroot", root, "--name", "a", "--checkpoints_dir", tmp_path / "c", *TINY, *extra
        )

    return go


def poison(monkeypatch, *steps: int) -> None:
    """At the generator's steps with these numbers, its image is NaN."""
    original, done = Pix2PixModel.backward_G, []

    def backward_G(self):
        done.append(1)
        if len(done) in steps:
            self.fake_B = self.fake_B * float("nan")
        original(self)

    monkeypatch.setattr(Pix2PixModel, "backward_G", backward_G)


def one_line(capsys) -> str:
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "Traceback" not in error
    return error


# -- stop and rollback --------------------------------------------------------
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    train, tmp_path, monkeypatch, capsys
):
    poison(monkeypatch, 7)
    assert train() == 2
    line = one_line(capsys)
    assert "step 3 of epoch 2: loss G_GAN is nan" in line  # four images an epoch
    assert "netG (model.1.weight)" in line and "step 2 of epoch 2 is kept" in line and "rollback" in line
    folder = tmp_path / "c" / "a"
    assert numerics.bad_weights({"G": load_generator(folder / "latest_net_G.pth")}) is None
    assert read_tensors(folder / "latest_coronet_state.pth")["progress"]["shown"]["step"] == 6
    monkeypatch.undo()
    assert train("--continue_train") == 0


def test_before_the_first_save_it_says_so(train, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 1)
    assert train() == 2
    assert "nothing was saved before" in one_line(capsys)
    assert not (tmp_path / "c" / "a" / "latest_net_G.pth").exists()


@pytest.mark.parametrize("step", [3, 7], ids=["after channels were removed", "after the cut"])
def test_rollback_goes_on_from_the_last_save(train, tmp_path, monkeypatch, capsys, step):
    """The network may have been larger when it was saved; the run still ends, small and finite."""
    poison(monkeypatch, step)
    assert train("--coronet_on_nan", "rollback", "--coronet_search_epochs", 1.75) == 0
    said = capsys.readouterr().out
    assert said.count("going back to") == 1 and "is slim after 7 steps" in said
    folder = tmp_path / "c" / "a"
    spec = json.loads((folder / "latest_net_G.json").read_text())
    assert spec["phase"] == "compact" and spec["slim"]["macs"] <= spec["budget"]["target"]
    assert numerics.bad_weights({"G": load_generator(folder / "latest_net_G.pth")}) is None
    records = [json.loads(line) for line in (folder / "loss_log.jsonl").read_text().splitlines()]
    # Epochs and learning rate stay the host's: the rate is halved after the second.
    assert [r["epoch"] for r in records][-1] == 3 and records[-1]["lr"] == 1e-4
    assert len((folder / "provenance.json").read_text().split('"started"')) <= 2


def test_rollback_gives_up_after_three_in_a_row(train, monkeypatch, capsys):
    poison(monkeypatch, 3, 4, 5, 6)
    assert train("--coronet_on_nan", "rollback", "--save_latest_freq", 2) == 2
    output = capsys.readouterr()
    assert output.out.count("going back to") == 3 and "3 times did not help" in output.err


def test_weights_that_are_not_finite_are_never_saved(train, tmp_path, monkeypatch, capsys):
    """Losses need not tell: here a discriminator's weight is overwritten behind their back."""
    original = Pix2PixModel.optimize_parameters

    def overwrite(self):
        original(self)
        with torch.no_grad():
            self.netD.model[0].weight[0, 0, 0, 0] = float("inf")

    monkeypatch.setattr(Pix2PixModel, "optimize_parameters", overwrite)
    assert train("--save_latest_freq", 1) == 2
    assert "weights of netD (model.0.weight)" in one_line(capsys)
    assert not list((tmp_path / "c" / "a").glob("*.pth"))


def test_a_dense_training_stops_too(tmp_path, run, monkeypatch, capsys):
    poison(monkeypatch, 3)
    arguments = [*run("p", paired_folder(tmp_path), "pix2pix"), "--no_html", "--save_latest_freq", 2]
    assert run_train(*arguments) == 2
    assert "loss G_GAN is nan; not finite: weights of netG" in one_line(capsys)
    saved = read_tensors(tmp_path / "checkpoints" / "p" / "latest_net_G.pth")
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_losses_are_looked_at_seldom_where_that_has_to_be_waited_for():
    class Model:
        device = torch.device("cuda")

    assert [step for step in range(1, 31) if numerics.due(Model(), step)] == [10, 20, 30]
    Model.device = torch.device("cpu")
    assert numerics.due(Model(), 1)


# -- floors -------------------------------------------------------------------
@pytest.fixture(scope="module")
def plan():
    torch.manual_seed(0)
    generator = build_generator(3, 3, 16, "resnet_6blocks", "instance")
    return find_channels(generator, (example_input(generator, 16),))


@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.0, 1.0),
    kind=st.sampled_from(["macs", "params"]),
    flat=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_set_falls_below_its_floor(plan, seed, share, kind, flat):
    """Whatever the scores and the budget, also where most units are given up."""
    numbers = np.random.default_rng(seed)
    score = np.ones(plan.units) if flat else numbers.random(plan.units)
    score[numbers.random(plan.units) < numbers.random()] = -np.inf
    meter = CountMeter(plan, kind)
    alive = choose_alive(plan, score, meter, share * meter(None))
    for channel_set in plan.prunable:
        assert alive[channel_set.slice].sum() >= floor_of(channel_set) >= 1


@pytest.mark.parametrize("form", ["none", "published"])
def test_a_search_for_the_smallest_generator_stops_at_the_floors(form):
    generator = small()
    x = example_input(generator, 16)
    plan = find_channels(generator, (x,))
    floors = np.zeros(plan.units, dtype=bool)
    for channel_set in plan.prunable:
        floors[channel_set.start : channel_set.start + floor_of(channel_set)] = True
    smallest = int(np.ceil(CountMeter(plan, "macs")(floors)))
    options = {"search_steps": 12, "budget": smallest, "method": form}
    compression, optimizer = started(generator, side=16, **options)
    step = stepping(compression, optimizer)
    for _ in range(12):
        step()
        for channel_set in compression.plan.prunable:
            assert compression.alive()[channel_set.slice].sum() >= floor_of(channel_set)
    compression.slim()
    assert isinstance(compression.cost(), Cost) and compression.cost().macs <= smallest


# -- collapse -----------------------------------------------------------------
def watched(answer) -> str | None:
    """What the watch finds of a generator that gives ``answer(image)``."""

    class Generator(torch.nn.Module):
        def forward(self, image):
            return answer(image)

    generator = Generator()
    watch = CollapseWatch(generator)
    torch.manual_seed(0)
    for _ in range(EVERY * (LOOKS + 1)):
        generator(torch.rand(1, 3, 16, 16) * 2 - 1)
    return watch.found


def test_a_collapsed_generator_is_noticed():
    always = torch.rand(1, 3, 16, 16)
    assert watched(torch.tanh) is None
    assert watched(torch.zeros_like) == "one flat colour"
    assert (
        watched(lambda image: image * 0 + torch.tensor([0.1, 0.5, -0.3])[:, None, None]) == "one flat colour"
    )
    assert watched(lambda image: always) == "the same image of different inputs"
    assert watched(lambda image: always + 0.5 * image) is None


def test_the_same_input_again_is_no_collapse():
    image = torch.rand(1, 3, 16, 16)
    layer = torch.nn.Identity()
    watch = CollapseWatch(layer)
    for _ in range(EVERY * (LOOKS + 2)):
        layer(image)
    assert watch.found is None


def test_a_collapse_in_the_search_is_said_once(train, monkeypatch, capsys):
    import coronet_plugin.training.collapse as module
    from coronet_plugin.generators.resnet import ResnetGenerator

    monkeypatch.setattr(module, "EVERY", 1)
    original = ResnetGenerator.forward
    monkeypatch.setattr(ResnetGenerator, "forward", lambda self, image: original(self, image) * 0)
    assert train() == 0
    said = capsys.readouterr().out
    assert said.count("has collapsed") == 1 and "netG makes one flat colour" in said


# -- mixed precision ----------------------------------------------------------
def check_precision(state):
    """All numbers of a search, however deep, are finite and in full precision."""
    if isinstance(state, dict):
        for value in state.values():
            check_precision(value)
    elif isinstance(state, torch.Tensor) and state.is_floating_point():
        assert state.isfinite().all() and state.dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize("form", ["none", "published", "folded"])
def test_a_search_under_bf16_autocast(form):
    """Latents and importance stay in full precision and finite, and the cut meets the budget."""
    generator = small(norm="batch")
    compression, optimizer = started(generator, side=16, search_steps=10, budget=0.4, method=form)
    step, x = stepping(compression, optimizer), compression.inputs[0]
    for _ in range(10):
        with torch.autocast("cpu", torch.bfloat16):
            step()
        check_precision(compression.method.state_dict())
    compression.slim()
    assert compression.remaining <= 0.4 and generator(x).isfinite().all()


@pytest.mark.parametrize("form", ["none", "folded", "published"])
def test_a_search_under_fp16_autocast_with_a_scaler(form):
    """The scale is so large at first that gradients overflow and the optimizer leaves steps out."""
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("torch before 2.3 scales gradients on GPUs alone")
    generator = small()
    compression, optimizer = started(generator, side=16, search_steps=12, budget=0.4, method=form)
    x = next(pictures(compression))
    scaler, scales = torch.amp.GradScaler("cpu", init_scale=2.0**24), []
    for _ in range(12):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = (generator(x) - x).abs().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        compression.step()
        scales.append(scaler.get_scale())
        check_precision(compression.method.state_dict())
    assert scales[0] < 2.0**24 and scales[-1] == scales[-2]  # left out at first, and not at last
    compression.slim()
    assert compression.remaining <= 0.4 and generator(x).isfinite().all()


def test_a_step_with_overflowing_gradients_does_not_poison_the_importance():
    """As with fp16 before its scale has settled."""
    generator = small()
    compression, optimizer = started(generator, torch.optim.SGD, 0.0, side=16, budget=0.4)
    x = next(pictures(compression))
    for step in range(6):
        optimizer.zero_grad()
        (generator(x) - x).abs().mean().backward()
        if step == 2:
            for parameter in generator.parameters():
                parameter.grad.fill_(float("inf"))
        compression.method.gradients()  # the optimizer's step would spoil the weights
        compression.step()
    assert compression.method.state_dict()["importance"].isfinite().all()
