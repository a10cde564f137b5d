"""Aligned pictures from two folders: A on the left half of each file, B on the right.

Partners have the same name, whatever the ending, in the same subfolder. Nothing is scaled: pictures that lie
over each other pixel by pixel are what such training is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from coronet_plugin.errors import DataError
from coronet_plugin.files import write_atomically
from coronet_plugin.pictures.files import FULL_DEPTH, pictures_below
from coronet_plugin.pictures.reading import has_alpha, is_deep, open_picture


@dataclass(frozen=True)
class Pairs:
    """``matched``: the two files of each pair by its name in the folders; ``single``: without partner."""

    matched: dict[str, tuple[Path, Path]]
    single: tuple[Path, ...]


def find_pairs(a: Path, b: Path) -> Pairs:
    """Partners in the folders ``a`` and ``b``.

    Raises:
        DataError: a folder is missing or has no pictures, a name stands for two files, or no name is in both.
    """
    left, right = _by_name(a), _by_name(b)
    names = {name: None for name in left if name in right}
    if not names:
        raise DataError(
            f"no picture of {a} has a partner of the same name in {b}: {_some(left.values())} there, "
            f"{_some(right.values())} here; partners differ in their ending at most"
        )
    single = [files[name] for files in (left, right) for name in files if name not in names]
    return Pairs({name: (left[name], right[name]) for name in names}, tuple(single))


def write_pairs(pairs: Pairs, output: Path, bit_depth: int = FULL_DEPTH) -> list[Path]:
    """Write ``NAME.png`` in ``output`` for each pair; all sizes are compared first. Gives the files.

    Both gray of 16 bits stay so; otherwise there are 8 bits a channel, taken by ``bit_depth``.

    Raises:
        DataError: the two pictures of a pair differ in size, or one cannot be read; or there are pictures in
            ``output`` already, which would become part of the data set.
    """
    there = pictures_below(output)
    if there:
        raise DataError(f"{output} has pictures already, such as {there[0]}; choose an empty folder")
    _check_sizes(pairs)
    files = []
    for name, (a, b) in pairs.matched.items():
        file = output / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        save = partial(_joined(a, b, bit_depth).save, format="png")
        write_atomically(file, save, flush=False)
        files.append(file)
    return files


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found: dict[str, Path] = {}
    for path in map(Path, pictures_below(folder)):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{found[name]} and {path} have the same name; remove the one that is not meant")
        found[name] = path
    if not found:
        raise DataError(f"{folder} has no pictures")
    return found


def _check_sizes(pairs: Pairs) -> None:
    different = [(a, b) for a, b in pairs.matched.values() if _kind(a)[0] != _kind(b)[0]]
    if different:
        a, b = different[0]
        sizes = ["{}x{}".format(*_kind(path)[0]) for path in (a, b)]
        raise DataError(
            f"sizes differ in {len(different)} of {len(pairs.matched)} pairs, such as {a} ({sizes[0]}) and "
            f"{b} ({sizes[1]}); scale or cut them alike first: they must lie over each other pixel by pixel"
        )


def _kind(path: Path) -> tuple[tuple[int, int], bool, str]:
    """Size, whether it is gray of 16 bits, and the mode in which nothing else is lost."""
    try:
        with Image.open(path) as image:
            gray = image.mode in ("1", "L") or image.mode.startswith("I")
            mode = "RGBA" if has_alpha(image) else "L" if gray else "RGB"
            return image.size, is_deep(image) and image.mode.startswith("I"), mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return open_picture(path).size, False, "RGB"  # which says what is wrong


def _joined(a: Path, b: Path, bit_depth: int) -> Image.Image:
    kinds = [_kind(path) for path in (a, b)]
    width, height = kinds[0][0]
    if all(deep for _, deep, _ in kinds):
        mode, pictures = "I;16", [_gray16(path) for path in (a, b)]
    else:
        mode = max((mode for _, _, mode in kinds), key=len)  # L, RGB, RGBA: each has all of those before it
        pictures = [open_picture(path, mode, bit_depth) for path in (a, b)]
    pair = Image.new(mode, (2 * width, height))
    for number, picture in enumerate(pictures):
        pair.paste(picture, (number * width, 0))
    return pair


def _gray16(path: Path) -> Image.Image:
    open_picture(path)  # which says what is wrong
    with Image.open(path) as image:
        return image.convert("I").convert("I;16")


def _some(paths: Iterable[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
