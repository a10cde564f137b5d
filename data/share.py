"""The part of an epoch that one of several processes trains on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import distributed as dist

from coronet_plugin.distributed import world_size


class Share(torch.utils.data.Sampler[int]):
    """Numbers of samples: every so manieth of an order that all processes know, as many in each process.

    A step of all processes has the samples that one process would have in a batch as large as theirs
    together. Where the last ones are too few, the first ones of the order come twice.
    """

    def __init__(self, images: int, shuffled: bool) -> None:
        self.images, self.shuffled = images, shuffled
        self.of_loaders = torch.Generator()
        """Random numbers by which the processes that load images differ."""
        self._seed = 0

    def seed_(self, seed: int) -> None:
        """Choose the next epoch's order, by a ``seed`` that all processes have."""
        self._seed = seed
        self.of_loaders.manual_seed(seed + dist.get_rank())

    def __len__(self) -> int:
        return -(-self.images // world_size())

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self.images)
        if self.shuffled:
            order = torch.randperm(self.images, generator=torch.Generator().manual_seed(self._seed))
        mine = torch.arange(len(self)) * world_size() + dist.get_rank()
        return iter(order[mine % self.images].tolist())
