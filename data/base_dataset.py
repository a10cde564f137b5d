"""The base class of data sets, and how an image becomes a tensor.

Augmentation draws from Python's ``random``, which the loader seeds in each of its
processes, so a seeded run repeats.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.pictures.files import FULL_DEPTH
from coronet_plugin.pictures.reading import open_picture
from coronet_plugin.pictures.survey import no_alpha, picture_sizes, unused_range

PREPROCESS = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")
Transform = Callable[[Image.Image], Any]
Size = tuple[int, int]
"""Width and height in pixels."""


class BaseDataset(torch.utils.data.Dataset, ABC):
    """A data set made from options; subclasses say how many samples there are and what one is."""

    def __init__(self, opt: argparse.Namespace) -> None:
        self.opt = opt
        self.root = opt.dataroot

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool
    ) -> argparse.ArgumentParser:
        """Add options or change defaults; returns the parser."""
        return parser

    def remarks(self) -> list[str]:
        """Remarks on odd images, to be said once before they are used; none by default."""
        return []

    def sizes(self) -> dict[Size, str]:
        """Sizes that samples can have, each with an image that has it; empty if that is not known."""
        return {}

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample: tensors (C, H, W) in [-1, 1] and the paths they came from."""


class ImageDataset(BaseDataset):
    """A data set of image files: what the bundled ones share.

    Side A is what a model with ``--direction AtoB`` is given; of the channels of a side speaks
    ``--input_nc`` or ``--output_nc``.
    """

    def channels(self, side: str) -> int:
        """Channels of the images on ``side``, "A" or "B"."""
        return int(getattr(self.opt, self._option(side)))

    def image_mode(self, side: str, paths: Sequence[str]) -> str:
        """The mode in which the files ``paths`` of ``side`` are opened: RGBA for four channels.

        Raises DataError if four channels are asked for and no file says how transparent it is.
        """
        if self.channels(side) != 4:
            return "RGB"
        option = self._option(side)
        if no_alpha(paths):
            raise DataError(
                f"--{option} 4, but the images of {os.path.dirname(paths[0])} have no alpha channel; "
                f"set --{option} 3"
            )
        return "RGBA"

    def open(self, path: str, mode: str) -> Image.Image:
        """The image at ``path``; raises DataError if it is damaged."""
        return open_picture(path, mode, self._bit_depth)

    def _option(self, side: str) -> str:
        forth = (side == "A") == (self.opt.direction == "AtoB")
        return "input_nc" if forth else "output_nc"

    def _sizes(self, paths: Sequence[str], halved: bool = False) -> dict[Size, str]:
        opt = self.opt
        if opt.preprocess == "resize_and_crop":
            return {prepared_size((1, 1), opt): ""}
        found: dict[Size, str] = {}
        for (width, height), path in picture_sizes(paths).items():
            size = prepared_size((width // 2 if halved else width, height), opt)
            found.setdefault(size, "" if size == (opt.crop_size, opt.crop_size) else path)
        return found

    def _remarks(self, paths: Sequence[str]) -> list[str]:
        return unused_range(paths, self._bit_depth)

    @property
    def _bit_depth(self) -> int:
        return getattr(self.opt, "bit_depth", FULL_DEPTH)


def get_params(opt: argparse.Namespace, size: tuple[int, int]) -> dict[str, Any]:
    """Random choices for one image of ``size`` (width, height), to be applied to several alike.

    ``crop_pos``: left and top of the crop in the scaled image; ``flip``: whether to mirror.
    """
    width, height = size
    if opt.preprocess == "resize_and_crop":
        width = height = opt.load_size
    elif opt.preprocess == "scale_width_and_crop":
        width, height = _scaled_to_width(size, opt)
    x = random.randint(0, max(0, width - opt.crop_size))
    y = random.randint(0, max(0, height - opt.crop_size))
    return {"crop_pos": (x, y), "flip": random.random() > 0.5}


def get_transform(
    opt: argparse.Namespace,
    params: dict[str, Any] | None = None,
    grayscale: bool = False,
    method: Image.Resampling = Image.Resampling.BICUBIC,
    convert: bool = True,
) -> Transform:
    """A function from an image to a tensor (C, H, W) in [-1, 1], or to an image if not ``convert``.

    It follows ``--preprocess`` and mirrors at random unless ``--no_flip``. ``params``
    from :func:`get_params`; without it every image gets its own.

    Raises:
        OptionError: there is no such ``--preprocess``.
        DataError: (on use) an image is narrower or lower than the crop.
    """
    if opt.preprocess not in PREPROCESS:
        known = ", ".join(PREPROCESS)
        raise OptionError(f"--preprocess {opt.preprocess} is not known; choose one of {known}")
    return functools.partial(
        _transform, opt=opt, params=params, grayscale=grayscale, method=method, convert=convert
    )


def prepared_size(size: Size, opt: argparse.Namespace) -> Size:
    """Size of the sample that ``--preprocess`` makes of an image of ``size``."""
    if opt.preprocess.endswith("crop"):
        size = _scaled(size, opt)
        return size if max(size) <= opt.crop_size else (opt.crop_size, opt.crop_size)
    return _scaled(size, opt)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An 8-bit image as a tensor (C, H, W) in [-1, 1]; C is 1 for gray, 3 for RGB and 4 for RGBA."""
    pixels = np.array(image, dtype=np.float32)
    channels_first = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(channels_first)) / 127.5 - 1.0


def _transform(
    image: Image.Image,
    opt: argparse.Namespace,
    params: dict[str, Any] | None,
    grayscale: bool,
    method: Image.Resampling,
    convert: bool,
) -> Any:
    choices = get_params(opt, image.size) if params is None else params
    if grayscale:
        image = image.convert("L")
    image = _resized(image, _scaled(image.size, opt), method)
    if opt.preprocess.endswith("crop"):
        image = _crop(image, choices["crop_pos"], opt.crop_size)
    if not opt.no_flip and choices["flip"]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_tensor(image) if convert else image


def _scaled(size: Size, opt: argparse.Namespace) -> Size:
    """The size before the crop, if there is one."""
    if opt.preprocess == "resize_and_crop":
        return opt.load_size, opt.load_size
    if opt.preprocess.startswith("scale_width"):
        return _scaled_to_width(size, opt)
    if opt.preprocess == "none" and getattr(opt, "pad_to_multiple", 0) <= 1:  # or padding will see to it
        return _to_multiple(size[0], 4), _to_multiple(size[1], 4)
    return size


def _scaled_to_width(size: tuple[int, int], opt: argparse.Namespace) -> tuple[int, int]:
    """Width ``--load_size``, height in proportion but at least ``--crop_size``."""
    width, height = size
    return opt.load_size, int(max(opt.load_size * height / width, opt.crop_size))


def _to_multiple(side: int, base: int) -> int:
    return max(base, int(round(side / base) * base))


def _resized(image: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, method)


def _crop(image: Image.Image, position: tuple[int, int], side: int) -> Image.Image:
    width, height = image.size
    if width <= side and height <= side:  # upstream leaves small images whole
        return image
    if width < side or height < side:
        raise DataError(
            f"an image of {width}x{height} pixels has no square of --crop_size {side}; "
            "lower --crop_size or use --preprocess resize_and_crop"
        )
    x, y = position
    return image.crop((x, y, x + side, y + side))
