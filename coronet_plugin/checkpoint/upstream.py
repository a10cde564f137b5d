"""Weight files of every upstream version, made to fit a network of today.

Wrappers left prefixes on the keys, old instance norm left running statistics, and
dropout moves the second convolution of a ResNet block by one place. None of that is
a different network. What really is different is refused with the option that is
likely wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from coronet_plugin.checkpoint.foreign import in_words, origin_of
from coronet_plugin.checkpoint.tensors import is_weight_file, read_tensors
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.files import settle
from coronet_plugin.generators.registry import Family, families, find_family
from coronet_plugin.generators.resnet import BLOCK_KEY

WRAPPERS = ("module.", "_orig_mod.")
"""Key prefixes left by DataParallel, DistributedDataParallel and torch.compile."""
SLIM = (
    "the file holds a slim generator, of no --ngf: with the .json of its name beside it, test.py takes it by "
    "--model coronet or --model test, and coronet translate takes it as it is"
)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Read the tensors of a weight file onto the CPU. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    settle(path.parent)
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not there{_neighbours(path)}; check --name, --epoch and --checkpoints_dir"
        )
    state = read_tensors(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state_dict; expected a file written by train.py")
    return dict(state)


def adapt_state_dict(state_dict: Mapping[str, Any], net: nn.Module) -> dict[str, Any]:
    """``state_dict`` with the keys of ``net``, which must not be wrapped; neither is changed.

    Raises:
        CheckpointError: the tensors belong to another architecture; says which option is likely wrong.
    """
    state, target = _adapted(state_dict, net)
    problem = _mismatch(state, target)
    if problem:
        origin = origin_of(state)
        raise CheckpointError(f"{problem}: {in_words(origin)}" if origin else problem)
    return {key: state[key] for key in target}


def _adapted(state_dict: Mapping[str, Any], net: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """``state_dict`` under the keys of ``net`` as far as possible, and what ``net`` has."""
    target = net.state_dict()
    state = _strip_wrappers(state_dict, target)
    state = _drop_bare_statistics(state, net)
    state = _move_dropout_slot(state, target)
    state = _drop_instance_statistics(state, target, net)
    for key in target.keys() - state.keys():
        if key.endswith(".num_batches_tracked"):  # files from before torch 0.4.1 lack it
            state[key] = torch.zeros_like(target[key])
    return state, target


def whose(state: Mapping[str, Any]) -> str:
    """Whose generator ``state`` holds where it is known to be none of upstream's, in words; else nothing."""
    origin = origin_of({_strip_prefixes(key): value for key, value in state.items()})
    return in_words(origin) if origin else ""


def recognise_generator(state: Mapping[str, Any], options: Mapping[str, str]) -> tuple[Family, Any] | None:
    """The family and config of the dense generator whose tensors ``state`` holds; None if there is none.

    ``options``: what is known of it by the names that configs use, and by ``netG``; may be empty. They decide
    between families with the same tensors, and say what no tensor tells.
    """
    bare = {_strip_prefixes(key): value for key, value in state.items()}
    named = find_family(options.get("netG", ""))
    for family in dict.fromkeys([*([named] if named else []), *families().values()]):
        with contextlib.suppress(OptionError):  # the guess is of no possible generator
            for config in _guess_configs(family, bare, options):
                if _fits(family, config, state):
                    return family, config
    return None


def _guess_configs(family: Family, state: Mapping[str, Any], options: Mapping[str, str]) -> Iterator[Any]:
    deduced = family.deduce(state)
    if deduced is not None:
        told = family.from_options({key: options[key] for key in family.untold if key in options})
        yield dataclasses.replace(deduced, **{key: getattr(told, key) for key in family.untold})
    if family.name == options.get("netG"):
        yield family.from_options(options)


def _fits(family: Family, config: Any, state: Mapping[str, Any]) -> bool:
    with torch.device("meta"):
        generator = family.build(config)
    ours, theirs = _adapted(state, generator)
    shapes = [{key: getattr(value, "shape", None) for key, value in one.items()} for one in (ours, theirs)]
    return shapes[0] == shapes[1]


