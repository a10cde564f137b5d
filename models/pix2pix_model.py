"""pix2pix: translation learned from pairs, by an L1 loss and a conditional discriminator."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

from models import networks
from models.base_model import BaseModel


class Pix2PixModel(BaseModel):
    """``netG`` translates A to B; ``netD`` sees A and B together. Isola et al., CVPR 2017."""

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool = True
    ) -> argparse.ArgumentParser:
        parser.set_defaults(norm="batch", netG="unet_256", dataset_mode="aligned")
        if is_train:
            parser.set_defaults(pool_size=0, gan_mode="vanilla")
            parser.add_argument("--lambda_L1", type=float, default=100.0, help="weight of the L1 loss")
        return parser

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.loss_names = ["G_GAN", "G_L1", "D_real", "D_fake"]
        self.visual_names = ["real_A", "fake_B", "real_B"]
        self.model_names = ["G", "D"] if self.isTrain else ["G"]
        common = (opt.norm, not opt.no_dropout, opt.init_type, opt.init_gain, self.gpu_ids)
        self.netG = networks.define_G(opt.input_nc, opt.output_nc, opt.ngf, opt.netG, *common)
        if not self.isTrain:
            return
        self.netD = networks.define_D(
            opt.input_nc + opt.output_nc,
            opt.ndf,
            opt.netD,
            opt.n_layers_D,
            opt.norm,
            opt.init_type,
            opt.init_gain,
            self.gpu_ids,
        )
        self.criterionGAN = networks.GANLoss(opt.gan_mode).to(self.device)
        self.criterionL1 = torch.nn.L1Loss()
        betas = (opt.beta1, 0.999)
        self.optimizer_G = torch.optim.Adam(self.netG.parameters(), lr=opt.lr, betas=betas)
        self.optimizer_D = torch.optim.Adam(self.netD.parameters(), lr=opt.lr, betas=betas)
        self.optimizers = [self.optimizer_G, self.optimizer_D]

    def set_input(self, input: dict[str, Any]) -> None:
        a, b = ("A", "B") if self.opt.direction == "AtoB" else ("B", "A")
        self.real_A = self.on_device(input[a])
        self.real_B = self.on_device(input[b])
        self.image_paths = input[f"{a}_paths"]
        networks.check_channels("input_nc", self.opt.input_nc, self.real_A)
        networks.check_channels("output_nc", self.opt.output_nc, self.real_B)
        self.check_sizes({networks.size_of(self.real_A): ""})

    def check_sizes(self, sizes: Mapping[tuple[int, int], str]) -> None:
        networks.check_image_sizes(self.opt, sizes)

    def forward(self) -> None:
        self.fake_B = self.netG(self.real_A)

    def backward_D(self) -> None:
        """Gradients of the discriminator."""
        real = torch.cat((self.real_A, self.real_B), 1)
        fake = torch.cat((self.real_A, self.fake_B), 1)
        self.loss_D, self.loss_D_real, self.loss_D_fake = networks.discriminator_loss(
            self.criterionGAN, self.netD, real, fake
        )
        self.loss_D.backward()

    def backward_G(self) -> None:
        """Gradients of the generator."""
        judged = self.netD(torch.cat((self.real_A, self.fake_B), 1))
        self.loss_G_GAN = self.criterionGAN(judged, True)
        self.loss_G_L1 = self.criterionL1(self.fake_B, self.real_B) * self.opt.lambda_L1
        self.loss_G = self.loss_G_GAN + self.loss_G_L1
        self.loss_G.backward()
        self.observe(self.loss_G_L1)

    def optimize_parameters(self) -> None:
        self.forward()
        self.set_requires_grad(self.netD, True)
        self.optimizer_D.zero_grad()
        self.backward_D()
        self.optimizer_D.step()
        self.set_requires_grad(self.netD, False)  # the generator's step needs none of its gradients
        self.optimizer_G.zero_grad()
        self.backward_G()
        self.optimizer_G.step()
