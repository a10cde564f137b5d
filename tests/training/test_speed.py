"""Mixed precision, channels last, compiled networks, fused steps and added-up batches, through search and cut."""

from __future__ import annotations

import copy
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import DEVICES, TINY, gpu_ids, paired_folder, run_test, run_train, unpaired_folder
from run_helpers import assert_same_weights, difference, stopping_before
from torch import nn
from training_helpers import learn, pictures, small, started

from coronet_plugin import Compression, Spec, load_generator
from coronet_plugin.compression import COMPILED, WORTHWHILE
from coronet_plugin.errors import OptionError
from coronet_plugin.training import speed
from coronet_plugin.training.speed import Speed, SpeedOptions

IMAGES = 4
COMMON = f"--coronet_method random --coronet_budget 0.3 --ngf 8 --ndf 4 --netG resnet_6blocks --norm instance --num_threads 0 --seed 1 --display_id -1 --no_html --coronet_watch 0 --max_dataset_size {IMAGES} --coronet_search_epochs 2"
SMALL = [*TINY, *COMMON.split(), "--no_dropout"]


@pytest.fixture(autouse=True)
def _quickly_compiled(monkeypatch):
    """Traced and guarded as ever, but no C++ is compiled."""
    monkeypatch.setattr(speed, "BACKEND", "eager")


class Runs(NamedTuple):
    """Runs in one folder, of one data set, on one device."""

    folder: Path
    data: Path
    device: str

    def train(self, name, *options, epochs=3):
        words = ["--dataroot", self.data, "--name", name, "--checkpoints_dir", self.folder, "--model", "coronet"]
        words += [*SMALL, "--coronet_base", "pix2pix", "--n_epochs", epochs, "--n_epochs_decay", 0]
        assert run_train(*words, *gpu_ids(self.device), *options) == 0

    @torch.no_grad()
    def output(self, name):
        """Of the generator that was saved. Weights tell less: biases in front of norms drift with rounding."""
        x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return load_generator(self.folder / name / "latest_net_G.pth")(x)


@pytest.fixture(scope="module", params=DEVICES)
def trained(request, tmp_path_factory):
    """Runs, of which ``plain`` is one without any of it, to compare with."""
    folder = tmp_path_factory.mktemp("plain")
    runs = Runs(folder, paired_folder(folder, IMAGES, 32), request.param)
    runs.train("plain")
    return runs


CASES = {
    "fp16": ["--coronet_amp", "fp16"],
    "bf16, fused, channels last": ["--amp", "bf16", "--fused", "--channels_last"],
    "bf16, compiled": ["--amp", "bf16", "--compile", "--print_freq", 4],
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_search_cut_and_files_are_those_of_plain_training(trained, capsys, options):
    folder = trained.folder
    capsys.readouterr()
    name = "".join(map(str, options)).replace("-", "")
    trained.train(name, *options)
    said = capsys.readouterr().out
    assert "coronet: netG is slim after 8 steps" in said
    plain, ours = (Spec.read(folder / each / "latest_net_G.json") for each in ("plain", name))
    assert ours.phase == "compact" and ours.sets == plain.sets
    found = torch.load(folder / name / "latest_net_G.pth", weights_only=True)
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in found.values())
    assert (trained.output(name) - trained.output("plain")).abs().mean() < 0.1  # bf16 has 8 bits
    if "compile" in name:
        graphs = said.count("compiled netG ")
        assert 2 <= graphs <= 7  # at first, and after each of few removals
        assert f"graphs: {said.count('compiled net'):.3f}" in (folder / name / "loss_log.txt").read_text()


def in_double_precision(**options) -> tuple[nn.Module, Speed]:
    """A generator after search, cut and some steps, where rounding is next to nothing."""
    generator = small().double()
    compression, optimizer = started(generator, search_steps=8)
    model = Namespace(isTrain=True, device="cpu", model_names=["G"], netG=generator, optimizers=[optimizer])
    fast = Speed(model, SpeedOptions(**options))
    fast.prepare_()
    for x, _ in zip(pictures(compression), range(12)):
        with fast.step():
            learn(generator, optimizer, x)
        if compression.step():
            compression.slim()
        if compression.resized:
            fast.prepare_()
    assert compression.phase == "compact"
    return generator, fast


@pytest.fixture(scope="module")
def plainly_trained():
    return in_double_precision()[0]


