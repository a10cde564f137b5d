"""Pairs: each image of ``<dataroot>/<phase>`` shows A on its left half and B on its right."""

from __future__ import annotations

import argparse
import os
from typing import Any

from coronet_plugin.errors import DataError
from data.base_dataset import BaseDataset, get_params, get_transform
from data.image_folder import make_dataset, open_image


class AlignedDataset(BaseDataset):
    """Samples with A, B (C, H, W) in [-1, 1], transformed alike, and A_paths, B_paths."""

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.dir_AB = os.path.join(opt.dataroot, opt.phase)
        self.AB_paths = make_dataset(self.dir_AB, opt.max_dataset_size)
        backwards = opt.direction == "BtoA"
        self.input_nc = opt.output_nc if backwards else opt.input_nc
        self.output_nc = opt.input_nc if backwards else opt.output_nc

    def __len__(self) -> int:
        return len(self.AB_paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DataError if the image is damaged or not a pair."""
        path = self.AB_paths[index]
        pair = open_image(path)
        width, height = pair.size
        if width % 2 or width <= height:
            raise DataError(
                f"{path} has {width}x{height} pixels and is not two images side by side; put A and B of "
                "each pair into one image, or use --dataset_mode unaligned for images without partners"
            )
        half = width // 2
        a, b = pair.crop((0, 0, half, height)), pair.crop((half, 0, width, height))
        params = get_params(self.opt, a.size)
        transform_a = get_transform(self.opt, params, grayscale=self.input_nc == 1)
        transform_b = get_transform(self.opt, params, grayscale=self.output_nc == 1)
        return {"A": transform_a(a), "B": transform_b(b), "A_paths": path, "B_paths": path}
