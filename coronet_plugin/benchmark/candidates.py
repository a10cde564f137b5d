"""Ways to run a generator: a runtime, a number format, a number of threads; and all that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin.benchmark.entries import Entry
from coronet_plugin.errors import ExportError, OptionError
from coronet_plugin.export.normalisation import reference
from coronet_plugin.export.pictures import noise
from coronet_plugin.export.pipeline import example_for, load_converted, prepare
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import EAGER, TARGETS, ArrayModel, Target, target_named
from coronet_plugin.export.verify import difference, refuse_wrong

CALIBRATION_PICTURES = 4
"""Of noise: ranges do not change how long a call takes."""


@dataclass(frozen=True)
class Candidate:
    """``runtime``: ``torch`` or the name of an export target, with ``+PIECE`` for one more rewrite."""

    generator: str
    runtime: str
    dtype: str
    threads: int

    @property
    def label(self) -> str:
        return f"{self.runtime} {self.dtype}, {self.threads} thread{'s' * (self.threads > 1)}"


@dataclass(frozen=True)
class Ready:
    """Models to time, reasons why others cannot be, and exported files by (entry, runtime, dtype)."""

    models: dict[Candidate, ArrayModel]
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
    entries: Sequence[Entry],
    runtimes: Sequence[str],
    dtypes: Sequence[str],
    threads: Sequence[int],
    norm_mode: str,
    folder: Path,
) -> Ready:
    """Export every entry to every runtime and format, into ``folder``, and load it for all ``threads``.

    A combination that a runtime does not offer is left out; one that fails is kept with its reason.
    """
    ready = Ready({}, {}, {})
    for entry in entries:
        for runtime in runtimes:
            for dtype in _offered(runtime, dtypes):
                _prepare(entry, runtime, dtype, threads, norm_mode, folder, ready)
    return ready


def _offered(runtime: str, dtypes: Iterable[str]) -> list[str]:
    offered = ("fp32",) if runtime.split("+")[0] == EAGER else target_of(runtime).dtypes
    return [dtype for dtype in dtypes if dtype in offered]


def _prepare(
    entry: Entry,
    runtime: str,
    dtype: str,
    threads: Sequence[int],
    norm_mode: str,
    folder: Path,
    ready: Ready,
) -> None:
    wanted = [Candidate(entry.name, runtime, dtype, number) for number in threads]
    try:
        target = target_of(runtime)
        request = Request(
            target,
            dtype,
            entry.size,
            norm_mode=norm_mode,
            multiple=entry.multiple,
            quantization=ALL_LAYERS,
        )
        if runtime.split("+")[0] == EAGER:
            prepared, _ = prepare(entry.generator, request)
            ready.models.update({c: as_array_model(prepared, c.threads) for c in wanted})
            return
        request.check()
        path = folder / f"{len(ready.files)}_{target.name}_{dtype}{target.suffixes[0]}"
        example = example_for(entry.generator, entry.size).numpy()
        calibration = noise(CALIBRATION_PICTURES, example.shape[1], entry.size)
        models = load_converted(entry.generator, request, path, threads, calibration)
        ready.files[entry.name, runtime, dtype] = path
        expected = as_array_model(reference(entry.generator, norm_mode).cpu().float())
        for candidate, model in zip(wanted, models):
            refuse_wrong(difference(model, expected, example), dtype)
            ready.models[candidate] = model
    except (OptionError, ExportError) as error:
        ready.failures.update({each: str(error) for each in wanted if each not in ready.models})


ALL_LAYERS = {"max_drop": 0.999}
"""int8 for timing: no layer stays in floats, whatever it loses. What it loses, ``coronet export`` tells."""
