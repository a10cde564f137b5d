"""The test pictures of a comparison page: which are shown, in what order, and how.

Those that differ most between the runs, so that failures are seen, and others, spread evenly over the names,
so that failures are seen for what they are; all with the largest difference first. Without scripts the rows
are as they are written; the page's script adds sorting and a slider that wipes from the first run to another.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin.comparison.page import Measurements, html
from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.paired import l1, read_image
from coronet_plugin.pictures.files import spread
from coronet_plugin.runs.run import Run, Translation

WORST = 8
"""How many of those that differ most are shown by default."""
LOOKED_AT = 2000
"""Pictures that are compared at most, spread evenly over the names."""


@dataclass(frozen=True)
class Shown:
    """A test picture by its stem. ``difference``: L1, 0 to 1; None where it cannot be compared."""

    stem: str
    difference: float | None = None


def shown_pictures(
    runs: Sequence[Run], translation: Translation, count: int, worst: int = WORST
) -> tuple[list[Shown], int]:
    """At most ``count`` test pictures that every run has, and how many of them are there as the worst.

    These, up to ``worst``, differ most between the runs; the others are spread evenly over the sorted names.
    The largest difference comes first, and what cannot be compared last. Raises DataError if no picture is
    common to all, or one cannot be read.
    """
    stems = common_stems(runs, translation)
    looked_at = [stems[place] for place in spread(len(stems), LOOKED_AT)] if worst else []
    found = {stem: difference(runs, translation, stem) for stem in looked_at}
    known = sorted((stem for stem in found if found[stem] is not None), key=lambda stem: -(found[stem] or 0))
    first = known[: min(worst, count)]
    others = sorted(set(stems) - set(first))
    rest = [others[place] for place in spread(len(others), count - len(first))] if others else []
    shown = [Shown(stem, found.get(stem)) for stem in (*first, *rest)]
    return sorted(shown, key=lambda each: 1 if each.difference is None else -each.difference), len(first)


def common_stems(runs: Sequence[Run], translation: Translation) -> list[str]:
    """Sorted stems of the test pictures that every run has. Raises DataError if there is none."""
    ending = f"_{translation.output}.png"
    found = [{path.name[: -len(ending)] for path in run.pictures(translation.output)} for run in runs]
    stems = sorted(set.intersection(*found))
    if not stems:
        names = ", ".join(run.name for run in runs)
        raise DataError(f"no test picture *{ending} is common to {names}; test them on the same data")
    return stems


def difference(runs: Sequence[Run], translation: Translation, stem: str) -> float | None:
    """The largest L1 between the first run's picture and another's; of one run alone, to the truth.

    None if there is nothing to compare with, or their sizes differ. Raises DataError if one cannot be read.
    """
    first, *others = (_file(run, stem, translation.output) for run in runs)
    if not others and translation.truth:
        others = [_file(runs[0], stem, translation.truth)]
    image = read_image(first)
    against = [read_image(path) for path in others if path.is_file()]
    if not against or any(other.shape != image.shape for other in against):
        return None
    return max(l1(image, other) for other in against)


def pictures(
    runs: Sequence[Run], measurements: Measurements, output: Path, images: int, worst: int = WORST
) -> None:
    """The section, written into the element that is open; pictures are copied into ``output``."""
    tags = html()
    tags.h2("Test pictures")
    for translation in measurements:
        shown, first = shown_pictures(runs, translation, images, worst)
        if len(measurements) > 1:
            tags.h3(f"{translation.generator}: {translation.source} to {translation.output}")
        total = len(common_stems(runs, translation))
        tags.p(_in_words(runs, translation, len(shown), first, total), cls="note")
        _tools(runs)
        columns = len(runs) + (2 if translation.truth else 1)
        layout = f"--columns: {columns}; --width: {columns * 7.5:g}rem"
        with tags.div(cls="examples", style=layout):
            for number, picture in enumerate(shown):
                _example(runs, translation, picture, number, output)


def _in_words(runs: Sequence[Run], translation: Translation, shown: int, worst: int, total: int) -> str:
    text = f"{shown} of {total}, never seen in training"
    if worst:
        against = "from the truth" if len(runs) == 1 else f"from those of {runs[0].name}"
        text += f" (of {LOOKED_AT} compared)" if total > LOOKED_AT else ""
        text += f": the {worst} that differ most {against}, the largest difference first"
        text += f", then {shown - worst} others, spread evenly over their names" if shown > worst else ""
    return f"{text}. Click a picture to see its row large."


def _tools(runs: Sequence[Run]) -> None:
    """Controls that only work with scripts, which show them."""
    tags = html()
    with tags.div(cls="tools", hidden=True):
        with tags.label("order ", cls="tool"), tags.select(cls="order"):
            tags.option("largest difference first", value="difference")
            tags.option("by name", value="name")
        if len(runs) > 1:
            with tags.label(f"slider from {runs[0].name} to ", cls="tool"), tags.select(cls="wiper"):
                tags.option("none: side by side", value="")
                for index, run in enumerate(runs[1:], start=2):
                    tags.option(run.name, value=str(index))


def _example(
    runs: Sequence[Run], translation: Translation, picture: Shown, number: int, output: Path
) -> None:
    tags = html()
    first, stem = runs[0], picture.stem
    cells = [("input", first, translation.source), *((run.name, run, translation.output) for run in runs)]
    if translation.truth:
        cells.append(("truth", first, translation.truth))
    known = "" if picture.difference is None else f"{picture.difference:.4f}"
    with tags.div(cls="row", data_name=stem, data_difference=known):
        with tags.div(cls="example"):
            for column, (label, run, visual) in enumerate(cells):
                target = f"images/{translation.generator}_{number:03d}_{column}.png"
                _copy(run, f"{stem}_{visual}.png", output / target)
                with tags.figure():
                    tags.a(tags.img(src=target, alt=f"{stem}: {label}", loading="lazy"), href=target)
                    tags.figcaption(label, title=f"{stem}: {label}")
        tags.p(f"{stem}{f', difference {known}' if known else ''}", cls="note")


def _file(run: Run, stem: str, visual: str) -> Path:
    assert run.images_dir is not None  # runs without results are refused
    return run.images_dir / f"{stem}_{visual}.png"


def _copy(run: Run, name: str, target: Path) -> None:
    assert run.images_dir is not None  # runs without results are refused
    try:
        shutil.copyfile(run.images_dir / name, target)
    except FileNotFoundError as error:
        raise DataError(f"{run.images_dir} has no {name}; run test.py for {run.name} again") from error
