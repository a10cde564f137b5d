"""Networks of the bundled models: discriminators, adversarial losses, weights, schedules.

Generators are in :mod:`coronet_plugin.generators.stock`, so that the package alone can
rebuild them, and are re-exported here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Identity, init
from torch.nn import functional as F
from torch.optim import lr_scheduler

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.generators.registry import check_size, find_family
from coronet_plugin.generators.resnet import ResnetBlock, ResnetFamily, ResnetGenerator
from coronet_plugin.generators.stock import NormLayer, build_generator, get_norm_layer, needs_bias
from coronet_plugin.generators.unet import UnetGenerator, UnetSkipConnectionBlock
from coronet_plugin.pictures.padding import padded_side
from util.distributed import synchronised

__all__ = [
    "GANLoss",
    "Identity",
    "NLayerDiscriminator",
    "PixelDiscriminator",
    "ResnetBlock",
    "ResnetGenerator",
    "UnetGenerator",
    "UnetSkipConnectionBlock",
    "cal_gradient_penalty",
    "check_channels",
    "check_image_sizes",
    "define_D",
    "define_G",
    "discriminator_loss",
    "get_norm_layer",
    "get_scheduler",
    "init_net",
    "init_weights",
    "size_of",
]


# -- making networks --------------------------------------------------------
def define_G(
    input_nc: int,
    output_nc: int,
    ngf: int,
    netG: str,
    norm: str = "batch",
    use_dropout: bool = False,
    init_type: str = "normal",
    init_gain: float = 0.02,
    gpu_ids: Sequence[int] = (),
) -> nn.Module:
    """An initialised generator on its device; names as for ``--netG``."""
    net = build_generator(input_nc, output_nc, ngf, netG, norm, use_dropout)
    return synchronised(init_net(net, init_type, init_gain, gpu_ids), norm, bool(gpu_ids))


def define_D(
    input_nc: int,
    ndf: int,
    netD: str,
    n_layers_D: int = 3,
    norm: str = "batch",
    init_type: str = "normal",
    init_gain: float = 0.02,
    gpu_ids: Sequence[int] = (),
) -> nn.Module:
    """An initialised discriminator on its device: ``basic`` (three layers), ``n_layers`` or ``pixel``.

    It gives one number per patch, without a sigmoid.
    """
    norm_layer = get_norm_layer(norm)
    if netD == "basic":
        net: nn.Module = NLayerDiscriminator(input_nc, ndf, 3, norm_layer)
    elif netD == "n_layers":
        net = NLayerDiscriminator(input_nc, ndf, n_layers_D, norm_layer)
    elif netD == "pixel":
        net = PixelDiscriminator(input_nc, ndf, norm_layer)
    else:
        raise OptionError(f"--netD {netD} is not known; choose one of basic, n_layers, pixel")
    return synchronised(init_net(net, init_type, init_gain, gpu_ids), norm, bool(gpu_ids))


def init_net(
    net: nn.Module, init_type: str = "normal", init_gain: float = 0.02, gpu_ids: Sequence[int] = ()
) -> nn.Module:
    """Move ``net`` to the first GPU, if any, spread it over several, and initialise it."""
    if gpu_ids:
        net.to(torch.device("cuda", gpu_ids[0]))
    init_weights(net, init_type, init_gain)
    return nn.DataParallel(net, list(gpu_ids)) if len(gpu_ids) > 1 else net


def init_weights(net: nn.Module, init_type: str = "normal", init_gain: float = 0.02) -> None:
    """Initialise in place: convolutions and linear layers by ``init_type``, biases 0, norm scales near 1."""
    fill = {
        "normal": lambda weight: init.normal_(weight, 0.0, init_gain),
        "xavier": lambda weight: init.xavier_normal_(weight, gain=init_gain),
        "kaiming": lambda weight: init.kaiming_normal_(weight, a=0, mode="fan_in"),
        "orthogonal": lambda weight: init.orthogonal_(weight, gain=init_gain),
    }
    if init_type not in fill:
        raise OptionError(f"--init_type {init_type} is not known; choose one of {', '.join(fill)}")
    for module in net.modules():
        name = type(module).__name__
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            init.normal_(module.weight, 1.0, init_gain)
            init.zeros_(module.bias)
        elif ("Conv" in name or "Linear" in name) and isinstance(getattr(module, "weight", None), Tensor):
            fill[init_type](module.weight)
            if isinstance(bias := getattr(module, "bias", None), Tensor):
                init.zeros_(bias)


def check_image_sizes(opt: argparse.Namespace, sizes: Mapping[tuple[int, int], str]) -> None:
    """Refuse images that the generator ``--netG`` cannot take: by (width, height), a file that has the size.

    A U-Net needs sides that can be halved to one; a ResNet rounds sides up to a multiple of 4,
    which only training minds, because it compares sizes. It mirrors borders, so two pixels must be left
    of its two halvings. With ``--pad_to_multiple`` it is about what is left after padding.
    """
    multiple = getattr(opt, "pad_to_multiple", 0)
    for size, where in sizes.items():
        width, height = (padded_side(side, multiple) for side in size)
        if isinstance(find_family(opt.netG), ResnetFamily) and min(height, width) < 5:
            raise DataError(
                f"--netG {opt.netG} takes images of at least 5 pixels a side, and got {width}x{height}"
            )
        check_size(opt.netG, (width, height), exactly=opt.isTrain, where=where)


def size_of(images: Tensor) -> tuple[int, int]:
    """Width and height of images (N, C, H, W)."""
    return images.shape[-1], images.shape[-2]


def check_channels(option: str, channels: int, images: Tensor) -> None:
    """Refuse images (N, C, H, W) that do not have the ``channels`` of ``--option``."""
    if images.shape[1] != channels:
        raise DataError(
            f"--{option} {channels}, but the images of this data set have {images.shape[1]} channels; "
            f"set --{option} {images.shape[1]}"
        )


# -- discriminators ---------------------------------------------------------
class NLayerDiscriminator(nn.Module):
    """PatchGAN: (N, input_nc, H, W) to one number per overlapping patch, (N, 1, h, w)."""

    def __init__(
        self, input_nc: int, ndf: int = 64, n_layers: int = 3, norm_layer: NormLayer = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        bias = needs_bias(norm_layer)
        layers = [nn.Conv2d(input_nc, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        width = ndf
        for level in range(1, n_layers + 1):
            wider = ndf * min(2**level, 8)
            stride = 2 if level < n_layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=bias),
                norm_layer(wider),
                nn.LeakyReLU(0.2, True),
            ]
            width = wider
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))
        self.smallest = 3 * 2**n_layers
        """Side of the smallest images, in pixels, of which one patch is left."""

    def forward(self, input: Tensor) -> Tensor:
        if min(input.shape[-2:]) < self.smallest:
            raise DataError(
                f"the discriminator takes images of at least {self.smallest} pixels a side, and got "
                f"{input.shape[-1]}x{input.shape[-2]}; raise --crop_size, or set --netD pixel"
            )
        return self.model(input)


class PixelDiscriminator(nn.Module):
    """Judges each pixel on its own: (N, input_nc, H, W) to (N, 1, H, W)."""

    def __init__(self, input_nc: int, ndf: int = 64, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        bias = needs_bias(norm_layer)
        self.net = nn.Sequential(
            nn.Conv2d(input_nc, ndf, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf, ndf * 2, 1, bias=bias),
            norm_layer(ndf * 2),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf * 2, 1, 1, bias=bias),
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.net(input)


# -- adversarial losses -----------------------------------------------------
class GANLoss(nn.Module):
    """Adversarial loss of a discriminator's raw output: ``lsgan``, ``vanilla`` or ``wgangp``."""

    real_label: Tensor
    fake_label: Tensor

    def __init__(self, gan_mode: str, target_real_label: float = 1.0, target_fake_label: float = 0.0) -> None:
        super().__init__()
        losses: dict[str, Callable[..., Tensor] | None] = {
            "lsgan": F.mse_loss,
            "vanilla": F.binary_cross_entropy_with_logits,
            "wgangp": None,
        }
        if gan_mode not in losses:
            raise OptionError(f"--gan_mode {gan_mode} is not known; choose one of {', '.join(losses)}")
        self.gan_mode = gan_mode
        self.loss = losses[gan_mode]
        self.register_buffer("real_label", torch.tensor(target_real_label))
        self.register_buffer("fake_label", torch.tensor(target_fake_label))

    def forward(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        """Mean loss, a scalar, of ``prediction`` (any shape) being all real or all fake."""
        if self.loss is None:
            return -prediction.mean() if target_is_real else prediction.mean()
        label = self.real_label if target_is_real else self.fake_label
        return self.loss(prediction, label.expand_as(prediction))


def discriminator_loss(
    criterion: GANLoss, netD: nn.Module, real: Tensor, fake: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The discriminator's loss, and its parts for real and fake images.

    The mean of the parts; with ``wgangp`` their sum and the gradient penalty, as the
    penalty's weight of 10 is meant for the full Wasserstein distance. No gradient
    reaches the generator.
    """
    fake = fake.detach()
    on_real, on_fake = criterion(netD(real), True), criterion(netD(fake), False)
    if criterion.gan_mode != "wgangp":
        return (on_real + on_fake) * 0.5, on_real, on_fake
    penalty, _ = cal_gradient_penalty(netD, real, fake, real.device)
    return on_real + on_fake + penalty, on_real, on_fake


def cal_gradient_penalty(
    netD: nn.Module,
    real_data: Tensor,
    fake_data: Tensor,
    device: torch.device | str,
    type: str = "mixed",
    constant: float = 1.0,
    lambda_gp: float = 10.0,
) -> tuple[Tensor | float, Tensor | None]:
    """WGAN-GP's penalty ``lambda_gp * mean((|gradient| - constant)^2)`` and the gradients (N, C*H*W).

    ``type``: where the gradient is taken: at ``real`` or ``fake`` images, or ``mixed``,
    at random points between them.
    """
    if lambda_gp <= 0.0:
        return 0.0, None
    if type not in ("real", "fake", "mixed"):
        raise ValueError(f"type must be real, fake or mixed, not {type!r}")
    share = {"real": 1.0, "fake": 0.0}.get(type)
    if share is None:
        alpha = torch.rand(len(real_data), 1, 1, 1, device=device)
    else:
        alpha = torch.full((1, 1, 1, 1), share, device=device)
    points = (alpha * real_data + (1 - alpha) * fake_data).detach().requires_grad_(True)
    prediction = netD(points)
    (gradients,) = torch.autograd.grad(
        prediction, points, torch.ones_like(prediction), create_graph=True, retain_graph=True
    )
    gradients = gradients.flatten(1)
    norms = (gradients + 1e-16).norm(2, dim=1)  # the norm has no derivative at zero
    return lambda_gp * (norms - constant).pow(2).mean(), gradients


# -- schedules --------------------------------------------------------------
def get_scheduler(optimizer: torch.optim.Optimizer, opt: argparse.Namespace) -> Any:
    """The schedule of ``--lr_policy``, stepped once an epoch.

    ``linear``: constant for ``n_epochs``, then falling to zero after ``n_epochs_decay`` more.
    """

    def share_left(epochs_done: int) -> float:
        beyond = epochs_done + opt.epoch_count - opt.n_epochs
        return 1.0 - max(0, beyond) / (opt.n_epochs_decay + 1)

    policies = {
        "linear": lambda: lr_scheduler.LambdaLR(optimizer, share_left),
        "step": lambda: lr_scheduler.StepLR(optimizer, step_size=opt.lr_decay_iters, gamma=0.1),
        "plateau": lambda: lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="min", factor=0.2, threshold=0.01, patience=5
        ),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=opt.n_epochs, eta_min=0),
    }
    if opt.lr_policy not in policies:
        raise OptionError(f"--lr_policy {opt.lr_policy} is not known; choose one of {', '.join(policies)}")
    return policies[opt.lr_policy]()