@pytest.mark.parametrize("options", [dict(fused=True, channels_last=True), dict(compile=True)], ids=str)
def test_but_for_rounding_nothing_is_changed(plainly_trained, options):
    generator, fast = in_double_precision(**options)
    assert difference(generator, plainly_trained, (torch.rand(1, 3, 32, 32).double(),)) < 1e-12
    weight = generator.model[1].weight
    assert weight.is_contiguous() != ("channels_last" in options)
    for known in fast.model.optimizers[0].state.values():
        assert {value.stride() for value in known.values() if value.ndim == 4} <= {known["exp_avg"].stride()}
    assert fast.graphs == 0 or 2 <= fast.graphs <= 9


@pytest.mark.parametrize("options", [["--amp", "fp16", "--fused"], ["--accumulate", "3", "--amp", "bf16"]])
def test_a_continued_run_is_the_uninterrupted_one(trained, options):
    name, folder = f"{len(options)}", trained.folder
    trained.train(f"whole{name}", *options)
    with stopping_before(2):
        trained.train(f"parts{name}", *options, "--save_epoch_freq", 1)
    trained.train(f"parts{name}", *options, "--continue_train")
    if trained.device == "cpu":
        files = ["latest_net_G.pth", "latest_net_D.pth"]
        assert_same_weights(folder / f"whole{name}", folder / f"parts{name}", files)
    else:  # where some operations sum in an order of the moment
        assert (trained.output(f"whole{name}") - trained.output(f"parts{name}")).abs().mean() < 0.02


def test_testing_in_mixed_precision_gives_almost_the_same_pictures(trained, tmp_path):
    from PIL import Image

    folder, data, device = trained
    looks = {"plain": [], "fast": ["--coronet_amp", "bf16", "--channels_last", "--compile"]}
    for name, options in looks.items():
        words = ["--dataroot", data, "--name", "plain", "--checkpoints_dir", folder, "--model", "coronet"]
        words += ["--results_dir", tmp_path / name, "--num_test", 1, *TINY, "--load_size", 32, "--ngf", 8, "--no_dropout", *gpu_ids(device), *options]
        assert run_test(*words) == 0
    first, second = (
        np.asarray(Image.open(next((tmp_path / name).rglob("*fake_B.png")))).ravel() for name in looks
    )
    assert not np.array_equal(first, second)  # it was computed otherwise
    assert np.corrcoef(first, second)[0, 1] > 0.99


def step_of(model, batch):
    model.set_input(batch)
    model.optimize_parameters()


def model_of(base, folder, tmp_path, *options):
    from models import create_model
    from options.train_options import TrainOptions

    words = ["--dataroot", folder, "--name", "run", "--checkpoints_dir", tmp_path / "c", "--model", base]
    words += [*TINY, "--norm", "none", "--no_dropout", "--seed", 3, "--overwrite", *options]
    opt = TrainOptions().parse([str(word) for word in words])
    torch.manual_seed(0)
    model = create_model(opt)
    model.setup(opt)
    return model


def test_batches_added_up_are_the_large_batch(tmp_path):
    """In CycleGAN nothing is judged by what this step changed, and without norms nothing mixes images."""
    folder = unpaired_folder(tmp_path)
    images = {side: torch.rand(6, 3, 32, 32) * 2 - 1 for side in "AB"}
    whole = model_of("cycle_gan", folder, tmp_path, "--pool_size", 0)
    parts = copy.deepcopy(whole)
    # deepcopies of optimizers hold the copies of parameters, as one object is copied once
    adding = Speed(parts, SpeedOptions(accumulate=3))
    adding.prepare_()
    paths = {f"{side}_paths": [""] for side in "AB"}
    for start in (0, 3):
        step_of(whole, {side: x[start : start + 3] for side, x in images.items()} | paths)
        for i in range(start, start + 3):
            before = [p.clone() for p in parts.netG_A.parameters()]
            with adding.step():
                step_of(parts, {side: x[i : i + 1] for side, x in images.items()} | paths)
            moved = any(not torch.equal(a, b) for a, b in zip(before, parts.netG_A.parameters()))
            assert moved == (i == start + 2)
    for name in whole.model_names:
        for mine, theirs in zip(getattr(parts, "net" + name).parameters(), getattr(whole, "net" + name).parameters()):
            assert torch.allclose(mine, theirs, atol=5e-4), name  # Adam makes much of small gradients' rounding


