"""The generators that are timed: of runs, of weight files, or of families with random weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.find import cost_of, example_input
from coronet_plugin.compression import Compression
from coronet_plugin.errors import BudgetError, OptionError
from coronet_plugin.export.pipeline import example_for
from coronet_plugin.generators.registry import find_family
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.runs.run import find_weights

RANDOM = re.compile(r"(?P<family>\w+)(@(?P<budget>[^/]+)(/(?P<round>\d+))?)?")
"""``FAMILY``, ``FAMILY@0.1``, ``FAMILY@0.1/8``."""
SIZE = 256


@dataclass(frozen=True)
class Entry:
    """A generator to time. ``size``: (H, W) of its input. ``multiple``: what both must be multiples of."""

    name: str
    generator: nn.Module
    cost: Cost
    size: tuple[int, int]
    multiple: int
    origin: str

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "origin": self.origin, "size": list(self.size), **self.cost.as_dict()}


def read_entries(
    names: Iterable[str],
    size: tuple[int, int] | None = None,
    checkpoints_dir: Path | str = "./checkpoints",
    epoch: str = "latest",
    network: str = "",
) -> list[Entry]:
    """The generators of ``names``, all for an input of one size: ``size``, or that of the first.

    Of a run with several generators the first, or ``network``, is taken.

    Raises:
        CheckpointError: there is no such run or file.
        OptionError: two have the same name, or the size fits one of them not.
        BudgetError: the budget cannot be read or reached.
    """
    entries: list[Entry] = []
    for name in names:
        chosen = size or (entries[0].size if entries else None)
        entry = _random(name, chosen) or _stored(name, chosen, checkpoints_dir, epoch, network)
        if entry.name in {other.name for other in entries}:
            raise OptionError(f"{entry.name} is named twice")
        entries.append(entry)
    return entries


def _random(name: str, size: tuple[int, int] | None) -> Entry | None:
    """Random weights, which do not change how long a generator takes; None if ``name`` is of no family."""
    match = RANDOM.fullmatch(name)
    family = find_family(match["family"]) if match else None
    if match is None or family is None:
        return None
    family.check_one_image()
    config = family.default_config()
    with torch.random.fork_rng(devices=[]):  # the same weights each time
        torch.manual_seed(0)
        generator = family.build(config)
    origin = "random weights, dense"
    if match["budget"]:
        narrow_(generator, match["budget"], int(match["round"] or 1), family.architecture(config))
        origin = f"random weights, uniform width, budget {match['budget']}"
        origin += f", channels in multiples of {match['round']}" * bool(match["round"])
    return _entry(name, generator, size or (SIZE, SIZE), family.side_multiple(config), origin)


def narrow_(generator: nn.Module, budget: str, round_to: int, architecture: Mapping[str, Any]) -> None:
    """Make every layer narrower by one factor until the MACs fit ``budget``, in place.

    Raises:
        BudgetError: the budget cannot be read or reached.
    """
    if round_to < 1:
        raise BudgetError(f"channels cannot be multiples of {round_to}; write at least 1 after the /")
    compression = Compression(
        generator,
        example_input(generator, SIZE),
        search_steps=1,
        budget=budget,
        method="uniform",
        round_to=round_to,
        architecture=architecture,
    )
    compression.slim()


def _stored(
    name: str, size: tuple[int, int] | None, checkpoints_dir: Path | str, epoch: str, network: str
) -> Entry:
    weights = find_weights(name, checkpoints_dir, epoch, network)
    label = name if len(weights) == 1 and not network else f"{name} {next(iter(weights))}"
    stored = read_generator(*next(iter(weights.items())))
    stored.family.check_one_image()
    return _entry(label, stored.generator, size or stored.size, stored.multiple, stored.origin)


def _entry(name: str, generator: nn.Module, size: tuple[int, int], multiple: int, origin: str) -> Entry:
    if any(side % multiple for side in size):
        raise OptionError(f"--size {size[0]}x{size[1]}: {name} needs multiples of {multiple}")
    cost = cost_of(generator, example_for(generator, size))
    return Entry(name, generator, cost, size, multiple, origin)
