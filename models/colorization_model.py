"""Colours for grey pictures: pix2pix from lightness to the two colours of Lab."""

from __future__ import annotations

import argparse

import numpy as np
from torch import Tensor

from coronet_plugin.pictures.lab import to_rgb
from models.pix2pix_model import Pix2PixModel


class ColorizationModel(Pix2PixModel):
    """Pix2pix on ``--dataset_mode colorization``, shown in RGB. Zhang et al., ECCV 2016 have the task."""

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool = True
    ) -> argparse.ArgumentParser:
        Pix2PixModel.modify_commandline_options(parser, is_train)
        parser.set_defaults(dataset_mode="colorization")
        return parser

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.visual_names = ["real_A", "real_B_rgb", "fake_B_rgb"]

    def lab2rgb(self, L: Tensor, AB: Tensor) -> np.ndarray:
        """The first of lightnesses (N, 1, H, W) and colours (N, 2, H, W) as (H, W, 3), 0 to 255."""
        return to_rgb(L[0], AB[0])

    def compute_visuals(self) -> None:
        """Make the pictures to show: the coloured one and the true one, as arrays."""
        self.real_B_rgb = self.lab2rgb(self.real_A, self.real_B)
        self.fake_B_rgb = self.lab2rgb(self.real_A, self.fake_B)
