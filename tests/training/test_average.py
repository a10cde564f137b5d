"""Averaged weights and the generators' own learning rate: in a plain loop, in files and in the host."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from conftest import paired_folder, run_test, run_train, unpaired_folder
from training_helpers import small
from training_helpers import started as training
from training_helpers import train as learn

import train
from coronet_plugin import OptionError, load_generator
from coronet_plugin.fake_quantization import WEIGHT_STEPS
from coronet_plugin.training.average import Average

SIZE = 32
ARCHITECTURE = {"netG": "resnet_6blocks", "input_nc": 3, "output_nc": 3, "ngf": 6, "use_dropout": False}
RUN = [
    *("--netG", "resnet_6blocks", "--ngf", 6, "--ndf", 4, "--load_size", SIZE, "--crop_size", SIZE),
    *("--no_dropout", "--num_threads", 0),
]
TRAIN = [
    *("--display_id", -1, "--no_html", "--print_freq", 1, "--seed", 3, "--n_epochs", 1),
    *("--n_epochs_decay", 1, "--coronet_search_epochs", 1),
]


def started(norm: str = "instance", average: float | None = None, **options):
    options = {"search_steps": 30, "architecture": {**ARCHITECTURE, "norm": norm}, **options}
    companions = [] if average is None else [Average(average)]
    return training(small(norm=norm, ngf=6), side=SIZE, companions=companions, **options)


def test_the_mean_is_the_promised_one():
    net = torch.nn.Linear(1, 1, bias=False)
    average, expected = Average(0.9), 1.0
    average.generator = net
    for number in range(1, 200):
        value = float(number % 7)
        torch.nn.init.constant_(net.weight, value)
        average.after_step(number)
        expected += max(0.1, 9 / (10 + number)) * (value - expected)  # it begins with the first value, 1
    with average.in_place():
        assert float(net.weight) == pytest.approx(expected, rel=1e-5)
    assert float(net.weight) == value


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(OptionError, match="between 0 and 1"):
        started(average=decay)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_removals_change_nothing_in_the_mean_either(norm, monkeypatch):
    compression, optimizer = started(norm, average=0.9)
    x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    remove, changes = compression.remove_, []

    def averaged():
        with torch.no_grad(), compression.companions["average"].in_place() as generator:
            return generator(x)

    def watched(alive):
        before = averaged()
        remove(alive)
        changes.append(float((averaged() - before).abs().max()))

    monkeypatch.setattr(compression, "remove_", watched)
    for seed in range(40):
        learn(compression, optimizer, 1, seed)
    assert compression.phase == "compact" and len(changes) > 3
    assert max(changes) < 1e-5


@pytest.mark.parametrize("method", ["coronet", "uniform", "random"])
def test_the_mean_moves_to_the_end_of_the_training_and_leaves_it_alone(method):
    plain, optimizer = started(method=method)
    also, other = started(method=method, average=0.8)
    for seed in range(50):
        learn(plain, optimizer, 1, seed)
        learn(also, other, 1, seed)
    pairs = list(zip(plain.generator.parameters(), also.generator.parameters()))
    assert all(torch.equal(first, second) for first, second in pairs)
    assert also.companions["average"].steps == 50
    trained = [p.clone() for p in also.generator.parameters()]
    with also.companions["average"].in_place():
        away = max(float((a - b).abs().max()) for a, b in zip(also.generator.parameters(), trained))
    assert 0 < away < 0.05  # near the weights of the last steps: it is no mean of the random ones


def test_files_of_the_plain_loop(tmp_path):
    compression, optimizer = started(average=0.9)
    for seed in range(35):
        learn(compression, optimizer, 1, seed)
    compression.save(tmp_path / "G.pth")
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        raw = load_generator(tmp_path / "G.pth")(x)
        mean = load_generator(tmp_path / "G_average.pth")(x)
        assert torch.equal(raw, compression.generator(x)) and not torch.equal(raw, mean)
        with compression.companions["average"].in_place() as generator:
            assert torch.equal(mean, generator(x))


def test_a_continued_loop_equals_an_uninterrupted_one():
    whole, optimizer = started(average=0.9)
    for seed in range(20):
        learn(whole, optimizer, 1, seed)
    state = copy.deepcopy(whole.state_dict())
    again, other = started(average=0.9)
    again.load_state_dict(state)
    again.generator.load_state_dict(whole.generator.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(20, 40):
        learn(whole, optimizer, 1, seed)
        learn(again, other, 1, seed)
    with whole.companions["average"].in_place() as first, again.companions["average"].in_place() as second:
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


# -- the host ------------------------------------------------------------------
def test_the_mean_is_tested_by_the_name_of_its_epoch(tmp_path):
    """Also where only one of two generators is compressed, and the other one has no mean."""
    data = unpaired_folder(tmp_path, images=(3, 3), size=SIZE)
    shared = [
        "--dataroot",
        data,
        "--name",
        "a",
        "--checkpoints_dir",
        tmp_path / "c",
        "--model",
        "coronet",
        *RUN,
    ]
    options = ["--coronet_networks", "G_A", "--coronet_average", 0.7, "--coronet_budget", 0.4]
    assert run_train(*shared, *TRAIN, *options) == 0
    folder = tmp_path / "c" / "a"
    means = {path.name for path in folder.glob("*average*")}
    assert means == {"latest_average_net_G_A.pth", "latest_average_net_G_A.json"}
    for epoch in ("latest", "latest_average"):
        assert run_test(*shared, "--results_dir", tmp_path / "r", "--epoch", epoch) == 0
    pictures = {
        epoch: {p.name: p.read_bytes() for p in (tmp_path / "r" / "a" / f"test_{epoch}" / "images").iterdir()}
        for epoch in ("latest", "latest_average")
    }
    raw, mean = pictures["latest"], pictures["latest_average"]
    assert raw.keys() == mean.keys()
    assert all(
        (raw[name] != mean[name]) == name.endswith(("fake_B.png", "rec_A.png", "rec_B.png")) for name in raw
    )


def test_weights_that_are_averaged_late_are_rounded_like_the_others(tmp_path):
    data = paired_folder(tmp_path, images=3, size=SIZE)
    shared = [
        "--dataroot",
        data,
        "--name",
        "a",
        "--checkpoints_dir",
        tmp_path / "c",
        "--model",
        "coronet",
        *RUN,
    ]
    options = [
        "--coronet_base",
        "pix2pix",
        "--coronet_average",
        0.7,
        "--coronet_qat",
        1,
        "--norm",
        "instance",
    ]
    options += ["--coronet_budget", 0.4]
    assert run_train(*shared, *TRAIN, *options) == 0
    path = tmp_path / "c" / "a" / "latest_average_net_G.pth"
    weight = torch.load(path, weights_only=True)["model.1.weight"]
    steps = weight / (weight.abs().amax((1, 2, 3), keepdim=True) / WEIGHT_STEPS)
    assert float((steps - steps.round()).abs().max()) < 1e-3
    assert json.loads(path.with_suffix(".json").read_text())["quantization"]


@pytest.mark.parametrize("form", ["exact", "published"])
def test_the_generators_learning_rate_is_its_own(tmp_path, monkeypatch, form):
    data = paired_folder(tmp_path, images=4, size=SIZE)
    rates: dict[int, list[tuple[float, ...]]] = {1: [], 3: []}
    step = train.Training.step

    def noting(self, *args):
        step(self, *args)
        model = self.model
        method = model.compressions["G"].method
        searching = method.generated.optimizer if getattr(method, "hypernetwork", None) else None
        found = [model.optimizer_G, model.optimizer_D, *([searching] if searching else [])]
        rates[factor].append(tuple(optimizer.param_groups[0]["lr"] for optimizer in found))

    monkeypatch.setattr(train.Training, "step", noting)
    shared = ["--dataroot", data, "--checkpoints_dir", tmp_path / "c", "--model", "coronet", *RUN, *TRAIN]
    shared += ["--coronet_base", "pix2pix", "--coronet_hypernetwork", form, "--coronet_budget", 0.4]
    for factor in rates:
        assert run_train(*shared, "--name", f"f{factor}", "--coronet_lr_factor", factor) == 0
    assert len(rates[1]) == 8 and rates[1][0][1] > rates[1][-1][1] > 0  # the schedule is at work
    for usual, raised in zip(rates[1], rates[3]):
        assert raised[1] == usual[1]
        assert raised[0] == pytest.approx(3 * usual[0])
        assert raised[2:] == pytest.approx([3 * rate for rate in usual[2:]])


def test_the_angle_of_the_options_is_that_of_the_steps_times_the_factor(tmp_path, monkeypatch):
    """Also when the schedule has halved both."""
    data = paired_folder(tmp_path, images=4, size=SIZE)
    lengths, step = [], train.Training.step

    def noting(self, *args):
        generator = self.model.compressions["G"].generator
        name, weight = next((n, p) for n, p in generator.named_parameters() if p.ndim > 1)
        before = weight.detach().clone()
        step(self, *args)
        if generator.get_parameter(name) is weight:  # not cut in this step
            share = self.model.optimizer_G.param_groups[0]["lr"] / first
            lengths.append(float((weight.detach() - before).norm() / before.norm()) / share)

    first = 2e-4 * 3
    monkeypatch.setattr(train.Training, "step", noting)
    shared = ["--dataroot", data, "--checkpoints_dir", tmp_path / "c", "--model", "coronet", *RUN, *TRAIN]
    shared += ["--coronet_base", "pix2pix", "--coronet_budget", 1.0, "--coronet_angle", 0.01, "--name", "a"]
    assert run_train(*shared, "--coronet_lr_factor", 3) == 0
    assert len(lengths) == 8 and lengths == pytest.approx([0.03] * 8, rel=1e-3)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--coronet_average", 1), ("--coronet_lr_factor", 0), ("--coronet_lr_factor", "inf"),
     ("--coronet_angle", 1), ("--coronet_angle", "nan"), ("--coronet_angle", -0.1)],
)  # fmt: skip
def test_values_out_of_range_are_one_line(tmp_path, capsys, option, value):
    data = paired_folder(tmp_path, images=2, size=SIZE)
    shared = ["--dataroot", data, "--name", "a", "--checkpoints_dir", tmp_path / "c", "--model", "coronet"]
    assert run_train(*shared, *RUN, *TRAIN, "--coronet_base", "pix2pix", option, value) == 2
    assert option in capsys.readouterr().err


def test_generated_weights_have_no_angle(tmp_path, capsys):
    data = paired_folder(tmp_path, images=2, size=SIZE)
    shared = ["--dataroot", data, "--name", "a", "--checkpoints_dir", tmp_path / "c", "--model", "coronet"]
    words = ["--coronet_base", "pix2pix", "--coronet_method", "published", "--coronet_angle", 0.01]
    assert run_train(*shared, *RUN, *TRAIN, *words) == 2
    assert "--coronet_angle is for weights that the optimizer trains" in capsys.readouterr().err
