"""Pictures to check an exported generator with: the user's, the run's own, or noise that says it is noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coronet_plugin.errors import DataError
from coronet_plugin.pictures.files import ENDINGS, FULL_DEPTH, MODES, spread
from coronet_plugin.runs.options import Options, read_options
from coronet_plugin.runs.run import pictures_in, results_of
from coronet_plugin.runs.tested import read as read_tested

SOURCES = {"G_B": "B"}
"""The side of the data that a generator translates, where it is not A."""


@dataclass(frozen=True)
class Samples:
    """``values``: (N, C, H, W) float32 in [-1, 1]; ``source``: in words, where they are from.

    ``truths``: for each, the file and half (as in :func:`read_picture`) of what it should become, if known;
    ``bit_depth``: that of theirs which have 16 bits.
    """

    values: np.ndarray
    source: str
    truths: tuple[tuple[Path, int | None], ...] = ()
    bit_depth: int = FULL_DEPTH

    def some(self, indices: Sequence[int]) -> Samples:
        """Those at ``indices``, in that order."""
        truths = tuple(self.truths[i] for i in indices) if self.truths else ()
        return Samples(self.values[list(indices)], self.source, truths, self.bit_depth)

    @property
    def are_real(self) -> bool:
        return self.source != NOISE


NOISE = "seeded noise"


@dataclass(frozen=True)
class Place:
    """Picture files and how to read the generator's input out of each; ``half``: of a pair, or None.

    ``truth``: endings of the names of such a file and of the file with its truth.
    """

    files: tuple[Path, ...]
    source: str
    half: int | None = None
    truth: tuple[str, str] | None = None

    def truths(self, chosen: Sequence[Path]) -> tuple[tuple[Path, int | None], ...]:
        """File and half of the truth of each of ``chosen``; none if one is not there."""
        if self.half is not None:
            return tuple((path, 1 - self.half) for path in chosen)
        if self.truth is None:
            return ()
        ours, theirs = self.truth
        files = [path.with_name(path.name.replace(ours, theirs)) for path in chosen]
        return tuple((path, None) for path in files) if all(path.is_file() for path in files) else ()


def noise(count: int, channels: int, size: tuple[int, int]) -> Samples:
    """Uniform noise, the same every time."""
    values = np.random.default_rng(0).uniform(-1, 1, (count, channels, *size))
    return Samples(values.astype(np.float32), NOISE)


def noise_like(sample: Sequence[np.ndarray], taller: int = 0, wider: int = 0) -> tuple[np.ndarray, ...]:
    """Noise in place of a generator's inputs, the same every time; whole numbers, as of a class, stay.

    What is a picture is made so many pixels taller and wider.
    """
    random = np.random.default_rng(0)

    def one(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind != "f":
            return value
        more = (0, 0, taller, wider) if value.ndim == 4 else (0,) * value.ndim
        return random.uniform(-1, 1, np.add(value.shape, more).astype(int)).astype(value.dtype)

    return tuple(map(one, sample))


def pictures_for(
    weights: Path,
    network: str,
    channels: int,
    size: tuple[int, int],
    *,
    images: Path | None = None,
    results_dir: Path | str = "./results",
    epoch: str = "latest",
    phase: str = "test",
    count: int = 8,
) -> Samples:
    """Up to ``count`` pictures of (H, W) ``size`` for the generator ``network`` whose file is ``weights``.

    From the folder ``images`` if given; else what ``test.py`` left of the run; else the run's data set
    (``phase`` of its ``dataroot``), if it is still there; else noise, as for a generator that takes other
    channels than pictures have.

    Raises:
        DataError: there is no picture in ``images``, or one cannot be read.
    """
    if images is None and channels not in MODES:
        return noise(count, channels, size)
    depth = read_options(weights.parent).integer("bit_depth", FULL_DEPTH)
    places = [_folder(images)] if images else _places(weights, network, results_dir, epoch, phase)
    for place in places:
        if place.files:
            chosen = evenly(place.files, count)
            values = np.stack([read_picture(path, channels, size, place.half, depth) for path in chosen])
            return Samples(values, place.source, place.truths(chosen), depth)
    return noise(count, channels, size)


def evenly(files: Sequence[Path], count: int) -> list[Path]:
    """Up to ``count`` of ``files``, spread over all of them, the first and the last included."""
    return [files[place] for place in spread(len(files), count)]


def read_picture(
    path: Path,
    channels: int,
    size: tuple[int, int],
    half: int | None = None,
    bit_depth: int = FULL_DEPTH,
) -> np.ndarray:
    """A picture as a generator takes it: (C, H, W) float32 in [-1, 1], scaled to (H, W) ``size``.

    ``half``: 0 or 1 for the left or right half of the file; ``bit_depth``: of the values in one of 16 bits.
    Raises DataError when it cannot be read.
    """
    from PIL import Image

    from coronet_plugin.pictures.reading import halves, open_picture

    image = open_picture(path, MODES.get(channels, "RGB"), bit_depth)
    if half is not None:
        image = halves(image, path)[half]
    image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    values = np.asarray(image, dtype=np.float32).reshape(*size, channels)
    return np.ascontiguousarray(values.transpose(2, 0, 1)) / np.float32(127.5) - np.float32(1)


def _folder(images: Path) -> Place:
    files = _files(images)
    if not files:
        raise DataError(f"no picture in {images}; expected files such as .png or .jpg")
    return Place(files, f"pictures of {images.name}")


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS))


def _places(weights: Path, network: str, results_dir: Path | str, epoch: str, phase: str) -> list[Place]:
    """Where a run's pictures may be, best first."""
    options = read_options(weights.parent)
    if not options.values:
        return []
    side = SOURCES.get(network, "A")
    run = weights.resolve().parent.name
    shown = results_of(Path(results_dir) / run, phase, epoch)
    paired = options.text("dataset_mode", "unaligned") == "aligned"
    names = (f"_real_{side}.png", f"_real_{'AB'[side == 'A']}.png")
    files = tuple(pictures_in(shown / "images", f"real_{side}", read_tested(shown)))
    results = Place(files, f"{phase} pictures of the run {run}", truth=names if paired else None)
    return [results, _data_set(options, side, phase)]


def _data_set(options: Options, side: str, phase: str) -> Place:
    """The pictures on ``side`` (A is what G or G_A takes) of the run's data set; none if it is not there."""
    root, backward = Path(options.text("dataroot", "")), options.text("direction", "AtoB") == "BtoA"
    on_disk = "AB"[("AB".index(side) + backward) % 2]
    if not options.text("dataroot", ""):
        return Place((), "")
    mode = options.text("dataset_mode", "unaligned")
    if mode in ("colorization", "template"):
        return Place(_files(root / phase), f"{phase} pictures of {root.name}")
    if mode == "aligned":
        return Place(_files(root / phase), f"{phase} pictures of {root.name}", "AB".index(on_disk))
    return Place(_files(root / f"{phase}{on_disk}"), f"{phase}{on_disk} pictures of {root.name}")