def _strip_wrappers(state: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    return {_strip_prefixes(key, target): value for key, value in state.items()}


def _strip_prefixes(key: str, target: Container[str] = ()) -> str:
    while key.startswith(WRAPPERS) and key not in target:
        key = key.partition(".")[2]
    return key


def _drop_bare_statistics(state: dict[str, Any], net: nn.Module) -> dict[str, Any]:
    """Drop statistics of norms without a scale (old instance norm), unless ``net`` keeps such."""
    if any(isinstance(m, _InstanceNorm) and m.running_mean is not None for m in net.modules()):
        return state

    def is_bare(key: str) -> bool:
        owner, _, leaf = key.rpartition(".")
        return leaf in STATISTICS and f"{owner}.weight" not in state

    return {key: value for key, value in state.items() if not is_bare(key)}


def _drop_instance_statistics(
    state: dict[str, Any], target: Mapping[str, Any], net: nn.Module
) -> dict[str, Any]:
    """Drop statistics of instance norms with a scale that have none in ``net``."""
    norms = {name for name, module in net.named_modules() if isinstance(module, _InstanceNorm)}

    def is_extra(key: str) -> bool:
        owner, _, leaf = key.rpartition(".")
        return leaf in STATISTICS and owner in norms and key not in target

    return {key: value for key, value in state.items() if not is_extra(key)}


def _move_dropout_slot(state: dict[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """Renumber the layers of each residual block: the n-th with tensors becomes ``target``'s n-th."""
    ours, theirs = _block_layers(state), _block_layers(target)
    renamed = {}
    for key, value in state.items():
        match = BLOCK_KEY.match(key)
        if match and len(ours[match[1]]) == len(theirs.get(match[1], ())):
            place = ours[match[1]].index(int(match[2]))
            key = f"{match[1]}.{theirs[match[1]][place]}.{match[3]}"
        renamed[key] = value
    return renamed


def _block_layers(state: Mapping[str, Any]) -> dict[str, list[int]]:
    layers: dict[str, set[int]] = {}
    for match in map(BLOCK_KEY.match, state):
        if match:
            layers.setdefault(match[1], set()).add(int(match[2]))
    return {block: sorted(indices) for block, indices in layers.items()}


# -- saying what is wrong ---------------------------------------------------
def _mismatch(state: Mapping[str, Any], target: Mapping[str, Any]) -> str | None:
    """One sentence about the first thing that does not fit, or None."""
    file, wanted = _describe(state), _describe(target)
    if file != wanted:
        option = "--netG" if "generator" in wanted else "--netD or --n_layers_D"
        return f"the file holds {file}, the network to load is {wanted}; {option} is likely wrong"
    differing = state.keys() ^ target.keys()
    if differing:
        norms = _norm(state), _norm(target)
        if norms[0] != norms[1]:
            return (
                f"the file's network has {norms[0]}, the network to load has {norms[1]}; "
                "--norm is likely wrong"
            )
        key = min(differing)
        side = "the file lacks" if key in target else "the network to load has no"
        return f"{side} {key}; --norm, --netG or --no_dropout is likely wrong"
    for key, tensor in target.items():
        if isinstance(tensor, Tensor) and state[key].shape != tensor.shape:
            return _shape_problem(key, state, target)
    return None


def _describe(state: Mapping[str, Any]) -> str:
    """The kind of network that keys tell: family and depth."""
    blocks = {match[1] for match in map(BLOCK_KEY.match, state) if match}
    if blocks:
        separable = "separable " * any(".conv.0." in key for key in state)
        blurs = " and blurred sampling" * any(key.endswith(".filt") for key in state)
        return f"a ResNet generator with {len(blocks)} {separable}blocks{blurs}"
    convolutions = [key for key, value in state.items() if isinstance(value, Tensor) and value.ndim == 4]
    if any(key.startswith("model.model.") for key in state):
        return f"a U-Net generator with {len(convolutions) // 2} levels"
    if any(key.startswith("net.") for key in state):
        return "a pixel discriminator"
    if convolutions and all(re.fullmatch(r"model\.\d+\.weight", key) for key in convolutions):
        return f"a PatchGAN discriminator with {len(convolutions) - 2} layers"
    return "a network of another kind"


def _norm(state: Mapping[str, Any]) -> str:
    if any(key.endswith(".weight") and value.ndim == 1 for key, value in state.items()):
        return "batch norm"
    biases = sum(key.endswith(".bias") for key in state)
    weights = sum(key.endswith(".weight") for key in state)
    return "instance norm" if biases == weights else "no norm"


def _shape_problem(key: str, state: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    """Name the option behind a differing width; first and last layers tell image channels from features."""
    convolutions = [k for k, v in target.items() if isinstance(v, Tensor) and v.ndim == 4]
    first, last = convolutions[0], convolutions[-1]
    generator = "generator" in _describe(target)
    found, wanted = tuple(state[key].shape), tuple(target[key].shape)
    misfit = f"{key} is {found} in the file and {wanted} in the network to load"
    if generator and recognise_generator(state, {}) is None:
        return f"{SLIM} ({misfit})"
    options = []
    if state[first].shape[0] != target[first].shape[0]:
        options.append(f"{'--ngf' if generator else '--ndf'} {state[first].shape[0]}")
    if state[first].shape[1] != target[first].shape[1]:
        options.append(f"--input_nc {state[first].shape[1]}" if generator else "--input_nc or --output_nc")
    outputs = 1 if "U-Net" in _describe(target) else 0  # transposed convolutions have (in, out, h, w)
    if generator and state[last].shape[outputs] != target[last].shape[outputs]:
        options.append(f"--output_nc {state[last].shape[outputs]}")
    advice = "the file fits " + " and ".join(options) if options else "--ngf is likely wrong"
    return f"{misfit}; {advice}"


def _neighbours(path: Path, limit: int = 6) -> str:
    names = sorted(p.name for p in path.parent.glob("*") if is_weight_file(p)) if path.parent.is_dir() else []
    if not names:
        return f" and {path.parent} holds no weights"
    shown = ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
    return f" ({path.parent} has {shown})"
