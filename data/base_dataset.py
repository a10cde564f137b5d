"""What data sets share: the base class, and how an image becomes a tensor.

Augmentation draws from Python's ``random``, which the loader seeds in each of its
processes, so a seeded run repeats.
"""

from __future__ import annotations

import argparse
import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from coronet_plugin.errors import DataError, OptionError

PREPROCESS = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")
Transform = Callable[[Image.Image], Any]


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

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample: tensors (C, H, W) in [-1, 1] and the paths they came from."""


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


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An 8-bit image as a tensor (C, H, W) in [-1, 1]; C is 1 for gray and 3 for RGB."""
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
    if opt.preprocess == "resize_and_crop":
        image = _resized(image, (opt.load_size, opt.load_size), method)
    elif opt.preprocess.startswith("scale_width"):
        image = _resized(image, _scaled_to_width(image.size, opt), method)
    elif opt.preprocess == "none":
        image = _resized(image, tuple(_to_multiple(side, 4) for side in image.size), method)
    if opt.preprocess.endswith("crop"):
        image = _crop(image, choices["crop_pos"], opt.crop_size)
    if not opt.no_flip and choices["flip"]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_tensor(image) if convert else image


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
