"""Models that read features of their generator, as CUT's projector does: how such a generator is run."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from coronet_plugin.channels.cut import copy_with
from coronet_plugin.channels.facts import Runner, call, tensors_in
from coronet_plugin.wrappers import unwrap


def runner(model: Any, name: str) -> Runner:
    """Give the function that runs the generator ``name``.

    CUT reads features from its generator, and a projector takes them (:func:`readers`): it is run, too, and
    where there is none to be cut the features are output, so that their channels stay.
    """
    layers = _tapped(model, name)
    if not layers:
        return call

    def run(generator: nn.Module, *rest: Any) -> Any:
        *projectors, image = rest
        made, features = generator(image, list(layers))
        return made, [p(features, 4, [[0, 1, 2, 3]] * len(features))[0] for p in projectors] or features

    return run


def readers(model: Any, name: str) -> tuple[nn.Module, ...]:
    """The modules that read features of the generator ``name``: CUT's projector, if it has layers.

    It makes them when it first sees features, which :func:`make_readers_` brings forward.
    """
    projector = unwrap(model.netF) if _tapped(model, name) and hasattr(model, "netF") else None
    return () if projector is None or not list(projector.parameters()) else (projector,)


@torch.no_grad()
def make_readers_(model: Any, name: str, example: Any) -> None:
    """Let CUT's projector make its layers now, as wide as the features of an ``example``. In place."""
    layers = _tapped(model, name)
    if layers and getattr(getattr(model, "netF", None), "use_mlp", False) and not model.netF.mlp_init:
        generator = unwrap(getattr(model, "net" + name))
        image = next(tensors_in(example))
        model.netF.create_mlp(copy_with(generator).eval()(image, list(layers), encode_only=True))


def _tapped(model: Any, name: str) -> list[int]:
    """Layers of the generator ``name`` from which its model reads features, as CUT does."""
    forward = unwrap(getattr(model, "net" + name)).forward
    tapped = "encode_only" in inspect.signature(forward).parameters
    return list(getattr(model, "nce_layers", None) or ()) if tapped else []
