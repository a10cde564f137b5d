"""How close a picture comes to its truth: SSIM, PSNR and L1 for paired images.

For data with a true answer (the aligned pairs of pix2pix) only; what unpaired
translation is worth, these cannot say. Pictures are compared as they were written
to disk, in 8-bit RGB. SSIM and PSNR are scikit-image's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.pictures.reading import open_picture


@dataclass(frozen=True)
class PairMetrics:
    """One picture against its truth.

    ``ssim``: structural similarity, -1 to 1, higher is better. ``psnr``: peak signal to noise
    ratio in dB, higher is better, infinite for equal pictures. ``l1``: mean absolute difference
    of the pixel values in [0, 1], lower is better.
    """

    ssim: float
    psnr: float
    l1: float


@dataclass(frozen=True)
class PairedMetrics(PairMetrics):
    """Means over ``count`` pictures; units as in :class:`PairMetrics`."""

    count: int


def read_image(path: Path) -> np.ndarray:
    """The picture as RGB, (H, W, 3), uint8. Raises DataError when it cannot be read."""
    return np.asarray(open_picture(path))


def l1(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two uint8 images of equal shape, 0 to 1."""
    return float(np.abs(first.astype(np.float64) - second).mean() / 255)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 images in dB over all pixels and channels; inf if equal."""
    with np.errstate(divide="ignore"):
        return float(_skimage_metrics().peak_signal_noise_ratio(first, second, data_range=255))


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity of two uint8 images (H, W, 3), mean over the channels.

    The settings of Wang et al. 2004: Gaussian window of sigma 1.5 (11 x 11), population covariance.
    Raises DataError for images smaller than the window.
    """
    if min(first.shape[:2]) < 11:
        raise DataError(f"SSIM needs at least 11 x 11 pixels, got {first.shape[1]} x {first.shape[0]}")
    return float(
        _skimage_metrics().structural_similarity(
            first,
            second,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def pair_metrics(fake: Path, real: Path) -> PairMetrics:
    """Metrics of one image file against its truth. Raises DataError if unreadable or of different size."""
    first, second = read_image(fake), read_image(real)
    if first.shape != second.shape:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in (first, second))
        raise DataError(f"{fake} and {real} have different sizes: {sizes}")
    return PairMetrics(ssim(first, second), psnr(first, second), l1(first, second))


def paired_files(
    folder: Path, fake: str = "fake_B", real: str = "real_B", among: Iterable[Path] | None = None
) -> Iterator[tuple[Path, Path]]:
    """(``<stem>_<fake>.png``, ``<stem>_<real>.png``) of a results folder, sorted by stem, or of ``among``.

    Raises DataError if the folder is missing, or a picture has no truth beside it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; run test.py for this run first")
    for path in sorted(folder.glob(f"*_{fake}.png")) if among is None else among:
        truth = path.with_name(path.name[: -len(f"{fake}.png")] + f"{real}.png")
        if not truth.is_file():
            raise DataError(f"{path.name} has no {truth.name} beside it in {folder}")
        yield path, truth


def paired_metrics(
    results_images_dir: Path | str,
    fake: str = "fake_B",
    real: str = "real_B",
    among: Iterable[Path] | None = None,
) -> PairedMetrics:
    """Mean metrics of all pairs in the ``images`` folder that test.py wrote, or of the files ``among`` them.

    Raises DataError when there are no pairs, an image cannot be read, or sizes differ.
    """
    folder = Path(results_images_dir)
    values = [astuple(pair_metrics(*pair)) for pair in paired_files(folder, fake, real, among)]
    if not values:
        raise DataError(f"no pictures named *_{fake}.png in {folder}; run test.py for this run first")
    mean_ssim, mean_psnr, mean_l1 = (float(np.mean(column)) for column in zip(*values))
    return PairedMetrics(mean_ssim, mean_psnr, mean_l1, count=len(values))


def _skimage_metrics() -> Any:
    try:
        import skimage.metrics
    except ImportError as error:
        raise OptionError('SSIM and PSNR need scikit-image: pip install "coronet-plugin[metrics]"') from error
    return skimage.metrics
