"""GAN Compression: a teacher, one network of all widths, and the best widths on pictures held out.

Li et al., CVPR 2020, arXiv 2003.08936, and its *Fast* pipeline; docs/method.md says where this form differs.
A search has up to three stages, whose lengths are parts of it:

``teach``    the dense generator is trained by itself; left out where a trained teacher is given
``distill``  the widest student of the space learns from it; of the pipeline ``full`` alone
``supernet`` in every step a student of random widths does; all share the first channels of every layer

Then widths are chosen by the error on training pictures that were held out, among those within the budget.
Fine-tuning is what the training does after the search, with the same teacher.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from coronet_plugin.budget.goal import Goal
from coronet_plugin.channels.cut import copy_with, narrowed, on_device
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.distributed import agreed, say
from coronet_plugin.errors import BudgetError, OptionError
from coronet_plugin.methods.base import Method, Sample, Task
from coronet_plugin.methods.distillation import Distillation
from coronet_plugin.methods.events import Events
from coronet_plugin.methods.registry import method
from coronet_plugin.methods.similarity import Terms
from coronet_plugin.methods.teacher import check_alike, teacher_part_setting, teacher_setting
from coronet_plugin.methods.width_space import SPACES as PUBLISHED_SPACES
from coronet_plugin.methods.width_space import (
    Evolution,
    Space,
    Widths,
    best_widths,
    fractions_of,
    ranks_by_l1,
)
from coronet_plugin.settings import setting

TEACH, DISTILL, SUPERNET = "teach", "distill", "supernet"

PIX2PIX, CYCLE_GAN = "pix2pix", "cycle_gan"
FAST, FULL = "fast", "full"
PUBLISHED: dict[str, dict[str, Any]] = {
    PIX2PIX: {
        "lambda_distill": 1.0,
        "lambda_recon": 0.0,  # the host's own loss, of weight 100, has the ground truth
        "finetune_part": 1.0,
        "search_mutation": 0.3,
    },
    CYCLE_GAN: {
        "lambda_distill": 0.01,
        "lambda_recon": 10.0,
        "finetune_part": 0.0,
        "search_mutation": 0.4,
    },
    FAST: {"distill_part": 0.0},
    FULL: {"distill_part": 1.0},
}
"""Settings by task and by pipeline."""
SPACES = {
    (FAST, PIX2PIX): "channels-64-pix2pix",
    (FAST, CYCLE_GAN): "channels-64-cycleGAN",
    (FULL, PIX2PIX): "channels-48",
    (FULL, CYCLE_GAN): "channels-32",
}


@method("gan_compression", "a teacher, a network of all widths, the best on held-out pictures")
class GanCompression(Method):
    """Teacher, students of all widths, selection; see the module's text.

    ``teacher``: a module to learn from, set before the method begins; without one the dense generator is
    trained first. ``held_out`` must be set, too.

    Raises:
        OptionError: a setting cannot be used, or several generators share a budget.
        BudgetError: the narrowest student of the space is above the budget.
    """

    @dataclass(frozen=True)
    class Config:
        """GAN Compression's settings; what is None is as published for the task and the pipeline."""

        task: str = setting(
            PIX2PIX,
            "whose published settings hold where none is given; CycleGAN's also leaves cycle and identity "
            "losses out while students learn (in a host: by --dataset_mode)",
            choices=(PIX2PIX, CYCLE_GAN),
        )
        pipeline: str = setting(
            FAST,
            "'fast' trains students of all widths from scratch; 'full' begins with the teacher's largest "
            "channels and trains the widest student first",
            choices=(FAST, FULL),
        )
        teacher: str = teacher_setting()
        taps: str = setting(
            "",
            "names of the modules whose outputs are compared with the teacher's, separated by commas, such "
            "as model.9,model.12 (default: the family's, else where the widest stream is written)",
        )
        lambda_distill: float | None = setting(
            None,
            "weight of the features' squared distance; None is 1 for pix2pix, 0.01 for CycleGAN",
            type=float,
        )
        lambda_recon: float | None = setting(
            None,
            "weight of the L1 distance to the teacher's output; None is 0 for pix2pix, whose own loss has "
            "the ground truth, and 10 for CycleGAN",
            type=float,
        )
        space: str | None = setting(
            None,
            "widths to choose from: a published space (" + ", ".join(PUBLISHED_SPACES) + ") or fractions of "
            "the dense width such as 1,0.5,0.25; None is the published one",
            type=str,
        )
        teacher_part: float = teacher_part_setting()
        distill_part: float | None = setting(
            None,
            "share of the training for the widest student alone; None is 1 if 'full', else 0",
            type=float,
        )
        supernet_part: float = setting(2.0, "share of the training for students of random widths")
        finetune_part: float | None = setting(
            None,
            "share of the training after the search, unless --coronet_search_epochs says it; None is 1 for "
            "pix2pix and 0 for CycleGAN",
            type=float,
        )
        holdout: float = setting(0.1, "fraction of the training pictures to choose widths by, not trained on")
        search_whole: int = setting(10_000, "try all widths of a space that has at most so many")
        search_generations: int = setting(500, "generations of the evolution in a larger space")
        search_population: int = setting(100, "members of a generation")
        search_parents: float = setting(0.25, "fraction of a generation that the next is made of")
        search_mutation: float | None = setting(
            None, "chance of a width to be drawn anew; None is 0.3 for pix2pix, 0.4 for CycleGAN", type=float
        )
        search_weight: float = setting(
            2.0, "how many times as often as the widest the narrowest is drawn at first"
        )

        def __post_init__(self) -> None:
            published = {**PUBLISHED[self.task], **PUBLISHED[self.pipeline]}
            for name, value in {**published, "space": SPACES[self.pipeline, self.task]}.items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)
            _check(self)

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        goal = self.goal.goal
        if len(goal.shares) > 1:
            raise OptionError(
                "gan_compression chooses the widths of each generator by itself; drop --coronet_shared_budget"
            )
        self.space = _space(goal, config)
        self.rank = np.concatenate([np.arange(s.units) for s in self.plan.prunable] or [np.arange(0)])
        """Place of every unit in its set; students have the first ones."""
        self.seed = agreed(torch.initial_seed() % 2**32)
        terms = Terms(features=config.lambda_distill, output=config.lambda_recon)
        taps = [name.strip() for name in config.taps.split(",") if name.strip()]
        self.distillation = Distillation(None, terms, taps)
        self._began = False
        self._initial: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    @classmethod
    def search_share(cls, config: Any) -> float:
        before = config.teacher_part * (not config.teacher) + config.distill_part + config.supernet_part
        return float(before / (before + config.finetune_part))

    def companions(self) -> list[Events]:
        return [self.distillation]

    # -- stages ----------------------------------------------------------
    def stage(self, step: int) -> str:
        """Phase that step number ``step`` (from 1) belongs to."""
        config = self.config
        parts = {TEACH: config.teacher_part, DISTILL: config.distill_part, SUPERNET: config.supernet_part}
        if self.teacher is not None:
            parts[TEACH] = 0.0
        end, total = 0.0, sum(parts.values())
        for name, part in parts.items():
            end += part
            if step <= round(self.steps * end / total):
                return name
        return SUPERNET

    def one_way(self, step: int) -> bool:
        return bool(self.config.task == CYCLE_GAN and self.stage(step) != TEACH)

    def before_step(self, step: int) -> None:
        if self._began:
            return
        if self.stage(step) == TEACH:
            if not self._initial:
                self._initial = {name: x.detach().clone() for name, x in self.generator.state_dict().items()}
            return
        self._began = True
        self._begin_students()

    def _begin_students(self) -> None:
        """Let what was trained so far be the teacher, and begin with a student's weights."""
        if self.teacher is None:
            self.distillation.teach_(copy_with(self.generator))
        if self.config.pipeline == FULL:
            self._take_over(self.teacher or self.generator)
        elif self._initial:
            self.generator.load_state_dict(self._initial)
        self._initial = {}
        if self._optimizer is not None:
            for parameter in self.generator.parameters():
                self._optimizer.state.pop(parameter, None)

    def _take_over(self, teacher: nn.Module) -> None:
        self.generator.load_state_dict(teacher.state_dict())
        self.rank = ranks_by_l1(self.generator, self.plan, self.space)

    # -- students --------------------------------------------------------
    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        if not self.held_out:
            raise OptionError(
                "gan_compression chooses widths by pictures that are not trained on; give some before "
                "attach(): compression.method.held_out = [Sample((x,), y), ...]"
            )
        self._optimizer = optimizer
        if self.teacher is not None:
            self.distillation.learn_from(self.teacher)
            if self.config.pipeline == FULL:
                check_alike(self.teacher, self.generator, "--coronet_pipeline full begins with")

    def runs_with(self, step: int) -> np.ndarray | None:
        self.distillation.alive = None
        if self.stage(step) != TEACH:
            self.distillation.alive = self._alive(self.widths(step))
        return self.distillation.alive

    def finish(self) -> None:
        self.distillation.alive = None

    def widths(self, step: int) -> Widths:
        """Of the student of step number ``step``; the same however often one asks."""
        if self.stage(step) == DISTILL:
            return self.space.largest
        return self.space.draw(np.random.default_rng((self.seed, step)))

    def _alive(self, widths: Widths) -> np.ndarray:
        """The student of ``widths``: this generator's units."""
        return self.space.alive(self.goal.goal, self.rank, widths)

    # -- selection -------------------------------------------------------
    def chosen(self) -> np.ndarray:
        tried: dict[Widths, float] = {}

        def error(widths: Widths) -> float:
            tried[widths] = self.error(self._alive(widths))
            return tried[widths]

        config = self.config
        how = Evolution(
            config.search_whole,
            config.search_generations,
            config.search_population,
            config.search_parents,
            config.search_mutation,
            config.search_weight,
        )
        best = best_widths(self.space, self._fits, error, how, np.random.default_rng((self.seed, 0)))
        say(
            f"coronet: gan_compression tried {len(tried)} of {self.space.size} widths on "
            f"{len(self.held_out)} pictures held out: units {'_'.join(map(str, best))}"
            + (f", error {tried[best]:.4g}, of the worst {max(tried.values()):.4g}" if best in tried else "")
        )
        return self._alive(best)

    def _fits(self, widths: Widths) -> bool:
        return self.goal.meter(self._alive(widths)) <= self.goal.target

    def error(self, alive: np.ndarray) -> float:
        """Mean distance of the student ``alive`` from truth, or its teacher, on the pictures held out.

        The L1 distance per value. GAN Compression takes the Frechet distance (docs/method.md).
        """
        distances = []
        device = next(self.generator.parameters()).device
        with _still(self.generator), narrowed(self.generator, self.plan, alive):
            for sample in (Sample(*on_device(tuple(each), device)) for each in self.held_out):
                output, wanted = next(tensors_in(self.generator(*sample.inputs))), self._wanted(sample)
                distances.append(float((output - wanted).abs().mean()))
        return float(np.mean(distances))

    def _wanted(self, sample: Sample) -> Tensor:
        if sample.truth is not None:
            return sample.truth
        assert self.distillation.teacher is not None
        return next(tensors_in(self.distillation.teacher(sample.inputs)[0]))

    # -- saving ----------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        return {
            "rank": torch.from_numpy(self.rank.copy()),
            "seed": self.seed,
            "began": self._began,
            "initial": {name: x.detach().cpu() for name, x in self._initial.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rank = state["rank"].numpy()
        self.seed = int(state["seed"])
        self._began = bool(state["began"])
        self._initial = dict(state["initial"])


def _check(config: Any) -> None:
    """Raises OptionError for what cannot be."""
    for name in ("teacher_part", "distill_part", "finetune_part", "lambda_distill", "lambda_recon"):
        if not 0 <= getattr(config, name) < math.inf:
            raise OptionError(f"--coronet_{name} must be at least 0, not {getattr(config, name):g}")
    if not 0 < config.supernet_part < math.inf:
        raise OptionError(f"--coronet_supernet_part must be above 0, not {config.supernet_part:g}")
    for name in ("holdout", "search_parents", "search_mutation"):
        if not 0 < getattr(config, name) < 1:
            raise OptionError(f"--coronet_{name} must be between 0 and 1, not {getattr(config, name):g}")
    for name in ("search_generations", "search_population", "search_weight"):
        if not getattr(config, name) >= 1:
            raise OptionError(f"--coronet_{name} must be at least 1, not {getattr(config, name):g}")
    fractions_of(config.space)


def _space(goal: Goal, config: Any) -> Space:
    if goal.fixed:
        return Space.exactly(goal)
    space = Space.of(goal, fractions_of(config.space))
    rank = np.concatenate([np.arange(s.units) for s in goal.plan.prunable])
    least = goal.meter(space.alive(goal, rank, space.smallest))
    if least > goal.target:
        raise BudgetError(
            f"budget {goal.budget.text} is outside the search space {config.space}: its narrowest generator "
            f"is {least / goal.dense:.3g} of the dense one; give fractions of the width that go lower, such "
            "as --coronet_space 1,0.5,0.25,0.125"
        )
    return space


@contextlib.contextmanager
def _still(generator: nn.Module) -> Iterator[None]:
    """As the host tests: norms by the picture's own statistics, no dropout, no gradient; all is put back."""
    buffers = [(buffer, buffer.clone()) for buffer in generator.buffers()]
    modes = [(module, module.training) for module in generator.modules()]
    try:
        for module in generator.train().modules():
            if isinstance(module, _DropoutNd):
                module.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
