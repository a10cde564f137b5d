"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), by the library ``lpips``, with a backbone that the user gives.

The library brings its own linear weights (version 0.1) but no backbone, and imports torchvision. The backbone
is a file of AlexNet's or VGG-16's ImageNet weights as torchvision publishes them.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.evaluation.paired import read_image

_EXPECTED = "expected AlexNet's or VGG-16's weights as torchvision publishes them"


@dataclass(frozen=True)
class Perceptual:
    """LPIPS with one backbone. ``network``: two (1, 3, H, W) in [-1, 1] -> their distance."""

    network: Any
    name: str
    fingerprint: str

    @torch.no_grad()
    def __call__(self, pairs: Iterable[tuple[Path, Path]]) -> float:
        """Mean distance of pairs of files, lower is better."""
        return float(np.mean([self._one(first, second) for first, second in pairs]))

    def _one(self, *paths: Path) -> float:
        return float(self.network(*(_as_input(read_image(path)) for path in paths)))


def load_lpips(backbone: Path) -> Perceptual:
    """LPIPS with the weights in ``backbone``.

    Raises:
        OptionError: lpips or torchvision, which it needs, cannot be imported.
        CheckpointError: the file is missing, damaged, or of another network.
    """
    from coronet_plugin.checkpoint.tensors import read_tensors

    if not backbone.is_file():
        raise CheckpointError(f"there is no file {backbone}; --lpips {_EXPECTED}")
    state = read_tensors(backbone)
    kind = _kind(state, backbone)
    library = _library()
    with warnings.catch_warnings():  # torchvision's, about arguments that the library uses
        warnings.simplefilter("ignore")
        network = library.LPIPS(net=kind, pnet_rand=True, verbose=False).eval()
    _load_backbone_(network.net, state, backbone)
    fingerprint = hashlib.sha256(backbone.read_bytes()).hexdigest()
    return Perceptual(network, f"LPIPS 0.1, {kind}", fingerprint)


def _library() -> Any:
    try:
        import lpips
    except (ImportError, RuntimeError) as error:  # a torchvision of another build raises RuntimeError
        raise OptionError(
            f'--lpips needs lpips and torchvision: pip install "coronet-plugin[lpips]" '
            f"({str(error).splitlines()[0]})"
        ) from error
    return lpips


def _kind(state: Any, backbone: Path) -> str:
    first = state.get("features.0.weight") if isinstance(state, dict) else None
    shape = tuple(first.shape) if isinstance(first, torch.Tensor) else ()
    kinds = {(64, 3, 11, 11): "alex", (64, 3, 3, 3): "vgg"}
    if shape not in kinds:
        raise CheckpointError(f"{backbone} is no backbone of LPIPS; {_EXPECTED}")
    return kinds[shape]


def _load_backbone_(net: torch.nn.Module, state: dict[str, torch.Tensor], backbone: Path) -> None:
    """The library's layers are ``slice2.3``, torchvision's ``features.3``; the numbers are the same."""
    wanted = {name: f"features.{name.partition('.')[2]}" for name, _ in net.named_parameters()}
    try:
        net.load_state_dict({name: state[key] for name, key in wanted.items()})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{backbone} is no backbone of LPIPS ({error}); {_EXPECTED}") from error


def _as_input(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
