"""Distillation: gradients of a loss that could have been written out, by a teacher that disturbs nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import paired_folder, run_train
from torch import nn
from torch.nn import functional
from training_helpers import go_on as train

from coronet_plugin import CheckpointError, Compression, OptionError
from coronet_plugin.channels.find import find_channels, find_taps
from coronet_plugin.generators.registry import families
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import Method, method, registry
from coronet_plugin.methods.distillation import SELF, Distillation
from coronet_plugin.methods.similarity import Terms, ssim, total_variation

X = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
ALL = Terms(features=1.0, channels=50.0, output=10.0, ssim=10.0, tv=1e-5)
TAPS = ("model.9", "model.11", "model.13", "model.15")


def small(seed: int = 0, ngf: int = 8, dropout: bool = False, netG: str = "resnet_6blocks") -> nn.Module:
    torch.manual_seed(seed)
    norm = "instance" if netG.startswith("resnet") else "batch"
    return build_generator(3, 3, ngf, netG, norm, dropout)


def started(generator: nn.Module, distillation: Distillation | None, optimizer=None, scaler=None, **options):
    optimizer = optimizer or torch.optim.Adam(generator.parameters(), lr=1e-3)
    options = {"search_steps": 20, "budget": 0.3, **options}
    companions = [distillation] if distillation else []
    example = X.to(next(generator.parameters()).dtype)
    compression = Compression(generator, example, companions=companions, **options)
    return compression.attach(optimizer, scaler), optimizer


def tensors(generator: nn.Module) -> list[torch.Tensor]:
    return [t.clone() for t in generator.state_dict().values()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second))


# -- the loss ------------------------------------------------------------------
def test_the_terms_are_their_equations():
    """Written out a second time, value by value."""
    s, t = torch.randn(2, 2, 3, 16, 16).tanh()
    features = [torch.randn(2, 2, 5, 4, 4), torch.randn(2, 2, 7, 2, 2)]
    mine, theirs = [f[0] for f in features], [f[1] for f in features]

    def found(**weights: float) -> float:
        return float(Terms(**weights).loss(([s], [t]), (mine, theirs)))

    squares = sum(((a - b) ** 2).sum() / a.numel() for a, b in zip(mine, theirs))
    means = 0.0
    for a, b in zip(mine, theirs):
        for image in range(2):
            for c in range(a.shape[1]):
                means += (a[image, c].mean() - b[image, c].mean()) ** 2 / (2 * a.shape[1])
    variation = sum(
        abs(s[n, c, i, j] - s[n, c, i + di, j + dj]) / 2
        for n in range(2) for c in range(3) for i in range(16) for j in range(16)
        for di, dj in ((1, 0), (0, 1)) if i + di < 16 and j + dj < 16
    )  # fmt: skip
    assert found(features=2.0) == pytest.approx(2 * float(squares), rel=1e-5)
    assert found(channels=3.0) == pytest.approx(3 * float(means), rel=1e-5)
    assert found(output=4.0) == pytest.approx(4 * float((s - t).abs().sum() / s.numel()), rel=1e-5)
    assert found(tv=0.5) == pytest.approx(0.5 * float(variation), rel=1e-5)
    assert found(ssim=5.0) == pytest.approx(5 - 5 * float(ssim(s, t)), rel=1e-5)
    assert float(total_variation(torch.ones(1, 3, 4, 4))) == 0 == found()


def test_the_structural_similarity_is_that_of_another_program():
    metrics = pytest.importorskip("skimage.metrics")
    noise = torch.Generator().manual_seed(3)
    s = functional.interpolate(torch.rand(1, 3, 8, 8, generator=noise), size=24, mode="bicubic").clamp(0, 1)
    t = (s + 0.1 * torch.randn(s.shape, generator=noise)).clamp(0, 1)
    each = []
    for a, b in zip(s[0].double().numpy(), t[0].double().numpy()):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        _, picture = metrics.structural_similarity(a, b, data_range=1.0, **options)
        each.append(picture[5:-5, 5:-5].mean())  # where the window is whole
    assert float(ssim(2 * s - 1, 2 * t - 1)) == pytest.approx(np.mean(each), abs=1e-5)
    assert float(ssim(s, s)) == pytest.approx(1) and float(ssim(s[..., :4], s[..., :4])) == pytest.approx(1)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_its_gradient_is_that_of_the_loss_written_into_the_hosts(scale):
    """Of the generator and of the maps, which a scaler's factor does not change."""
    generator, plain = small().double(), small().double()
    teacher = small(seed=1, ngf=12).double()

    class Scaler:
        def scale(self, loss):
            return loss * scale

    before = copy.deepcopy(teacher.state_dict())
    distillation = Distillation(teacher, ALL, TAPS)
    compression = Compression(generator, X.double(), search_steps=9, budget=0.5, companions=[distillation])
    optimizer = torch.optim.SGD(generator.parameters(), lr=1.0)
    compression.attach(optimizer, Scaler())
    maps = copy.deepcopy(distillation.maps.layers)
    (scale * (generator(X.double()) - X).abs().mean()).backward()

    features: dict[str, list[torch.Tensor]] = {name: [] for name in TAPS}
    for net in (plain, teacher):
        for name in TAPS:
            hook = lambda _, __, output, name=name: features[name].append(output)  # noqa: E731
            net.get_submodule(name).register_forward_hook(hook)
    output, wanted = plain(X.double()), teacher(X.double())
    mapped = [maps[name](features[name][0]) for name in TAPS]
    own = ALL.loss(([output], [wanted.detach()]), (mapped, [features[name][1].detach() for name in TAPS]))
    (scale * ((output - X).abs().mean() + own)).backward()
    for mine, expected in zip(generator.parameters(), plain.parameters()):
        assert torch.allclose(mine.grad, expected.grad, rtol=1e-9, atol=1e-12 * scale)
    moved = {name: layer.weight.detach().clone() for name, layer in distillation.maps.layers.items()}
    for parameter in generator.parameters():
        parameter.grad /= scale  # as the scaler does
    optimizer.step()
    for name, layer in distillation.maps.layers.items():
        step = moved[name] - layer.weight.detach()
        assert torch.allclose(step, maps[name].weight.grad / scale, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(t, before[n]) for n, t in teacher.state_dict().items())


