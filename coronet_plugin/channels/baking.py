"""Turn computed weights into plain ones, so that their channels can be removed."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

NORM_HOOKS = (WeightNorm, SpectralNorm)
"""The forward hooks with which older torch computed a weight."""


def hooks_of(module: nn.Module) -> list[object]:
    """What runs before the module's forward."""
    return list(module._forward_pre_hooks.values())


def bake_(generator: nn.Module) -> list[str]:
    """Replace weights under weight norm, spectral norm or any parametrization by their present values.

    In place; the generator computes what it did in eval mode. Returns the names of the
    weights. Parameters are replaced, so do this before the optimizer is made.
    """
    baked = []
    for name, module in generator.named_modules():
        prefix = f"{name}." if name else ""
        if parametrize.is_parametrized(module):
            for weight in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, weight, leave_parametrized=True)
                baked.append(prefix + weight)
        for hook in hooks_of(module):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
                baked.append(prefix + hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
                baked.append(prefix + hook.name)
    return baked
