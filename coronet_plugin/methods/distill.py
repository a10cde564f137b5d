"""A narrow student from the first step on, beside the wide generator, which trains as ever and teaches.

After OMGD (Ren et al., ICCV 2021, arXiv 2108.06908). The host trains its generator as it always does, with
its losses, discriminators and optimizer: that is the teacher. The student sees no discriminator and no truth;
in every step it learns from the teacher's output and features of that moment. At the end of the search it
takes the generator's place, with what its own optimizer knows. docs/method.md says what of OMGD is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import copy_with, slim
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.channels.find import units_of_features
from coronet_plugin.distributed import average_
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.distillation import taps_for
from coronet_plugin.methods.feature_maps import Maps
from coronet_plugin.methods.generated import companion_optimizer
from coronet_plugin.methods.registry import method
from coronet_plugin.methods.similarity import Terms, whole
from coronet_plugin.methods.teacher import features_of, look_at
from coronet_plugin.methods.uniform import evenly_narrowed
from coronet_plugin.settings import setting


@method("distill", "a student narrow from the first step on, taught by the wide generator as it trains")
class Distill(Method):
    """A student beside its teacher; see the module's text. Until the cut the generator is the teacher."""

    @dataclass(frozen=True)
    class Config:
        """Raises OptionError for values out of range."""

        student_channels: float = setting(
            50.0,
            "weight of the channels' means in a student's loss; OMGD has 10 (U-Net, edges), 50 (U-Net, "
            "labels), 100 (ResNet, edges), 500 (CycleGAN)",
        )
        student_ssim: float = setting(10.0, "weight of the structural similarity to the teacher's output")
        student_output: float = setting(
            10.0, "weight of the L1 distance to the teacher's output, in place of OMGD's VGG features"
        )
        student_tv: float = setting(1e-5, "weight of the total variation of the student's output")
        student_steps: int = setting(
            1, "steps of the student in each of the teacher's, the further ones with the batches before"
        )
        student_from: float = setting(
            0.0, "fraction of the search that trains the teacher alone; 0 is one stage"
        )

        def __post_init__(self) -> None:
            self.terms()
            if self.student_steps < 1:
                raise OptionError(f"--coronet_student_steps must be at least 1, not {self.student_steps}")
            if not 0 <= self.student_from < 1:
                raise OptionError(
                    f"--coronet_student_from must be at least 0 and below 1, not {self.student_from:g}"
                )

        def terms(self) -> Terms:
            """Weights of the student's loss."""
            return Terms(
                channels=self.student_channels,
                output=self.student_output,
                ssim=self.student_ssim,
                tv=self.student_tv,
            )

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self.terms = config.terms()
        self.student: nn.Module | None = None
        self.kept = np.ones(self.plan.units, dtype=bool)
        """Units that the student has, once there is one."""
        self._before: list[tuple[Any, ...]] = []
        """Inputs of the last steps, newest first."""

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        self._host, self._group = optimizer, group
        if self.terms.need_features:
            self.taps = taps_for(self.architecture, self.generator, self.plan, self.inputs)
        self._units = units_of_features(self.generator, self.plan, self.inputs, self.taps)

    def score(self) -> np.ndarray:
        """L1 norm of the filters that make each unit, by rank in its set: over (0, 1], ``(units,)``."""
        score = np.zeros(self.plan.units + 1)  # the last entry gathers what is pinned
        parameters = dict(self.generator.named_parameters())
        made = {channel_set.producers[0] for channel_set in self.plan.prunable}
        for call in self.plan.kernels().values():
            if call.module in made:
                units = self.plan.slices[call.weight or ""][call.axis_out]
                norms = parameters[call.weight or ""].detach().abs().transpose(0, call.axis_out)
                np.add.at(score, units, norms.flatten(1).sum(1).double().cpu().numpy())
        for channel_set in self.plan.prunable:
            order = score[channel_set.slice].argsort(kind="stable")
            score[channel_set.start + order] = (np.arange(len(order)) + 1) / len(order)
        return score[:-1]

    # -- every step ------------------------------------------------------
    def before_step(self, step: int) -> None:
        if self.student is None and step > self.config.student_from * self.steps:
            self.kept = evenly_narrowed(self.goal)
            self._make_student_()

    def _make_student_(self) -> None:
        """The teacher without all units but those kept, and what trains it."""
        self.student = slim(copy_with(self.generator), self.plan, self.kept).train()
        keep = np.append(self.kept, True)  # the last entry answers for what is PINNED
        units = {name: each[keep[each]] for name, each in self._units.items()}
        self.maps = Maps(units, {name: len(each) for name, each in self._units.items()})
        self.maps.begin(self._host, self._group, next(self.student.parameters()))
        groups = [{"params": [p for p in self.student.parameters() if p.requires_grad]}]
        self.optimizer = companion_optimizer(self._host, self._host.param_groups[self._group], groups)

    def extra_loss(
        self, inputs: tuple[Any, ...], output: Any, features: Mapping[str, Tensor]
    ) -> Tensor | None:
        """None, as the teacher learns nothing here; the student makes its steps."""
        if self.student is None:
            return None
        inputs = copy.deepcopy(inputs, {id(x): x.detach() for x in tensors_in(inputs)})  # often generated
        self._learn(inputs, output, features)
        for earlier in self._before:
            self._learn(earlier, *look_at(self.generator, earlier, self.taps))
        self._before = [inputs, *self._before][: self.config.student_steps - 1]
        return None

    def _learn(self, inputs: tuple[Any, ...], output: Any, features: Mapping[str, Tensor]) -> None:
        """One step of the student towards what the teacher made of ``inputs``."""
        assert self.student is not None
        first = next(tensors_in(inputs))
        devices = [first.device] if first.is_cuda else []
        with torch.random.fork_rng(devices), torch.autocast(first.device.type, enabled=False):
            with features_of(self.student, self.taps) as mine:
                own = self.student(*inputs)
            loss = self.terms.loss(
                (list(tensors_in(own)), [whole(x.detach()) for x in tensors_in(output)]),
                (
                    [self.maps(name, mine[name]) for name in self.taps],
                    [whole(features[name].detach()) for name in self.taps],
                ),
            )
        if not loss.requires_grad:
            return
        self.optimizer.zero_grad(set_to_none=True)
        self.maps.forget_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        average_(p.grad for p in self.student.parameters() if p.grad is not None)
        for group in self.optimizer.param_groups:
            group["lr"] = self._host.param_groups[self._group]["lr"]
        self.optimizer.step()
        self.maps.step(torch.ones(()))

    # -- the cut ---------------------------------------------------------
    def chosen(self) -> np.ndarray:
        return evenly_narrowed(self.goal) if self.student is None else self.kept

    def finish(self) -> nn.Module | None:
        """The generator, cut to the student's widths, becomes the student."""
        if self.student is None:
            return None
        self.generator.load_state_dict(self.student.state_dict())
        mine = dict(self.generator.named_parameters())
        for name, parameter in self.student.named_parameters():
            self._host.state.pop(mine[name], None)
            if parameter in self.optimizer.state:
                self._host.state[mine[name]] = self.optimizer.state[parameter]
        self.student, self._before = None, []
        return self.generator

    # -- saving ----------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        if self.student is None:
            return {}
        return {
            "kept": torch.from_numpy(self.kept),
            "student": {name: x.detach().cpu() for name, x in self.student.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "maps": self.maps.state_dict(),
            "before": self._before,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError when ``state`` is of another student."""
        self.student, self._before = None, []
        if "student" not in state:
            return
        self.kept = state["kept"].numpy()
        self._make_student_()
        assert self.student is not None
        try:
            self.student.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                "the saved student is of another generator or optimizer than this"
            ) from error
        self.maps.load_state_dict(state["maps"])
        device = next(self.generator.parameters()).device
        self._before = [tuple(x.to(device) for x in tensors_in(inputs)) for inputs in state["before"]]
