"""Wrappers that leave a generator what it is: data parallelism and torch.compile."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def is_compiled(network: nn.Module) -> bool:
    """True if ``network``, or what it wraps, is in the hands of torch.compile."""
    while isinstance(network, (DataParallel, DistributedDataParallel)):
        network = network.module
    return hasattr(network, "_orig_mod") or getattr(network, "_compiled_call_impl", None) is not None


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile wrappers.

    A user's generator may well have a layer called ``module``, so wrappers are known by their class.
    """
    while True:
        if isinstance(network, (DataParallel, DistributedDataParallel)):
            inner = network.module
        else:
            inner = getattr(network, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return network
        network = inner
