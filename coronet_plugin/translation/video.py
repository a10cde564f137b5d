"""Videos, frame by frame; times of the frames and sound stay as they are. Needs PyAV."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from coronet_plugin.errors import DataError, OptionError

ENCODERS = ("libx264", "libopenh264")
"""The first that this PyAV has writes the video."""
QUALITY = {"crf": "18", "preset": "medium"}
FRACTION = 1000
"""Denominator of a frame rate at most."""


def translate_video(
    source: Path,
    target: Path,
    translate: Callable[[list[Image.Image]], list[Image.Image]],
    batch_size: int = 1,
) -> None:
    """Write ``source`` to ``target`` with every frame as ``translate`` gives it, ``batch_size`` at a time.

    Frames keep their times, so that variable rates stay, and sound is copied as it is. Sides become even, as
    encoders need: a last odd row or column is left out.

    Raises:
        DataError: the file cannot be read as a video.
        OptionError: PyAV is not installed, or the folder cannot be written to.
    """
    av = _library()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Half a video never stands under its name.
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    try:
        with av.open(str(source)) as read, av.open(temporary, "w") as written:
            _Copy(av, read, written, translate, batch_size).run()
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except av.error.FFmpegError as error:
        raise DataError(
            f"{source} cannot be read as a video ({error.strerror}); repair or remove it"
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def frames_in(source: Path) -> int:
    """How many frames the file says it has; 0 if it does not say, or is no video."""
    av = _library()
    try:
        with av.open(str(source)) as file:
            return int(file.streams.video[0].frames) if file.streams.video else 0
    except av.error.FFmpegError:
        return 0


def _library() -> ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        raise OptionError(
            'videos need PyAV, not installed here: pip install "coronet-plugin[video]"'
        ) from error
    module: ModuleType = av
    return module


class _Copy:
    """From one open file to another: frames through ``translate``, packets of sound as they are."""

    def __init__(
        self,
        av: ModuleType,
        read: Any,
        written: Any,
        translate: Callable[[list[Image.Image]], list[Image.Image]],
        batch_size: int,
    ) -> None:
        self.av, self.read, self.written = av, read, written
        self.translate, self.batch_size = translate, batch_size
        if not read.streams.video:
            raise DataError(f"{read.name} has no pictures in it")
        self.video = read.streams.video[0]
        self.stream: Any = None
        self.sounds = {sound: written.add_stream_from_template(sound) for sound in read.streams.audio}
        self.early: list[Any] = []
        """Packets of sound from before the first frame: the file begins when its streams are known."""
        self.waiting: list[Any] = []

    def run(self) -> None:
        for packet in self.read.demux(self.video, *self.sounds):
            if packet.stream is self.video or packet.stream.type == "video":
                for frame in packet.decode():
                    self.waiting.append(frame)
                    if len(self.waiting) == self.batch_size:
                        self._frames()
            elif packet.dts is not None:
                self._sound(packet)
        self._frames()
        if self.stream is None:
            raise DataError(f"{self.read.name} has no pictures in it")
        for packet in self.stream.encode():
            self.written.mux(packet)

    def _sound(self, packet: Any) -> None:
        packet.stream = self.sounds[packet.stream]
        if self.stream is None:
            self.early.append(packet)
        else:
            self.written.mux(packet)

    def _frames(self) -> None:
        if not self.waiting:
            return
        frames, self.waiting = self.waiting, []
        for frame, picture in zip(frames, self.translate([upright(frame) for frame in frames])):
            picture = _even(picture.convert("RGB"))
            if self.stream is None:
                self._begin(picture.size)
            new = self.av.VideoFrame.from_image(picture)
            new.pts, new.time_base = frame.pts, frame.time_base
            for packet in self.stream.encode(new):
                self.written.mux(packet)

    def _begin(self, size: tuple[int, int]) -> None:
        rate = self.video.average_rate or self.video.guessed_rate or Fraction(25)
        name = next((name for name in ENCODERS if name in self.av.codecs_available), "")
        if not name:
            raise OptionError(
                f"this PyAV has no encoder of H.264 ({' or '.join(ENCODERS)}); install its wheel"
            )
        self.stream = self.written.add_stream(name, rate=Fraction(rate).limit_denominator(FRACTION))
        self.stream.width, self.stream.height = size
        self.stream.pix_fmt = "yuv420p"
        self.stream.time_base = self.stream.codec_context.time_base = self.video.time_base
        if name == "libx264":
            self.stream.options = QUALITY
        for packet in self.early:
            self.written.mux(packet)


def upright(frame: Any) -> Image.Image:
    """The picture of a frame, turned as players turn it."""
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(round(getattr(frame, "rotation", 0) or 0) % 360)
    picture: Image.Image = frame.to_image()
    return picture if turn is None else picture.transpose(turn)


def _even(picture: Image.Image) -> Image.Image:
    width, height = (max(2, side // 2 * 2) for side in picture.size)
    return picture if picture.size == (width, height) else picture.crop((0, 0, width, height))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
