"""Pictures that a generator makes of nothing but noise, as files and as one grid.

How a generator is sampled is for its family to say
(:meth:`~coronet_plugin.generators.registry.Family.sample`).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coronet_plugin.checkpoint.spec import Spec, spec_path
from coronet_plugin.errors import OptionError
from coronet_plugin.files import appearing_in, write_atomically
from coronet_plugin.generators.registry import is_registered
from coronet_plugin.runs.opener import StoredGenerator, read_generator
from coronet_plugin.runs.options import read_options
from coronet_plugin.runs.run import find_weights

NAME = "{:05d}.png"
_NAMES = re.compile(r"\d{5}\.png")
GAP = 2
"""Pixels between the pictures of a grid."""


@dataclass(frozen=True)
class Drawn:
    """The files of :func:`sample` and how many seconds the generator ran for them."""

    pictures: tuple[Path, ...]
    grid: Path | None
    seconds: float


def open_generator(
    target: str, checkpoints_dir: str | Path = "./checkpoints", epoch: str = "latest", network: str = ""
) -> StoredGenerator:
    """The one generator of a run, a weight file or a packed folder.

    Raises:
        OptionError: there are several, or the run names the module of its family, which was not imported.
        CheckpointError: there is none, or its files are damaged.
    """
    found = find_weights(target, checkpoints_dir, epoch, network)
    if len(found) != 1:
        raise OptionError(f"{target} has {', '.join(found)}; choose one with --network")
    ((name, path),) = found.items()
    module = read_options(path.parent).text("coronet_family", "")
    if module and not is_registered(Spec.read(spec_path(path)).architecture):
        raise OptionError(f"{target} was trained with --coronet_family {module}; name that module again")
    return read_generator(name, path)


@torch.no_grad()
def draw(stored: StoredGenerator, count: int, seed: int, batch_size: int = 16, steps: int = 50) -> Tensor:
    """``count`` pictures (count, H, W, 3), uint8, the same for a seed whatever the batch size is.

    ``steps``: of generators that work step by step.

    Raises:
        OptionError: the generator makes pictures of pictures.
    """
    generator, family = stored.generator.eval(), stored.family
    noise = torch.Generator().manual_seed(seed)
    low, high = family.output_range
    found = []
    for start in range(0, count, batch_size):
        size = min(batch_size, count - start)
        made = family.sample(generator, stored.config, size, noise, steps).float().cpu()
        levels = ((made.clamp(low, high) - low) * (255 / (high - low))).round().byte()
        found.append(levels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3))
    return torch.cat(found)


def sample(
    stored: StoredGenerator,
    output: Path,
    *,
    count: int,
    seed: int,
    grid: bool = False,
    batch_size: int = 16,
    steps: int = 50,
) -> Drawn:
    """Write ``count`` pictures into the folder ``output``, in place of those of an earlier call.

    ``grid``: write all in one picture, too, beside the folder: ``output.png``.

    Raises:
        OptionError: the generator makes pictures of pictures.
        CheckpointError: the folder cannot be written.
    """
    started = time.perf_counter()
    pictures = draw(stored, count, seed, batch_size, steps).numpy()
    seconds = time.perf_counter() - started
    names = [NAME.format(number) for number in range(count)]
    with appearing_in(output) as folder:
        for name, picture in zip(names, pictures):
            Image.fromarray(picture).save(folder / name)
    for path in output.iterdir():
        if _NAMES.fullmatch(path.name) and path.name not in names:
            path.unlink()
    place = output.with_name(f"{output.name}.png") if grid else None
    if place is not None:
        together = Image.fromarray(in_a_grid(pictures))
        write_atomically(place, lambda temporary: together.save(temporary, "png"), flush=False)
    return Drawn(tuple(output / name for name in names), place, seconds)


def in_a_grid(pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W, 3) in rows of about as many as there are rows, white between them; uint8."""
    count, height, width, _ = pictures.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    made = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        y, x = (GAP + place * (side + GAP) for place, side in zip(divmod(number, columns), (height, width)))
        made[y : y + height, x : x + width] = picture
    return made
