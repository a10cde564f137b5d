"""How long generators take in the runtimes that are installed, beside eager PyTorch.

A generator is converted as ``coronet export`` does it, in fp32 and in evaluation mode, into a temporary
folder, and timed there. Which runtimes there are is :data:`coronet_plugin.export.targets.TARGETS`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.measure.latency import Latency, timed

if TYPE_CHECKING:
    from coronet_plugin.export.targets import Target

TORCH = "torch"
ALL = "all"


@dataclass(frozen=True)
class Failure:
    """A runtime that could not run a generator, and why, in one line."""

    runtime: str
    reason: str


def choose(names: Iterable[str] = (ALL,)) -> tuple[Target, ...]:
    """The runtimes ``names`` beside PyTorch, by ``torch``, their package or the name ``coronet export`` has.

    ``all``: those that are installed and run on this machine. Raises OptionError for a name that is not
    known or not installed.
    """
    from coronet_plugin.export.targets import TARGETS

    foreign = {package_of(target): target for target in TARGETS.values() if target.module != "pytorch"}
    by_name = {**foreign, **{target.name: target for target in foreign.values()}}
    chosen: dict[str, Target] = {}
    for name in names:
        if name == ALL:
            chosen |= {key: t for key, t in foreign.items() if not t.missing and not t.why_not_run()}
        elif name in by_name:
            by_name[name].require()
            chosen[package_of(by_name[name])] = by_name[name]
        elif name != TORCH:
            known = ", ".join((ALL, TORCH, *foreign))
            raise OptionError(f"--runtimes {name} is not known; choose from {known}")
    return tuple(chosen.values())


def package_of(target: Target) -> str:
    """The distribution that runs its files: the runtime's name for people."""
    return next(iter((target.runs_with or target.converts_with).values()))


def speed_in(
    target: Target, generator: nn.Module, example: Tensor, *, threads: int = 1, repeats: int = 30
) -> Latency | Failure:
    """Time ``generator``, which is not changed, on ``example`` (1, C, H, W) in a runtime."""
    from coronet_plugin.export.pipeline import Request, prepare
    from coronet_plugin.export.silence import silenced
    from coronet_plugin.export.targets import Job

    package = package_of(target)
    version = f"{package} {target.versions()[package]}"
    request = Request(target, size=(example.shape[2], example.shape[3]), norm_mode="running")
    try:
        with silenced(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"generator{target.suffixes[0]}"
            prepared, _ = prepare(generator, request)
            target.convert(Job(prepared, example), path)
            run = target.load(path, threads)
            function = partial(run, example.numpy())
            return timed(function, version, tuple(example.shape), threads=threads, repeats=repeats)
    except UserError as error:
        return Failure(version, str(error))
