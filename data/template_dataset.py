"""A data set to begin with when you write your own: pictures of ``<dataroot>/<phase>``, and brighter ones.

Copy this file to ``data/NAME_dataset.py``, name the class NameDataset and change what differs:
``--dataset_mode NAME`` finds it. The parts of a sample have upstream's names beside those that models take.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from data.base_dataset import ImageDataset, Size, get_transform
from data.image_folder import make_dataset


class TemplateDataset(ImageDataset):
    """Samples with A and B (C, H, W) in [-1, 1], and A_paths, B_paths; the same as data_A, data_B and path.

    B is A with ``--new_dataset_option`` times its brightness, cut off at white.
    """

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool
    ) -> argparse.ArgumentParser:
        """Add options of your own, and set defaults of others that suit the data."""
        parser.add_argument(
            "--new_dataset_option", type=float, default=1.0, help="by what the brightness of B is multiplied"
        )
        parser.set_defaults(max_dataset_size=10, new_dataset_option=2.0)
        return parser

    def __init__(self, opt: argparse.Namespace) -> None:
        """Find the files; they are read when a sample is asked for."""
        super().__init__(opt)
        self.image_paths = make_dataset(os.path.join(opt.dataroot, opt.phase), opt.max_dataset_size)
        self.mode = self.image_mode("A", self.image_paths)
        self.transform = get_transform(opt, grayscale=self.channels("A") == 1)

    def sizes(self) -> dict[Size, str]:
        return self._sizes(self.image_paths)

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Make one sample; batches of them are what ``set_input`` of a model is given."""
        path = self.image_paths[index]
        a = self.transform(self.open(path, self.mode))
        b = ((a + 1) * self.opt.new_dataset_option - 1).clamp(max=1)
        return {"A": a, "B": b, "A_paths": path, "B_paths": path, "data_A": a, "data_B": b, "path": path}
