"""Discriminators, adversarial losses, initialisation and schedules."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from conftest import FACTS
from torch import nn
from torch.nn import functional as F

from coronet_plugin.errors import DataError, OptionError
from models import networks

KNOWN = json.loads((FACTS / "state_dicts.json").read_text())["discriminators"]


@pytest.mark.parametrize("case", KNOWN)
def test_discriminator_keys_and_shapes_are_upstreams(case):
    facts = dict(part.split("=") for part in case.split())
    net = networks.define_D(6, 64, facts["netD"], int(facts["n_layers"]), facts["norm"])
    found = {key: list(tensor.shape) for key, tensor in net.state_dict().items()}
    assert found == KNOWN[case]
    assert list(found) == list(KNOWN[case])


@pytest.mark.parametrize(
    ("netD", "layers", "expected"),
    [("basic", 9, 30), ("n_layers", 2, 62), ("n_layers", 4, 14), ("pixel", 9, 256)],
)
def test_discriminator_gives_a_number_per_patch(netD, layers, expected):
    net = networks.define_D(3, 4, netD, layers, "none")
    assert net(torch.randn(1, 3, 256, 256)).shape == (1, 1, expected, expected)


def test_unknown_names_are_refused():
    with pytest.raises(OptionError, match="--netD foo.*pixel"):
        networks.define_D(3, 4, "foo")
    with pytest.raises(OptionError, match="--init_type foo.*orthogonal"):
        networks.define_G(3, 3, 4, "resnet_6blocks", init_type="foo")
    with pytest.raises(OptionError, match="--gan_mode foo.*wgangp"):
        networks.GANLoss("foo")


def test_initialisation():
    net = networks.define_G(3, 3, 16, "resnet_6blocks", "batch", init_gain=0.05)
    convolutions = torch.cat([p.flatten() for name, p in net.named_parameters() if p.ndim == 4])
    norm = net.model[2]
    assert abs(convolutions.std() - 0.05) < 0.002
    assert abs(norm.weight.mean() - 1) < 0.1 and norm.weight.std() > 0
    assert not net.model[-2].bias.any() and not norm.bias.any()


@pytest.mark.parametrize("kind", ["xavier", "kaiming", "orthogonal"])
def test_other_initialisations(kind):
    conv = nn.Conv2d(8, 8, 1)
    networks.init_weights(conv, kind, 0.5)
    weight = conv.weight.detach()[:, :, 0, 0]
    expected = {"xavier": 0.5 * (2 / 16) ** 0.5, "kaiming": (2 / 8) ** 0.5, "orthogonal": 0.5 / 8**0.5}
    assert weight.std() == pytest.approx(expected[kind], rel=0.35)  # 64 numbers: 3 standard errors
    if kind == "orthogonal":
        assert torch.allclose(weight @ weight.T, 0.25 * torch.eye(8), atol=1e-6)


def test_gan_losses_by_hand():
    prediction = torch.tensor([[0.0, 2.0]])
    assert networks.GANLoss("lsgan")(prediction, True) == pytest.approx((1 + 1) / 2)
    assert networks.GANLoss("lsgan")(prediction, False) == pytest.approx((0 + 4) / 2)
    assert networks.GANLoss("wgangp")(prediction, True) == -1
    assert networks.GANLoss("wgangp")(prediction, False) == 1
    softplus = F.softplus(torch.tensor([0.0, -2.0])).mean()
    assert networks.GANLoss("vanilla")(prediction, True) == pytest.approx(softplus.item())
    assert networks.GANLoss("lsgan", 0.9)(prediction, True) == pytest.approx((0.81 + 1.21) / 2)


class Linear(nn.Module):
    """A critic whose gradient is its weight everywhere."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).sum((1, 2, 3))


@pytest.mark.parametrize("kind", ["real", "fake", "mixed"])
def test_gradient_penalty_of_a_linear_critic(kind):
    critic = Linear(torch.full((1, 2, 2), 1.5))  # norm 3
    real, fake = torch.randn(5, 1, 2, 2), torch.randn(5, 1, 2, 2)
    penalty, gradients = networks.cal_gradient_penalty(critic, real, fake, "cpu", type=kind)
    assert penalty.item() == pytest.approx(10 * (3 - 1) ** 2, rel=1e-5)
    assert gradients.shape == (5, 4) and torch.allclose(gradients, torch.tensor(1.5))
    penalty.backward()
    assert critic.weight.grad.abs().min() > 0
    assert networks.cal_gradient_penalty(critic, real, fake, "cpu", lambda_gp=0) == (0.0, None)


