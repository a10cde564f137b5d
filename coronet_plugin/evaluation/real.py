"""The real pictures that a run's translations are held against, found by the options it was tested with.

Aligned data keeps both sides of a pair in one file of ``<dataroot>/<phase>``, unaligned data has folders
``<phase>A`` and ``<phase>B``; ``--direction BtoA`` makes data A what the model calls B. How pictures were
prepared is noted beside the test's (:mod:`coronet_plugin.runs.tested`); hosts that do not write that have a
``test_opt.txt``, which speaks of the last test alone. ``--max_dataset_size`` is not heeded: all real pictures
are taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.evaluation.pictures import Pictures, Reading, pictures_of
from coronet_plugin.pictures.files import FULL_DEPTH
from coronet_plugin.runs.options import Options, parse_options
from coronet_plugin.runs.run import Run, Translation

TRAIN, TEST = "train", "test"
NAMED = "real_A"
"""The visual after whose pictures test.py names what it writes."""


@dataclass(frozen=True)
class RealPictures:
    """Real pictures of what a generator makes. ``sources``: how many there were to translate.

    ``train`` is None where the training pictures are not there, or the run was tested on them. ``named``: the
    model's ``real_A``, after which test.py names all its files.
    """

    test: Pictures
    train: Pictures | None
    sources: int
    named: Pictures


def real_pictures(run: Run, translation: Translation, dataroot: Path | None = None) -> RealPictures:
    """Those of the side that ``translation`` makes. ``dataroot``: where the data lies now, if elsewhere.

    Raises:
        DataError: the folder or its pictures are missing, or the kind of data set is not known.
        OptionError: an option of the test cannot be read.
    """
    phase = phase_of(run)
    options = tested_with(run, phase)
    root = dataroot or _dataroot(options)
    first, second = run.channels("G")

    def of(visual: str) -> tuple[str, Reading]:
        side, channels = _side(visual, options), first if visual == NAMED else second
        return side, _read_like_the_test(channels, options, side)

    return RealPictures(
        test=_pictures(f"real {phase} pictures", root, phase, *of(translation.output)),
        train=_training_pictures(root, phase, *of(translation.output)),
        sources=len(_pictures("", root, phase, *of(translation.source))),
        named=_pictures("", root, phase, *of(NAMED)),
    )


def real_sides(dataroot: Path, size: int) -> dict[str, RealPictures]:
    """Both sides of a data set with training and test pictures, resized to ``size`` pixels.

    Raises DataError if a folder is missing.
    """
    aligned = (dataroot / TEST).is_dir()

    def side(letter: str) -> RealPictures:
        reading = Reading(letter if aligned else "", False, "resize_and_crop", size, size)
        test, train = (
            _pictures(f"real {phase} pictures", dataroot, phase, letter, reading) for phase in (TEST, TRAIN)
        )
        return RealPictures(test, train, len(test), test)

    return {letter: side(letter) for letter in "AB"}


def phase_of(run: Run) -> str:
    """The phase that test.py ran on, by the name of the folder of its results (``test_latest``)."""
    if run.images_dir is None:
        raise DataError(f"run {run.name} has no test pictures; run test.py --name {run.name} first")
    return run.images_dir.parent.name.partition("_")[0]


def tested_with(run: Run, phase: str) -> Options:
    """Options test.py made the pictures with; where that was not noted, its last ones, or the training's."""
    if run.tested is not None:
        return Options(run.tested.options, {})
    for name in (phase, TEST):
        path = run.folder / f"{name}_opt.txt"
        if name != TRAIN and path.is_file():
            return parse_options(path.read_text(encoding="utf-8"))
    whole = {"load_size": str(run.options.crop_size)}  # test.py's default: nothing beyond the crop
    return Options({**run.options.values, **whole}, {})


def wrote_elsewhere(run: Run) -> bool:
    """True if all that is known of tests is of one that wrote its pictures into another folder."""
    options = tested_with(run, phase_of(run))
    assert run.images_dir is not None  # phase_of
    wrote = Path(options.text("results_dir", "")).resolve() / run.name
    known = run.tested is None and "results_dir" in options.values
    return known and wrote != run.images_dir.parent.parent.resolve()


def _dataroot(options: Options) -> Path:
    root = options.text("dataroot", "")
    if not root:
        raise DataError("the options of the test do not say where the data is; say it with --dataroot")
    return Path(root)


def _side(visual: str, options: Options) -> str:
    """The data's side, "A" or "B", of the model's ``fake_B`` or ``real_A``."""
    letter = visual[-1]
    if options.text("direction", "AtoB") == "AtoB":
        return letter
    return "B" if letter == "A" else "A"


def _read_like_the_test(channels: int, options: Options, side: str) -> Reading:
    aspect_ratio = options.text("aspect_ratio", "1.0")
    if not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", aspect_ratio) or float(aspect_ratio) <= 0:
        raise OptionError(
            f"--aspect_ratio is {aspect_ratio!r} in the option file, expected a ratio such as 1.0"
        )
    return Reading(
        half=side if _is_aligned(options) else "",
        gray=channels == 1,
        alpha=channels == 4,
        bit_depth=options.integer("bit_depth", FULL_DEPTH),
        padded=options.integer("pad_to_multiple", 0) > 1,
        preprocess=options.text("preprocess", options.text("resize_or_crop", "resize_and_crop")),
        load_size=options.integer("load_size", options.integer("loadSize", options.crop_size)),
        crop_size=options.crop_size,
        aspect_ratio=float(aspect_ratio),
    )


def _is_aligned(options: Options) -> bool:
    mode = options.text("dataset_mode", "unaligned")
    if mode not in ("aligned", "unaligned"):
        raise DataError(
            f"where the real pictures of --dataset_mode {mode} lie is not known; "
            "test with aligned or unaligned data, or use coronet evaluate --folders"
        )
    return mode == "aligned"


def _pictures(name: str, root: Path, phase: str, side: str, reading: Reading) -> Pictures:
    folder = root / (phase if reading.half else f"{phase}{side}")
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} of real pictures; say with --dataroot where they are")
    return pictures_of(name, folder, reading)


def _training_pictures(root: Path, phase: str, side: str, reading: Reading) -> Pictures | None:
    if phase == TRAIN or not (root / (TRAIN if reading.half else f"{TRAIN}{side}")).is_dir():
        return None
    return _pictures(f"real {TRAIN} pictures", root, TRAIN, side, reading)
