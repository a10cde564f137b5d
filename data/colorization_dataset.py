"""Pictures of ``<dataroot>/<phase>``, split into lightness, A, and colours, B."""

from __future__ import annotations

import argparse
import os
from typing import Any

from coronet_plugin.errors import OptionError
from coronet_plugin.pictures.lab import to_lab
from data.base_dataset import ImageDataset, Size, get_transform
from data.image_folder import make_dataset


class ColorizationDataset(ImageDataset):
    """Samples with A (1, H, W), the L of Lab, and B (2, H, W), its a and b; and A_paths, B_paths."""

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool
    ) -> argparse.ArgumentParser:
        parser.set_defaults(input_nc=1, output_nc=2, direction="AtoB")
        return parser

    def __init__(self, opt: argparse.Namespace) -> None:
        super().__init__(opt)
        if (opt.input_nc, opt.output_nc, opt.direction) != (1, 2, "AtoB"):
            raise OptionError(
                "--dataset_mode colorization is from lightness to two colours: it needs --input_nc 1, "
                f"--output_nc 2 and --direction AtoB, not {opt.input_nc}, {opt.output_nc} and {opt.direction}"
            )
        self.dir = os.path.join(opt.dataroot, opt.phase)
        self.AB_paths = make_dataset(self.dir, opt.max_dataset_size)
        self.transform = get_transform(opt, convert=False)

    def remarks(self) -> list[str]:
        return self._remarks(self.AB_paths)

    def sizes(self) -> dict[Size, str]:
        return self._sizes(self.AB_paths)

    def __len__(self) -> int:
        return len(self.AB_paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DataError if the image is damaged."""
        path = self.AB_paths[index]
        lightness, colours = to_lab(self.transform(self.open(path, "RGB")))
        return {"A": lightness, "B": colours, "A_paths": path, "B_paths": path}
