"""Versions of the software that figures and files were made with."""

from __future__ import annotations

import platform
from importlib import metadata

import torch

from coronet_plugin._version import __version__

OLD_TORCH = torch.__version__ < "2.6"
"""Seen with 2.1, whose torch.compile knows neither hooks of optimizers nor parameters that are replaced."""


def versions(*packages: str) -> dict[str, str]:
    """Of this package, Python and torch, and of those ``packages`` (distributions) that are installed."""
    found = {"coronet_plugin": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return {**found, **{name: version for name in packages if (version := version_of(name))}}


def version_of(package: str) -> str:
    """Of a distribution; nothing if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
