"""The numbers of several runs side by side: cost, size, memory, speed, quality and training time.

Every run is measured the same way, on inputs of the first run's size and in turn with the others, so
that what differs is the run. What could not be measured is None; no figure is taken over from
another place. Which rows they make and how they are shown is for others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.find import cost_of
from coronet_plugin.checkpoint.spec import COMPACT
from coronet_plugin.command import NORM_MODE
from coronet_plugin.comparison.runtimes import Failure, Speed, time_generators
from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.cache import Say
from coronet_plugin.evaluation.evaluate import Evaluation, evaluate_run
from coronet_plugin.evaluation.paired import PairedMetrics
from coronet_plugin.evaluation.protocols import silent
from coronet_plugin.export.normalisation import normalised
from coronet_plugin.export.targets import EAGER, Target
from coronet_plugin.measure.memory import PeakMemory, peak_memory
from coronet_plugin.runs.run import Run, Translation
from coronet_plugin.training import provenance

if TYPE_CHECKING:
    from coronet_plugin.evaluation.features import FeatureExtractor
    from coronet_plugin.evaluation.perceptual import Perceptual


@dataclass(frozen=True)
class Measuring:
    """How runs are measured.

    ``threads`` and ``repeats``: of the latency. ``norm_mode``: how norms compute, see
    :data:`~coronet_plugin.export.normalisation.NORM_MODES`. ``runtimes``: to time in, beside eager PyTorch.
    ``memory``: whether to measure the peak. ``extractor``: of FID and KID, by ``protocol``; without one there
    are none. ``lpips``: what measures it, if anything. ``dataroot``: where the real pictures are, if not
    where the run found them. ``cache_dir``: of features. ``say``: is told what takes long.
    """

    threads: int = 1
    repeats: int = 30
    runtimes: tuple[Target, ...] = ()
    norm_mode: str = NORM_MODE
    memory: bool = True
    protocol: str = "test"
    extractor: FeatureExtractor | None = None
    lpips: Perceptual | None = None
    dataroot: Path | None = None
    cache_dir: Path | None = None
    say: Say = silent


DEFAULT = Measuring()


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
    speeds: tuple[Speed | Failure, ...]
    evaluation: Evaluation | None
    training_seconds: float | None
    training_memory: int | None = None
    """Of the training at its highest point; it and the seconds include a teacher's training."""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes it was timed in, without versions."""
        return tuple(speed.runtime.split()[0] for speed in self.speeds)

    def latency_in(self, runtime: str) -> Speed | None:
        """The time in ``runtime``, or None if it was not timed or failed there."""
        found = dict(zip(self.runtimes, self.speeds)).get(runtime)
        return found if isinstance(found, Speed) else None

    @property
    def latency(self) -> Speed | None:
        """The time in eager PyTorch."""
        return self.latency_in(EAGER)

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
    net: nn.Module | None,
    example: Tensor,
    speeds: tuple[Speed | Failure, ...] = (),
    evaluation: Evaluation | None = None,
    memory: bool = True,
    threads: int = 1,
) -> Measurement:
    """Everything about one generator of a run, for the input ``example`` (1, C, H, W).

    ``net``: the generator, or None if it cannot be rebuilt.
    """
    spent = provenance.spent(run.folder)
    return Measurement(
        run=run.name,
        generator=translation.generator,
        cost=cost_of(net, example) if net is not None else None,
        file_bytes=run.weights[translation.generator].stat().st_size,
        memory=peak_memory(net, example, threads) if memory and net is not None else None,
        speeds=speeds,
        evaluation=evaluation,
        training_seconds=spent.seconds,
        training_memory=spent.gpu_memory or spent.memory,
    )


def in_order(runs: Sequence[Run]) -> tuple[Run, ...]:
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
    """True if its generators have their full size: dense runs, and those with a budget of 1."""
    return all(
        spec.phase == COMPACT and spec.slim["macs"] == spec.dense["macs"] for spec in run.specs.values()
    )


def evaluate_all(runs: Sequence[Run], measuring: Measuring = DEFAULT) -> dict[tuple[str, str], Evaluation]:
    """Quality of every generator by (run, generator): read again where nothing changed, else measured.

    Raises DataError if test pictures are missing or damaged.
    """
    found = {}
    for run in runs:
        measuring.say(f"quality of {run.name} ...")
        for evaluation in evaluate_run(
            run,
            protocol=measuring.protocol,
            extractor=measuring.extractor,
            lpips=measuring.lpips,
            cache_dir=measuring.cache_dir,
            dataroot=measuring.dataroot,
            say=measuring.say,
        ):
            found[run.name, evaluation.generator] = evaluation
    return found


def measure_all(
    runs: Sequence[Run], measuring: Measuring = DEFAULT
) -> dict[Translation, tuple[Measurement, ...]]:
    """Measurements of all ``runs`` (see :func:`in_order`) by translation, in the order of the runs.

    Raises:
        CheckpointError: weights cannot be loaded.
        DataError: test pictures are missing or damaged.
    """
    quality = evaluate_all(runs, measuring)
    return {each: _columns(runs, each, quality, measuring) for each in runs[0].translations}


def _columns(
    runs: Sequence[Run],
    translation: Translation,
    quality: Mapping[tuple[str, str], Evaluation],
    measuring: Measuring,
) -> tuple[Measurement, ...]:
    name = translation.generator
    measuring.say(f"cost and speed of {name} ...")
    nets = {
        run.name: normalised(run.load_generator(name), measuring.norm_mode)
        for run in runs
        if run.can_rebuild(name)
    }
    noise = torch.Generator().manual_seed(0)
    example = torch.rand((1, *runs[0].input_size(name)), generator=noise) * 2 - 1
    by_runtime = [
        time_generators(target, nets, example, measuring.threads, measuring.repeats, measuring.norm_mode)
        for target in (None, *measuring.runtimes)
    ]
    return tuple(
        measure(
            run,
            translation,
            nets.get(run.name),
            example,
            tuple(found[run.name] for found in by_runtime if run.name in found),
            quality.get((run.name, name)),
            measuring.memory,
            measuring.threads,
        )
        for run in runs
    )


def _outputs(run: Run) -> str:
    return ", ".join(
        f"{t.generator}: {t.source} -> {t.output}{'' if t.truth else ' without truth'}"
        for t in run.translations
    )
