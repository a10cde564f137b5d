"""Compare a student with its teacher: differences of their outputs and of their features, as one loss.

GAN Compression (Li et al., CVPR 2020, arXiv 2003.08936) compares mapped features and, without pairs, outputs;
OMGD (Ren et al., ICCV 2021, arXiv 2108.06908) the means of every channel, the structure of the outputs, and
their smoothness. OMGD's two terms of VGG features are left out: they need a network trained on ImageNet.
docs/method.md has the equations.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from coronet_plugin.errors import OptionError

WINDOW, SIGMA = 11, 1.5
"""Of the structural similarity: Wang et al. 2004."""
K1, K2 = 0.01, 0.03


@dataclass(frozen=True)
class Terms:
    """How much each difference weighs in the loss; 0 leaves it out.

    ``features``: mean squared difference of mapped features, summed over the taps. ``channels``: the same
    of the means of every channel over the picture. ``output``: mean absolute difference of the outputs.
    ``ssim``: one less their structural similarity. ``tv``: total variation of the student's output.

    Raises:
        OptionError: a weight is negative or no number.
    """

    features: float = 0.0
    channels: float = 0.0
    output: float = 0.0
    ssim: float = 0.0
    tv: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < float("inf"):
                weight = getattr(self, field.name)
                raise OptionError(f"the weight of {field.name} for a student is {weight:g}; give 0 or more")

    @property
    def need_features(self) -> bool:
        """Whether anything but outputs is compared."""
        return bool(self.features or self.channels)

    def loss(
        self,
        outputs: tuple[Sequence[Tensor], Sequence[Tensor]],
        features: tuple[Sequence[Tensor], Sequence[Tensor]] = ((), ()),
    ) -> Tensor:
        """The weighted sum, a scalar. Both pairs: student's, teacher's. Images and features (N, C, H, W).

        The student's features are mapped already: both have equal shapes.
        """
        parts: list[Tensor] = []
        for mine, wanted in zip(*outputs):
            if self.output:
                parts.append(self.output * (mine - wanted).abs().mean())
            if self.ssim:
                parts.append(self.ssim * (1 - ssim(mine, wanted)))
            if self.tv:
                parts.append(self.tv * total_variation(mine))
        for mine, wanted in zip(*features):
            if self.features:
                parts.append(self.features * functional.mse_loss(mine, wanted))
            if self.channels:
                parts.append(self.channels * functional.mse_loss(mine.mean((2, 3)), wanted.mean((2, 3))))
        return torch.stack(parts).sum() if parts else torch.zeros(())


def whole(x: Tensor) -> Tensor:
    """``x`` in single precision at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Mean structural similarity of images in [-1, 1], a scalar, where the window is whole.

    Of images that are smaller than the window, the window is as large as they are.
    """
    size = min(WINDOW, *first.shape[2:])
    weights = _window(size).to(first)

    def local_mean(x: Tensor) -> Tensor:
        rows = functional.conv2d(x.flatten(0, 1)[:, None], weights[None, None, :, None])
        return functional.conv2d(rows, weights[None, None, None])

    x, y = (first + 1) / 2, (second + 1) / 2
    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x**2) - mean_x**2 + local_mean(y**2) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    return (luminance * (2 * covariance + K2**2) / (variances + K2**2)).mean()


@functools.cache
def _window(size: int) -> Tensor:
    """Gaussian weights ``(size,)`` that sum to one, as exact for those who compute in double precision."""
    places = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def total_variation(images: Tensor) -> Tensor:
    """Sum of the absolute differences of neighbouring values, mean over the images; a scalar."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().sum()
    right = (images[..., 1:] - images[..., :-1]).abs().sum()
    return (down + right) / len(images)
