"""Single steps of the host's models: which image, loss and gradient goes where, and when the rate falls."""

from __future__ import annotations

import pytest
import torch

import models


class Affine(torch.nn.Module):
    """A stand-in for a network, recognised by what it does."""

    def __init__(self, scale: float, shift: float):
        super().__init__()
        self.scale, self.shift = torch.nn.Parameter(torch.tensor(scale)), shift

    def forward(self, x):
        return x * self.scale + self.shift


def model_of(run, name: str, *extra: str):
    """The model as train.py makes it, and a batch for it."""
    from options.train_options import TrainOptions

    opt = TrainOptions().parse([*run("m", "nowhere", name), *extra])
    model = models.create_model(opt)
    model.setup(opt)
    a, b = torch.full((1, 3, 32, 32), 0.25), torch.full((1, 3, 32, 32), 0.5)
    return model, {"A": a, "B": b, "A_paths": ["a"], "B_paths": ["b"]}


@pytest.mark.parametrize(("direction", "first"), [("AtoB", "A"), ("BtoA", "B")])
@pytest.mark.parametrize("name", ["pix2pix", "cycle_gan"])
def test_direction(run, name, direction, first):
    model, batch = model_of(run, name, "--direction", direction)
    model.set_input(batch)
    second = "AB".replace(first, "")
    assert torch.equal(model.real_A, batch[first]) and torch.equal(model.real_B, batch[second])
    assert model.get_image_paths() == batch[f"{first}_paths"]


def test_cycles_and_losses(run):
    weights_of_losses = ["--lambda_A", "2", "--lambda_B", "3", "--lambda_identity", "0.5"]
    model, batch = model_of(run, "cycle_gan", *weights_of_losses)
    model.netG_A, model.netG_B = Affine(1.0, 1.0), Affine(2.0, 0.0)
    model.netD_A, model.netD_B = Affine(1.0, 10.0), Affine(1.0, 20.0)
    model.set_input(batch)
    model.forward()
    seen = {name: getattr(model, name).unique().item() for name in ("fake_B", "rec_A", "fake_A", "rec_B")}
    assert seen == {"fake_B": 1.25, "rec_A": 2.5, "fake_A": 1.0, "rec_B": 2.0}
    model.backward_G()
    model.loss_names = [name for name in model.loss_names if not name.startswith("D")]
    assert model.get_current_losses() == pytest.approx(
        {
            "G_A": (1.25 + 10 - 1) ** 2,
            "cycle_A": 2 * (2.5 - 0.25),
            "idt_A": 3 * 0.5 * 1.0,  # G_A on B
            "G_B": (1.0 + 20 - 1) ** 2,
            "cycle_B": 3 * (2.0 - 0.5),
            "idt_B": 2 * 0.5 * 0.25,  # G_B on A
        }
    )


def test_discriminators_of_cycle_gan_judge_pooled_fakes(run):
    model, batch = model_of(run, "cycle_gan")
    judged = {}

    class Pool:
        def __init__(self, label, value):
            self.label, self.value = label, value

        def query(self, images):
            judged[self.label] = images
            return torch.full_like(images, self.value)

    model.fake_B_pool, model.fake_A_pool = Pool("B", 3.0), Pool("A", 4.0)
    model.netD_A, model.netD_B = Affine(1.0, 0.0), Affine(1.0, 0.0)
    model.set_input(batch)
    model.forward()
    model.backward_D_A()
    model.backward_D_B()
    assert judged["B"] is model.fake_B and judged["A"] is model.fake_A
    assert model.loss_D_A.item() == pytest.approx(0.5 * ((0.5 - 1) ** 2 + 3.0**2))
    assert model.loss_D_B.item() == pytest.approx(0.5 * ((0.25 - 1) ** 2 + 4.0**2))


def test_a_step_trains_each_network_with_its_own_loss_alone(run):
    for name, extra in (("pix2pix", ["--no_dropout"]), ("cycle_gan", ["--lambda_identity", "0"])):
        model, batch = model_of(run, name, *extra)
        for optimizer in model.optimizers:
            optimizer.step = lambda: None  # keep the gradients of both halves comparable
        model.set_input(batch)
        for _ in range(2):  # gradients of the step before are cleared
            model.optimize_parameters()
        for net in (n for n in model.model_names if n.startswith("D")):
            parameters = list(getattr(model, f"net{net}").parameters())
            found = [p.grad.clone() for p in parameters]
            model.set_requires_grad(getattr(model, f"net{net}"), True)
            for p in parameters:
                p.grad = None
            getattr(model, f"backward_{net}")()
            assert all(torch.allclose(f, p.grad, atol=1e-7) for f, p in zip(found, parameters))


def test_plateau_goes_by_the_epochs_mean_loss(tmp_path):
    from argparse import Namespace

    from models.base_model import BaseModel

    class Plain(BaseModel):
        set_input = forward = optimize_parameters = None

    opt = Namespace(isTrain=True, gpu_ids=[], checkpoints_dir=str(tmp_path), name="x", preprocess="none")
    opt.lr_policy = "plateau"
    for losses, kept in (([9, 8, 7, 6, 5, 4, 3, 2], True), ([2, 3, 4, 5, 6, 7, 8, 9], False)):
        model = Plain(opt)
        model.optimizers = [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)]
        model.schedulers = [models.base_model.networks.get_scheduler(model.optimizers[0], opt)]
        for loss in losses:
            model.observe(torch.tensor(loss - 1.0))
            model.observe(torch.tensor(loss + 1.0))
            model.update_learning_rate()
            assert model.metric == loss
        assert (model.optimizers[0].param_groups[0]["lr"] == 1.0) is kept
