"""Look at some pictures of a data set and tell about all of them, before hours are spent on them.

A few files, spread over all, are looked at: of most only the header is read. Files that cannot be read are
left to whoever needs them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from PIL import Image

from coronet_plugin.errors import DataError
from coronet_plugin.pictures.files import FULL_DEPTH, spread
from coronet_plugin.pictures.reading import UNREADABLE, deep_values, has_alpha, is_deep

HEADERS = 1000
"""Files at most whose header is read."""
DEEP = 16
"""Files at most whose pixels are read."""
SQUARE = 1.1
"""The longer by the shorter side of what is about square, at most."""
UNUSED_BITS = 2
"""Upper bits that no value needs, from which on it is said: pictures of a quarter of their brightness."""


def picture_sizes(paths: Sequence[str]) -> dict[tuple[int, int], str]:
    """Sizes (width, height) that there are among ``paths``, each with the first file that has it."""
    sizes: dict[tuple[int, int], str] = {}
    for path, image in _opened(paths, HEADERS):
        sizes.setdefault(image.size, path)
    return sizes


def no_alpha(paths: Sequence[str]) -> bool:
    """True if none of the pictures says how transparent it is."""
    return not any(has_alpha(image) for _, image in _opened(paths, HEADERS))


def square_pairs(paths: Sequence[str]) -> list[str]:
    """A remark if most files are about square, which two pictures side by side seldom are."""
    looked_at = [(path, image.size) for path, image in _opened(paths, HEADERS)]
    square = [(path, size) for path, size in looked_at if max(size) <= SQUARE * min(size)]
    if len(square) * 2 <= len(looked_at):
        return []
    path, (width, height) = square[0]
    return [
        f"most pictures of {os.path.dirname(path)} are about square (such as {os.path.basename(path)}, "
        f"{width}x{height}), and --dataset_mode aligned cuts each into a left half A and a right half B; if "
        "they are single pictures, join each with its partner (coronet pairs A_FOLDER B_FOLDER --output "
        "DIR), or use --dataset_mode unaligned for pictures without partners"
    ]


def unused_range(paths: Sequence[str], bit_depth: int = FULL_DEPTH) -> list[str]:
    """A remark if files of 16 bits a channel hold only values of far fewer than ``bit_depth`` bits."""
    highest, count = 0, 0
    for path, image in _opened(paths, DEEP):
        with contextlib.suppress(*UNREADABLE, DataError):
            if is_deep(image):
                highest, count = max(highest, int(deep_values(image, path).max())), count + 1
    bits = max(8, highest.bit_length())
    if not count or bits > bit_depth - UNUSED_BITS:
        return []
    return [
        f"the pictures of {os.path.dirname(paths[0])} have 16 bits a channel, but no value above {highest} "
        f"in the {count} looked at, so that with --bit_depth {bit_depth} they are nearly black; if their "
        f"values have {bits} bits, set --bit_depth {bits}, in training and test"
    ]


def _opened(paths: Sequence[str], count: int) -> Iterator[tuple[str, Image.Image]]:
    """Up to ``count`` of the files, opened; their pixels are not read yet."""
    for path in (paths[place] for place in spread(len(paths), count)):
        with contextlib.suppress(*UNREADABLE, Image.DecompressionBombError), Image.open(path) as image:
            yield path, image
