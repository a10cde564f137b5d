"""Fold a hypernetwork into the steps: one fixed multiplier per connection.

The published map (:class:`~coronet_plugin.methods.hypernetwork.PublishedKernel`) whose latents and first
layer stay at their random initial values is linear in what is left of it. Trained by Adam, every factor moves
by about the learning rate whatever its share, so the weight moves as plain Adam would move it, times

    c_ij = 1 + |z_i z_j| sum_e |w1_ije|        z ~ N(0, 1), w1 ~ U(-sqrt 3, sqrt 3)

(docs/method.md has the derivation, and that of other optimizers). So nothing but the weight is stored: after
the optimizer's step ``W <- W_before + c_ij (W - W_before)``. That needs no search: :class:`StepMultipliers`
are a companion that goes with every method, and with dense training too.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import readers
from coronet_plugin.channels.facts import LayerCall
from coronet_plugin.channels.plan import PINNED, ChannelPlan
from coronet_plugin.distributed import agreed
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.events import Events, Remaining
from coronet_plugin.methods.gates import Gates
from coronet_plugin.methods.generated import Embedded
from coronet_plugin.methods.registry import method
from coronet_plugin.methods.stepping import around_each_step, left_by_decay, power
from coronet_plugin.settings import setting

PUBLISHED, CONSTANT, LOGNORMAL = "published", "constant", "lognormal"
SPREADS = (PUBLISHED, CONSTANT, LOGNORMAL)
"""How multipliers are distributed: as the map gives them, not at all, or as ``exp`` of a normal number."""
CONNECTION, FILTER, LAYER = "connection", "filter", "layer"
SHARED_BY = (CONNECTION, FILTER, LAYER)
"""The weights of one multiplier: every pair of channels, all that makes one channel, or a whole layer."""
DROP, KEEP, FADE = "drop", "keep", "fade"
AFTERWARDS = (DROP, KEEP, FADE)
"""After the search multipliers are one at once, stay as they are, or fade to one over as many steps again."""
PUBLISHED_MEAN = 5.41
"""Mean of what the published map gives for an embedding of 8 and normalised steps: 1 + 8 sqrt(3) / pi."""
DEVIATION = 0.85
"""Standard deviation of the logarithm of lognormal multipliers: about that of the published ones."""


@dataclass(frozen=True)
class Rates(Embedded):
    """How far a weight moves in units of what its optimizer alone would move it by.

    ``rate``: mean over the generator's connections; None for what the published map gives (5.4 for an
    embedding of 8 and normalised steps, 9 for linear ones). ``rate_after``: of :data:`AFTERWARDS`. The
    others are to study what in them matters, from Python alone. ``spread``: of :data:`SPREADS`, all of one
    mean. ``per``: of :data:`SHARED_BY`. ``redraw``: draw new ones every so many steps, 0 for never.
    ``discount``: divide the importance of every channel by the rates of what reads it. ``seed``: what they
    are drawn from; None for one that torch's seed and the generator's weights give.

    Raises:
        OptionError: a value is out of range.
    """

    rate: float | None = setting(
        None,
        "mean of the multipliers of the generator's steps: 1 keeps the learning rate and only spreads it "
        "over the connections, None is what the published map gives, about 5",
        type=float,
        metavar="FACTOR",
    )
    rate_after: str = setting(
        DROP,
        "what becomes of those multipliers after --coronet_search_epochs: 'drop' to one at once, 'keep', "
        "or 'fade' to one over as many epochs again",
        choices=AFTERWARDS,
    )
    spread: str = PUBLISHED
    per: str = CONNECTION
    redraw: int = 0
    discount: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise OptionError(f"the rate must be a number above 0, not {self.rate:g}")
        if self.redraw < 0:
            raise OptionError("redraw must be at least 0")
        for value, choices in ((self.rate_after, AFTERWARDS), (self.spread, SPREADS), (self.per, SHARED_BY)):
            if value not in choices:
                raise OptionError(f"rates {value!r} do not exist; choose one of {', '.join(choices)}")


def draw(plan: ChannelPlan, rates: Rates, exponent: int, seed: int) -> dict[str, Tensor]:
    """Multipliers of all weights of ``plan``'s layers, by name: float32, two axes of the weight, then ones.

    ``exponent``: :func:`~coronet_plugin.methods.stepping.power` of the optimizer. The same on every machine
    that draws the same random numbers for a seed.
    """
    embedding = rates.embedding
    chance: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float32}
    # the last is that of PINNED
    z = torch.cat([torch.randn(plan.units, **chance), torch.ones(1, dtype=torch.float32)])
    expected = 1.0 + (embedding if exponent == 2 else embedding * math.sqrt(3) / math.pi)
    values = {}
    for name, call in _layers(plan).items():
        shape = _shape(call, rates.per)
        if rates.spread == CONSTANT:
            drawn = torch.full(shape, expected, dtype=torch.float32)
        elif rates.spread == LOGNORMAL:
            normal = torch.randn(shape, **chance)
            drawn = expected * torch.exp(DEVIATION * normal - DEVIATION**2 / 2)
        else:
            if rates.per == CONNECTION:
                latent = _latents(plan, name, call, 0, z)[:, None] * _latents(plan, name, call, 1, z)
            else:
                latent = torch.randn(shape, **chance) * torch.randn(shape, **chance)
            w1 = math.sqrt(3) * (2 * torch.rand(*shape, embedding, **chance) - 1)
            drawn = 1 + latent.abs() ** exponent * (w1.abs() ** exponent).sum(-1)
        whole = drawn.expand(call.weight_shape[:2])
        values[name] = whole.reshape(*whole.shape, *[1] * (len(call.weight_shape) - 2)).clone()
    if rates.rate is not None and values:
        total = sum(float(value.sum(dtype=torch.float64)) for value in values.values())
        factor = rates.rate * sum(value.numel() for value in values.values()) / total
        values = {name: value * factor for name, value in values.items()}
    return values


def _layers(plan: ChannelPlan) -> dict[str, LayerCall]:
    """First call of every layer whose weight, of at least two axes, is a parameter, by the weight's name."""
    found: dict[str, LayerCall] = {}
    for call in plan.calls:
        if call.weight is not None and call.weight in plan.shapes and len(call.weight_shape) > 1:
            found.setdefault(call.weight, call)
    return found


