"""Compress one generator while it trains, in any training loop.

::

    compression = Compression(generator, example, budget=0.1, search_steps=2000).attach(optimizer)
    ...
        optimizer.step()
        if compression.step():      # hypernetwork and proximal step; True when the search is over
            compression.slim()
    compression.save("latest_net_G.pth")

The generator stays a plain module throughout. Its convolution weights are
ordinary parameters whose *values* come from the hypernetwork: just before the
optimizer steps, their gradients are taken over and sent through the
hypernetwork (the chain rule, so the gradients are those of generated weights);
``step`` then updates the hypernetwork and writes the new weights. Weights are
generated once per step however often the generator runs, and wrappers, hooks,
deepcopy, export and data parallelism see nothing unusual.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin._version import __version__
from coronet_plugin.budget import Budget, choose_alive, floor_of, protected, threshold
from coronet_plugin.checkpoint import save_generator
from coronet_plugin.cost import Cost
from coronet_plugin.distributed import broadcast_
from coronet_plugin.errors import CheckpointError, OptionError, PlanError
from coronet_plugin.hypernetwork import NO_HYPERNETWORK, Hypernetwork
from coronet_plugin.planning import find_channels
from coronet_plugin.propagation import Runner, call
from coronet_plugin.proximal import DEAD_BELOW, shrink_
from coronet_plugin.slim import slim_
from coronet_plugin.spec import COMPACT, SEARCH, Spec


class Compression:
    """Latents, hypernetwork and budget of one generator.

    Args:
        generator: any module of 2-d convolutions; it is changed in place. Its
            convolution weights are replaced by generated ones at once.
        example: an input ``(N, C, H, W)`` at the size to count MACs for, or a tuple.
        budget: a fraction of the dense cost (``0.1``) or a count (``"2.6G"``).
        kind: what the budget is about, ``"macs"`` (true multiply-adds) or ``"params"``.
        search_steps: optimizer steps until the budget is met.
        hypernetwork: ``"published"`` or ``"folded"`` (:mod:`coronet_plugin.hypernetwork`), or
            ``"none"`` with a budget of 1, which trains as if nothing were there.
        embedding: embedding size of the published form.
        keep_weights: begin with the weights the generator has, to the last bit, instead of new ones.
        run: how the generator is run, as for :func:`~coronet_plugin.planning.find_channels`.
        architecture: what the spec says of the generator; see :class:`~coronet_plugin.spec.Spec`.

    Raises:
        BudgetError: the budget cannot be read or reached.
        PlanError: the generator does not run, or none of its channels can be removed.
        OptionError: another argument is out of range.
    """

    def __init__(
        self,
        generator: nn.Module,
        example: Any,
        *,
        search_steps: int,
        budget: str | float = 0.1,
        kind: str = "macs",
        hypernetwork: str = "published",
        embedding: int = 8,
        keep_weights: bool = False,
        run: Runner = call,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        if search_steps < 1:
            raise OptionError(f"the search must last at least one step, not {search_steps}")
        self.generator = generator
        self.inputs = example if isinstance(example, tuple) else (example,)
        self.architecture = dict(architecture or {"class": type(generator).__name__})
        self.plan = find_channels(generator, self.inputs, run)
        self.budget = Budget.parse(budget, kind)
        self.search_steps = search_steps
        self.phase = SEARCH
        self.steps = 0
        self.shrinkage = 0.0
        """How much the last proximal step took off every latent: lambda times learning rate."""
        self.form = hypernetwork
        self._floors = [floor_of(s) for s in self.plan.prunable]
        self._kept = np.ones(self.plan.units, dtype=bool)
        self.target = self.budget.target(self.plan, protected(self.plan, np.ones(self.plan.units)))
        parameters = dict(generator.named_parameters())
        self._weights = [parameters[name] for name in self.plan.kernels()]
        self._check_possible()
        self.hypernetwork: Hypernetwork | None = None
        if hypernetwork != NO_HYPERNETWORK:
            self.hypernetwork = Hypernetwork(self.plan, hypernetwork, embedding)
        self._optimizer: torch.optim.Optimizer | None = None
        self._host: torch.optim.Optimizer | None = None
        self._hook: Any = None
        self._stepped = False
        if keep_weights:
            self.adopt_weights_()
        self.generate_()

    def _check_possible(self) -> None:
        dense = self.plan.cost().of_kind(self.budget.kind)
        if self.form == NO_HYPERNETWORK and self.target < dense:
            raise OptionError(
                "without a hypernetwork nothing is removed, so the budget must be 1.0, "
                f"not {self.budget.text}"
            )
        if self.target < dense and not (self.plan.units and self._weights):
            reasons = "; ".join(f"{s.name}: {s.pinned}" for s in self.plan.sets[:3] if s.pinned)
            raise PlanError(
                f"no channel of {type(self.generator).__name__} can be removed ({reasons}); "
                "'coronet inspect' shows all reasons"
            )

    @torch.no_grad()
    def adopt_weights_(self) -> None:
        """Make the hypernetwork generate the weights that the generator has now, to the last bit."""
        if self.hypernetwork is not None:
            self.hypernetwork.to(self._weights[0].device)
            self.hypernetwork.adopt_([weight.detach() for weight in self._weights])

    def synchronise_(self) -> None:
        """Give every process of a distributed training the hypernetwork of the first."""
        if self.hypernetwork is not None:
            self.hypernetwork.to(self._weights[0].device)
            broadcast_(self.hypernetwork.parameters())
            self.generate_()

    # -- training --------------------------------------------------------
    def attach(self, optimizer: torch.optim.Optimizer) -> Compression:
        """Train the hypernetwork in step with ``optimizer``, which holds the generator.

        The hypernetwork gets an optimizer of the same class and settings; the
        latents are a group of their own, without weight decay. Learning rates
        follow ``optimizer``'s, so its schedule holds for both.
        """
        held = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
        if any(id(weight) not in held for weight in self._weights):
            raise OptionError("the optimizer does not hold the generator's weights; attach the one that does")
        self._host = optimizer
        self._group = held[id(self._weights[0])]  # by index: loading a state makes new group objects
        if self.hypernetwork is not None:
            groups = [
                {"params": list(self.hypernetwork.kernels.parameters())},
                {"params": list(self.hypernetwork.latents.parameters()), "weight_decay": 0.0},
            ]
            self._optimizer = _companion(optimizer, optimizer.param_groups[self._group], groups)
            self.synchronise_()
        self._hook = optimizer.register_step_pre_hook(self._take_gradients)
        return self

    @torch.enable_grad()
    def _take_gradients(self, *_: Any) -> None:
        """Send the gradients of generated weights on to the hypernetwork."""
        self._stepped = True
        if self.hypernetwork is None:
            return
        z = self.hypernetwork.z()
        leaf = z.detach().requires_grad_()
        for index, weight in enumerate(self._weights):
            if weight.grad is not None:
                self.hypernetwork.weight(index, leaf).backward(weight.grad)
                weight.grad = None  # the host's optimizer leaves parameters without gradient alone
        if leaf.grad is not None:
            z.backward(leaf.grad)

    def step(self) -> bool:
        """After the optimizer's step: update the hypernetwork, then the proximal step.

        Returns True when the search is over and the generator waits for :meth:`slim`.
        Does nothing in the compact phase, or if the optimizer did not step.
        """
        if self.phase == COMPACT:
            return False
        if self._host is None:
            raise OptionError("attach(optimizer) comes before step()")
        if self._stepped:
            self._stepped = False
            self.steps += 1
            if self._optimizer is not None:
                for group in self._optimizer.param_groups:
                    group["lr"] = self._host.param_groups[self._group]["lr"]
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
                self._shrink()
                self.generate_()
        return self.finished

    def _shrink(self) -> None:
        """One proximal step, as large as the way left over the steps left (docs/method.md eq. (5))."""
        assert self.hypernetwork is not None
        left = self.search_steps - self.steps + 1
        if left < 1:
            return
        _, cut = threshold(self.plan, self.score(), self.budget.kind, self.target)
        self.shrinkage = cut / left
        shrink_(list(self.hypernetwork.latents), self.shrinkage, self._floors)

    @torch.no_grad()
    def generate_(self) -> None:
        """Write the generated weights into the generator. In place."""
        if self.hypernetwork is None:
            return
        self.hypernetwork.to(self._weights[0].device)  # a host may have moved the generator
        z = self.hypernetwork.z()
        for index, weight in enumerate(self._weights):
            weight.copy_(self.hypernetwork.weight(index, z))

    # -- how much is left ------------------------------------------------
    @property
    def finished(self) -> bool:
        """True when the search has lasted as long as asked and slimming is due."""
        return self.phase == SEARCH and self.steps >= self.search_steps

    def score(self) -> np.ndarray:
        """Size of every unit's latent, ``(units,)``."""
        if self.hypernetwork is None:
            return self._kept.astype(np.float64)
        return self.hypernetwork.z().detach()[1:].abs().double().cpu().numpy()

    def alive(self) -> np.ndarray:
        """Units that are not dead, ``(units,)``: latents above the threshold, at least a set's floor."""
        if self.phase == COMPACT:
            return self._kept
        score = self.score()
        return (score >= DEAD_BELOW) | protected(self.plan, score)

    def cost(self) -> Cost:
        """Cost of what is alive."""
        return self.plan.cost(self.alive())

    @property
    def remaining(self) -> float:
        """Fraction of the dense MACs (or parameters, if the budget is about them) that is alive."""
        kind = self.budget.kind
        return self.cost().of_kind(kind) / self.plan.cost().of_kind(kind)

    @property
    def width(self) -> float:
        """Fraction of the prunable channels that is alive."""
        alive = self.alive()
        kept = sum(s.channels * alive[s.slice].sum() / s.units for s in self.plan.prunable)
        return float(kept) / max(1, sum(s.channels for s in self.plan.prunable))

    # -- the cut ---------------------------------------------------------
    def slim(self) -> nn.Module:
        """Remove channels until the budget is met exactly, drop the hypernetwork, return the generator.

        The generator is made smaller in place. The optimizer keeps its groups and
        schedule and forgets its state for the parameters that got smaller. In a distributed
        training, wrap the generator in DistributedDataParallel again.
        """
        if self.phase == SEARCH:
            alive = choose_alive(self.plan, self.score(), self.budget.kind, self.target)
            decided = torch.from_numpy(alive.astype(np.uint8)).to(self._device())
            broadcast_([decided])
            self._make_compact(decided.cpu().numpy().astype(bool))
        return self.generator

    def _make_compact(self, alive: np.ndarray) -> None:
        replaced = slim_(self.generator, self.plan, alive)
        self._kept = alive
        self.phase = COMPACT
        self.hypernetwork = self._optimizer = None
        if self._hook is not None:
            self._hook.remove()
        if self._host is not None:
            for group in self._host.param_groups:
                group["params"] = [replaced.get(p, p) for p in group["params"]]
            for parameter in replaced:
                self._host.state.pop(parameter, None)

    def _device(self) -> torch.device:
        return next(self.generator.parameters()).device

    # -- saving ----------------------------------------------------------
    def spec(self, options: Mapping[str, Any] | None = None) -> Spec:
        """What is to be known of the generator as it is now."""
        sets = [
            {
                "name": channel_set.name,
                "channels": channel_set.channels,
                "kept": self.plan.kept_channels(channel_set, self._kept).tolist(),
                "pinned": channel_set.pinned,
            }
            for channel_set in self.plan.sets
        ]
        keep = np.append(self._kept, True)
        return Spec(
            phase=self.phase,
            architecture=self.architecture,
            input_size=[list(x.shape[1:]) for x in self.inputs if isinstance(x, Tensor)],
            budget={"kind": self.budget.kind, "requested": self.budget.text, "target": self.target},
            dense=self.plan.cost().as_dict(),
            slim=self.plan.cost(self._kept).as_dict(),
            sets=sets,
            tensors={name: list(t.shape) for name, t in self.generator.state_dict().items()},
            widths={
                module: {name: int(keep[units].sum()) for name, units in attributes.items()}
                for module, attributes in self.plan.widths.items()
            },
            search={"steps": self.steps, "of": self.search_steps, "hypernetwork": self.form},
            options=dict(options or {}),
            versions={
                "coronet_plugin": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )

    def save(self, path: str | Path, options: Mapping[str, Any] | None = None) -> None:
        """Write the generator's state_dict to ``path`` and its spec beside it."""
        save_generator(self.generator, path, self.spec(options))

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal continuation needs, besides the generator and the host's optimizer."""
        state: dict[str, Any] = {
            "phase": self.phase,
            "steps": self.steps,
            "kept": torch.from_numpy(self._kept),
        }
        if self.hypernetwork is not None and self._optimizer is not None:
            state["hypernetwork"] = self.hypernetwork.state_dict()
            state["optimizer"] = self._optimizer.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``. In the compact phase the generator is made small; load its weights after.

        Raises:
            CheckpointError: the state is of a generator with other channel sets.
        """
        kept = state["kept"].numpy()
        if kept.shape != self._kept.shape:
            raise CheckpointError(
                f"the saved search has {len(kept)} latents, this generator {len(self._kept)}; "
                "continue with the options of the first run (--netG, --ngf)"
            )
        self.steps = int(state["steps"])
        if state["phase"] == COMPACT:
            self._make_compact(kept)
            return
        if self.hypernetwork is None and "hypernetwork" not in state:
            return
        try:
            if self.hypernetwork is None:
                raise KeyError("hypernetwork")
            self.hypernetwork.load_state_dict(state["hypernetwork"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                "the saved search used another hypernetwork; continue with the same "
                "--coronet_hypernetwork and --coronet_embedding as the first run"
            ) from error
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        self.generate_()


def _companion(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], groups: list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """An optimizer of the same class and settings for other parameters."""
    kind = type(optimizer)
    accepted = inspect.signature(kind.__init__).parameters
    settings = {
        name: group.get(name, value) for name, value in optimizer.defaults.items() if name in accepted
    }
    if "fused" in accepted and not settings.get("foreach") and not settings.get("fused"):
        try:  # one pass over all parameters: the hypernetwork has many more than the generator
            return kind(groups, **{**settings, "fused": True, "foreach": False})
        except RuntimeError:  # not on this device or in this version
            pass
    return kind(groups, **settings)
