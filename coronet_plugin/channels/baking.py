"""Turn computed weights into plain ones, so that their channels can be removed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from coronet_plugin.wrappers import unwrap

NORM_HOOKS = (WeightNorm, SpectralNorm)
"""The forward hooks with which older torch computed a weight."""


def hooks_of(module: nn.Module) -> list[object]:
    """List the hooks that run before the module's forward."""
    return list(module._forward_pre_hooks.values())


def bake_(generator: nn.Module) -> list[str]:
    """Replace weights under weight norm, spectral norm or any parametrization by their present values.

    In place; the generator computes what it did in eval mode, and saves and loads like one that never had
    such norms. A frozen weight stays frozen. Returns the names of the weights. Parameters are replaced, so
    do this before the optimizer is made.
    """
    baked = []
    for name, module in unwrap(generator).named_modules():
        prefix = f"{name}." if name else ""
        weights = [*_bake_parametrized_(module), *_bake_normed_(module)]
        if weights:
            _forget_hooks_(module)
        baked += [prefix + weight for weight in weights]
    return baked


def _bake_parametrized_(module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    computed: dict[str, nn.Module] = dict(module.parametrizations.items())  # type: ignore[union-attr,operator]
    for weight, parametrization in computed.items():
        originals = list(parametrization.parameters(recurse=False))
        parametrization.eval()  # in train mode spectral norm would take another step
        parametrize.remove_parametrizations(module, weight, leave_parametrized=True)
        if originals:
            _make_parameter_(module, weight, originals)
    return list(computed)


def _bake_normed_(module: nn.Module) -> list[str]:
    baked = []
    for hook in hooks_of(module):
        if not isinstance(hook, NORM_HOOKS):
            continue
        parts = (f"{hook.name}_{part}" for part in ("g", "v", "orig"))
        originals = [module._parameters[part] for part in parts if part in module._parameters]
        remove = remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm
        remove(module, hook.name)
        _make_parameter_(module, hook.name, originals)
        baked.append(hook.name)
    return baked


def _make_parameter_(module: nn.Module, weight: str, originals: Sequence[Tensor | None]) -> None:
    """As trainable as what it was computed from; torch may have left a buffer, or thawed it."""
    trained = any(original is not None and original.requires_grad for original in originals)
    value = getattr(module, weight).detach()
    module._buffers.pop(weight, None)
    module._parameters[weight] = nn.Parameter(value, trained)


def _forget_hooks_(module: nn.Module) -> None:
    """Torch leaves behind what old spectral norm put into loading: it asks for tensors that are gone."""
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for key, hook in list(hooks.items()):
            made_by = getattr(getattr(hook, "hook", hook), "__module__", "")  # torch wraps some
            if made_by.startswith("torch.nn.utils."):
                del hooks[key]