def _shape(call: LayerCall, per: str) -> tuple[int, ...]:
    pair = call.weight_shape[:2]
    if per == FILTER:
        return tuple(length if axis == call.axis_out else 1 for axis, length in enumerate(pair))
    return (1, 1) if per == LAYER else tuple(pair)


def _latents(plan: ChannelPlan, name: str, call: LayerCall, axis: int, z: Tensor) -> Tensor:
    units = plan.slices.get(name, {}).get(axis, np.full(call.weight_shape[axis], PINNED))
    return z[torch.from_numpy(units)]


def _seed(generator: nn.Module) -> int:
    """A seed that differs between generators and torch's seeds, and takes no random number from torch."""
    first = next(generator.parameters(), torch.zeros(1)).detach().float().cpu().contiguous()
    return (torch.initial_seed() ^ zlib.crc32(first.numpy().tobytes())) % 2**63


class StepMultipliers(Events):
    """Multiply every step of a generator's layers by numbers of their own; see the module's text.

    Biases and norms move as always. ``steps``: optimizer steps until the multipliers are dropped (or what
    ``rates`` says). Parameters that the optimizer skips, for want of a gradient, are left alone.
    """

    name = "multipliers"
    required = True

    def __init__(self, steps: int, rates: Rates) -> None:
        self.rates = rates
        self.steps, self.done = steps, 0
        self._exponent = 1
        self._draws = 0
        self.values: dict[str, Tensor] = {}
        """Multipliers by the names of weights, which they broadcast with."""
        self._pending: list[tuple[list[Tensor], list[Tensor], list[Tensor]]] = []
        """Of each group: weights, what they were before the step, and multipliers."""

    def begin(self, optimizer: torch.optim.Optimizer, group: int) -> None:
        """Multiply what ``optimizer``, which may hold other parameters too, does from its next step on.

        Raises:
            OptionError: its steps are none that a factor's could be folded into.
        """
        self._exponent = power(optimizer)
        self._optimizer = optimizer
        self._dense = self._plan = self.plan
        seed = _seed(self.generator) if self.rates.seed is None else self.rates.seed
        self._seed = agreed(seed)
        self._name_weights()
        if not self.values:
            self._draw()
        around_each_step(optimizer, self._before, self._after)

    @property
    def strength(self) -> float:
        """Fraction of the multipliers in force: 1 during the search, 0 when they are gone."""
        if self.done < self.steps or self.rates.rate_after == KEEP:
            return 1.0
        return max(0.0, 2 - self.done / self.steps) if self.rates.rate_after == FADE else 0.0

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        """Keep what the weights are before the step, less what the step will take off them by decay."""
        self._pending = []
        if self.strength == 0:
            self.values = {}
            return
        for group in self._optimizer.param_groups:
            weights = [w for w in group["params"] if w in self._names and w.grad is not None]
            if weights:
                names = [self._names[weight] for weight in weights]
                for name, weight in zip(names, weights):
                    self.values[name] = self.values[name].to(weight)  # a host may have moved it
                left = left_by_decay(group)
                each = [left] * len(weights) if isinstance(left, Tensor) else left
                before = torch._foreach_mul([weight.detach() for weight in weights], each)
                self._pending.append((weights, list(before), [self.values[n] for n in names]))

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        strength = self.strength
        for weights, before, values in self._pending:
            # before + values (weight - before), in one pass from the other end
            back = torch._foreach_mul(values, -strength)
            torch._foreach_add_(back, strength)
            torch._foreach_lerp_([weight.detach() for weight in weights], before, back)
        self._pending = []
        self.done += 1
        if self.rates.redraw and self.done % self.rates.redraw == 0 and self.strength:
            self._draw()

    def of_units(self) -> np.ndarray:
        """Mean multiplier of what reads each unit, ``(units,)``; 1 for what nobody reads."""
        total = np.zeros(self._dense.units + 1)  # the last entry gathers what is PINNED
        count = total.copy()
        for name, axis, units in readers(self._plan):
            if name in self.values:
                values = self.values[name].double().flatten(1).movedim(axis, 0).cpu().numpy()
                np.add.at(total, units, values.sum(1))
                np.add.at(count, units, values.shape[1])
        return np.where(count > 0, total / np.maximum(count, 1), 1.0)[:-1]

    def _draw(self) -> None:
        """Draw the next multipliers, of the layers as they are now."""
        seed = (self._seed + self._draws) % 2**63
        self.values = draw(self._dense, self.rates, self._exponent, seed)
        self._draws += 1
        present, self._plan = self._plan, self._dense
        self._follow(present)

    def resized(self, plan: ChannelPlan, remaining: Remaining | None) -> None:
        if remaining is None:
            self.values, self._plan = {}, plan
            self._name_weights()
        else:
            self._follow(plan)

    def _follow(self, plan: ChannelPlan) -> None:
        for name, value in self.values.items():
            for axis, units in self._plan.slices.get(name, {}).items():
                if axis < 2:
                    kept = np.flatnonzero((units == PINNED) | np.isin(units, plan.slices[name][axis]))
                    value = value.index_select(axis, torch.from_numpy(kept).to(value.device))
            self.values[name] = value
        self._plan = plan
        self._name_weights()

    def _name_weights(self) -> None:
        parameters = dict(self.generator.named_parameters())
        self._names = {parameters[name]: name for name in _layers(self._plan) if name in parameters}

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-equal continuation needs, besides the generator and its optimizer."""
        values = {name: value.cpu().clone() for name, value in self.values.items()} if self.strength else {}
        return {
            "done": self.done,
            "seed": self._seed,
            "draws": self._draws,
            "values": values,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, in a generator that is as wide as it was.

        Raises:
            CheckpointError: the state is of another generator.
        """
        parameters = {name: parameter for parameter, name in self._names.items()}
        for name, value in state["values"].items():
            if name not in parameters or value.shape[:2] != parameters[name].shape[:2]:
                raise CheckpointError(f"the saved multipliers of {name} are of another generator")
        self.done, self._seed, self._draws = (int(state[key]) for key in ("done", "seed", "draws"))
        self.values = {name: value.clone() for name, value in state["values"].items()}


@method("implicit", "every connection's steps multiplied as the published form's are, no loss at the cut")
class Implicit(Gates):
    """The search by gates, with a hypernetwork folded into the optimizer's steps."""

    search_part = Method.search_part

    @dataclass(frozen=True)
    class Config(Rates):
        """How far steps go. Raises OptionError for values out of range."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self.multipliers = StepMultipliers(self.steps, config)
        if config.discount:
            self.discount = self.multipliers.of_units

    def companions(self) -> list[Events]:
        return [self.multipliers]
