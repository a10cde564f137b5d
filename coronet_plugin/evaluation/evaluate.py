"""Runs, data sets or plain folders evaluated by a named protocol.

Every run is treated alike, and whatever its figures depend on is written down with them. Features and
thumbnails are cached by content; a finished evaluation is read again from ``evaluation.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coronet_plugin._version import __version__
from coronet_plugin.errors import CheckpointError, DataError
from coronet_plugin.evaluation import protocols, record, same
from coronet_plugin.evaluation.cache import Say, default_folder
from coronet_plugin.evaluation.distances import distance, overlap
from coronet_plugin.evaluation.duplicates import Duplicates, duplicates, looks
from coronet_plugin.evaluation.features import FeatureExtractor
from coronet_plugin.evaluation.paired import PairedMetrics, paired_files, paired_metrics
from coronet_plugin.evaluation.perceptual import Perceptual
from coronet_plugin.evaluation.pictures import Pictures, Reading, pictures_of, sizes_text
from coronet_plugin.evaluation.protocols import PROTOCOLS, Tools, silent
from coronet_plugin.evaluation.real import RealPictures, phase_of, real_pictures, real_sides
from coronet_plugin.evaluation.record import Evaluation, Inputs
from coronet_plugin.runs.run import Run, Translation

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "evaluate_data",
    "evaluate_folders",
    "evaluate_run",
    "evaluate_samples",
]


@dataclass(frozen=True)
class Subject:
    """One generator's pictures, the truths beside them, and the real ones, or why they are missing.

    ``others``: how many pictures lie there that are of other data or an earlier test, and are left out.
    """

    images_dir: Path
    translation: Translation
    made: Pictures
    real: RealPictures | None
    missing: str
    others: int

    def pairs(self) -> list[tuple[Path, Path]]:
        """(made, truth) of every picture; none without truth. Raises DataError if a truth is missing."""
        if self.translation.truth is None:
            return []
        output, truth = self.translation.output, self.translation.truth
        return list(paired_files(self.images_dir, output, truth, self.made.paths))

    def fingerprints(self) -> list[str]:
        truths = Pictures("truths", tuple(truth for _, truth in self.pairs()))
        real = (self.real.test, self.real.train) if self.real else ()
        found = [pictures.fingerprint for pictures in (self.made, truths, *real) if pictures is not None]
        return [*found, f"{self.others} others", f"{self.real.sources if self.real else 0} sources"]


def evaluate_run(
    run: Run,
    *,
    protocol: str = "test",
    extractor: FeatureExtractor | None = None,
    lpips: Perceptual | None = None,
    cache_dir: Path | None = None,
    dataroot: Path | None = None,
    say: Say = silent,
) -> tuple[Evaluation, ...]:
    """One evaluation for each generator whose test pictures are there.

    Without ``extractor`` there is no FID and KID, without ``lpips`` no LPIPS. ``dataroot``: where the real
    pictures are now. ``say`` is told what takes long. Writes ``evaluation.json`` beside the folder of the
    pictures, or reads it if nothing has changed.

    Raises:
        OptionError: unknown protocol; a folder that cannot be written.
        DataError: the run was not tested; pictures are missing, damaged or of another size than real ones.
    """
    protocols.check(protocol)
    tools = Tools(extractor, lpips, cache_dir or default_folder(), say)
    subjects = tuple(_subjects(run, dataroot))
    path = subjects[0].images_dir.parent / record.FILE
    inputs = _inputs(run, protocol, subjects, tools)
    known = record.read(path, protocol, inputs)
    if known is not None:
        return known
    found = tuple(_evaluate(run, subject, protocol, tools) for subject in subjects)
    try:
        record.write(path, protocol, inputs, found)
    except CheckpointError as error:
        say(f"not kept for the next time: {error}")
    return found


def evaluate_data(
    dataroot: Path,
    *,
    extractor: FeatureExtractor,
    protocol: str = "test",
    size: int = 256,
    cache_dir: Path | None = None,
    say: Say = silent,
) -> tuple[Evaluation, ...]:
    """The floor and the duplicates of both sides of a data set, before anything is trained.

    Pictures are resized to ``size`` pixels. Raises DataError if ``dataroot`` is no paired or unpaired data
    set with training and test pictures.
    """
    protocols.check(protocol)
    tools = Tools(extractor, None, cache_dir or default_folder(), say)
    return tuple(
        Evaluation(
            run=str(dataroot),
            generator="",
            output=side,
            protocol=protocol,
            size=sizes_text(looks(real.test, tools.cache_dir)["sizes"]),
            floor=protocols.floor(real, len(real.test), protocol, tools),
            duplicates=_duplicates(real, tools),
            extractor=extractor.name,
            resize=extractor.resize,
        )
        for side, real in real_sides(dataroot, size).items()
    )


def evaluate_folders(
    first: str, second: str, *, extractor: FeatureExtractor, cache_dir: Path | None = None, say: Say = silent
) -> Evaluation:
    """FID and KID between the pictures of two folders or patterns, all of them, as they are.

    Raises DataError if one has fewer than two pictures, or damaged ones.
    """
    tools = Tools(extractor, None, cache_dir or default_folder(), say)
    made, real = (pictures_of(f"pictures of {source}", source) for source in (first, second))
    sizes = [sizes_text(looks(pictures, tools.cache_dir)["sizes"]) for pictures in (made, real)]
    return Evaluation(
        run=first,
        generator="",
        output=second,
        protocol="folders",
        size=sizes[0],
        distance=distance(tools.features(made), tools.features(real)),
        duplicates=duplicates(made, real, tools.cache_dir),
        extractor=extractor.name,
        resize=extractor.resize,
        notes=(f"the sizes differ: {' and '.join(sizes)}",) if sizes[0] != sizes[1] else (),
    )


def evaluate_samples(
    samples: str,
    real: str,
    *,
    extractor: FeatureExtractor,
    precision_recall: bool = False,
    cache_dir: Path | None = None,
    say: Say = silent,
) -> Evaluation:
    """Pictures of noise alone against real ones, folders or patterns; real ones are resized as they need be.

    The real pictures are dealt out in two halves: the samples are held against the one, and the floor is that
    half against the other, with as many pictures a side everywhere.

    Raises:
        DataError: there are fewer than two samples or four real pictures; samples are not of one square
            size, and the real ones are of another.
    """
    tools = Tools(extractor, None, cache_dir or default_folder(), say)
    made = pictures_of("samples", samples)
    sizes = looks(made, tools.cache_dir)["sizes"]
    everything = pictures_of("real pictures", real)
    if sizes_text(sizes) != sizes_text(looks(everything, tools.cache_dir)["sizes"]):
        everything = Pictures(everything.name, everything.paths, _resized_to(sizes, samples))
    count = min(len(made), len(everything) // 2)
    first, second = (
        Pictures(everything.name, everything.paths[half::2], everything.reading).thinned(count)
        for half in (0, 1)
    )
    ours, theirs, others = (tools.features(each) for each in (made.thinned(count), first, second))
    return Evaluation(
        run=samples,
        generator="",
        output=real,
        protocol="samples",
        size=sizes_text(sizes),
        distance=distance(ours, theirs),
        floor=distance(others, theirs),
        overlap=overlap(ours, theirs) if precision_recall else None,
        overlap_floor=overlap(others, theirs) if precision_recall else None,
        duplicates=duplicates(made, everything, tools.cache_dir),
        extractor=extractor.name,
        resize=extractor.resize,
        notes=(f"{count} of {len(made)} samples, as there are {len(everything)} real pictures",)
        if count < len(made)
        else (),
    )


def _resized_to(sizes: np.ndarray, samples: str) -> Reading:
    sides = {int(side) for size in sizes for side in size}
    if len(sides) != 1:
        raise DataError(
            f"the samples in {samples} are {sizes_text(sizes)} and the real pictures are not; samples of one "
            "square size can be compared with pictures of any"
        )
    return Reading(preprocess="resize_and_crop", load_size=min(sides), crop_size=min(sides))


# -- what there is to evaluate -------------------------------------------------
def _subjects(run: Run, dataroot: Path | None) -> Iterator[Subject]:
    """At least one. Raises DataError if there is no picture of any generator."""
    phase_of(run)
    folder = run.images_dir
    assert folder is not None  # phase_of
    there = [t for t in run.translations if run.pictures(t.output)]
    if not there:
        names = " or ".join(f"*_{translation.output}.png" for translation in run.translations)
        raise DataError(f"no pictures named {names} in {folder}; run test.py --name {run.name} first")
    for translation in there:
        real, missing = _real(run, translation, dataroot)
        paths = same.of_these_data(run, translation, real) if real else run.pictures(translation.output)
        made = Pictures(f"{translation.output} of {run.name}", tuple(paths))
        others = sum(1 for _ in folder.glob(f"*_{translation.output}.png")) - len(paths)
        yield Subject(folder, translation, made, real, missing, others)


def _real(run: Run, translation: Translation, dataroot: Path | None) -> tuple[RealPictures | None, str]:
    """The real pictures, or why they are not to be found: likeness to the truth can be measured without."""
    try:
        return real_pictures(run, translation, dataroot), ""
    except DataError as error:
        return None, str(error)


def _inputs(run: Run, protocol: str, subjects: Sequence[Subject], tools: Tools) -> Inputs:
    parts = [__version__, run.name, protocol]
    parts += [text for subject in subjects for text in (subject.translation.output, *subject.fingerprints())]
    return Inputs(
        pictures=hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
        extractor=tools.extractor.fingerprint if tools.extractor else "",
        lpips=tools.lpips.fingerprint if tools.lpips else "",
    )


# -- one generator -------------------------------------------------------------
def _evaluate(run: Run, subject: Subject, protocol: str, tools: Tools) -> Evaluation:
    translation, real, extractor = subject.translation, subject.real, tools.extractor
    size, pairs = _size(subject, tools), subject.pairs()
    measured = real is not None and extractor is not None
    count = min(len(subject.made), len(real.test)) if real else 0
    return Evaluation(
        run=run.name,
        generator=translation.generator,
        output=translation.output,
        protocol=protocol,
        size=size,
        paired=_paired(subject),
        lpips=tools.lpips(pairs) if tools.lpips and pairs else None,
        distance=protocols.of_translated(subject.made, real, protocol, tools) if real and measured else None,
        floor=protocols.floor(real, count, protocol, tools) if real and measured else None,
        duplicates=_duplicates(real, tools) if real else None,
        extractor=extractor.name if extractor and measured else "",
        resize=extractor.resize if extractor and measured else "",
        notes=tuple(_notes(subject)),
    )


def _size(subject: Subject, tools: Tools) -> str:
    """Raises DataError if the translated pictures are of one size and the real ones of another."""
    size = sizes_text(looks(subject.made, tools.cache_dir)["sizes"])
    if subject.real is None:
        return size
    expected = sizes_text(looks(subject.real.test, tools.cache_dir)["sizes"])
    if size != expected and "various" not in size + expected:
        raise DataError(
            f"{subject.made.name} are {size}, but the options of its test make real pictures {expected}; "
            "run test.py again, or use coronet evaluate --folders"
        )
    return size


def _paired(subject: Subject) -> PairedMetrics | None:
    translation = subject.translation
    if translation.truth is None:
        return None
    return paired_metrics(subject.images_dir, translation.output, translation.truth, subject.made.paths)


def _duplicates(real: RealPictures, tools: Tools) -> Duplicates | None:
    return duplicates(real.test, real.train, tools.cache_dir) if real.train else None


def _notes(subject: Subject) -> Iterator[str]:
    """Give the remarks without which the figures would mislead."""
    real, output = subject.real, subject.translation.output
    if subject.others:
        yield f"{subject.others} {output} beside them are of an earlier test or of other data, and left out"
    if real is None:
        yield f"no FID and KID: {subject.missing}"
        return
    if len(subject.made) != real.sources:
        yield (
            f"{len(subject.made)} {output} of {real.sources} pictures to translate: test.py takes --num_test "
            "of them, and names files after the other side's if that is the input of the first generator"
        )
    if real.train is None:
        yield "no floor and no search for duplicates: the real training pictures are not there"
    if real.test.reading.is_random:
        yield "test.py cuts at random; real pictures are cut at random places that follow from their names"
