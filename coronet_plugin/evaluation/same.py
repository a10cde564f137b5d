"""Are test pictures made of the data they are held against? Told by their names and the inputs beside them.

Options may say one data set and the folder hold pictures of another: of a test that failed half-way, of an
earlier one whose pictures were never overwritten, of data that were changed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.pictures import Pictures, open_picture, spread
from coronet_plugin.evaluation.real import NAMED, RealPictures, wrote_elsewhere
from coronet_plugin.runs.run import Run, Translation

LOOKS = 16
"""Pictures that are compared, spread over all."""
LIMIT = 3.0
"""Mean difference in levels of 255 from which two pictures are not the same; rounding makes 1 at most."""
MEND = "run test.py again, or use coronet evaluate --folders"


def of_these_data(run: Run, translation: Translation, real: RealPictures) -> list[Path]:
    """Pictures that ``translation`` made of ``real`` ones, sorted; not those named after no real picture.

    Raises DataError if there is none, or if it can be seen that they were made of others than these.
    """
    ending = f"_{translation.output}.png"
    names = {path.stem for path in real.named.paths}
    ours = [path for path in run.pictures(translation.output) if path.name[: -len(ending)] in names]
    if not ours:
        raise DataError(
            f"no *{ending} in {run.images_dir} is named after a picture in {real.named.paths[0].parent}: "
            f"they are of other data; {MEND}, or say with --dataroot where theirs lies"
        )
    pairs = list(_pairs(translation, [ours[i] for i in spread(len(ours), LOOKS)], real))
    for copy, originals in pairs:
        _check(copy, originals)
    if not pairs and wrote_elsewhere(run):
        raise DataError(
            f"the only known test of {run.name} did not write to {run.images_dir}, but elsewhere; {MEND}"
        )
    return ours


def _pairs(
    translation: Translation, made: Sequence[Path], real: RealPictures
) -> Iterator[tuple[Path, Pictures]]:
    """Copies of inputs and truths that test.py left beside ``made``, and the real ones of that name."""
    visuals = {NAMED: real.named}
    if translation.truth is not None:
        visuals[translation.truth] = real.test
    for visual, pictures in visuals.items():
        for path in made:
            name = path.name[: -len(f"_{translation.output}.png")]
            copy = path.with_name(f"{name}_{visual}.png")
            originals = tuple(original for original in pictures.paths if original.stem == name)
            if copy.is_file() and not pictures.reading.is_random:
                yield copy, Pictures(visual, originals, pictures.reading)


def _check(copy: Path, originals: Pictures) -> None:
    shown = np.asarray(open_picture(copy), np.float32)
    for original in originals:
        if original.shape != shown.shape or np.abs(original - shown).mean() < LIMIT:
            return  # what differs in size is told as such
    raise DataError(
        f"{copy} is another picture than {originals.paths[0]}: it was made of other data, or the data "
        f"has changed since; {MEND}"
    )
