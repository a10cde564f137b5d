"""A model to begin with when you write your own: a generator that learns B from A by their difference alone.

Copy this file to ``models/NAME_model.py``, name the class NameModel and change what differs: ``--model NAME``
finds it, and ``--model coronet --coronet_base NAME`` compresses it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

from models import networks
from models.base_model import BaseModel


class TemplateModel(BaseModel):
    """``netG`` translates A to B and is trained by the L1 distance, times ``--lambda_regression``."""

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool = True
    ) -> argparse.ArgumentParser:
        """Add options of your own, and set defaults of others that suit the model."""
        parser.set_defaults(dataset_mode="aligned")
        if is_train:
            parser.add_argument(
                "--lambda_regression", type=float, default=1.0, help="weight of the regression loss"
            )
        return parser

    def __init__(self, opt: argparse.Namespace) -> None:
        """Name losses, pictures and networks, and make the networks and their optimizers."""
        super().__init__(opt)
        self.loss_names = ["G"]  # self.loss_G
        self.visual_names = ["data_A", "data_B", "output"]
        self.model_names = ["G"]  # self.netG
        common = (opt.norm, not opt.no_dropout, opt.init_type, opt.init_gain, self.gpu_ids)
        self.netG = networks.define_G(opt.input_nc, opt.output_nc, opt.ngf, opt.netG, *common)
        if self.isTrain:
            self.criterionLoss = torch.nn.L1Loss()
            self.optimizer = torch.optim.Adam(self.netG.parameters(), lr=opt.lr, betas=(opt.beta1, 0.999))
            self.optimizers = [self.optimizer]

    def set_input(self, input: dict[str, Any]) -> None:
        """Take a batch of the data set."""
        a, b = ("A", "B") if self.opt.direction == "AtoB" else ("B", "A")
        self.data_A = self.on_device(input[a])
        self.data_B = self.on_device(input[b])
        self.image_paths = input[f"{a}_paths"]
        networks.check_channels("input_nc", self.opt.input_nc, self.data_A)
        networks.check_channels("output_nc", self.opt.output_nc, self.data_B)
        self.check_sizes({networks.size_of(self.data_A): ""})

    def check_sizes(self, sizes: Mapping[tuple[int, int], str]) -> None:
        """Refuse what the generator cannot take, before the first step."""
        networks.check_image_sizes(self.opt, sizes)

    def forward(self) -> None:
        """Translate the batch; training and testing both do."""
        self.output = self.netG(self.data_A)

    def backward(self) -> None:
        """Gradients of the generator."""
        self.loss_G = self.criterionLoss(self.output, self.data_B) * self.opt.lambda_regression
        self.loss_G.backward()
        self.observe(self.loss_G)

    def optimize_parameters(self) -> None:
        """Make one training step."""
        self.forward()
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()
