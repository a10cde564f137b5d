"""A picture file as an image of 8 bits a channel, and the two halves of one that holds a pair.

Pillow clips gray values of 16 bits and halves those of colours; here both are scaled, by as many bits as the
values really have.
"""

from __future__ import annotations

import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from coronet_plugin.errors import DataError
from coronet_plugin.pictures.files import FULL_DEPTH, MODES

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError)
"""Exceptions that Pillow raises for damaged files."""
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Pillow keeps one byte of two: the upper one, or with the other byte order the lower one."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Turn that makes a picture upright, by its EXIF orientation."""


def open_picture(
    path: str | Path, mode: str = "RGB", bit_depth: int = FULL_DEPTH, as_seen: bool = False
) -> Image.Image:
    """The picture at ``path``, fully read, in ``mode`` (of :data:`~coronet_plugin.pictures.files.MODES`).

    What has 16 bits a channel keeps the upper eight of the lower ``bit_depth``. ``as_seen``: as viewers show
    it, turned as its EXIF data say and, unless ``mode`` keeps transparency, on white; trainings do neither.

    Raises:
        DataError: it is missing or damaged, has values that are no colours or do not fit into ``bit_depth``,
            or far too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                eight = _eight_bits(image, path, bit_depth)
                return _as_seen(eight, image, mode) if as_seen else eight.convert(mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which no photograph has; remove it or "
            "scale it down"
        ) from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as an image ({reason}); repair or remove it") from error


def halves(pair: Image.Image, path: str | Path) -> tuple[Image.Image, Image.Image]:
    """A and B of the picture read from ``path``: its left and its right half, whatever its proportions.

    Raises DataError if its width is odd.
    """
    width, height = pair.size
    if width % 2:
        raise DataError(
            f"{path} has {width}x{height} pixels and is not two images side by side; put A and B of each "
            "pair into one image of twice the width (coronet pairs does), or use --dataset_mode unaligned "
            "for images without partners"
        )
    middle = width // 2
    return pair.crop((0, 0, middle, height)), pair.crop((middle, 0, width, height))


def has_alpha(image: Image.Image) -> bool:
    """True if the file says how transparent its pixels are."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def is_deep(image: Image.Image) -> bool:
    """True if the opened, not yet loaded file has 16 bits a channel."""
    return image.mode == "I" or image.mode.startswith("I;16") or ";16" in _raw_mode(image)


def deep_values(image: Image.Image, path: str | Path) -> np.ndarray:
    """Values (H, W) or (H, W, C) of 16 bits, as integers, of the opened file ``path`` that :func:`is_deep`.

    Raises DataError if Pillow cannot give both bytes of its kind.
    """
    kind = _raw_mode(image)
    if ";16" not in kind or image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    upper = np.asarray(image).astype(np.int64)
    with Image.open(path) as file:
        again: Any = file
        other = kind[:-1] + _OTHER_BYTE[kind[-1]]
        again.tile = [
            (*tile[:3], other if isinstance(tile[3], str) else (other, *tile[3][1:])) for tile in again.tile
        ]
        try:
            lower = np.asarray(again)
        except ValueError as error:
            raise DataError(
                f"{path}: only the upper 8 bits of its kind ({kind}) can be read; save it as gray, RGB or "
                "RGBA, or with 8 bits"
            ) from error
    return upper * 256 + lower


def _as_seen(eight: Image.Image, file: Image.Image, mode: str) -> Image.Image:
    """``eight`` bits of the loaded ``file``, upright and in ``mode``."""
    turn = _TURNS.get(file.getexif().get(_ORIENTATION, 1))
    if mode != "RGBA" and has_alpha(eight):
        layers = eight.convert("RGBA")
        eight = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    picture = eight.convert(mode)
    return picture if turn is None else picture.transpose(turn)


def _raw_mode(image: Image.Image) -> str:
    """Form of the file's pixels, such as ``RGB;16B``; empty where the format does not say."""
    tiles: Any = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    kind = args[0] if isinstance(args, tuple) and args else args
    return kind if isinstance(kind, str) else ""


def _eight_bits(image: Image.Image, path: str | Path, bit_depth: int) -> Image.Image:
    as_it_is = not is_deep(image) or (image.mode in MODES.values() and bit_depth == FULL_DEPTH)
    if as_it_is and image.mode != "F":
        return image
    values = np.asarray(image) if image.mode == "F" else deep_values(image, path)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise DataError(
            f"{path} has pixels from {values.min()} to {values.max()}, which are no colours; save it with "
            "8 or 16 bits a channel"
        )
    if values.max() >> bit_depth:
        raise DataError(
            f"{path} has values up to {values.max()}, and {bit_depth} bits end with {2**bit_depth - 1}; set "
            f"--bit_depth {int(values.max()).bit_length()}"
        )
    return Image.fromarray((values >> (bit_depth - 8)).astype(np.uint8))
