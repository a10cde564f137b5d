"""The numbers of several runs side by side: cost, size, memory, speed, quality and training time.

Every run is measured the same way, on inputs of the first run's size, so that what
differs is the run. What could not be measured is None; no figure is taken over from
another place. Which rows they make and how they are shown is for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.find import cost_of
from coronet_plugin.checkpoint.spec import COMPACT
from coronet_plugin.comparison.runtimes import TORCH, Failure, speed_in
from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.evaluate import Evaluation, evaluate_run
from coronet_plugin.evaluation.paired import PairedMetrics
from coronet_plugin.measure.latency import Latency, latency
from coronet_plugin.measure.memory import PeakMemory, peak_memory
from coronet_plugin.runs.run import Run, Translation

if TYPE_CHECKING:
    from coronet_plugin.evaluation.features import FeatureExtractor
    from coronet_plugin.evaluation.perceptual import Perceptual
    from coronet_plugin.export.targets import Target


def silent(_: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Settings:
    """How runs are measured.

    ``threads`` and ``repeats``: of the latency. ``runtimes``: to time in, beside eager PyTorch. ``memory``:
    whether to measure the peak. ``extractor``: of FID and KID, by ``protocol``; without one there are none.
    ``lpips``: what measures it, if anything. ``dataroot``: where the real pictures are, if not where the run
    found them. ``cache_dir``: of features. ``say``: is told what takes long.
    """

    threads: int = 1
    repeats: int = 30
    runtimes: tuple[Target, ...] = ()
    memory: bool = True
    protocol: str = "test"
    extractor: FeatureExtractor | None = None
    lpips: Perceptual | None = None
    dataroot: Path | None = None
    cache_dir: Path | None = None
    say: Callable[[str], Any] = silent


DEFAULT = Settings()


@dataclass(frozen=True)
class Measurement:
    """One generator of one run. Units: bytes, seconds, and those of the classes named.

    ``speeds``: in eager PyTorch first, then in other runtimes.
    """

    run: str
    generator: str
    cost: Cost | None
    file_bytes: int
    memory: PeakMemory | None
    speeds: tuple[Latency | Failure, ...]
    evaluation: Evaluation | None
    training_seconds: float | None

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What it was timed in, without versions."""
        return tuple(speed.runtime.split()[0] for speed in self.speeds)

    def latency_in(self, runtime: str) -> Latency | None:
        """The time in ``runtime``, or None if it was not timed or failed there."""
        found = dict(zip(self.runtimes, self.speeds)).get(runtime)
        return found if isinstance(found, Latency) else None

    @property
    def latency(self) -> Latency | None:
        """The time in eager PyTorch."""
        return self.latency_in(TORCH)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Runtimes that could not run it."""
        return tuple(speed for speed in self.speeds if isinstance(speed, Failure))

    @property
    def quality(self) -> PairedMetrics | None:
        """Likeness to the truth, where there is one."""
        return self.evaluation.paired if self.evaluation else None


def measure(
    run: Run,
    translation: Translation,
    size: tuple[int, int, int],
    evaluation: Evaluation | None = None,
    settings: Settings = DEFAULT,
) -> Measurement:
    """Everything about one generator of a run, for one input of ``size`` (C, H, W).

    Raises CheckpointError if the weights cannot be loaded.
    """
    cost: Cost | None = None
    memory: PeakMemory | None = None
    speeds: tuple[Latency | Failure, ...] = ()
    if run.can_rebuild(translation.generator):
        net = run.load_generator(translation.generator)
        noise = torch.Generator().manual_seed(0)
        example = torch.rand((1, *size), generator=noise) * 2 - 1
        cost, speeds = cost_of(net, example), _speeds(net, example, settings)
        memory = peak_memory(net, example, settings.threads) if settings.memory else None
    return Measurement(
        run=run.name,
        generator=translation.generator,
        cost=cost,
        file_bytes=run.weights[translation.generator].stat().st_size,
        memory=memory,
        speeds=speeds,
        evaluation=evaluation,
        training_seconds=run.training_seconds,
    )


def _speeds(net: torch.nn.Module, example: torch.Tensor, settings: Settings) -> tuple[Latency | Failure, ...]:
    how = {"threads": settings.threads, "repeats": settings.repeats}
    others = (speed_in(target, net, example, **how) for target in settings.runtimes)
    return (latency(net, example, **how), *others)


def comparable(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs in the order to show them: dense ones first, else as given.

    Raises DataError if there are none, a name comes twice, or they translate between different things.
    """
    if not runs:
        raise DataError("there are no runs to compare; name at least one")
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"run {twice[0]!r} is named twice")
    ordered = tuple(sorted(runs, key=lambda run: not is_full(run)))
    for run in ordered[1:]:
        if run.translations != ordered[0].translations:
            raise DataError(
                f"{run.name} and {ordered[0].name} cannot be compared: one has {_outputs(run)}, "
                f"the other {_outputs(ordered[0])}; compare runs of the same kind of model and data"
            )
    return ordered


def is_full(run: Run) -> bool:
    """Whether its generators have their full size: dense runs, and those with a budget of 1."""
    return all(
        spec.phase == COMPACT and spec.slim["macs"] == spec.dense["macs"] for spec in run.specs.values()
    )


def evaluated(runs: Sequence[Run], settings: Settings = DEFAULT) -> dict[tuple[str, str], Evaluation]:
    """Quality of every generator by (run, generator): read again where nothing changed, else measured.

    Raises DataError if test pictures are missing or damaged.
    """
    found = {}
    for run in runs:
        settings.say(f"quality of {run.name} ...")
        for evaluation in evaluate_run(
            run,
            protocol=settings.protocol,
            extractor=settings.extractor,
            lpips=settings.lpips,
            cache_dir=settings.cache_dir,
            dataroot=settings.dataroot,
            say=settings.say,
        ):
            found[run.name, evaluation.generator] = evaluation
    return found


def measure_all(
    runs: Sequence[Run], settings: Settings = DEFAULT
) -> dict[Translation, tuple[Measurement, ...]]:
    """Measurements of all ``runs`` (see :func:`comparable`) by translation, in the order of the runs."""
    quality = evaluated(runs, settings)

    def column(run: Run, translation: Translation) -> Measurement:
        settings.say(f"cost and speed of {run.name} {translation.generator} ...")
        size = runs[0].input_size(translation.generator)
        return measure(run, translation, size, quality.get((run.name, translation.generator)), settings)

    return {t: tuple(column(run, t) for run in runs) for t in runs[0].translations}


def _outputs(run: Run) -> str:
    return ", ".join(
        f"{t.generator}: {t.source} -> {t.output}{'' if t.truth else ' without truth'}"
        for t in run.translations
    )
