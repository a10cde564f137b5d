"""Sets of pictures on disk: which files, how they are read, and a fingerprint of their contents.

Real pictures are cut and resized as ``test.py`` does it, so that they differ from translated ones in nothing
but their origin. Pictures are read one at a time.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.pictures.files import ENDINGS, FULL_DEPTH, pictures_below, spread
from coronet_plugin.pictures.reading import halves, open_picture

PREPROCESS = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")
_BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Reading:
    """How a file becomes a picture; by default as it is, in RGB.

    ``half``: "A" or "B", the left or right half of an aligned pair. ``gray``: through one channel.
    ``preprocess``, ``load_size``, ``crop_size`` and ``aspect_ratio`` are the options of test.py, in pixels.
    ``alpha``: resized with its transparency, which then is left out. ``bit_depth``: of files of 16 bits.
    ``padded``: test.py kept sizes by padding, so ``--preprocess none`` leaves them alone.
    """

    half: str = ""
    gray: bool = False
    preprocess: str = ""
    load_size: int = 256
    crop_size: int = 256
    aspect_ratio: float = 1.0
    alpha: bool = False
    bit_depth: int = FULL_DEPTH
    padded: bool = False

    def __post_init__(self) -> None:
        if self.preprocess and self.preprocess not in PREPROCESS:
            known = ", ".join(PREPROCESS)
            raise OptionError(f"--preprocess {self.preprocess} of the test is not known, only {known}")

    @property
    def is_random(self) -> bool:
        """True if test.py cuts pictures at random places. Here the place follows from the file's name."""
        crops = self.preprocess in ("crop", "scale_width_and_crop")
        return crops or (self.preprocess == "resize_and_crop" and self.load_size > self.crop_size)

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W, 3), uint8. Raises DataError if the file is damaged, no pair, or smaller than the crop."""
        image = open_picture(path, "RGBA" if self.alpha else "RGB", self.bit_depth)
        if self.half:
            image = halves(image, path)["AB".index(self.half)]
        image = self._resized(image.convert("L") if self.gray else image)
        if self.preprocess.endswith("crop"):
            image = self._cropped(image, path)
        return np.asarray(self._stretched(image).convert("RGB"))

    def _resized(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if self.preprocess == "resize_and_crop":
            width = height = self.load_size
        elif self.preprocess.startswith("scale_width"):
            width, height = self.load_size, int(max(self.load_size * height / width, self.crop_size))
        elif self.preprocess == "none" and not self.padded:
            width, height = (max(4, round(side / 4) * 4) for side in (width, height))
        return image if image.size == (width, height) else image.resize((width, height), _BICUBIC)

    def _cropped(self, image: Image.Image, path: Path) -> Image.Image:
        width, height = image.size
        side = self.crop_size
        if width <= side and height <= side:
            return image
        if width < side or height < side:
            raise DataError(f"{path} ({width} x {height}) has no square of --crop_size {side}")
        place = random.Random(path.name)
        x, y = place.randint(0, width - side), place.randint(0, height - side)
        return image.crop((x, y, x + side, y + side))

    def _stretched(self, image: Image.Image) -> Image.Image:
        width, height, ratio = *image.size, self.aspect_ratio
        size = (int(width * ratio), height) if ratio > 1 else (width, int(height / ratio))
        return image if image.size == size else image.resize(size, _BICUBIC)


@dataclass(frozen=True)
class Pictures:
    """Files in a fixed order and how to read them. ``name`` is for the reader: ``real test pictures``."""

    name: str
    paths: tuple[Path, ...]
    reading: Reading = field(default_factory=Reading)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.reading, self.paths)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of how they are read and of the files' names and contents, wherever they lie."""
        found = hashlib.sha256(repr(self.reading).encode())
        for path in self.paths:
            found.update(f"{path.name}\0".encode("utf-8", "surrogateescape"))
            found.update(hashlib.sha256(_content(path)).digest())
        return found.hexdigest()

    def thinned(self, count: int) -> Pictures:
        """``count`` of them, spread evenly over the order; all of them if there are no more."""
        return Pictures(self.name, tuple(self.paths[i] for i in spread(len(self), count)), self.reading)


def pictures_of(name: str, source: str | Path, reading: Reading | None = None) -> Pictures:
    """The pictures below the folder ``source``, or of a pattern such as ``images/*_fake_B.png``, sorted.

    Raises DataError if there are none.
    """
    paths = _matching(Path(source)) if "*" in str(source) else _below(Path(source))
    if not paths:
        raise DataError(f"{source} has no pictures ({' '.join(ENDINGS)})")
    return Pictures(name, paths, reading or Reading())


def sizes_text(sizes: Sequence[tuple[int, int]] | np.ndarray) -> str:
    """``256 x 256`` (width x height) of rows (height, width); ``various sizes`` if they differ."""
    found = {(int(width), int(height)) for height, width in sizes}
    return "various sizes" if len(found) != 1 else "{} x {}".format(*found.pop())


def _below(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    return tuple(sorted(map(Path, pictures_below(folder))))


def _matching(pattern: Path) -> tuple[Path, ...]:
    if "*" in str(pattern.parent):
        raise DataError(f"{pattern}: only the name of the files may have a *, not their folder")
    return tuple(sorted(path for path in pattern.parent.glob(pattern.name) if path.suffix.lower() in ENDINGS))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
