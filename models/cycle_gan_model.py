"""CycleGAN: translation learned from two sets of images without partners, there and back."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.errors import OptionError
from models import networks
from models.base_model import BaseModel
from util.image_pool import ImagePool


class CycleGANModel(BaseModel):
    """``netG_A`` translates A to B and ``netG_B`` back; ``netD_A`` judges B, ``netD_B`` judges A.

    Zhu et al., ICCV 2017.
    """

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool = True
    ) -> argparse.ArgumentParser:
        parser.set_defaults(no_dropout=True)
        if is_train:
            add = parser.add_argument
            add("--lambda_A", type=float, default=10.0, help="weight of the cycle A -> B -> A")
            add("--lambda_B", type=float, default=10.0, help="weight of the cycle B -> A -> B")
            add(
                "--lambda_identity",
                type=float,
                default=0.5,
                help="weight, relative to the cycles', of leaving an image alone that is already in the "
                "target set; 0 switches it off",
            )
        return parser

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        kinds = ("D", "G", "cycle", "idt")
        self.loss_names = [f"{kind}_{side}" for side in "AB" for kind in kinds]
        self.model_names = ["G_A", "G_B", "D_A", "D_B"] if self.isTrain else ["G_A", "G_B"]
        self.visual_names = self._visuals()
        self.netG_A = self._generator(opt.input_nc, opt.output_nc)
        self.netG_B = self._generator(opt.output_nc, opt.input_nc)
        if not self.isTrain:
            return
        if opt.lambda_identity > 0 and opt.input_nc != opt.output_nc:
            raise OptionError(
                f"--lambda_identity needs images of equal channels, and --input_nc is {opt.input_nc}, "
                f"--output_nc {opt.output_nc}; set --lambda_identity 0"
            )
        self.netD_A = self._discriminator(opt.output_nc)
        self.netD_B = self._discriminator(opt.input_nc)
        self.fake_A_pool = ImagePool(opt.pool_size)
        self.fake_B_pool = ImagePool(opt.pool_size)
        self.criterionGAN = networks.GANLoss(opt.gan_mode).to(self.device)
        self.criterionCycle = torch.nn.L1Loss()
        self.criterionIdt = torch.nn.L1Loss()
        self.optimizer_G = self._adam(self.netG_A, self.netG_B)
        self.optimizer_D = self._adam(self.netD_A, self.netD_B)
        self.optimizers = [self.optimizer_G, self.optimizer_D]

    def _visuals(self) -> list[str]:
        to_b, to_a = ["real_A", "fake_B", "rec_A"], ["real_B", "fake_A", "rec_B"]
        if self.isTrain and self.opt.lambda_identity > 0:
            to_b.append("idt_B")  # netG_B on A
            to_a.append("idt_A")
        return to_b + to_a

    def _generator(self, input_nc: int, output_nc: int) -> nn.Module:
        o = self.opt
        dropout = not o.no_dropout
        return networks.define_G(
            input_nc, output_nc, o.ngf, o.netG, o.norm, dropout, o.init_type, o.init_gain, self.gpu_ids
        )

    def _discriminator(self, input_nc: int) -> nn.Module:
        o = self.opt
        return networks.define_D(
            input_nc, o.ndf, o.netD, o.n_layers_D, o.norm, o.init_type, o.init_gain, self.gpu_ids
        )

    def _adam(self, *nets: nn.Module) -> torch.optim.Adam:
        parameters = itertools.chain.from_iterable(net.parameters() for net in nets)
        return torch.optim.Adam(parameters, lr=self.opt.lr, betas=(self.opt.beta1, 0.999))

    def set_input(self, input: dict[str, Any]) -> None:
        a, b = ("A", "B") if self.opt.direction == "AtoB" else ("B", "A")
        self.real_A = self.on_device(input[a])
        self.real_B = self.on_device(input[b])
        self.image_paths = input[f"{a}_paths"]
        networks.check_channels("input_nc", self.opt.input_nc, self.real_A)
        networks.check_channels("output_nc", self.opt.output_nc, self.real_B)
        self.check_sizes({networks.size_of(images): "" for images in (self.real_A, self.real_B)})

    def check_sizes(self, sizes: Mapping[tuple[int, int], str]) -> None:
        networks.check_image_sizes(self.opt, sizes)

    def forward(self) -> None:
        self.fake_B = self.netG_A(self.real_A)
        self.rec_A = self.netG_B(self.fake_B)
        self.fake_A = self.netG_B(self.real_B)
        self.rec_B = self.netG_A(self.fake_A)

    def backward_D_basic(self, netD: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Gradients of one discriminator; returns its loss."""
        loss, _, _ = networks.discriminator_loss(self.criterionGAN, netD, real, fake)
        loss.backward()
        return loss

    def backward_D_A(self) -> None:
        """Gradients of the discriminator of B, on pooled fakes."""
        self.loss_D_A = self.backward_D_basic(self.netD_A, self.real_B, self.fake_B_pool.query(self.fake_B))

    def backward_D_B(self) -> None:
        """Gradients of the discriminator of A, on pooled fakes."""
        self.loss_D_B = self.backward_D_basic(self.netD_B, self.real_A, self.fake_A_pool.query(self.fake_A))

    def backward_G(self) -> None:
        """Gradients of both generators."""
        weight_a, weight_b = self.opt.lambda_A, self.opt.lambda_B
        self.loss_idt_A = self.loss_idt_B = 0.0
        if self.opt.lambda_identity > 0:
            self.idt_A = self.netG_A(self.real_B)
            self.idt_B = self.netG_B(self.real_A)
            share = self.opt.lambda_identity
            self.loss_idt_A = self.criterionIdt(self.idt_A, self.real_B) * weight_b * share
            self.loss_idt_B = self.criterionIdt(self.idt_B, self.real_A) * weight_a * share
        self.loss_G_A = self.criterionGAN(self.netD_A(self.fake_B), True)
        self.loss_G_B = self.criterionGAN(self.netD_B(self.fake_A), True)
        self.loss_cycle_A = self.criterionCycle(self.rec_A, self.real_A) * weight_a
        self.loss_cycle_B = self.criterionCycle(self.rec_B, self.real_B) * weight_b
        cycles = self.loss_cycle_A + self.loss_cycle_B
        self.loss_G = self.loss_G_A + self.loss_G_B + cycles + self.loss_idt_A + self.loss_idt_B
        self.loss_G.backward()
        self.observe(cycles)

    def optimize_parameters(self) -> None:
        discriminators = [self.netD_A, self.netD_B]
        self.forward()
        self.set_requires_grad(discriminators, False)  # the generators' step needs none of theirs
        self.optimizer_G.zero_grad()
        self.backward_G()
        self.optimizer_G.step()
        self.set_requires_grad(discriminators, True)
        self.optimizer_D.zero_grad()
        self.backward_D_A()
        self.backward_D_B()
        self.optimizer_D.step()
