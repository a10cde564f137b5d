"""Images of one folder, ``<dataroot>`` itself, for testing a generator on them."""

from __future__ import annotations

import argparse
from typing import Any

from data.base_dataset import BaseDataset, get_transform
from data.image_folder import make_dataset, open_image


class SingleDataset(BaseDataset):
    """Samples with A (C, H, W) in [-1, 1] and A_paths."""

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.A_paths = make_dataset(opt.dataroot, opt.max_dataset_size)
        channels = opt.output_nc if opt.direction == "BtoA" else opt.input_nc
        self.transform = get_transform(opt, grayscale=channels == 1)

    def __len__(self) -> int:
        return len(self.A_paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DataError if the image is damaged."""
        path = self.A_paths[index]
        return {"A": self.transform(open_image(path)), "A_paths": path}
