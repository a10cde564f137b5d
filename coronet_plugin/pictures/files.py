"""Which files are pictures, and some of them; what can be known without Pillow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name for pictures of so many channels."""
FULL_DEPTH = 16
"""Bits that values in a file of 16 bits a channel have, unless ``--bit_depth`` says otherwise."""


def pictures_below(folder: str | Path) -> list[str]:
    """Sorted paths of the pictures in ``folder`` and its subfolders."""
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(ENDINGS)
    )


def spread(total: int, count: int) -> np.ndarray:
    """Places of ``count`` out of ``total`` in a row, evenly spread; all of them if there are no more."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)
