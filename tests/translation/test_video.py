"""Videos: every frame is translated, times, rate and sound stay as they are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import make_run

from coronet_plugin import cli

av = pytest.importorskip("av")
from coronet_plugin.translation.video import frames_in, translate_video, upright  # noqa: E402 (it needs PyAV)

RATE = Fraction(30000, 1001)


def make_video(
    path: Path, size: tuple[int, int] = (48, 32), times: list[int] | None = None, sound: bool = True
) -> list[int]:
    """A video that gets brighter, of 8 frames or at ``times`` (in 1/90000 s); gives the times."""
    times = [i * 3003 for i in range(8)] if times is None else times
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.time_base = Fraction(1, 90000)
        heard = file.add_stream("aac", rate=44100) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (20 * number + 40,) * 3))
            frame.pts, frame.time_base = time, Fraction(1, 90000)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if heard is not None:
            for number in range(12):
                wave = np.sin(np.arange(1024) / 20 + number).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44100, 1024 * number
                file.mux(heard.encode(frame))
            file.mux(heard.encode())
    return times


def read(path: Path) -> tuple[list[float], list[float], list[bytes], Fraction]:
    """Times of the frames in seconds, their mean brightness, packets of sound, and the rate."""
    with av.open(str(path)) as file:
        rate = file.streams.video[0].average_rate
        frames = list(file.decode(video=0))
    with av.open(str(path)) as file:
        heard = (
            [bytes(p) for p in file.demux(file.streams.audio) if p.dts is not None]
            if file.streams.audio
            else []
        )
    return [f.time for f in frames], [float(np.asarray(f.to_image()).mean()) for f in frames], heard, rate


def darker(pictures: list[Image.Image]) -> list[Image.Image]:
    return [Image.eval(picture, lambda value: 255 - value) for picture in pictures]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_frames_rate_and_sound(tmp_path, ending):
    source, target = tmp_path / f"a.{ending}", tmp_path / "out" / f"a.{ending}"
    make_video(source)
    sizes = []

    def translate(pictures: list[Image.Image]) -> list[Image.Image]:
        sizes.append(len(pictures))
        return darker(pictures)

    translate_video(source, target, translate, batch_size=3)
    before, after = read(source), read(target)
    assert frames_in(source) == (0 if ending == "mkv" else 8)  # which does not say
    assert sizes == [3, 3, 2] and len(after[0]) == 8
    assert after[0] == pytest.approx(before[0], abs=0.002) and after[3] == pytest.approx(RATE, rel=1e-3)
    assert after[1] == pytest.approx([255 - value for value in before[1]], abs=4)
    assert after[2] == before[2] and len(after[2]) > 8
    assert [f.name for f in target.parent.iterdir()] == [f"a.{ending}"]


def test_uneven_times_stay(tmp_path):
    times = make_video(tmp_path / "a.mkv", times=[0, 3000, 4000, 20000, 90000], sound=False)
    translate_video(tmp_path / "a.mkv", tmp_path / "b.mkv", darker)
    assert read(tmp_path / "b.mkv")[0] == pytest.approx([t / 90000 for t in times], abs=0.002)


def test_odd_sides_lose_one_pixel_and_frames_are_turned(tmp_path):
    make_video(tmp_path / "a.mp4")
    translate_video(
        tmp_path / "a.mp4", tmp_path / "b.mp4", lambda pictures: [p.resize((31, 21)) for p in pictures]
    )
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (30, 20)

    class Frame:
        rotation = -90

        def to_image(self) -> Image.Image:
            return Image.new("RGB", (48, 32))

    assert upright(Frame()).size == (32, 48)


def test_a_folder_with_videos(tmp_path, capsys):
    make_run(tmp_path, "slim", budget=0.3, stems=(), log=False)
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4")
    make_video(tmp_path / "in" / "b.avi", sound=False)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video" * 100)
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "c.png")
    place = [tmp_path / "in", "--output", tmp_path / "out", "--checkpoints_dir", tmp_path / "checkpoints"]
    words = ["slim", *place, "--size", "own", "--side_by_side", "--batch_size", 4, "--threads", 1]
    assert cli.main(["translate", *map(str, words)]) == 1
    said = capsys.readouterr()
    assert "broken.mp4 cannot be read as a video" in said.err and "17 pictures in" in said.out
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mkv", "c.png"]
    with av.open(str(tmp_path / "out" / "a.mp4")) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (96, 32)
