"""The whole of a translation: files in, files out, what could not be read, and how fast it went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from coronet_plugin.command import NORM_MODE
from coronet_plugin.errors import DataError, describe
from coronet_plugin.files import write_atomically
from coronet_plugin.measure.timing import torch_threads
from coronet_plugin.pictures.reading import has_alpha, open_picture
from coronet_plugin.translation.picture import PictureTranslator, Prepared, Size, Tiling, beside
from coronet_plugin.translation.places import Place, find_places
from coronet_plugin.translation.progress import Bar
from coronet_plugin.translation.source import Translator, open_translators

QUALITY: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}
"""Settings of formats that lose something."""


@dataclass
class Report:
    """Outcome of a translation.

    ``written``: files; ``skipped``: why, by file; ``pictures``: how many were translated, frames of videos
    included; ``seconds``: for all, ``generator_seconds``: in the generator alone; ``notes``: what the user
    should know.
    """

    written: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    pictures: int = 0
    seconds: float = 0.0
    generator_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def speed(self) -> str:
        """Say in a line how fast it went."""
        each = self.pictures / max(self.seconds, 1e-9)
        alone = self.pictures / max(self.generator_seconds, 1e-9)
        what = "1 picture" if self.pictures == 1 else f"{self.pictures} pictures"
        return (
            f"{what} in {self.seconds:.1f} s: {each:.3g} pictures per second, "
            f"{alone:.3g} in the generator alone"
        )

    @contextmanager
    def timed(self, generator: bool = False) -> Iterator[None]:
        """Add what is done in here to the seconds, or to those of the generator."""
        started = time.perf_counter()
        try:
            yield
        finally:
            name = "generator_seconds" if generator else "seconds"
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)


def translate(
    source: str | Path,
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    networks: Sequence[str] = (),
    size: Size = "trained",
    tile: int | None = None,
    overlap: int | None = None,
    tile_norms: str = "picture",
    batch_size: int = 1,
    threads: int = 1,
    device: str = "cpu",
    format: str = "",
    side_by_side: bool = False,
    keep_alpha: bool = False,
    norm_mode: str = NORM_MODE,
    epoch: str = "latest",
    checkpoints_dir: str | Path = "./checkpoints",
) -> Report:
    """Translate pictures and videos (files, and folders with all below) into the folder ``output``.

    ``source``: a run by name or folder, a weight file, a packed folder, or a file of ``coronet export``;
    ``networks``: of its generators those to use, each in a subfolder of its name if there are several.
    ``size``: ``trained`` (scaled to the size of the training, proportions kept), ``own``, or (H, W).
    ``tile``: side of the tiles that larger pictures are taken apart to, which share ``overlap`` pixels (by
    default a quarter); with ``tile_norms`` ``picture`` they share its statistics too, with ``tile`` each has
    its own. ``format``: ending of the results (default: as they were). ``keep_alpha``: transparency of the
    picture is put into the result. Files that cannot be read are left out and reported.

    Raises:
        UserError: anything else that the user can mend.
    """
    given = [inputs] if isinstance(inputs, (str, Path)) else inputs
    translators = open_translators(
        str(source),
        networks,
        epoch=epoch,
        checkpoints_dir=checkpoints_dir,
        norm_mode=norm_mode,
        device=device,
        threads=threads,
    )
    tiling = Tiling(tile, overlap, tile_norms == "picture") if tile else None
    report = Report()
    with torch_threads(threads), report.timed():
        for translator in translators:
            folder = Path(output, translator.name) if len(translators) > 1 else Path(output)
            places = find_places([Path(path) for path in given], folder, format)
            report.notes += [*translator.notes, *_remarks(translator, tiling)]
            work = _Work(
                PictureTranslator(translator, size, tiling), report, batch_size, side_by_side, keep_alpha
            )
            with Bar(len(places), "files") as bar:
                work.run(places, bar)
    return report


def _remarks(translator: Translator, tiling: Tiling | None) -> Iterator[str]:
    if tiling is not None and tiling.whole and translator.generator is None:
        yield (
            "the norms of an exported file see one tile at a time, so that areas may differ from tile to "
            "tile; with a run or its weights they take the statistics of the whole picture"
        )


@dataclass
class _Work:
    translate: PictureTranslator
    report: Report
    batch_size: int
    side_by_side: bool
    keep_alpha: bool

    def run(self, places: Sequence[Place], bar: Bar) -> None:
        """Translate all files, those of one size in batches."""
        waiting: list[tuple[Place, Prepared]] = []
        for place in places:
            prepared = None
            try:
                if place.is_video:
                    self._video(place)
                else:
                    prepared = self._read(place)
            except DataError as error:
                self.report.skipped[place.source] = describe(error)
            other = prepared is not None and waiting and waiting[0][1].values.shape != prepared.values.shape
            if waiting and (other or len(waiting) == self.batch_size):
                self._pictures(waiting, bar)
                waiting = []
            if prepared is None:
                bar.advance()
            else:
                waiting.append((place, prepared))
        if waiting:
            self._pictures(waiting, bar)

    def outputs(self, prepared: list[Prepared]) -> list[Image.Image]:
        """Translate pictures of one size, side by side with them if asked."""
        with self.report.timed(generator=True):
            outputs = self.translate.translate(prepared)
        self.report.pictures += len(outputs)
        if self.side_by_side:
            outputs = [beside(one.picture, output) for one, output in zip(prepared, outputs)]
        return outputs

    def _read(self, place: Place) -> Prepared:
        translator = self.translate.translator
        picture = open_picture(place.source, self.translate.mode, translator.bit_depth, as_seen=True)
        return self.translate.prepare(picture)

    def _pictures(self, waiting: list[tuple[Place, Prepared]], bar: Bar) -> None:
        for (place, _), output in zip(waiting, self.outputs([prepared for _, prepared in waiting])):
            if self.keep_alpha:
                output = _with_alpha_of(place.source, output)
            save(output, place.target)
            self.report.written.append(place.target)
            bar.advance()

    def _video(self, place: Place) -> None:
        from coronet_plugin.translation.video import frames_in, translate_video

        with Bar(frames_in(place.source), f"frames of {place.source.name}") as bar:

            def frames(pictures: list[Image.Image]) -> list[Image.Image]:
                outputs = self.outputs([self.translate.prepare(picture) for picture in pictures])
                bar.advance(len(outputs))
                return outputs

            translate_video(place.source, place.target, frames, self.batch_size)
        self.report.written.append(place.target)


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of its ending; on white where that has no transparency.

    Raises OptionError if the folder cannot be written to.
    """
    kind = Image.registered_extensions()[path.suffix.lower()]
    if picture.mode == "RGBA" and kind not in ("PNG", "WEBP", "TIFF"):
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(picture.save, format=kind, **QUALITY.get(kind, {})), flush=False)


def _with_alpha_of(source: Path, output: Image.Image) -> Image.Image:
    with Image.open(source) as file:
        if not has_alpha(file) or output.mode == "RGBA":
            return output
    alpha = open_picture(source, "RGBA", as_seen=True).getchannel("A")
    whole = output.convert("RGBA")
    whole.putalpha(alpha.resize(output.size, Image.Resampling.BICUBIC))
    return whole
