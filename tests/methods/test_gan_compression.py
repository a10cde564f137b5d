"""GAN Compression in a plain loop: shared slices, its loss, its order by size, its choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coronet_plugin import BudgetError, Compression, OptionError
from coronet_plugin.channels.cut import narrowed, slim
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods import Sample, configure
from coronet_plugin.methods.width_space import ranks_by_l1

TAPS = ("model.9", "model.11", "model.13", "model.15")
QUICK = {"search_whole": 4, "search_generations": 1, "search_population": 4}


def picture(seed: int, size: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def small(seed: int = 0, netG: str = "resnet_6blocks") -> nn.Module:
    torch.manual_seed(seed)
    return build_generator(3, 3, 16, netG, "instance")


def started(
    generator: nn.Module, steps: int = 9, teacher: nn.Module | None = None, budget: float = 0.3, **settings
):
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    config = configure("gan_compression", **{**QUICK, **settings})
    compression = Compression(generator, picture(0), search_steps=steps, budget=budget, method=config)
    compression.method.held_out = [Sample((picture(100 + i),), -picture(100 + i)) for i in range(2)]
    compression.method.teacher = teacher
    return compression.attach(optimizer), optimizer


def step(compression: Compression, optimizer: torch.optim.Optimizer, number: int) -> torch.Tensor:
    x = picture(number)
    output = compression.generator(x)
    optimizer.zero_grad()
    (output + x).abs().mean().backward()
    optimizer.step()
    if compression.step():
        compression.slim()
    return output


# -- a student -------------------------------------------------------------------
def test_a_student_has_the_first_channels_of_the_shared_weights():
    generator, other = small(), small(5)
    compression, _ = started(generator, teacher=other)
    method = compression.method
    widths = method.widths(1)
    assert widths == method.widths(1) and len({method.widths(n) for n in range(1, 20)}) > 10
    output = generator(picture(1))
    alive = method.distillation.alive
    expected = {number: width for group, width in zip(method.space.groups, widths) for number in group}
    for number, s in enumerate(compression.plan.prunable):
        assert alive[s.slice].tolist() == [i < expected[number] for i in range(s.units)]
    student = slim(generator, compression.plan, alive)
    assert torch.equal(student(picture(1)), output)
    stream, inside = expected[2], expected[3]
    weight = dict(student.named_parameters())["model.10.conv_block.1.weight"]
    whole = dict(generator.named_parameters())["model.10.conv_block.1.weight"]
    assert weight.shape[:2] == (inside, stream) and torch.equal(weight, whole[:inside, :stream])


@pytest.mark.parametrize(("task", "features", "outputs"), [("pix2pix", 1.0, 0.0), ("cycle_gan", 0.01, 10.0)])
def test_gradients_are_those_of_the_published_loss(task, features, outputs):
    """Written down by hand, on the student as a network of its own."""
    generator, teacher, x = small().double(), small(3).double(), picture(1).double()
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    config = configure("gan_compression", task=task, **QUICK)
    compression = Compression(generator, x, search_steps=9, budget=0.3, method=config)
    compression.method.held_out, compression.method.teacher = [Sample((x,))], teacher
    compression.attach(optimizer)
    (generator(x) + x).abs().mean().backward()
    method, maps = compression.method, compression.method.distillation.maps
    alive = method.distillation.alive
    student = slim(generator, compression.plan, alive)
    seen: dict[nn.Module, list[torch.Tensor]] = {student: [], teacher: []}
    for net, found in seen.items():
        for name in TAPS:
            net.get_submodule(name).register_forward_hook(lambda _, __, out, found=found: found.append(out))
    mine, theirs = student(x), teacher(x).detach()
    stream = compression.plan.prunable[2]
    columns = torch.from_numpy(np.flatnonzero(alive[stream.slice]))
    loss = (mine + x).abs().mean() + outputs * (mine - theirs).abs().mean()
    for name, s, t in zip(TAPS, seen[student], seen[teacher]):
        layer = maps.layers[name].double()
        mapped = F.conv2d(s, layer.weight.detach()[:, columns], layer.bias.detach())
        loss = loss + features * ((mapped - t.detach()) ** 2).mean()
    loss.backward()
    for name, parameter in student.named_parameters():
        full = dict(generator.named_parameters())[name].grad
        mine = full[tuple(slice(0, n) for n in parameter.shape)]
        assert torch.allclose(mine, parameter.grad, rtol=1e-4, atol=1e-7), name
        assert torch.isclose(full.abs().sum(), mine.abs().sum())


def test_stages_follow_each_other():
    compression, optimizer = started(small(), steps=12, pipeline="full", space="1,0.5,0.25", supernet_part=1)
    method = compression.method
    assert [method.stage(n) for n in range(1, 13)] == ["teach"] * 4 + ["distill"] * 4 + ["supernet"] * 4
    for number in range(1, 5):
        step(compression, optimizer, number)
    assert method.distillation.teacher is None
    taught = {name: x.clone() for name, x in compression.generator.state_dict().items()}
    step(compression, optimizer, 5)
    assert all(
        torch.equal(x, taught[name]) for name, x in method.distillation.teacher.module.state_dict().items()
    )
    assert method.widths(5) == method.space.largest and method.distillation.alive.all()
    for number in range(6, 16):
        step(compression, optimizer, number)
    assert compression.phase == "compact" and compression.remaining <= 0.3
    assert method.distillation.teacher is not None and method.distillation.alive is None


def test_students_of_the_fast_pipeline_begin_from_scratch():
    generator = small()
    initial = {name: x.clone() for name, x in generator.state_dict().items()}
    compression, optimizer = started(generator, steps=6)
    for number in range(1, 3):
        step(compression, optimizer, number)
    compression.method.before_step(3)
    assert all(torch.equal(x, initial[name]) for name, x in generator.state_dict().items())
    assert not any(p in optimizer.state for p in generator.parameters())


def test_students_of_the_full_pipeline_begin_with_the_teacher_s_largest_channels():
    """Layer by layer, each among the inputs that stay: against loops over the published rule."""
    teacher = small(7)
    compression, _ = started(small(), teacher=teacher, pipeline="full", space="0.5,0.25")
    compression.method.before_step(1)
    weights = dict(teacher.named_parameters())
    kept = {}
    for layer, before in (("model.1", None), ("model.4", "model.1"), ("model.7", "model.4")):
        weight = weights[f"{layer}.weight"]
        weight = weight if before is None else weight[:, kept[before]]
        kept[layer] = weight.abs().sum((1, 2, 3)).topk(len(weight) // 2).indices
    inner = weights["model.10.conv_block.1.weight"][:, kept["model.7"]]
    kept["model.10.conv_block.1"] = inner.abs().sum((1, 2, 3)).topk(32).indices
    up = weights["model.16.weight"][kept["model.7"]]
    kept["model.16"] = up.abs().sum((0, 2, 3)).topk(16).indices
    for s in compression.plan.prunable:
        if s.producers[0] in kept:
            first = np.flatnonzero(compression.method.rank[s.slice] < s.units // 2)
            assert set(first) == set(kept[s.producers[0]].tolist())


def test_ranks_count_only_inputs_that_stay():
    compression, _ = started(small(), teacher=small(1), space="0.5")
    generator, plan = compression.generator, compression.plan
    before = ranks_by_l1(generator, plan, compression.method.space)
    first, second = plan.prunable[:2]
    gone = [i for i in range(first.units) if before[first.start + i] >= first.units // 2]
    with torch.no_grad():
        dict(generator.named_parameters())["model.4.weight"][3, gone] += 100
    assert np.array_equal(
        ranks_by_l1(generator, plan, compression.method.space)[second.slice], before[second.slice]
    )


# -- the choice ------------------------------------------------------------------
def test_the_least_error_on_the_held_out_pictures_is_chosen():
    compression, _ = started(small(), teacher=small(1), space="0.75,0.5,0.25", budget=0.4)
    method = compression.method
    generator, x = compression.generator, [sample.inputs[0] for sample in method.held_out]
    for widths in (method.space.smallest, (8, 16, 32, 16, 16, 16, 16, 8)):
        alive = method.space.alive(method.goal.goal, method.rank, widths)
        net = slim(generator, compression.plan, alive)
        expected = np.mean([float((net(one) + one).abs().mean().detach()) for one in x])
        assert method.error(alive) == pytest.approx(expected, rel=1e-5)
    tried = {}

    def error(alive):
        tried[alive.tobytes()] = errors = float(np.random.default_rng(int(alive.sum())).random())
        return errors

    method.error = error
    chosen = method.chosen()
    assert tried[chosen.tobytes()] == min(tried.values()) and len(tried) > 3
    assert compression.plan.cost(chosen).macs <= 0.4 * compression.dense.macs


def test_it_is_the_error_of_what_is_cut():
    compression, optimizer = started(small(), steps=4, search_whole=1, search_generations=2)
    for number in range(1, 4):
        step(compression, optimizer, number)
    x = compression.method.held_out[0].inputs[0]
    alive = compression.method.chosen()
    with torch.no_grad(), narrowed(compression.generator, compression.plan, alive):
        before = compression.generator.eval()(x)
    compression.generator.train()
    compression.remove_(alive)
    assert torch.equal(compression.generator.eval()(x), before)


def test_widths_that_are_given_are_trained_alone_and_end_so():
    """GAN Compression's fine-tuning of one student."""
    generator = small()
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    reference = started(small(), teacher=small(1))[0].plan
    widths = {s.name: s.channels // 4 for s in reference.prunable}
    config = configure("gan_compression", **QUICK)
    compression = Compression(generator, picture(0), search_steps=4, widths=widths, method=config)
    compression.method.held_out, compression.method.teacher = [Sample((picture(1),))], small(1)
    compression.attach(optimizer)
    for number in range(1, 6):
        step(compression, optimizer, number)
    assert compression.phase == "compact"
    assert [len(s["kept"]) for s in compression.spec().sets if not s["pinned"]] == list(widths.values())


# -- what cannot be --------------------------------------------------------------
def test_what_cannot_be_is_one_line():
    with pytest.raises(OptionError, match="pictures that are not trained on; give some before attach"):
        generator = small()
        compression = Compression(generator, picture(0), search_steps=3, budget=0.3, method="gan_compression")
        compression.attach(torch.optim.Adam(generator.parameters()))
    with pytest.raises(
        BudgetError, match="budget 0.05 is outside the search space channels-64-pix2pix: its narrow"
    ):
        started(small(), budget=0.05)
    with pytest.raises(OptionError, match="--coronet_supernet_part must be above 0, not 0"):
        started(small(), supernet_part=0.0)
    with pytest.raises(OptionError, match="of another architecture or width than the generator"):
        started(small(), teacher=small(netG="mobile_resnet_6blocks"), pipeline="full", space="1,0.5,0.25")
    with pytest.raises(OptionError, match="no layer 'model.9' to compare; give one of the student"):
        started(small(), teacher=nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1)] * 2))


def test_published_settings_are_the_defaults():
    paired, unpaired = (
        configure("gan_compression"),
        configure("gan_compression", task="cycle_gan", pipeline="full"),
    )
    assert (paired.lambda_distill, paired.lambda_recon, paired.space) == (1.0, 0.0, "channels-64-pix2pix")
    assert (paired.search_generations, paired.search_population, paired.search_weight) == (500, 100, 2.0)
    assert (unpaired.lambda_distill, unpaired.lambda_recon, unpaired.space) == (0.01, 10.0, "channels-32")
    share = type(started(small())[0].method).search_share
    # in epochs: 20 teacher, 40 supernet, 20 fine-tuning; 200, 200, 400 and none
    assert share(paired) == 60 / 80 and share(unpaired) == 1.0
    assert share(configure("gan_compression", teacher="run")) == 40 / 60
