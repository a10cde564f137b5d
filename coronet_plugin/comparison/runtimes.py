"""How long generators take in the runtimes that are installed, and in eager PyTorch: all of them in turn.

A generator is converted as ``coronet export`` does it, in fp32, into a temporary folder, and timed there.
Which runtimes there are is :data:`coronet_plugin.export.targets.TARGETS`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from coronet_plugin.command import NORM_MODE
from coronet_plugin.errors import OptionError, describe
from coronet_plugin.export.normalisation import reference
from coronet_plugin.export.pipeline import load_converted, load_eager
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.request import Request
from coronet_plugin.export.silence import silenced
from coronet_plugin.export.targets import EAGER, TARGETS, Target
from coronet_plugin.export.verify import difference, refuse_wrong
from coronet_plugin.measure.timing import WARMUP, Timing, time_in_turn
from coronet_plugin.versions import versions

ALL = "all"


@dataclass(frozen=True)
class Speed:
    """How long one inference takes in ``runtime``, given with its version; ``input_size``: (N, C, H, W)."""

    runtime: str
    threads: int
    input_size: tuple[int, ...]
    timing: Timing

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warmup": WARMUP}


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
    foreign = {package_of(target): target for target in TARGETS.values() if target.module != "pytorch"}
    by_name = {**foreign, **{target.name: target for target in foreign.values()}}
    chosen: dict[str, Target] = {}
    for name in names:
        if name == ALL:
            chosen |= {key: t for key, t in foreign.items() if not t.missing and not t.why_not_run()}
        elif name in by_name:
            by_name[name].require()
            chosen[package_of(by_name[name])] = by_name[name]
        elif name != EAGER:
            known = ", ".join((ALL, EAGER, *foreign))
            raise OptionError(f"--runtimes {name} is not known; choose from {known}")
    return tuple(chosen.values())


def package_of(target: Target) -> str:
    """The distribution that runs its files: the runtime's name for people."""
    return next(iter((target.runs_with or target.converts_with).values()))


def time_generators(
    target: Target | None,
    generators: Mapping[str, nn.Module],
    example: Tensor,
    threads: int = 1,
    rounds: int = 30,
    norm_mode: str = NORM_MODE,
) -> dict[str, Speed | Failure]:
    """Time ``generators``, which are not changed, on ``example`` (1, C, H, W), taking turns.

    ``target``: the runtime; None for eager PyTorch. Gives something for every generator.
    """
    version = _version(target)
    calls: dict[str, Callable[[], Any]] = {}
    found: dict[str, Speed | Failure] = {}
    with silenced() if target else contextlib.nullcontext(), tempfile.TemporaryDirectory() as folder:
        for number, (name, generator) in enumerate(generators.items()):
            try:
                calls[name] = _prepare(
                    target, generator, example.numpy(), Path(folder) / str(number), threads, norm_mode
                )
            except Exception as error:  # each runtime has its own
                found[name] = Failure(version, describe(error))
        for name, times in time_in_turn(calls, rounds).items():
            found[name] = Speed(version, threads, tuple(example.shape), times.wall)
    return found


def _prepare(
    target: Target | None, generator: nn.Module, values: np.ndarray, path: Path, threads: int, norm_mode: str
) -> Callable[[], Any]:
    """A call of ``generator`` that was tried once. Raises ExportError where an export's output is wrong."""
    if target is None:
        model = load_eager(generator, norm_mode, threads)
    else:
        request = Request(target, size=values.shape[2:], norm_mode=norm_mode)  # type: ignore[arg-type]
        file = path.with_name(path.name + target.suffixes[0])
        model = load_converted(generator, request, file, [threads])[0]
        expected = as_array_model(reference(generator, norm_mode).cpu().float())
        refuse_wrong(difference(model, expected, values), request.dtype)
    model(values)
    return partial(model, values)


def _version(target: Target | None) -> str:
    if target is None:
        return f"{EAGER} {versions()['torch']}"
    package = package_of(target)
    return f"{package} {target.versions()[package]}"
