"""A narrow student beside its wide teacher: it disturbs nobody, meets the budget, and takes the place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from training_helpers import batch
from training_helpers import go_on as train

from coronet_plugin import Compression, OptionError, load_generator
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import configure
from coronet_plugin.methods.distillation import SELF, Distillation
from coronet_plugin.methods.similarity import Terms
from coronet_plugin.training.average import Average

ARCHITECTURE = {
    "netG": "resnet_6blocks",
    "input_nc": 3,
    "output_nc": 3,
    "ngf": 8,
    "norm": "batch",
    "use_dropout": True,
}
X = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def dense(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_generator(**ARCHITECTURE)


def started(generator: nn.Module, steps: int = 10, method="distill", companions=(), **options):
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    options = {"search_steps": steps, "budget": 0.3, "architecture": ARCHITECTURE, **options}
    compression = Compression(generator, X, method=method, companions=companions, **options)
    return compression.attach(optimizer), optimizer


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("settings", [{}, {"student_steps": 3}, {"student_from": 0.5}])
def test_the_teacher_trains_as_if_there_was_no_student(settings):
    generator, plain = dense(), dense()
    compression, optimizer = started(generator, method=configure("distill", **settings))
    alone = torch.optim.Adam(plain.parameters(), lr=1e-3, betas=(0.5, 0.999))
    torch.manual_seed(3)
    found = train(compression, optimizer, 9)
    torch.manual_seed(3)
    for number, loss in enumerate(found):
        alone.zero_grad()
        expected = (plain(batch(number)) + batch(number)).abs().mean()
        expected.backward()
        alone.step()
        assert loss == expected.item()
    assert equal(generator, plain) and compression.remaining == 1


def test_the_student_s_step_is_that_of_its_loss():
    """The first step, against the equations and an optimizer of one's own."""
    generator = dense()
    compression, optimizer = started(generator)
    compression.method.before_step(1)
    method = compression.method
    student, maps = copy.deepcopy(method.student), copy.deepcopy(method.maps.layers)
    output, features = {}, {}
    for net in (generator, student):
        for name in method.taps:
            net.get_submodule(name).register_forward_hook(
                lambda module, _, out, net=net, name=name: features.setdefault((net is student, name), out)
            )
        net.register_forward_hook(lambda _, __, out, net=net: output.setdefault(net is student, out))
    generator(batch(0))
    student(batch(0))  # with the random numbers that come after the teacher's
    own, wanted = output[True], output[False].detach()
    loss = 10 * (own - wanted).abs().mean() + Terms(ssim=10.0, tv=1e-5).loss(([own], [wanted]))
    for name in method.taps:
        mine = functional.conv2d(features[True, name], maps[name].weight, maps[name].bias)
        loss = loss + 50 * (mine.mean((2, 3)) - features[False, name].detach().mean((2, 3))).square().mean()
    own_optimizer = torch.optim.Adam(student.parameters(), lr=1e-3, betas=(0.5, 0.999))
    loss.backward()
    own_optimizer.step()
    for a, b in zip(student.parameters(), method.student.parameters()):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_generator_that_is_given_what_another_made_is_fine():
    """As CycleGAN's: the student's gradients stay with it."""
    first, second = dense(), dense(1)
    compression, optimizer = started(second)
    alone, plain = dense(), dense(1)
    second(first(batch(0))).mean().backward()
    compression.step()  # a step without a run on a given picture: from now on this one will do
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.grad = None
    for net, other in ((second, first), (plain, alone)):
        torch.manual_seed(4)
        net(other(batch(0))).mean().backward()
    assert compression.method.optimizer.state  # the student learned
    for net, other in ((first, alone), (second, plain)):
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter.grad, other.get_parameter(name).grad)