# -- nothing else changes ------------------------------------------------------
class Noisy(nn.Module):
    """A teacher that uses random numbers and writes into its norms."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small(3, netG="unet_128", dropout=True)

    def forward(self, x):
        return self.model(functional.interpolate(x, size=128))[..., ::4, ::4] + torch.randn(3, 32, 32)


def test_a_student_with_dropout_trains_bit_equally_beside_a_teacher_without_weight():
    results = []
    for distillation in (None, Distillation(Noisy(), Terms(), ())):
        generator = small(dropout=True)
        compression, optimizer = started(generator, distillation)
        torch.manual_seed(5)
        losses = train(compression, optimizer, 22)
        results.append((losses, tensors(generator), torch.rand(1)))
    assert results[0][0] == results[1][0] and results[0][2] == results[1][2]
    assert equal(results[0][1], results[1][1])


def test_a_teacher_pulls_the_student():
    """A narrow student comes nearer to a teacher of other weights than without one."""
    teacher, distances = small(9), []
    for terms in (Terms(), Terms(features=1.0, output=10.0)):
        generator = small()
        compression, optimizer = started(generator, Distillation(teacher, terms), search_steps=30)
        train(compression, optimizer, 60)
        distances.append(float((generator(X) - teacher(X)).abs().mean()))
    assert distances[1] < 0.7 * distances[0]


# -- channels go ---------------------------------------------------------------
def test_it_is_its_own_teacher_from_the_moment_it_is_narrowed():
    distillation = Distillation(SELF, Terms(features=1.0, output=10.0))
    generator = small()
    compression, optimizer = started(generator, distillation, search_steps=40)
    before: list[torch.Tensor] = []
    while distillation.teacher is None:
        assert bool(compression.alive().all()) and compression.cost() == compression.dense
        train(compression, optimizer, 1)
        before = tensors(generator)
    taught = tensors(distillation.teacher.module)
    factor = compression.method.gates()
    assert 0 < factor.min() < 1 and not equal(taught, before)
    same = [torch.allclose(a, b) for a, b in zip(taught, before)]
    assert any(same) and not all(same)  # what reads the channels given up was multiplied since
    train(compression, optimizer, 45)
    assert compression.phase == "compact" and equal(tensors(distillation.teacher.module), taught)


@pytest.mark.parametrize("method", ["published", "slimming", "taylor", "gated", "distill"])
def test_whatever_the_method_its_own_teacher_is_dense(method):
    """Where nothing fades it is the generator of the last step before the first removal."""
    distillation = Distillation(SELF, Terms(features=1.0))
    compression, optimizer = started(small(), distillation, method=method, search_steps=6)
    before = None
    while compression.phase == "search":
        before = None if distillation.teacher else copy.deepcopy(compression.generator)
        train(compression, optimizer, 1)
    teacher = distillation.teacher.module
    assert teacher.model[1].out_channels == 8 and compression.generator.model[1].out_channels < 8
    if before is not None:  # it became a teacher in the very step of the cut, after the optimizer's step
        distance = max(float((a - b).abs().max()) for a, b in zip(tensors(teacher), tensors(before)))
        assert 0 < distance < 0.2
    train(compression, optimizer, 2)


def test_a_module_that_takes_the_generator_s_place_is_taught_too():
    @method("replaced", "by a narrow one")
    class Replaced(Method):
        def finish(self):
            return small(4, ngf=6)

    try:
        distillation = Distillation(SELF, Terms(features=1.0))
        compression, optimizer = started(small(), distillation, method="replaced", search_steps=2)
        train(compression, optimizer, 2)
        maps = distillation.maps.layers.values()
        assert [(m.in_channels, m.out_channels) for m in maps] == [(24, 32)] * 4
        before = [p.clone() for p in distillation.maps.parameters()]
        train(compression, optimizer, 2)
        assert not equal(before, [*distillation.maps.parameters()])
    finally:
        registry.forget("replaced")


def test_under_autocast_maps_and_losses_are_in_single_precision():
    generator = small()
    distillation = Distillation(small(1), ALL)
    compression, optimizer = started(generator, distillation)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = generator(X)
        assert output.dtype == torch.bfloat16
        (output.float() + X).abs().mean().backward()
        optimizer.step()
        compression.step()
    parameters = [*generator.parameters(), *distillation.maps.parameters()]
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in parameters)


def test_removals_change_no_loss():
    """The map reads channels as layers do: gates fade for it, what is closed stays closed, the cut is exact."""
    distillation = Distillation(SELF, ALL)
    generator = small().double()
    compression, optimizer = started(generator, distillation, search_steps=30, gradual=False)
    train(compression, optimizer, 29)
    told: list[float] = []
    distillation.extra_loss = lambda *given: (
        told.append(Distillation.extra_loss(distillation, *given)) or told[-1]
    )
    for _ in range(2):
        compression.generator.train()(X.double()).sum().backward()
        compression._listening.next_step()
        if len(told) < 2:
            alive = compression.alive()
            assert not alive.all()
            for name, layer in distillation.maps.layers.items():
                closed = (layer.weight == 0).flatten(2).all(2).all(0)
                assert closed.tolist() == (~alive[distillation.maps.units[name]]).tolist()
            compression.remove_(alive)
    assert told[0].item() == pytest.approx(told[1].item(), rel=1e-9)
    assert all(layer.in_channels < 32 for layer in distillation.maps.layers.values())


@pytest.mark.parametrize("teacher", [SELF, "module"])
@pytest.mark.parametrize("steps", [1, 8, 25])
def test_a_continued_training_is_bit_equal(tmp_path, teacher, steps):
    """Before there is a teacher of itself, while it is narrowed, and after."""

    def begun(seed: int):
        given = teacher if teacher == SELF else small(7, ngf=12)
        generator = small(seed, dropout=True)
        return (generator, *started(generator, Distillation(given, ALL)))

    generator, compression, optimizer = begun(0)
    train(compression, optimizer, steps)
    torch.save(
        {"c": compression.state_dict(), "o": optimizer.state_dict(), "g": generator.state_dict()},
        tmp_path / "state.pth",
    )
    torch.manual_seed(8)
    expected = train(compression, optimizer, 10)
    other, resumed, another = begun(99)
    for _ in range(2):  # and back to it again, as after numbers that are not finite
        state = torch.load(tmp_path / "state.pth", weights_only=True)
        resumed.load_state_dict(state["c"])
        other.load_state_dict(state["g"])
        another.load_state_dict(state["o"])
        torch.manual_seed(8)
        assert train(resumed, another, 10) == expected
        assert equal(tensors(other), tensors(generator))
        maps = [c.companions["distillation"].maps.state_dict()["layers"] for c in (compression, resumed)]
        assert all(torch.equal(maps[0][n][k], maps[1][n][k]) for n in maps[0] for k in maps[0][n])


def test_another_teacher_does_not_continue_a_training():
    state = started(small(), Distillation(small(1), ALL))[0].state_dict()
    with pytest.raises(CheckpointError, match="the teacher is not the one of the saved training"):
        started(small(), Distillation(small(2), ALL))[0].load_state_dict(state)
    with pytest.raises(CheckpointError, match="has distillation, the other not; continue with .*distill"):
        started(small(), None)[0].load_state_dict(state)


# -- taps ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["resnet_9blocks", "resnet_6blocks", "mobile_resnet_9blocks", "unet_128", "unet_256"]
)
def test_taps_of_families_are_where_they_were_published(name):
    family = families()[name]
    config = family.default_config()
    taps = family.taps(config)
    if "resnet" in name:
        blocks = 9 if "9" in name else 6
        assert taps == tuple(f"model.{9 + blocks * i // 3}" for i in range(4))
    with torch.device("meta"):
        net, sizes = family.build(config), []
    for tap in taps:
        net.get_submodule(tap).register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    side = 256 if name == "unet_256" else 128
    net(torch.zeros(1, 3, side, side, device="meta"))
    expected = (2, 8, 16, 4) if "unet" in name else (4,) * 4
    assert sorted(size[0] for size in sizes) == sorted(64 * each for each in expected)


def test_taps_are_found_where_no_family_names_them():
    resnet = small()
    assert find_taps(resnet, find_channels(resnet, X), (X,)) == TAPS
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3))
    assert find_taps(chain, find_channels(chain, X), (X,)) == ("1", "3")
    distillation = Distillation(SELF, Terms(features=1.0))
    started(chain, distillation, budget=0.6)
    assert distillation.taps == ("1", "3")


# -- mistakes ------------------------------------------------------------------
class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = small()

    def forward(self, x):
        return self.model(functional.interpolate(x, scale_factor=2.0))


@pytest.mark.parametrize(
    ("teacher", "terms", "taps", "message"),
    [
        ("RUN", ALL, (), "the teacher 'RUN' is a text; give SELF, or a module such as load_generator"),
        (Wide(), Terms(output=1.0), (), r"gives output of shape \(1, 3, 64, 64\) where the generator gives"),
        (nn.Conv2d(1, 3, 1), Terms(output=1.0), (), "Conv2d does not run on what the generator takes"),
        (nn.Conv2d(3, 3, 1), ALL, (), "the teacher Conv2d has no layer 'model.9' to compare"),
        (SELF, ALL, ("model.99",), "has no layer 'model.99' whose channels are known; it has model.0,"),
    ],
)
def test_teachers_and_taps_that_do_not_fit_are_one_line(teacher, terms, taps, message):
    with pytest.raises(OptionError, match=message) as found:
        started(small(), Distillation(teacher, terms, taps))
    assert "\n" not in str(found.value)


def test_what_is_narrow_from_the_first_step_on_cannot_teach_itself():
    with pytest.raises(OptionError, match="narrow from the first step on and cannot teach itself"):
        started(small(), Distillation(), method="uniform")
    compression, optimizer = started(small(), Distillation(small(1)), method="uniform")
    train(compression, optimizer, 2)  # another one can


@pytest.mark.parametrize("weights", [{"features": -1.0}, {"ssim": float("nan")}, {"tv": float("inf")}])
def test_weights_are_numbers_from_zero_on(weights):
    with pytest.raises(OptionError, match="give 0 or more"):
        Terms(**weights)


# -- in a host -----------------------------------------------------------------
SMALL = ["--netG", "resnet_6blocks", "--ngf", 8, "--ndf", 4, "--load_size", 32, "--crop_size", 32]
SHORT = ["--n_epochs", 2, "--n_epochs_decay", 0, "--display_id", -1, "--num_threads", 0, "--no_html"]
ONTO = ["--model", "coronet", "--coronet_base", "pix2pix", "--coronet_budget", 0.4]


@pytest.fixture
def host(tmp_path):
    root = paired_folder(tmp_path, 4, 32)

    def go(name, *options, code=0):
        where = ["--dataroot", root, "--name", name, "--checkpoints_dir", tmp_path / "c"]
        assert run_train(*where, *SMALL, *SHORT, *options) == code
        return tmp_path / "c" / name

    return go


def test_a_host_is_taught_by_a_run_or_by_itself(host, capsys):
    host("dense", "--model", "pix2pix", "--direction", "BtoA", "--ngf", 12)
    ours = [*ONTO, "--direction", "BtoA", "--seed", 1]
    found = {}
    for name, teacher in (("run", "dense"), ("self", "SELF"), ("none", "")):
        options = ["--coronet_distill", teacher, "--coronet_distill_output", 5] if teacher else []
        folder = host(name, *ours, *options, "--save_latest_freq", 4)
        state = torch.load(folder / "latest_coronet_state.pth", weights_only=True)["compressions"]["G"]
        assert bool(state["companions"]) == bool(teacher)
        found[name] = torch.load(folder / "latest_net_G.pth", weights_only=True)
    assert len({tuple(weights["model.19.weight"].flatten().tolist()) for weights in found.values()}) == 3
    again = [*ours, "--coronet_distill", "dense", "--coronet_distill_output", 5, "--continue_train"]
    host("run", *again, "--n_epochs", 3)
    capsys.readouterr()
    for options, said in (
        (["--coronet_distill", "nowhere"], "--coronet_distill nowhere: no run 'nowhere' in"),
        (
            ["--coronet_distill", "dense", "--direction", "AtoB"],
            "the teacher translates BtoA, the generator AtoB",
        ),
        (
            ["--coronet_distill", "dense", "--netG", "resnet_9blocks"],
            "is a resnet_6blocks, the generator a resnet_9",
        ),
        (["--coronet_distill", "SELF", "--coronet_distill_taps", "model.77"], "has no layer 'model.77'"),
        (["--coronet_distill", "SELF", "--coronet_method", "uniform"], "cannot teach itself"),
        (["--coronet_distill_ssim", 10], "--coronet_distill_ssim is for a teacher; name one"),
        (["--coronet_distill", "SELF", "--coronet_distill_tv", -1], "give 0 or more"),
    ):
        host("no", *ours, *options, code=2)
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
