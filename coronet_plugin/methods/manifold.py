"""Agent gates, inspired by MGGC, equations ours: two agents prune a trained generator and its discriminator.

After the abstract and the first figure of Ganjdanesh, Gao, Alipanah and Huang (AAAI 2024, arXiv 2312.14776),
whose equations are not public: every decision of ours stands in docs/method.md. The outputs of the original
generator are partitioned into neighbourhoods; in each, the density of the pruned generator's outputs is
compared with that of the original's. What is compared are features of the discriminator, which the second
agent prunes at the same time so that they tell the two apart. Weights stay as they are: agents are trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import on_device
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.channels.find import find_channels
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.agents import Agent, Gated, density_distance, gates, soft_cost
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.registry import method
from coronet_plugin.methods.teacher import check_alike, teacher_part_setting, teacher_setting
from coronet_plugin.settings import setting

SHARE_AFTER = 1.0
"""Part of a training after the search, in units of ``teacher_part``."""


LABEL = "agent gates, inspired by MGGC, equations ours"


@method("manifold", LABEL)
class Manifold(Method):
    """Two agents, a generator and its discriminator; see the module's text.

    It prunes a generator, and with agents of its own, or it is that of the discriminator and does as the
    generator's, its ``lead``, says (:meth:`judged_by`).

    Raises:
        OptionError: a setting cannot be used, or the budget is a time or shared.
    """

    label = LABEL
    discriminators = True

    @dataclass(frozen=True)
    class Config:
        """Choices that the public record leaves open."""

        teacher: str = teacher_setting()
        teacher_part: float = teacher_part_setting()
        agents_part: float = setting(0.5, "share of the training for the agents; that of what follows is 1")
        bank: int = setting(64, "inputs whose outputs of the original are partitioned into neighbourhoods")
        neighbours: int = setting(4, "neighbours of a centre, of whose outputs densities are compared")
        agent_lr: float = setting(0.001, "learning rate of the agents")
        agent_hidden: int = setting(128, "numbers that an agent remembers, each way")
        agent_budget: float = setting(2.0, "weight of the logarithm of the ratio to the budget")
        agent_temperature: float = setting(0.4, "temperature of the gates; cold ones are sharper")
        agent_base: float = setting(3.0, "added to every gate's logit, so that all are open at first")

        def __post_init__(self) -> None:
            _check(self)

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        goal = self.goal.goal
        if len(goal.shares) > 1:
            raise OptionError(
                "manifold prunes every network to a budget of its own; drop --coronet_shared_budget"
            )
        if goal.budget.kind not in ("macs", "params"):
            raise OptionError(f"manifold's agents go by macs or params, not by {goal.budget.kind}")
        self.discriminator: nn.Module | None = None
        self.lead: Manifold | None = None
        self._peer: Manifold | None = None
        self.fraction = goal.target / goal.dense
        self._now = 0
        self._random = torch.Generator().manual_seed(torch.initial_seed() % 2**32)
        self._bank: list[tuple[Any, ...]] = []
        self._game: Game | None = None
        self._saved: dict[str, Tensor] = {}
        self._agents: dict[str, Agent] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    @classmethod
    def search_share(cls, config: Any) -> float:
        before = config.teacher_part * (not config.teacher) + config.agents_part
        return float(before / (before + SHARE_AFTER))

    def judged_by(self, discriminator: nn.Module, pruned_by: Method | None = None) -> None:
        self.discriminator = discriminator
        if isinstance(pruned_by, Manifold):
            self._peer, pruned_by.lead = pruned_by, self

    # -- before the first step -------------------------------------------
    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        if self.lead is not None:
            return
        if self.discriminator is None:
            raise OptionError(
                "manifold prunes a generator and its discriminator together; give that before attach(): "
                "compression.method.judged_by(D)"
            )
        if self.teacher is not None:
            check_alike(self.teacher, self.generator, "manifold goes on with")
        self._judge_plan = self._plan_of(self.discriminator) if self._peer is None else self._peer.plan
        with torch.random.fork_rng(devices=[]):
            for name, plan in (("G", self.plan), ("D", self._judge_plan)):
                self._agents[name] = Agent(plan, self.config.agent_hidden, self._random)
        parameters = [p for agent in self._agents.values() for p in agent.parameters()]
        self._optimizer = torch.optim.Adam(parameters, lr=self.config.agent_lr)

    def _plan_of(self, discriminator: nn.Module) -> ChannelPlan:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = next(tensors_in(Gated(self.generator, self.plan).network(*self.inputs)))
        return find_channels(discriminator, judged(discriminator, self.inputs, output))

    def before_step(self, step: int) -> None:
        self._now = step
        if step == 1 and self.teacher is not None:
            self.generator.load_state_dict(self.teacher.state_dict())

    # -- the agents' part ------------------------------------------------
    def acts(self, step: int) -> bool:
        """Whether step number ``step`` is the agents'; those before it train the original."""
        if self.lead is not None:
            return self.lead.acts(step)
        if self.teacher is not None:
            return True
        config = self.config
        return step > round(self.steps * config.teacher_part / (config.teacher_part + config.agents_part))

    def extra_loss(self, inputs: tuple[Any, ...], output: Any, features: Mapping[str, Tensor]) -> None:
        if self.lead is not None:
            return
        if self._game is None and not self._saved:
            self._bank = [*self._bank, *_samples(inputs)][-self.config.bank :]
        full = self.config.bank if self.teacher is not None else 2
        if self.acts(self._now) and (self._game is not None or self._saved or len(self._bank) >= full):
            self._play()

    def _play(self) -> None:
        """One step of both agents, in the neighbourhood of a centre that is drawn."""
        if self._game is None:
            self._begin_game()
        assert self._game is not None
        one, two = self._agents["G"], self._agents["D"]
        with torch.enable_grad():
            (logits, says), (others, answers) = one(two.said), two(one.said)
            drawn = [self._drawn(x) for x in (logits, others)]
            centre = int(torch.randint(len(self._bank), (), generator=self._random))
            distance = self._game.distance(drawn[0], drawn[1], centre)
            allowed = self.fraction if self._peer is None else self._peer.fraction
            over = [
                self._over(self.plan, drawn[0], self.fraction),
                self._over(self._judge_plan, drawn[1], allowed),
            ]
            weight = self.config.agent_budget
            self._improve(one, distance + weight * over[0], keep=True)
            self._improve(two, weight * over[1] - distance)
        one.said, two.said = says, answers
        self.optimizer.step()

    def _drawn(self, logits: Tensor) -> Tensor:
        return gates(logits, self.config.agent_base, self.config.agent_temperature, self._random)

    def _over(self, plan: ChannelPlan, drawn: Tensor, fraction: float) -> Tensor:
        """How far what the gates leave open is from the budget: the size of the ratio's logarithm."""
        kind = self.goal.goal.budget.kind
        wanted = fraction * plan.cost().of_kind(kind)
        return (soft_cost(plan, drawn, kind) / wanted).log().abs().to(drawn)

    def _improve(self, agent: Agent, loss: Tensor, keep: bool = False) -> None:
        parameters = list(agent.parameters())
        found = torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)
        for parameter, gradient in zip(parameters, found):
            parameter.grad = gradient

    def _begin_game(self) -> None:
        assert self.discriminator is not None
        judge = Gated(self.discriminator, self._judge_plan)
        if self._saved:  # a host may have trained the discriminator meanwhile
            judge.network.load_state_dict(self._saved)
        self._saved = {}
        self._game = Game(Gated(self.generator, self.plan), judge, self._bank, self.config.neighbours)

    def gradients(self) -> None:
        """Leave the generator as it was trained: it is pruned at the cut alone."""
        if self.acts(self._now):
            for parameter in self.generator.parameters():
                parameter.grad = None

    # -- the choice ------------------------------------------------------
    @torch.no_grad()
    def score(self) -> np.ndarray:
        """How open every gate is without noise, ``(units,)``: its logit, as the agents are now."""
        lead, own, peer = (self, "G", "D") if self.lead is None else (self.lead, "D", "G")
        if not lead._agents:
            return np.ones(self.plan.units)
        logits, _ = lead._agents[own](lead._agents[peer].said)
        return logits.double().numpy()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The agents', once the training began."""
        assert self._optimizer is not None
        return self._optimizer

    def finish(self) -> None:
        self._game, self._bank = None, []

    # -- saving ----------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        if self.lead is not None or self._optimizer is None:
            return {}
        judge = self._saved if self._game is None else self._game.judge.network.state_dict()
        return {
            "agents": {name: agent.state_dict() for name, agent in self._agents.items()},
            "optimizer": self.optimizer.state_dict(),
            "random": self._random.get_state(),
            "bank": [list(on_device(inputs, "cpu")) for inputs in self._bank],
            "judge": {name: x.detach().cpu() for name, x in judge.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "agents" not in state:
            return
        for name, agent in self._agents.items():
            agent.load_state_dict(state["agents"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self._random.set_state(state["random"])
        self._bank = [tuple(inputs) for inputs in state["bank"]]
        self._saved, self._game = dict(state["judge"]), None


class Game:
    """The neighbourhoods of the original's outputs, and how far a pruned generator is from it in them.

    ``bank``: inputs; a neighbourhood is that of one of them: itself and the ``neighbours`` inputs whose
    outputs of the original are nearest, by the discriminator's features. All are found once.
    """

    def __init__(
        self, generator: Gated, judge: Gated, bank: Sequence[tuple[Any, ...]], neighbours: int
    ) -> None:
        self.generator, self.judge = generator, judge
        device = next(generator.network.parameters()).device
        judge.network.to(device)
        self._bank = [on_device(inputs, device) for inputs in bank]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            open_gates = [torch.ones(each.plan.units) for each in (generator, judge)]
            self._outputs = [generator.output(open_gates[0], inputs) for inputs in self._bank]
            known = torch.cat([self._features(open_gates[1], [i], [x]) for i, x in enumerate(self._outputs)])
        apart = torch.cdist(known, known).fill_diagonal_(-1)  # a centre comes first
        self.near = apart.argsort(dim=1, stable=True)[:, : neighbours + 1].tolist()
        """Numbers of the inputs in each neighbourhood, its centre first."""

    def distance(self, generator: Tensor, judge: Tensor, centre: int) -> Tensor:
        """Of the densities in the neighbourhood of input number ``centre``, with these gates."""
        members = self.near[centre]
        with torch.random.fork_rng(devices=[]):
            made = [self.generator.output(generator, self._bank[i]) for i in members]
            original = self._features(judge, members, [self._outputs[i] for i in members])
            return density_distance(original, self._features(judge, members, made))

    def _features(self, gates: Tensor, members: Sequence[int], outputs: Sequence[Tensor]) -> Tensor:
        network = self.judge.network
        shown = [judged(network, self._bank[i], x) for i, x in zip(members, outputs)]
        return torch.cat([self.judge.features(gates, inputs) for inputs in shown])


def judged(discriminator: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> tuple[Tensor, ...]:
    """Part of ``output`` that a discriminator sees: that alone, or behind the inputs it was made of.

    By the channels that its first layer reads.

    Raises:
        OptionError: it reads neither.
    """
    reads = next((p.shape[1] for p in discriminator.parameters() if p.ndim == 4), 0)
    images = [x for x in tensors_in(inputs) if x.ndim == 4]
    if reads == output.shape[1]:
        return (output,)
    if reads == output.shape[1] + sum(x.shape[1] for x in images):
        return (torch.cat([*images, output], dim=1),)
    raise OptionError(
        f"the discriminator reads {reads} channels, and the generator gives {output.shape[1]}: it sees "
        "neither these alone nor together with its input; choose another --coronet_method"
    )


def _samples(inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The samples of a batch, each a batch of one."""
    count = next(len(x) for x in tensors_in(inputs))

    def part(x: Any, i: int) -> Any:
        return x[i : i + 1].detach().clone() if isinstance(x, Tensor) and len(x) == count else x

    return [tuple(part(x, i) for x in inputs) for i in range(count)]


def _check(config: Any) -> None:
    """Raises OptionError for what cannot be."""
    for name in ("teacher_part", "agent_budget"):
        if not 0 <= getattr(config, name) < math.inf:
            raise OptionError(f"--coronet_{name} must be at least 0, not {getattr(config, name):g}")
    for name in ("agents_part", "agent_lr", "agent_temperature"):
        if not 0 < getattr(config, name) < math.inf:
            raise OptionError(f"--coronet_{name} must be above 0, not {getattr(config, name):g}")
    for name in ("neighbours", "agent_hidden"):
        if getattr(config, name) < 1:
            raise OptionError(f"--coronet_{name} must be at least 1, not {getattr(config, name)}")
    if config.bank <= config.neighbours:
        raise OptionError(
            f"--coronet_bank {config.bank} must be above --coronet_neighbours {config.neighbours}"
        )
