"""Which files are to be translated, and where each result goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.pictures.files import ENDINGS, pictures_below

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".ogv", ".gif")
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv")
"""Endings that videos keep; those of others become the last, which takes sound of every kind."""
FORMATS = {name: f".{name}" for name in ("png", "jpg", "webp", "tif", "bmp", "ppm")}
"""Endings by what ``--format`` takes."""


@dataclass(frozen=True)
class Place:
    """A file and where its translation goes."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in VIDEOS


def find_places(inputs: Sequence[Path], output: Path, format: str = "") -> list[Place]:
    """Each picture and video of ``inputs`` (files and folders, with all below) and its place in ``output``.

    Names stay, with the subfolders of folders. ``format``: ending that pictures get, by default their own.

    Raises:
        DataError: an input is missing, or a folder has nothing to translate.
        OptionError: ``output`` lies in a folder of the inputs, a result would replace a file of them, or two
            results would have one name; or there is no such format.
    """
    if format and format not in FORMATS:
        raise OptionError(f"--format {format} is not known; choose one of {', '.join(FORMATS)}")
    found = [(file, name) for given in inputs for file, name in _below(given, output)]
    wanted = [_result(name, format) for _, name in found]
    shared = Counter(wanted)
    # a.jpg and a.png in one folder, both to become a.png: their whole names tell them apart
    results = [
        result if shared[result] == 1 else name.with_name(name.name + result.suffix)
        for result, (_, name) in zip(wanted, found)
    ]
    places = [Place(file, output / result) for result, (file, _) in zip(results, found)]
    _check(places)
    return places


def _below(given: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """Files and their names: of a file its own, of a folder all below by their paths in it."""
    if given.is_file():
        if given.suffix.lower() not in (*ENDINGS, *VIDEOS):
            raise DataError(f"{given} is no picture ({' '.join(ENDINGS)}) and no video ({' '.join(VIDEOS)})")
        yield given, Path(given.name)
        return
    if not given.is_dir():
        raise DataError(f"there is no {given}; give pictures, videos, or folders of them")
    inside, outside = output.resolve(), given.resolve()
    if inside == outside or outside in inside.parents:
        raise OptionError(
            f"--output {output} lies in {given}, whose pictures are read; choose a folder elsewhere"
        )
    files = [*map(Path, pictures_below(given)), *_videos_below(given)]
    if not files:
        raise DataError(
            f"{given} has no pictures ({' '.join(ENDINGS)}) and no videos, nor has a folder in it"
        )
    yield from ((file, file.relative_to(given)) for file in files)


def _videos_below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in VIDEOS and file.is_file())


def _result(name: Path, format: str) -> Path:
    ending = name.suffix.lower()
    if ending in VIDEOS:
        return name if ending in CONTAINERS else name.with_suffix(CONTAINERS[-1])
    return name.with_suffix(FORMATS[format]) if format else name


def _check(places: Sequence[Place]) -> None:
    sources = {place.source.resolve() for place in places}
    seen: dict[Path, Path] = {}
    for place in places:
        target = place.target.resolve()
        if target in sources:
            raise OptionError(
                f"{place.target} would replace a file that is translated; choose another --output"
            )
        if target in seen and seen[target] != place.source:
            raise OptionError(
                f"{seen[target]} and {place.source} would both become {place.target}; translate them to "
                "different folders"
            )
        seen[target] = place.source
