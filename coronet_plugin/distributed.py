"""Training on several processes: who writes, and what must be the same everywhere.

Gradients are averaged by DistributedDataParallel before the optimizer steps, so
latents and hypernetworks move alike once they start alike. Without a process
group everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def active() -> bool:
    """True if a process group exists."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if active() else 1


def is_main() -> bool:
    """True if this process writes files and speaks."""
    return not active() or dist.get_rank() == 0


def say(*words: Any) -> None:
    """Print, on the main process only."""
    if is_main():
        print(*words)


@torch.no_grad()
def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Give every process the main one's values. In place; not for tensors its backend cannot send."""
    if not active():
        return
    for tensor in tensors:
        if tensor.is_cuda or dist.get_backend() != "nccl":
            dist.broadcast(tensor, src=0)


@torch.no_grad()
def average_(tensors: Iterable[Tensor]) -> None:
    """Give every process the mean of all processes' values. In place."""
    if world_size() == 1:
        return
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor.div_(world_size())


def agreed(value: Any) -> Any:
    """The first process's ``value`` (anything that can be pickled), in every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
