"""Ways to run a generator: a runtime, a number format, a number of threads; and all that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from coronet_plugin.benchmark.subjects import Subject
from coronet_plugin.errors import ExportError, OptionError
from coronet_plugin.export.normalisation import reference
from coronet_plugin.export.pictures import Pictures, noise
from coronet_plugin.export.pipeline import Request, convert, prepare
from coronet_plugin.export.targets import TARGETS, Runner, Target, target_named
from coronet_plugin.export.verify import TOLERANCES, Difference, difference, torch_runner
from coronet_plugin.measure.machine import instruction_set

EAGER = "torch"
"""The generator as a module, in eager PyTorch: no export."""
CALIBRATION_PICTURES = 4


@dataclass(frozen=True)
class Candidate:
    """``runtime``: ``torch`` or the name of an export target, with ``+PIECE`` for one more rewrite."""

    subject: str
    runtime: str
    dtype: str
    threads: int

    @property
    def label(self) -> str:
        return f"{self.runtime} {self.dtype}, {self.threads} thread{'s' * (self.threads > 1)}"


@dataclass(frozen=True)
class Ready:
    """What can be timed, what cannot with the reason, and the exported files by (subject, runtime, dtype)."""

    runners: dict[Candidate, Runner]
    failures: dict[Candidate, str]
    files: dict[tuple[str, str, str], Path]


def target_of(runtime: str) -> Target:
    """The export target of a runtime, with rewrites named after ``+`` done first.

    Raises:
        OptionError: there is no such runtime or rewrite.
    """
    name, *pieces = runtime.split("+")
    if name != EAGER and name not in TARGETS:
        raise OptionError(f"--runtimes {runtime}: choose from {EAGER}, {', '.join(TARGETS)}")
    return target_named("torchscript" if name == EAGER else name).with_rewrites(pieces)


def prepare_all(
    subjects: Sequence[Subject],
    runtimes: Sequence[str],
    dtypes: Sequence[str],
    threads: Sequence[int],
    norm_mode: str,
    folder: Path,
) -> Ready:
    """Export every subject to every runtime and format, into ``folder``, and load it for all ``threads``.

    A combination that a runtime does not offer is left out; one that fails is kept with its reason.
    """
    ready = Ready({}, {}, {})
    for subject in subjects:
        for runtime in runtimes:
            for dtype in _offered(runtime, dtypes):
                _prepare(subject, runtime, dtype, threads, norm_mode, folder, ready)
    return ready


def _offered(runtime: str, dtypes: Iterable[str]) -> list[str]:
    offered = ("fp32",) if runtime.split("+")[0] == EAGER else target_of(runtime).dtypes
    return [dtype for dtype in dtypes if dtype in offered]


def _prepare(
    subject: Subject,
    runtime: str,
    dtype: str,
    threads: Sequence[int],
    norm_mode: str,
    folder: Path,
    ready: Ready,
) -> None:
    wanted = [Candidate(subject.name, runtime, dtype, number) for number in threads]
    try:
        target = target_of(runtime)
        request = Request(
            target,
            dtype,
            subject.size,
            norm_mode=norm_mode,
            multiple=subject.multiple,
            quantization=ALL_LAYERS,
        )
        prepared, example = prepare(subject.generator, request)
        if runtime.split("+")[0] == EAGER:
            for candidate in wanted:
                ready.runners[candidate] = eager(prepared, candidate.threads)
            return
        request.check()
        stem = f"{len(ready.files)}_{target.name}_{dtype}"
        path = folder / f"{stem}{target.suffixes[0]}"
        convert(request, prepared, example, path, _calibration(example.shape[1], subject.size))
        ready.files[subject.name, runtime, dtype] = path
        expected = torch_runner(reference(subject.generator, norm_mode).cpu().float())
        for candidate in wanted:
            run = target.load(path, candidate.threads)
            refuse_wrong(difference(run, expected, example.numpy()), dtype)
            ready.runners[candidate] = run
    except (OptionError, ExportError) as error:
        ready.failures.update(
            {candidate: str(error) for candidate in wanted if candidate not in ready.runners}
        )


def refuse_wrong(found: Difference, dtype: str) -> None:
    """Raises ExportError for what ``coronet export`` would reject: a wrong output has no speed."""
    if not found.within(TOLERANCES[dtype]):
        raise ExportError(
            f"its output is wrong on this CPU ({instruction_set()}), so it is not timed: "
            f"on average {found.mean:.2g} off, SSIM {found.ssim:.3f}"
        )


ALL_LAYERS = {"max_drop": 0.999}
"""int8 for timing: no layer stays in floats, whatever it loses. What it loses, ``coronet export`` tells."""


def _calibration(channels: int, size: tuple[int, int]) -> Pictures:
    """Ranges do not change how long a call takes."""
    return noise(CALIBRATION_PICTURES, channels, size)


def eager(generator: nn.Module, threads: int) -> Runner:
    """``generator`` as a function of arrays on ``threads`` threads, which it sets at every call."""

    def run(values: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.no_grad():
            output: np.ndarray = generator(torch.from_numpy(values)).numpy()
            return output

    return run
