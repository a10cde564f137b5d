from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import picture

from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.paired import l1, pair_metrics, paired_metrics, psnr, ssim


def save(folder: Path, name: str, pixels: np.ndarray) -> Path:
    path = folder / f"{name}.png"
    Image.fromarray(pixels).save(path)
    return path


def test_l1_and_psnr_equal_their_definitions() -> None:
    first, second = picture(0), picture(1)
    difference = first.astype(float) / 255 - second.astype(float) / 255
    assert l1(first, second) == pytest.approx(np.abs(difference).mean(), rel=1e-12)
    assert psnr(first, second) == pytest.approx(10 * math.log10(1 / np.mean(difference**2)), rel=1e-12)


def test_l1_of_black_and_white_is_one() -> None:
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert l1(black, white) == 1.0
    assert psnr(black, white) == 0.0


def test_ssim_of_constant_images_follows_the_closed_form() -> None:
    """Without variance only the luminance term is left: (2ab + c) / (a^2 + b^2 + c)."""
    a, b, c = 100.0, 150.0, (0.01 * 255) ** 2
    first, second = (np.full((16, 16, 3), int(value), np.uint8) for value in (a, b))
    assert ssim(first, second) == pytest.approx((2 * a * b + c) / (a * a + b * b + c), rel=1e-9)


def test_ssim_is_a_mean_over_colour_channels() -> None:
    first = picture(2)
    second = first.copy()
    second[..., 0] = picture(3)[..., 0]
    grey = [np.repeat(image[..., :1], 3, axis=2) for image in (first, second)]
    # one channel differs, two are equal; tolerance: float64 sums in another order
    assert ssim(first, second) == pytest.approx((ssim(*grey) + 2) / 3, abs=1e-9)


def test_equal_pictures_are_perfect(tmp_path: Path) -> None:
    values = pair_metrics(save(tmp_path, "a", picture(4)), save(tmp_path, "b", picture(4)))
    assert values.ssim == pytest.approx(1) and values.psnr == math.inf and values.l1 == 0


def test_means_are_over_pictures_and_other_visuals_are_ignored(tmp_path: Path) -> None:
    levels = {"one": 10, "two": 40}
    for stem, level in levels.items():
        save(tmp_path, f"{stem}_fake_B", np.full((16, 16, 3), level, np.uint8))
        save(tmp_path, f"{stem}_real_B", np.zeros((16, 16, 3), np.uint8))
        save(tmp_path, f"{stem}_real_A", picture(5, 16))
    found = paired_metrics(tmp_path)
    assert found.count == 2
    assert found.l1 == pytest.approx(25 / 255)
    assert found.psnr == pytest.approx(np.mean([20 * math.log10(255 / level) for level in levels.values()]))


def test_the_other_direction_is_measured_on_request(tmp_path: Path) -> None:
    save(tmp_path, "x_fake_A", np.full((16, 16, 3), 51, np.uint8))
    save(tmp_path, "x_real_A", np.zeros((16, 16, 3), np.uint8))
    assert paired_metrics(tmp_path, "fake_A", "real_A").l1 == pytest.approx(0.2)


def test_grey_and_palette_files_count_as_rgb(tmp_path: Path) -> None:
    grey = picture(6)[..., 0]
    first = save(tmp_path, "a", grey)
    palette = tmp_path / "b.png"
    Image.fromarray(grey).convert("P").save(palette)
    assert pair_metrics(first, palette).l1 == 0


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        paired_metrics(tmp_path / "missing")
    with pytest.raises(DataError, match="no pictures named"):
        paired_metrics(tmp_path)
    save(tmp_path, "x_fake_B", picture(0))
    with pytest.raises(DataError, match="no x_real_B.png"):
        paired_metrics(tmp_path)
    save(tmp_path, "x_real_B", picture(0, 48))
    with pytest.raises(DataError, match="different sizes: 32 x 32 and 48 x 48"):
        paired_metrics(tmp_path)
    (tmp_path / "x_real_B.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="cannot be read"):
        paired_metrics(tmp_path)


def test_ssim_refuses_pictures_smaller_than_its_window() -> None:
    with pytest.raises(DataError, match="at least 11 x 11"):
        ssim(picture(0, 10), picture(1, 10))
