"""Images of one folder, ``<dataroot>`` itself, for testing a generator on them."""

from __future__ import annotations

import argparse
from typing import Any

from data.base_dataset import ImageDataset, Size, get_transform
from data.image_folder import make_dataset


class SingleDataset(ImageDataset):
    """Samples with A (C, H, W) in [-1, 1] and A_paths."""

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        self.A_paths = make_dataset(opt.dataroot, opt.max_dataset_size)
        self.mode = self.image_mode("A", self.A_paths)
        self.transform = get_transform(opt, grayscale=self.channels("A") == 1)

    def remarks(self) -> list[str]:
        return self._remarks(self.A_paths)

    def sizes(self) -> dict[Size, str]:
        return self._sizes(self.A_paths)

    def __len__(self) -> int:
        return len(self.A_paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DataError if the image is damaged."""
        path = self.A_paths[index]
        return {"A": self.transform(self.open(path, self.mode)), "A_paths": path}
