"""Test pictures of a run as one picture: a row for each, the columns input, output and truth."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from coronet_plugin.errors import DataError
from coronet_plugin.pictures.files import spread
from coronet_plugin.pictures.reading import open_picture
from coronet_plugin.runs.run import Run, Translation

SIDE = 192
"""Largest height of a row in pixels."""
GAP = 4


def draw_examples(run: Run, translation: Translation, count: int, path: Path) -> tuple[str, ...]:
    """Write ``count`` test pictures, spread evenly over their names, to ``path``; gives the names of columns.

    None, and no file, if there are no test pictures. Raises DataError if one cannot be read.
    """
    made = run.pictures(translation.output)
    if not made:
        return ()
    columns = {"input": translation.source, "output": translation.output}
    if translation.truth:
        columns["truth"] = translation.truth
    ending = f"_{translation.output}.png"
    chosen = [made[place] for place in spread(len(made), count)]
    rows = [
        [each.with_name(each.name[: -len(ending)] + f"_{visual}.png") for visual in columns.values()]
        for each in chosen
    ]
    _sheet(rows).save(path, optimize=True)
    return tuple(columns)


def _sheet(rows: list[list[Path]]) -> Image.Image:
    """All files in one picture; those of a row at one height."""
    strips = [_strip(row) for row in rows]
    size = max(strip.width for strip in strips), _length([strip.height for strip in strips])
    sheet = Image.new("RGB", size, "white")
    y = 0
    for strip in strips:
        sheet.paste(strip, (0, y))
        y += strip.height + GAP
    return sheet


def _strip(files: list[Path]) -> Image.Image:
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing} is not there; run test.py again")
    images = [open_picture(file) for file in files]
    height = min(SIDE, *(image.height for image in images))
    images = [image.resize((round(image.width * height / image.height), height)) for image in images]
    strip = Image.new("RGB", (_length([image.width for image in images]), height), "white")
    x = 0
    for image in images:
        strip.paste(image, (x, 0))
        x += image.width + GAP
    return strip


def _length(sides: list[int]) -> int:
    return sum(sides) + GAP * (len(sides) - 1)
