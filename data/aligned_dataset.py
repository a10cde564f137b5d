"""Pairs: each image of ``<dataroot>/<phase>`` shows A on its left half and B on its right."""

from __future__ import annotations

import argparse
import os
from typing import Any

from coronet_plugin.pictures.reading import halves
from coronet_plugin.pictures.survey import square_pairs
from data.base_dataset import ImageDataset, Size, get_params, get_transform
from data.image_folder import make_dataset


class AlignedDataset(ImageDataset):
    """Samples with A, B (C, H, W) in [-1, 1], transformed alike, and A_paths, B_paths."""

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.dir_AB = os.path.join(opt.dataroot, opt.phase)
        self.AB_paths = make_dataset(self.dir_AB, opt.max_dataset_size)
        self.modes = {side: self.image_mode(side, self.AB_paths) for side in "AB"}

    def remarks(self) -> list[str]:
        return [*square_pairs(self.AB_paths), *self._remarks(self.AB_paths)]

    def sizes(self) -> dict[Size, str]:
        return self._sizes(self.AB_paths, halved=True)

    def __len__(self) -> int:
        return len(self.AB_paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DataError if the image is damaged or not a pair."""
        path = self.AB_paths[index]
        pair = halves(self.open(path, max(self.modes.values())), path)  # RGBA, if either has it
        params = get_params(self.opt, pair[0].size)
        sample: dict[str, Any] = {"A_paths": path, "B_paths": path}
        for side, image in zip("AB", pair):
            transform = get_transform(self.opt, params, grayscale=self.channels(side) == 1)
            sample[side] = transform(image.convert(self.modes[side]))
        return sample
