"""Methods: registered by name, with settings that become options, and events that every one may use."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
import sys
from dataclasses import asdict, dataclass

import pytest
import torch
from conftest import ROOT, paired_folder, run_test, run_train
from torch import nn
from training_helpers import small, train
from training_helpers import started as training

from coronet_plugin import Compression, OptionError, find_channels
from coronet_plugin.checkpoint.spec import Spec
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import Events, Method, configure, find, method, names, registry, setting
from scripts.write_docs import methods_table

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
X = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def registered():
    """Methods that a test registers are forgotten after it."""
    known = names()
    yield
    for name in set(names()) - set(known):
        registry.forget(name)


def started(generator: nn.Module, **options):
    return training(generator, **{"search_steps": 5, "budget": 0.5, **options})


# -- the page ------------------------------------------------------------------
def test_the_example_of_the_page_is_short_and_works(registered, tmp_path, capsys, monkeypatch):
    """As a module of its own, in the host: options, training, spec, test."""
    code = re.search(r"```python\n(from dataclasses.*?)```", PAGE, re.S)[1]
    assert len(code.splitlines()) < 40
    (tmp_path / "activity.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("activity")
    data = paired_folder(tmp_path, images=4, size=32)
    shared = ["--dataroot", data, "--name", "a", "--checkpoints_dir", tmp_path / "c", "--model", "coronet"]
    shared += ["--netG", "resnet_6blocks", "--ngf", 8, "--ndf", 4, "--load_size", 32, "--crop_size", 32]
    shared += ["--num_threads", 0]
    options = ["--coronet_base", "pix2pix", "--coronet_method", "activity", "--coronet_sparsity", 0.5]
    options += [
        "--coronet_budget",
        0.4,
        "--n_epochs",
        2,
        "--n_epochs_decay",
        0,
        "--display_id",
        -1,
        "--no_html",
    ]
    assert run_train(*shared, *options) == 0
    spec = Spec.read(tmp_path / "c" / "a" / "latest_net_G.json")
    assert (spec.search["method"], spec.search["config"]) == ("activity", {"sparsity": 0.5})
    assert spec.slim["macs"] <= 0.4 * spec.dense["macs"]
    assert run_test(*shared, "--results_dir", tmp_path / "r") == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_train("--model", "coronet", "--help")
    assert re.search(r"--coronet_sparsity \w+\s+weight of the mean activity", capsys.readouterr().out)


def test_the_table_of_the_page_is_that_of_the_registry():
    """``python scripts/write_docs.py`` writes it."""
    assert methods_table() in PAGE


# -- registering ---------------------------------------------------------------
def test_a_method_that_cannot_be_registered_says_why(registered):
    with pytest.raises(OptionError, match="'uniform' is registered twice"):
        method("uniform", "again")(type("Again", (Method,), {}))

    class Other(Method):
        @dataclass(frozen=True)
        class Config:
            embedding: int = setting(3, "something else")

    with pytest.raises(OptionError, match="embedding is a setting of the method 'implicit' too"):
        method("other", "of the same setting")(Other)


def test_settings_of_another_method_are_refused(tmp_path, capsys):
    with pytest.raises(
        OptionError, match="--coronet_embedding is not for the method uniform, which has no settings"
    ):
        configure("uniform", embedding=4)
    with pytest.raises(OptionError, match="must be at least 1"):
        configure("published", embedding=0)
    data = paired_folder(tmp_path, images=2, size=32)
    words = ["--dataroot", data, "--name", "a", "--checkpoints_dir", tmp_path / "c", "--model", "coronet"]
    assert (
        run_train(*words, "--coronet_base", "pix2pix", "--coronet_method", "random", "--coronet_rate", 2) == 2
    )
    assert "--coronet_rate is not for the method random" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("former", "now"), [("exact", "gates"), ("none", "gates"), ("published", "published")]
)
def test_former_names_go_on_working(former, now):
    assert find(former).name == now and now in names()


def test_other_packages_bring_methods_by_an_entry_point(registered, tmp_path, monkeypatch):
    """As pip installs them: a folder with metadata on the path."""
    (tmp_path / "brought.py").write_text(
        "from coronet_plugin.methods import Method, method\n"
        "@method('brought', 'by another package')\nclass Brought(Method):\n    pass\n"
    )
    info = tmp_path / "brought-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[coronet.methods]\nbrought = brought\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.load_installed.cache_clear()
    assert "brought" in names()
    compression, optimizer = started(small(), method="brought")
    train(compression, optimizer, 6)
    assert compression.remaining <= 0.5
    sys.modules.pop("brought")


# -- events --------------------------------------------------------------------
class Diary(Events):
    """Writes down what happens."""

    name = "diary"

    def __init__(self) -> None:
        self.entries: list[str] = []

    def begin(self, optimizer, group):
        self.entries.append("begin")

    def before_step(self, step):
        self.entries.append(f"before {step}")

    def extra_loss(self, inputs, output, features):
        self.entries.append("loss")
        return None

    def gradients(self):
        self.entries.append("gradients")

    def after_step(self, step):
        self.entries.append(f"after {step}")

    def resized(self, plan, remaining):
        self.entries.append("resized")

    def finish(self):
        self.entries.append("finish")


def test_events_come_in_their_order_and_go_on_after_the_cut():
    diary = Diary()
    compression, optimizer = started(small(), search_steps=2, gradual=False, companions=[diary])
    with torch.no_grad():
        compression.generator(X)  # a picture that is shown is no step
    train(compression, optimizer, 3)
    step = ["loss", "gradients"]
    assert diary.entries == [
        *("begin", "before 1", *step, "after 1", "before 2", *step, "after 2", "resized", "finish"),
        *("before 3", *step, "after 3"),
    ]


class Penalty(Events):
    name, taps = "penalty", ("model.4", "model.12")

    def extra_loss(self, inputs, output, features):
        return output.square().mean() + sum((x - inputs[0].mean()).abs().mean() for x in features.values())


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_an_extra_loss_adds_exactly_its_gradient(scale):
    """Against the same loss written into the host's, with features caught by hooks of its own."""
    generator, plain = small().double(), small().double()
    x = X.double()

    class Scaler:
        def scale(self, loss):
            return loss * scale

    optimizer = torch.optim.SGD(generator.parameters(), lr=0)
    compression = Compression(generator, x, search_steps=9, budget=0.5, companions=[Penalty()])
    compression.attach(optimizer, Scaler() if scale != 1 else None)
    (scale * (generator(x) - x).abs().mean()).backward()
    features: list[torch.Tensor] = []
    for name in Penalty.taps:
        plain.get_submodule(name).register_forward_hook(lambda _, __, output: features.append(output))
    output = plain(x)
    own = output.square().mean() + sum((f - x.mean()).abs().mean() for f in features)
    (scale * ((output - x).abs().mean() + own)).backward()
    for mine, expected in zip(generator.parameters(), plain.parameters()):
        assert torch.allclose(mine.grad, expected.grad, rtol=1e-9, atol=1e-12 * scale)


