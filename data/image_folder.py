"""Images of a folder: finding them. They are opened by :mod:`coronet_plugin.pictures.reading`."""

from __future__ import annotations

import os

from coronet_plugin.errors import DataError
from coronet_plugin.pictures.files import ENDINGS as IMG_EXTENSIONS
from coronet_plugin.pictures.files import pictures_below
from coronet_plugin.pictures.reading import open_picture as open_image

__all__ = ["IMG_EXTENSIONS", "is_image_file", "make_dataset", "open_image"]


def is_image_file(filename: str) -> bool:
    """True if the name is that of an image."""
    return filename.lower().endswith(IMG_EXTENSIONS)


def make_dataset(dir: str, max_dataset_size: float = float("inf")) -> list[str]:
    """Sorted paths of the images below ``dir``, at most ``max_dataset_size``.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not os.path.isdir(dir):
        raise DataError(f"there is no folder {dir}{_what_is_there(dir)}; check --dataroot and --phase")
    paths = pictures_below(dir)
    if not paths:
        raise DataError(f"{dir} has no images ({' '.join(IMG_EXTENSIONS)}); check --dataroot and --phase")
    return paths[: int(min(max_dataset_size, len(paths)))]


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
