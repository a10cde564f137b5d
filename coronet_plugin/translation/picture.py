"""One picture as a generator takes it, and what it gives as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.pictures.files import MODES
from coronet_plugin.pictures.lab import to_lab, to_rgb
from coronet_plugin.pictures.padding import cut, pad_to, padded_side
from coronet_plugin.translation.source import Translator
from coronet_plugin.translation.statistics import WholePicture
from coronet_plugin.translation.tiles import Tile, blended, grid, usual_overlap

Size = Union[Literal["trained", "own"], tuple[int, int]]
"""As trained (the proportions stay), as pictures are, or (H, W)."""


@dataclass(frozen=True)
class Tiling:
    """How large pictures are taken apart: ``side`` of the tiles and their ``overlap`` (None: a quarter).

    With ``whole``, norms take the statistics of the whole picture.
    """

    side: int
    overlap: int | None = None
    whole: bool = True


@dataclass(frozen=True)
class Prepared:
    """``values``: (1, C, H, W) in [-1, 1], mirrored out; ``picture``: what is in their middle."""

    values: Tensor
    picture: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return self.picture.height, self.picture.width


class PictureTranslator:
    """Pictures of 8 bits a channel through ``translator``, in sizes and tiles as asked.

    Raises OptionError for tiles that go with no picture.
    """

    def __init__(self, translator: Translator, size: Size = "trained", tiling: Tiling | None = None) -> None:
        self.translator, self.size, self.tiling = translator, size, tiling
        self.mode = "RGB" if translator.colours else MODES[translator.channels]
        self._tile = self._overlap = None
        if tiling is not None:
            side = padded_side(tiling.side, translator.multiple)
            tile = translator.size if translator.fixed else (side, side)
            usual = usual_overlap(tile, translator.multiple)
            self._overlap = usual if tiling.overlap is None else tiling.overlap
            self._tile = tile
            if not 0 <= self._overlap < min(tile):
                raise OptionError(
                    f"--overlap {self._overlap} must be at least 0 and below the {min(tile)} pixels of a tile"
                )
        whole = tiling is not None and tiling.whole and translator.generator is not None
        self._whole = WholePicture(translator.generator) if whole else None  # type: ignore[arg-type]

    def prepare(self, picture: Image.Image) -> Prepared:
        """Bring ``picture`` to the size asked for and to one that the generator takes.

        Raises DataError if it is larger than all that the generator takes.
        """
        size = self._wanted((picture.height, picture.width))
        if (picture.height, picture.width) != size:
            picture = picture.resize(size[::-1], Image.Resampling.BICUBIC)
        picture = picture.convert(self.mode)
        values = to_lab(picture)[0][None] if self.translator.colours else to_values(picture)
        return Prepared(pad_to(values, *self._padded(size)), picture)

    def translate(self, prepared: list[Prepared]) -> list[Image.Image]:
        """Translate pictures that were prepared to the same size."""
        height, width = prepared[0].values.shape[-2:]
        if self._tile is None or (height <= self._tile[0] and width <= self._tile[1]):
            outputs = self.translator.run(torch.cat([one.values for one in prepared]))
        else:
            outputs = torch.cat([self._in_tiles(one.values) for one in prepared])
        return [self._finished(output[None], one) for output, one in zip(outputs, prepared)]

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Translate one picture."""
        return self.translate([self.prepare(picture)])[0]

    # -- sizes -------------------------------------------------------------------
    def _wanted(self, own: tuple[int, int]) -> tuple[int, int]:
        """(H, W) to bring a picture of ``own`` (H, W) to, before it is mirrored out."""
        trained = self.translator.size
        if self.size == "trained":
            ratios = [there / here for there, here in zip(trained, own)]
            ratio = min(ratios) if self.translator.fixed else max(ratios)
            wanted = tuple(max(1, round(side * ratio)) for side in own)
        else:
            wanted = own if self.size == "own" else self.size
        return wanted[0], wanted[1]

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        translator = self.translator
        if translator.fixed and self._tile is None and any(a > b for a, b in zip(size, translator.size)):
            trained = "x".join(map(str, translator.size))
            raise DataError(
                f"{size[0]}x{size[1]} pixels (height x width), and the file takes {trained} alone; leave "
                "--size out, translate in tiles (--tile), or export with --dynamic"
            )
        least = translator.size if translator.fixed else (1, 1)
        height, width = (max(padded_side(a, translator.multiple), b) for a, b in zip(size, least))
        return height, width

    # -- output ------------------------------------------------------------------
    def _in_tiles(self, values: Tensor) -> Tensor:
        assert self._tile is not None and self._overlap is not None
        size = (values.shape[-2], values.shape[-1])
        tile = (min(self._tile[0], size[0]), min(self._tile[1], size[1]))
        tiles = grid(size, tile, self._overlap, self.translator.multiple)
        if self._whole is not None:
            return self._whole.translate(values, tiles)

        def run(tile: Tile) -> Tensor:
            return self.translator.run(tile.of(values))

        return blended(run, tiles, size)

    def _finished(self, output: Tensor, prepared: Prepared) -> Image.Image:
        if output.shape[-2:] == prepared.values.shape[-2:]:
            output = cut(output, *prepared.size)
        if self.translator.colours:
            return Image.fromarray(to_rgb(to_lab(prepared.picture)[0], output[0]))
        return to_picture(output[0], self.translator.limits)


def to_values(picture: Image.Image) -> Tensor:
    """A picture of 8 bits a channel as (1, C, H, W) in [-1, 1]."""
    values = np.asarray(picture, dtype=np.float32)
    values = values[..., None] if values.ndim == 2 else values
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None] / 127.5 - 1.0


def to_picture(values: Tensor, limits: tuple[float, float] = (-1.0, 1.0)) -> Image.Image:
    """(C, H, W) with values between ``limits`` as a picture of 8 bits a channel.

    Raises DataError for channels that are no picture's.
    """
    low, high = limits
    if len(values) not in MODES:
        raise OptionError(f"the generator gives {len(values)} channels, and pictures have 1, 3 or 4")
    bytes_ = ((values - low) * (255.0 / (high - low))).round().clamp(0, 255).to(torch.uint8)
    array = bytes_.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if len(values) == 1 else array)


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures in one, ``left`` brought to the size of ``right``."""
    mode = max((left.mode, right.mode), key=len)
    both = Image.new(mode, (2 * right.width, right.height))
    both.paste(left.convert(mode).resize(right.size, Image.Resampling.BICUBIC), (0, 0))
    both.paste(right.convert(mode), (right.width, 0))
    return both
