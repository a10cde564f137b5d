"""Images of a folder: finding and opening them."""

from __future__ import annotations

import os
import struct
import warnings

import numpy as np
from PIL import Image

from coronet_plugin.errors import DataError

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".webp")


def is_image_file(filename: str) -> bool:
    """Whether the name is that of an image."""
    return filename.lower().endswith(IMG_EXTENSIONS)


def make_dataset(dir: str, max_dataset_size: float = float("inf")) -> list[str]:
    """Sorted paths of the images below ``dir``, at most ``max_dataset_size``.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not os.path.isdir(dir):
        raise DataError(f"there is no folder {dir}{_what_is_there(dir)}; check --dataroot and --phase")
    paths = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(dir, followlinks=True)
        for name in names
        if is_image_file(name)
    )
    if not paths:
        raise DataError(f"{dir} has no images ({' '.join(IMG_EXTENSIONS)}); check --dataroot and --phase")
    return paths[: int(min(max_dataset_size, len(paths)))]


def open_image(path: str, mode: str = "RGB") -> Image.Image:
    """The image at ``path``, fully read, in ``mode``. What has 16 bits a channel keeps the upper eight.

    Raises:
        DataError: it is missing or damaged, has values that are no colours, or far too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _eight_bits(image, path).convert(mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which no photograph has; remove it or "
            "scale it down"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as an image ({reason}); repair or remove it") from error


def _eight_bits(image: Image.Image, path: str) -> Image.Image:
    """Gray images of 16 bits as such of 8: pillow would clip them instead of scaling them."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise DataError(
            f"{path} has pixels from {values.min()} to {values.max()}, which are no colours; save it with "
            "8 or 16 bits a channel"
        )
    return Image.fromarray((values // 256).astype(np.uint8))


def _what_is_there(dir: str) -> str:
    """Names beside a missing folder, with a hint if they are another data set's."""
    parent = os.path.dirname(dir.rstrip(os.sep)) or "."
    if not os.path.isdir(parent):
        return f" (nor {parent})"
    names = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
    if not names:
        return f" ({parent} has no subfolders; images go into one named like the phase)"
    wanted, there = os.path.basename(dir), ", ".join(names[:8])
    if {f"{wanted}A", f"{wanted}B"} <= set(names):
        return f" ({parent} has {there}; unpaired images need --dataset_mode unaligned)"
    if wanted[:-1] in names:
        return f" ({parent} has {there}; pairs in one image need --dataset_mode aligned)"
    return f" ({parent} has {there})"