@pytest.mark.parametrize("budget", [0.3, 0.15])
def test_the_student_takes_the_place_with_all_it_knows(tmp_path, budget):
    generator = dense()
    compression, optimizer = started(generator, steps=6, budget=budget, companions=[Average(0.9)])
    train(compression, optimizer, 5)
    student, known = compression.method.student, compression.method.optimizer.state
    even = started(dense(), budget=budget, method="uniform")[0].alive()
    for s in compression.plan.prunable:
        assert compression.method.kept[s.slice].sum() == even[s.slice].sum()
    x = batch(5)
    optimizer.zero_grad()
    (generator(x) + x).abs().mean().backward()
    optimizer.step()
    assert compression.step()
    expected, state = (
        copy.deepcopy(student),
        {n: known[p]["exp_avg"].clone() for n, p in student.named_parameters()},
    )
    compression.slim()
    assert compression.generator is generator and equal(generator, expected)
    assert 0.85 * budget < compression.remaining <= budget
    for name, parameter in generator.named_parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], state[name])
    mean = compression.companions["average"]
    with mean.in_place():
        assert equal(generator, expected)  # what was averaged before was the teacher
    train(compression, optimizer, 3)
    assert not equal(generator, expected)
    compression.save(tmp_path / "latest_net_G.pth")
    generator.eval()
    assert torch.equal(load_generator(tmp_path / "latest_net_G.pth").eval()(X), generator(X))


def test_the_student_learns():
    """It comes nearer to what its teacher has become than it was, and would have stayed."""
    generator = dense()
    compression, optimizer = started(generator, steps=50)
    students = []
    for steps in (1, 48):
        train(compression, optimizer, steps)
        students.append(copy.deepcopy(compression.method.student))
    with torch.no_grad():
        wanted = generator(batch(99))
        before, after = (float((student(batch(99)) - wanted).abs().mean()) for student in students)
    assert after < 0.92 * before  # dropout is on in both


def test_in_two_stages_the_student_begins_with_the_teacher_s_largest_filters():
    generator = dense()
    compression, optimizer = started(generator, steps=10, method=configure("distill", student_from=0.5))
    train(compression, optimizer, 5)
    assert compression.method.student is None
    weights = generator.get_parameter("model.1.weight").detach().clone()
    compression.method.before_step(6)
    kept = compression.method.student.get_parameter("model.1.weight").detach()
    largest = weights.abs().flatten(1).sum(1).argsort(descending=True)[: len(kept)].sort().values
    assert torch.equal(kept, weights[largest])


@pytest.mark.parametrize("steps", [3, 8, 14])
def test_a_continued_training_is_bit_equal(tmp_path, steps):
    settings = configure("distill", student_steps=2, student_from=0.4)
    companions = lambda: [Distillation(SELF, Terms(features=1.0, output=1.0)), Average(0.9)]  # noqa: E731
    generator = dense()
    compression, optimizer = started(generator, method=settings, companions=companions())
    train(compression, optimizer, steps)
    torch.save(
        {"c": compression.state_dict(), "o": optimizer.state_dict(), "g": generator.state_dict()},
        tmp_path / "s.pth",
    )
    torch.manual_seed(8)
    expected = train(compression, optimizer, 8)
    other = dense(99)
    resumed, another = started(other, method=settings, companions=companions())
    state = torch.load(tmp_path / "s.pth", weights_only=True)
    resumed.load_state_dict(state["c"])
    other.load_state_dict(state["g"])
    another.load_state_dict(state["o"])
    torch.manual_seed(8)
    assert train(resumed, another, 8) == expected
    assert equal(resumed.generator, compression.generator)
    if steps > 10:
        teacher = resumed.companions["distillation"].teacher.module
        assert teacher.model[1].out_channels == 8  # the wide one goes on teaching
    values = [c.companions["average"]._values for c in (compression, resumed)]
    assert values[0].keys() == values[1].keys() and all(
        torch.equal(values[0][k], values[1][k]) for k in values[0]
    )


@pytest.mark.parametrize(
    ("name", "value"), [("student_steps", 0), ("student_from", 1.0), ("student_ssim", -1.0)]
)
def test_settings_out_of_range_are_one_line(name, value):
    with pytest.raises(OptionError) as found:
        configure("distill", **{name: value})
    assert "\n" not in str(found.value)


def test_where_there_is_nothing_to_compare_only_outputs_are():
    """One layer and its output: no channels to map, and none can be removed but by budget one."""
    terms = {"student_channels": 0.0}
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    compression, optimizer = started(
        net, steps=3, method=configure("distill", **terms), architecture={"class": "Sequential"}, budget=0.6
    )
    train(compression, optimizer, 4)
    assert compression.remaining <= 0.6 and np.isfinite(net(X).detach().numpy()).all()
