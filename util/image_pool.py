"""A history of generated images, so that a discriminator does not forget old mistakes."""

from __future__ import annotations

import random

import torch
from torch import Tensor


class ImagePool:
    """Keeps up to ``pool_size`` images; 0 keeps none. ``images``: a list of (1, C, H, W)."""

    def __init__(self, pool_size: int) -> None:
        self.pool_size = pool_size
        self.num_imgs = 0
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        """As many images as given, (N, C, H, W), without gradients.

        While the pool fills, those given. Then each is returned, or kept in exchange for
        an earlier one, with equal chances.
        """
        if self.pool_size == 0:
            return images.detach()
        return torch.cat([self._exchange(image[None]) for image in images.detach()])

    def _exchange(self, image: Tensor) -> Tensor:
        if self.num_imgs < self.pool_size:
            self.num_imgs += 1
            self.images.append(image.clone())
            return image
        if random.random() < 0.5:
            return image
        place = random.randrange(self.pool_size)
        earlier, self.images[place] = self.images[place], image.clone()
        return earlier
