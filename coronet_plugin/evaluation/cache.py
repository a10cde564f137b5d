"""Results computed from a set of pictures, kept for the next time under a fingerprint of their contents.

A changed, added or missing picture, another way to read them or another extractor gives another fingerprint,
so nothing here is ever stale; files may be deleted at any time.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.evaluation.features import FeatureExtractor
from coronet_plugin.evaluation.pictures import Pictures
from coronet_plugin.files import reason, write_atomically

Arrays = Mapping[str, np.ndarray]
Say = Callable[[str], Any]


def default_folder() -> Path:
    """``coronet-plugin`` in the user's cache folder (``XDG_CACHE_HOME``, by default ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coronet-plugin"


def features_of(pictures: Pictures, extractor: FeatureExtractor, folder: Path, say: Say) -> np.ndarray:
    """(N, D) features of ``pictures``, from ``folder`` if they were computed before."""

    def compute() -> Arrays:
        say(f"features of {len(pictures)} {pictures.name} ...")
        return {"features": np.asarray(extractor(pictures))}

    name = f"features-{pictures.fingerprint[:32]}-{extractor.fingerprint[:32]}.npz"
    return cached(folder / name, compute)["features"]


def cached(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays of ``path``; computed and written if it is not there or damaged.

    Raises:
        OptionError: the folder cannot be made or written.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: _write(temporary, arrays))
    except OSError as error:
        raise OptionError(f"--cache_dir {path.parent} cannot be made: {reason(error)}") from error
    except CheckpointError as error:
        raise OptionError(f"--cache_dir: {error}") from error
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:  # by its name, numpy would append .npz
        np.savez(file, allow_pickle=False, **dict(arrays))
