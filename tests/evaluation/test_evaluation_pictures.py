"""How pictures are read, found, fingerprinted, cached and found twice."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import smooth_image
from PIL import Image
from run_helpers import picture

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.evaluation.cache import cached, features_of
from coronet_plugin.evaluation.duplicates import duplicates
from coronet_plugin.evaluation.pictures import Pictures, Reading, pictures_of, sizes_text
from coronet_plugin.pictures.files import spread


def save(path: Path, pixels: np.ndarray | Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(path)
    return path


# Reading


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("preprocess", ["resize_and_crop", "scale_width", "none"])
@pytest.mark.parametrize("half", ["A", "B"])
def test_pairs_are_read_as_the_host_does(tmp_path: Path, half: str, preprocess: str, gray: bool) -> None:
    from data.aligned_dataset import AlignedDataset
    from util.util import tensor2im

    path = save(tmp_path / "test" / "pair.png", smooth_image(1, 100, 45))
    opt = argparse.Namespace(dataroot=str(tmp_path), phase="test", max_dataset_size=9, direction="AtoB")
    opt.input_nc = opt.output_nc = 1 if gray else 3
    opt.preprocess, opt.load_size, opt.crop_size, opt.no_flip = preprocess, 32, 32, True
    expected = tensor2im(AlignedDataset(opt)[0][half][None])
    found = Reading(half, gray, preprocess, load_size=32, crop_size=32)(path)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_random_cuts_are_parts_of_the_picture_and_repeat(tmp_path: Path) -> None:
    pixels = picture(0, 40)
    cut = Reading(preprocess="crop", crop_size=24)
    found = [cut(save(tmp_path / f"{name}.png", pixels)) for name in "abcd"]
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (24, 24), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    assert all((windows == one).all(axis=(2, 3, 4)).sum() == 1 for one in found)
    assert any(not np.array_equal(one, found[0]) for one in found)
    assert np.array_equal(cut(tmp_path / "a.png"), found[0]) and cut.is_random
    assert not Reading(preprocess="resize_and_crop", load_size=32, crop_size=32).is_random
    with pytest.raises(DataError, match="no square of --crop_size 24"):
        cut(save(tmp_path / "low.png", smooth_image(0, 40, 20)))


@pytest.mark.parametrize(("ratio", "size"), [(1.0, (20, 20)), (1.5, (30, 20)), (0.5, (20, 40))])
def test_the_aspect_ratio_is_applied_as_the_host_saves(
    tmp_path: Path, ratio: float, size: tuple[int, int]
) -> None:
    from util.util import save_image

    pixels = np.asarray(smooth_image(2, 20, 20))
    save_image(pixels, str(tmp_path / "saved.png"), ratio)
    found = Reading(aspect_ratio=ratio)(save(tmp_path / "one.png", pixels))
    assert found.shape[1::-1] == size
    assert np.array_equal(found, np.asarray(Image.open(tmp_path / "saved.png")))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    single = save(tmp_path / "single.png", picture(0, 33))
    with pytest.raises(DataError, match=r"single.png has 33x33 pixels and is not two images"):
        Reading("A")(single)
    single.write_bytes(single.read_bytes()[:99])
    with pytest.raises(DataError, match="single.png cannot be read as an image"):
        Reading()(single)
    with pytest.raises(OptionError, match="--preprocess zoom"):
        Reading(preprocess="zoom")


# Sets


def test_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b_fake_B.png", "a_fake_B.png", "a_real_B.png", "below/c.JPG"):
        save(tmp_path / name, picture(0))
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.name for path in pictures_of("", tmp_path).paths] == [
        *("a_fake_B.png", "a_real_B.png", "b_fake_B.png", "c.JPG"),
    ]
    found = pictures_of("", f"{tmp_path}/*_fake_B.png")
    assert [path.name for path in found.paths] == ["a_fake_B.png", "b_fake_B.png"] and len(list(found)) == 2
    for wrong in (tmp_path / "nowhere", f"{tmp_path}/*_fake_A.png", f"{tmp_path}/*/c.JPG"):
        with pytest.raises(DataError):
            pictures_of("", wrong)
    shutil.rmtree(tmp_path / "below")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no pictures"):
        pictures_of("", tmp_path / "empty")


def test_some_of_a_set_are_spread_over_it() -> None:
    assert spread(10, 4).tolist() == [0, 3, 6, 9]
    assert spread(3, 7).tolist() == [0, 1, 2] and spread(140, 120)[[0, -1]].tolist() == [0, 139]
    for total, count in ((140, 120), (1067, 120), (7, 6)):
        assert len(set(spread(total, count))) == count
    paths = tuple(Path(str(i)) for i in range(5))
    assert Pictures("", paths).thinned(3).paths == (paths[0], paths[2], paths[4])


def test_fingerprints_follow_content_and_reading_but_not_the_place(tmp_path: Path) -> None:
    def make(folder: str, reading: Reading | None = None) -> str:
        return pictures_of("", tmp_path / folder, reading).fingerprint

    for seed, name in enumerate("xyz"):
        save(tmp_path / "one" / f"{name}.png", picture(seed))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert make("one") == make("two")
    assert make("one") != make("one", Reading(gray=True)) != make("one", Reading(preprocess="none"))
    (tmp_path / "two" / "x.png").rename(tmp_path / "two" / "w.png")
    assert make("one") != make("two")
    save(tmp_path / "one" / "x.png", picture(9))
    assert make("one") != make("two")


def test_sizes_are_said_width_first() -> None:
    assert sizes_text(np.array([[20, 30], [20, 30]])) == "30 x 20"
    assert sizes_text(np.array([[20, 30], [30, 20]])) == "various sizes"


# Duplicates


def test_exact_and_near_duplicates_are_told_apart(tmp_path: Path) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    for seed in range(6):
        save(train / f"train{seed}.png", smooth_image(seed, 64, 64))
    save(test / "same_pixels.bmp", smooth_image(2, 64, 64))
    smooth_image(4, 64, 64).save(test / "compressed.jpg", quality=90)
    save(test / "mirrored.png", smooth_image(1, 64, 64).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    marked = np.asarray(smooth_image(3, 64, 64)).copy()
    marked[8:14, 8:14] //= 2  # a small thing that makes it another picture
    save(test / "marked.png", marked)
    save(test / "new.png", smooth_image(77, 64, 64))
    found = duplicates(pictures_of("", test), pictures_of("", train), tmp_path / "cache")
    assert found.exact == (("same_pixels.bmp", "train2.png"),)
    assert found.near == (("compressed.jpg", "train4.png"),)


def test_pictures_of_other_sizes_are_compared_too(tmp_path: Path) -> None:
    first = pictures_of("", save(tmp_path / "a" / "large.png", smooth_image(5, 128, 128)).parent)
    second = pictures_of("", save(tmp_path / "b" / "small.png", smooth_image(5, 64, 64)).parent)
    assert duplicates(first, second, tmp_path).near == (("large.png", "small.png"),)


# Cache


class Counting:
    """Mean colours, and how many pictures were asked for."""

    name, resize, fingerprint = "means", "none", "1" * 64
    asked = 0

    def __call__(self, pictures: object) -> np.ndarray:
        rows = [one.mean(axis=(0, 1)) for one in pictures]  # type: ignore[attr-defined]
        self.asked += len(rows)
        return np.array(rows, np.float32)


def test_features_are_computed_once_until_a_picture_changes(tmp_path: Path) -> None:
    for seed in range(3):
        save(tmp_path / "set" / f"{seed}.png", picture(seed))
    extractor, said = Counting(), []

    def features() -> np.ndarray:
        return features_of(pictures_of("a set", tmp_path / "set"), extractor, tmp_path / "cache", said.append)

    first = features()
    assert np.array_equal(features(), first) and extractor.asked == 3 and len(said) == 1
    save(tmp_path / "set" / "1.png", picture(8))
    second = features()
    assert extractor.asked == 6 and (second != first).any(axis=1).tolist() == [False, True, False]
    extractor.fingerprint = "2" * 64
    features()
    assert extractor.asked == 9


def test_a_damaged_cache_is_made_again_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "values.npz"
    assert cached(path, lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:50])
    assert cached(path, lambda: {"x": np.arange(4)})["x"].tolist() == [0, 1, 2, 3]
    assert cached(path, lambda: pytest.fail("it is there"))["x"].tolist() == [0, 1, 2, 3]
    assert [file.name for file in path.parent.iterdir()] == ["values.npz"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OptionError, match="--cache_dir"):
        cached(tmp_path / "file" / "values.npz", lambda: {"x": np.zeros(1)})