def test_methods_see_gradients_free_of_the_scale():
    """Those of fused optimizers too, which could free them only in their step."""
    found = []
    for options in ({}, dict(amp="fp16", fused=True)):
        generator = small()
        compression, optimizer = started(generator)
        model = Namespace(isTrain=True, device="cpu", model_names=["G"], netG=generator, optimizers=[optimizer])
        fast = Speed(model, SpeedOptions(**options))
        fast.prepare_()
        if fast._scaler is not None:
            fast._scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        with fast.step():
            learn(generator, optimizer, next(pictures(compression)))
        found.append(compression.method.importance[:-1])
    plain, scaled = found
    assert torch.allclose(plain.sum(), scaled.sum(), rtol=0.05)


def test_a_plain_host_model_trains_with_all_of_it(tmp_path):
    folder = unpaired_folder(tmp_path)
    words = ["--dataroot", folder, "--name", "a", "--checkpoints_dir", tmp_path, "--model", "cycle_gan", *TINY]
    words += ["--n_epochs", 1, "--n_epochs_decay", 0, "--display_id", -1, "--no_html"]
    assert run_train(*words, "--amp", "fp16", "--fused", "--channels_last", "--accumulate", 2) == 0
    assert all(x.dtype == torch.float32 for x in torch.load(tmp_path / "a/latest_net_G_A.pth").values())


def test_networks_compute_in_full_precision_outside_of_steps(tmp_path):
    model = model_of("pix2pix", paired_folder(tmp_path), tmp_path)
    fast = Speed(model, SpeedOptions(amp="bf16"))
    x = torch.rand(1, 3, 32, 32)
    before = model.netG(x)
    kind = type(model.netG)
    fast.prepare_()
    fast.prepare_()
    assert torch.equal(model.netG(x), before) and torch.equal(copy.deepcopy(model.netG)(x), before)
    with fast.step():
        rounded = model.netG(x)
    assert rounded.dtype == torch.float32 and 0 < (rounded - before).abs().max() < 0.1
    assert isinstance(model.netG, kind) and type(model.netG).__name__ == kind.__name__
    assert len(type(model.netG).__mro__) == len(kind.__mro__) + 2


def test_a_compiled_generator_loses_channels_in_fewer_steps():
    plain = Compression(small(), torch.zeros(1, 3, 32, 32), search_steps=5, budget=0.3)
    compiled = Compression(
        torch.compile(small(), backend="aot_eager"), torch.zeros(1, 3, 32, 32), search_steps=5, budget=0.3
    )
    assert (plain.worthwhile, compiled.worthwhile) == (WORTHWHILE, COMPILED)


@pytest.mark.parametrize(
    ("options", "model", "words"),
    [
        (dict(compile=True), dict(gpu_ids=[0, 1]), "torchrun"),
        (dict(fused=True), dict(optimizers=[torch.optim.Rprop([nn.Parameter(torch.ones(1))])]), "Rprop"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(options, model, words):
    given = {"isTrain": True, "device": "cpu", "model_names": [], "optimizers": [], **model}
    with pytest.raises(OptionError, match=words) as refused:
        Speed(Namespace(**given), SpeedOptions(**options)).prepare_()
    assert "\n" not in str(refused.value)


def test_bf16_is_refused_on_cards_that_only_emulate_it(monkeypatch):
    model = Namespace(isTrain=True, device="cuda", model_names=[], optimizers=[])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    Speed(model, SpeedOptions(amp="bf16"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(OptionError, match="this GPU computes none; choose --amp fp16"):
        Speed(model, SpeedOptions(amp="bf16"))


def test_no_batches_at_all_are_refused():
    with pytest.raises(OptionError, match="--accumulate must be at least 1, not 0"):
        SpeedOptions(accumulate=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_inductor_compiles_search_cut_and_what_goes_on(trained, monkeypatch, capsys):
    monkeypatch.setattr(speed, "BACKEND", "inductor")
    with stopping_before(3):
        trained.train("inductor", "--compile", "--save_epoch_freq", 1)
    trained.train("inductor", "--compile", "--continue_train")
    assert (trained.output("inductor") - trained.output("plain")).abs().mean() < 0.01
    assert capsys.readouterr().out.count("compiled netG ") <= 8
