"""Two sets of images without partners: ``<dataroot>/<phase>A`` and ``<dataroot>/<phase>B``."""

from __future__ import annotations

import argparse
import os
import random
from typing import Any

from data.base_dataset import ImageDataset, Size, get_transform
from data.image_folder import make_dataset


class UnalignedDataset(ImageDataset):
    """Samples with A, B (C, H, W) in [-1, 1] and A_paths, B_paths.

    B is drawn at random so that pairs differ between epochs; with ``--serial_batches``
    it goes along with A. The length is that of the larger set.
    """

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.dir_A = os.path.join(opt.dataroot, opt.phase + "A")
        self.dir_B = os.path.join(opt.dataroot, opt.phase + "B")
        self.A_paths = make_dataset(self.dir_A, opt.max_dataset_size)
        self.B_paths = make_dataset(self.dir_B, opt.max_dataset_size)
        self.A_size, self.B_size = len(self.A_paths), len(self.B_paths)
        self.mode_A = self.image_mode("A", self.A_paths)
        self.mode_B = self.image_mode("B", self.B_paths)
        self.transform_A = get_transform(opt, grayscale=self.channels("A") == 1)
        self.transform_B = get_transform(opt, grayscale=self.channels("B") == 1)

    def remarks(self) -> list[str]:
        return [*self._remarks(self.A_paths), *self._remarks(self.B_paths)]

    def sizes(self) -> dict[Size, str]:
        return {**self._sizes(self.A_paths), **self._sizes(self.B_paths)}

    def __len__(self) -> int:
        return max(self.A_size, self.B_size)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DataError if an image is damaged."""
        a_path = self.A_paths[index % self.A_size]
        serial = self.opt.serial_batches
        b_path = self.B_paths[index % self.B_size if serial else random.randrange(self.B_size)]
        return {
            "A": self.transform_A(self.open(a_path, self.mode_A)),
            "B": self.transform_B(self.open(b_path, self.mode_B)),
            "A_paths": a_path,
            "B_paths": b_path,
        }
