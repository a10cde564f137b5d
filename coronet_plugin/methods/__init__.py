"""Ways from all channels of a generator to those its budget allows: one module a method.

:mod:`~coronet_plugin.methods.gates` is the default. What a method is made of is in
:mod:`~coronet_plugin.methods.base`, what it may take part in is in :mod:`~coronet_plugin.methods.events`;
how one is added stands in docs/methods.md.
"""

from __future__ import annotations

# isort: off
from coronet_plugin.methods import (
    gates,
    implicit,
    gated,
    published,
    uniform,
    random,
    magnitude,
    taylor,
    diff_pruning,
    slimming,
    distill,
    gan_compression,
    manifold,
)

# isort: on
from coronet_plugin.methods.base import Method, Sample, Task
from coronet_plugin.methods.distillation import Distillation
from coronet_plugin.methods.events import Events
from coronet_plugin.methods.registry import configure, find, method, names
from coronet_plugin.methods.similarity import Terms
from coronet_plugin.settings import setting

__all__ = [
    "Distillation",
    "Events",
    "Method",
    "Sample",
    "Task",
    "Terms",
    "configure",
    "diff_pruning",
    "distill",
    "find",
    "gan_compression",
    "gated",
    "gates",
    "implicit",
    "magnitude",
    "manifold",
    "method",
    "names",
    "published",
    "random",
    "setting",
    "slimming",
    "taylor",
    "uniform",
]
