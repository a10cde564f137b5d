"""One generator on images of one folder, without knowing how it was trained."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from coronet_plugin.errors import OptionError
from coronet_plugin.pictures.lab import to_rgb
from coronet_plugin.training.testing import SlimTesting, recall_one
from models import networks
from models.base_model import BaseModel


class TestModel(SlimTesting, BaseModel):
    """Loads ``<epoch>_net_G<model_suffix>.pth``, slim or dense; a CycleGAN's are ``_A`` and ``_B``."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool = True
    ) -> argparse.ArgumentParser:
        if is_train:
            raise OptionError("--model test is for test.py alone; train with pix2pix or cycle_gan")
        parser.set_defaults(dataset_mode="single")
        parser.add_argument(
            "--model_suffix", type=str, default="", help="ending of the generator's name, such as _A"
        )
        recall_one(parser)
        return parser

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.model_names = ["G" + opt.model_suffix]
        self.visual_names = ["real", "fake"]
        self.netG = networks.define_G(
            opt.input_nc,
            opt.output_nc,
            opt.ngf,
            opt.netG,
            opt.norm,
            not opt.no_dropout,
            opt.init_type,
            opt.init_gain,
            self.gpu_ids,
        )
        setattr(self, "netG" + opt.model_suffix, self.netG)  # found by its name in model_names

    def set_input(self, input: dict[str, Any]) -> None:
        self.real = self.on_device(input["A"])
        self.image_paths = input["A_paths"]
        networks.check_channels("input_nc", self.opt.input_nc, self.real)
        self.check_sizes({networks.size_of(self.real): ""})

    def check_sizes(self, sizes: Mapping[tuple[int, int], str]) -> None:
        networks.check_image_sizes(self.opt, sizes)

    def forward(self) -> None:
        self.fake = self.netG(self.real)

    def compute_visuals(self) -> None:
        """Show the two colours that ``colorization`` gives together with their lightness."""
        if self.fake.shape[1] == 2:
            self.fake = to_rgb(self.real[0], self.fake[0])

    def optimize_parameters(self) -> None:
        """Never called: there is nothing to train."""