def test_gradient_penalty_is_taken_between_real_and_fake():
    class Square(nn.Module):
        def forward(self, x):
            return (x**2 / 2).sum((1, 2, 3))  # its gradient is x

    real, fake = torch.full((64, 1, 1, 1), 2.0), torch.full((64, 1, 1, 1), 6.0)
    for kind, place in (("real", 2.0), ("fake", 6.0)):
        assert networks.cal_gradient_penalty(Square(), real, fake, "cpu", kind)[1].unique().item() == place
    mixed = networks.cal_gradient_penalty(Square(), real, fake, "cpu")[1]
    assert 2 <= mixed.min() < 3 and 5 < mixed.max() <= 6


def test_discriminator_losses():
    real, fake = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.25, requires_grad=True)
    critic = Linear(torch.full((1, 2, 2), 1.0))
    on_real, on_fake, norm = 2.0, 1.0, 2.0
    loss, part_real, part_fake = networks.discriminator_loss(networks.GANLoss("lsgan"), critic, real, fake)
    assert (part_real.item(), part_fake.item()) == ((on_real - 1) ** 2, on_fake**2)
    assert loss.item() == 0.5 * (1 + 1)
    loss, _, _ = networks.discriminator_loss(networks.GANLoss("wgangp"), critic, real, fake)
    assert loss.item() == pytest.approx(on_fake - on_real + 10 * (norm - 1) ** 2)
    loss.backward()
    assert fake.grad is None


def test_wgangp_teaches_a_critic_a_slope_of_one():
    torch.manual_seed(0)
    critic = Linear(torch.full((1, 2, 2), 0.05))
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
    criterion = networks.GANLoss("wgangp")
    for _ in range(200):
        optimizer.zero_grad()
        real = torch.randn(8, 1, 2, 2) + 1
        networks.discriminator_loss(criterion, critic, real, real - 2)[0].backward()
        optimizer.step()
    # The distance of the sets is 4: -4|w| + 10 (|w| - 1)^2 is least at |w| = 1.2, and w points to real.
    assert critic.weight.norm().item() == pytest.approx(1.2, abs=0.05)
    assert critic.weight.min() > 0


def schedule(policy: str, epochs: int, **changed) -> list[float]:
    """Learning rates of the epochs, if one starts at 1."""
    opt = {"lr_policy": policy, "epoch_count": 1, "n_epochs": 3, "n_epochs_decay": 3, "lr_decay_iters": 2}
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = networks.get_scheduler(optimizer, argparse.Namespace(**{**opt, **changed}))
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_schedules():
    linear = schedule("linear", 7)
    assert linear == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25, 0])
    assert schedule("linear", 3, epoch_count=4) == pytest.approx(linear[3:6])
    assert schedule("step", 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert schedule("cosine", 4) == pytest.approx([1, 0.75, 0.25, 0], abs=1e-9)
    with pytest.raises(OptionError, match="--lr_policy foo.*cosine"):
        schedule("foo", 1)


def test_image_sizes_are_checked():
    def check(netG: str, size: tuple[int, int], train: bool, multiple: int = 0) -> None:
        opt = argparse.Namespace(netG=netG, isTrain=train, pad_to_multiple=multiple)
        networks.check_image_sizes(opt, {size: "a.png"})

    check("resnet_9blocks", (128, 64), True)
    check("resnet_9blocks", (127, 64), False)
    check("users_own", (127, 64), True)
    with pytest.raises(
        DataError, match=r"multiples of 4 pixels, and got 127x64.* 124x64 or 128x64 \(a.png\)"
    ):
        check("resnet_9blocks", (127, 64), True)
    with pytest.raises(
        DataError, match="unet_128 .* multiples of 128 pixels, and got 128x64; .*work: 128x128 "
    ):
        check("unet_128", (128, 64), False)
    with pytest.raises(DataError, match="480x640; the nearest that work: 256x512 or 512x768 "):
        check("unet_256", (480, 640), False)
    check("unet_256", (480, 640), False, multiple=256)
    with pytest.raises(DataError, match="got 480x640"):
        check("unet_256", (480, 640), False, multiple=32)
