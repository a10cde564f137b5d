"""Families of generators, and the networks of those that the package has.

To teach the package a family, register it (docs/families.md); a module of this folder that does is imported
here.
"""

from __future__ import annotations

from coronet_plugin.generators import blurred, resnet, unet  # noqa: F401  (they register themselves)
from coronet_plugin.generators.registry import Family, Standalone, family

__all__ = ["Family", "Standalone", "family"]