class Shrink(Events):
    """Notes what it was run on, and pulls outputs to zero."""

    name = "shrink"

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def extra_loss(self, inputs, output, features):
        self.seen.append(inputs[0])
        return 100 * output.square().mean()


def test_a_loss_is_of_a_run_on_real_pictures_and_stays_with_its_generator():
    """As in CycleGAN: the generator that goes back is first run on what the other makes."""
    there, back, real = small(1), small(2), X.flip(3)
    shrink = Shrink()
    compression, _ = started(back, companions=[shrink])
    cycle = back(there(X))
    (0 * cycle.mean() + (back(real) - X).abs().mean()).backward()
    assert len(shrink.seen) == 1 and torch.equal(shrink.seen[0], real)
    assert not any(parameter.grad.any() for parameter in there.parameters())
    compression.step()


def test_a_generator_that_is_run_on_others_outputs_alone_has_its_loss_from_the_second_step_on():
    there, back, shrink = small(1), small(2), Shrink()
    compression, optimizer = started(back, companions=[shrink])
    for number in range(3):
        back(there(X)).mean().backward()
        optimizer.step()
        compression.step()
        assert len(shrink.seen) == number


def test_without_events_there_are_no_hooks_and_copies_never_have_them():
    generator = small()
    started(generator)
    assert not generator._forward_pre_hooks and not generator._forward_hooks
    diary = Diary()
    other = small()
    started(other, companions=[diary])
    assert other._forward_pre_hooks
    before = list(diary.entries)
    copy.deepcopy(other)(X)
    pickle.loads(pickle.dumps(other))(X)
    assert diary.entries == before


def test_a_tap_that_is_not_there_is_one_line():
    class Lost(Penalty):
        taps = ("model.99",)

    with pytest.raises(OptionError, match="no layer 'model.99' to take features from; it has model"):
        started(small(), companions=[Lost()])


def test_a_method_may_go_on_with_another_module(registered, tmp_path):
    """A narrow student takes the generator's place: in the optimizer, in files, for companions."""

    @method("student", "a narrow one from another family")
    class Student(Method):
        def finish(self):
            return build_generator(3, 3, 4, "resnet_6blocks", "instance")

    diary = Diary()
    generator = small()
    compression, optimizer = started(generator, method="student", companions=[diary])
    train(compression, optimizer, 7)
    student = compression.generator
    assert student is not generator and diary.generator is student
    assert compression.cost() == find_channels(student, X).cost()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in student.parameters()}
    assert all(p in optimizer.state for p in student.parameters() if p.grad is not None)
    compression.save(tmp_path / "latest_net_G.pth")
    spec = Spec.read(tmp_path / "latest_net_G.json")
    assert (
        spec.dense == find_channels(small(), X).cost().as_dict() and spec.slim == compression.cost().as_dict()
    )


def test_the_configuration_is_recorded():
    compression, _ = started(small(), method=configure("published", embedding=3))
    assert compression.spec().search["config"] == asdict(compression.config) == {"embedding": 3}
    assert compression.state_dict()["search"]["hypernetwork"]["kernels.0.w1"].shape[-1] == 3
