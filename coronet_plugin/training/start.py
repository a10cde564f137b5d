"""Begin a search with the weights of a trained dense run (``--coronet_init_from``)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from coronet_plugin.checkpoint.tensors import weight_file
from coronet_plugin.checkpoint.upstream import adapt_state_dict, read_state_dict
from coronet_plugin.compression import Compression
from coronet_plugin.distributed import say
from coronet_plugin.errors import CheckpointError
from coronet_plugin.training import host
from coronet_plugin.training.host import HostModel

_NETWORK_FILE = re.compile(r"(.+_net_)(.+)(\.pth|\.safetensors)")


def start_from(model: HostModel, compressions: Mapping[str, Compression], path: str) -> None:
    """Load dense weights into ``model``'s networks, in place; what is compressed computes just the same.

    ``path``: a weight file, or the folder of a run, whose latest weights are taken. Networks that
    are not compressed (discriminators) begin with theirs if those lie beside and fit.

    Raises:
        CheckpointError: a file of a compressed network is missing or does not fit.
    """
    for name, network in host.networks(model).items():
        file = _file_of(Path(path), name, alone=len(compressions) == 1)
        if name in compressions:
            network.load_state_dict(_weights(file, network))
            compressions[name].adopt_weights_()
            say(f"coronet: net{name} begins with {file}")
    others_from(model, tuple(compressions), Path(path))


def others_from(model: HostModel, generators: Collection[str], path: Path) -> None:
    """Load weights into all networks but the ``generators``, where they are there and fit.

    In place; ``path`` as for :func:`start_from`.
    """
    for name, network in host.networks(model).items():
        file = _file_of(path, name, alone=len(generators) == 1)
        if name in generators or file is None or not file.exists():
            continue
        try:
            network.load_state_dict(adapt_state_dict(read_state_dict(file), network))
        except CheckpointError as error:
            say(f"coronet: net{name} begins with new weights: {file}: {error}")
            continue
        say(f"coronet: net{name} begins with {file}")


def _file_of(path: Path, name: str, alone: bool) -> Path:
    if path.is_dir():
        return weight_file(path / f"latest_net_{name}.pth")
    match = _NETWORK_FILE.fullmatch(path.name)
    if match is None or (alone and name.startswith(host.GENERATOR_PREFIX)):
        return path
    return weight_file(path.with_name(f"{match[1]}{name}{match[3]}"))


def _weights(file: Path, network: Any) -> dict[str, Any]:
    try:
        return adapt_state_dict(read_state_dict(file), network)
    except CheckpointError as error:
        raise CheckpointError(f"--coronet_init_from {file}: {error}") from error
