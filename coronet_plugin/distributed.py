"""Training on several processes: who writes, and what must be the same everywhere.

Gradients are averaged by DistributedDataParallel before the optimizer steps, so
latents and hypernetworks move alike once they start alike. Without a process
group everything here does nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel


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


def data_parallel(network: nn.Module, sync_buffers: bool, **settings: Any) -> DistributedDataParallel:
    """Wrap ``network`` for several processes; ``sync_buffers``: all begin a run with the first one's buffers.

    A network that is switched off as a whole, as discriminators are while generators step, counts as on.
    """
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers"  # from torch 2.13 on
    settings[name if name in known else "broadcast_buffers"] = sync_buffers
    off = not any(parameter.requires_grad for parameter in network.parameters())
    try:
        return DistributedDataParallel(network.requires_grad_() if off else network, **settings)
    finally:
        if off:
            network.requires_grad_(False)
