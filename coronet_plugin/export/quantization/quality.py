"""The price of int8: its pictures beside those of fp32, and both beside the truth where there is one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.export.pictures import Samples, read_picture
from coronet_plugin.export.targets import ArrayModel
from coronet_plugin.export.verify import TANH, Range, as_pixels, in_tanh_units, range_of
from coronet_plugin.pictures.files import MODES

PEAK = 2.0
"""Of outputs from -1 to 1."""


@dataclass(frozen=True)
class Quality:
    """Means over ``pictures`` pictures, in 8-bit RGB.

    ``ssim`` and ``psnr`` (dB; None if equal) are of int8 to fp32. The others are to the truth, of int8 and of
    fp32, and None where there is none.
    """

    pictures: int
    ssim: float
    psnr: float | None
    truth_ssim: float | None = None
    truth_ssim_fp32: float | None = None
    truth_psnr: float | None = None
    truth_psnr_fp32: float | None = None

    @property
    def drop(self) -> float:
        """SSIM lost against fp32."""
        return 1 - self.ssim

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        """One line for the user."""
        text = f"to fp32 SSIM {self.ssim:.4f}, PSNR {_decibels(self.psnr)}"
        if self.truth_ssim is not None:
            text += f"; to the truth SSIM {self.truth_ssim:.4f} (fp32 {self.truth_ssim_fp32:.4f}), "
            text += f"PSNR {_decibels(self.truth_psnr)} (fp32 {_decibels(self.truth_psnr_fp32)})"
        return text


def _decibels(psnr: float | None) -> str:
    return "infinite" if psnr is None else f"{psnr:.2f} dB"


def quality(
    run: ArrayModel,
    reference: ArrayModel,
    pictures: np.ndarray,
    truths: np.ndarray | None = None,
    bound: Range | None = TANH,
) -> Quality:
    """Compare ``run`` and ``reference`` on ``pictures``, and both with ``truths`` (N, C, H, W) in [-1, 1].

    ``bound``: the range of the output, if known; in any case that of all that ``reference`` gives.
    """
    given = [np.ascontiguousarray(picture[None]) for picture in pictures]
    found, expected = np.concatenate([run(x) for x in given]), np.concatenate([reference(x) for x in given])
    limits = range_of([expected], bound)
    found, expected = in_tanh_units(found, limits), in_tanh_units(expected, limits)
    ssim, psnr = likeness(found, expected)
    if truths is None:
        return Quality(len(pictures), ssim, psnr)
    (our_ssim, our_psnr), (their_ssim, their_psnr) = likeness(found, truths), likeness(expected, truths)
    return Quality(len(pictures), ssim, psnr, our_ssim, their_ssim, our_psnr, their_psnr)


def likeness(first: np.ndarray, second: np.ndarray) -> tuple[float, float | None]:
    """Mean SSIM, and PSNR of all pixels together in dB (None if equal), of (N, C, H, W) in [-1, 1]."""
    from coronet_plugin.evaluation.paired import ssim

    pairs = [(as_pixels(a), as_pixels(b)) for a, b in zip(first, second)]
    error = float(np.mean([np.mean((a.astype(np.float64) - b) ** 2) for a, b in pairs]))
    return float(np.mean([ssim(a, b) for a, b in pairs])), 10 * float(
        np.log10(255**2 / error)
    ) if error else None


def truths_of(pictures: Samples, generator: nn.Module, example: Tensor) -> np.ndarray | None:
    """Read the true outputs of ``generator`` for ``pictures``, (N, C, H, W) in [-1, 1]; None if not known."""
    if not pictures.truths:
        return None
    with torch.no_grad():
        channels, size = generator(example).shape[1], tuple(example.shape[2:])
    if channels not in MODES:
        return None
    depth = pictures.bit_depth
    return np.stack([read_picture(path, channels, size, half, depth) for path, half in pictures.truths])  # type: ignore[arg-type]
