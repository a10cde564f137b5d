"""From what a user names (a run, a weight file, a packed folder, an export) to generators that translate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.checkpoint.spec import spec_path
from coronet_plugin.command import NORM_MODE
from coronet_plugin.errors import CheckpointError, DataError, OptionError
from coronet_plugin.export.normalisation import normalised
from coronet_plugin.export.record import FORMAT
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.pictures.files import FULL_DEPTH, MODES
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.runs.options import read_options
from coronet_plugin.runs.run import find_weights

WEIGHTS = (".pth", ".safetensors")
UNKNOWN = (256, 256)
"""Size that a file which does not say it is taken to be trained on."""
_MULTIPLE = re.compile(r"multiple of (\d+)")


@dataclass(frozen=True)
class Translator:
    """A generator from one picture to one.

    ``run``: (N, ``channels``, H, W) in [-1, 1] to values between ``limits``, on the CPU, each picture as if
    alone. ``size``: (H, W) it was trained on; with ``fixed`` the only one it takes, one picture at a time.
    ``multiple``: what other sides must be multiples of. ``colours``: it goes from the lightness of Lab to the
    two colours, as the model type ``colorization`` does. ``generator``: None for a file of another runtime.
    ``bit_depth``: of the values in pictures of 16 bits a channel. ``notes``: what the user should know.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    channels: int
    size: tuple[int, int]
    multiple: int = 1
    fixed: bool = False
    limits: tuple[float, float] = (-1.0, 1.0)
    generator: nn.Module | None = None
    colours: bool = False
    bit_depth: int = FULL_DEPTH
    notes: tuple[str, ...] = ()


def open_translators(
    source: str,
    networks: Sequence[str] = (),
    *,
    epoch: str = "latest",
    checkpoints_dir: Path | str = "./checkpoints",
    norm_mode: str = NORM_MODE,
    device: str = "cpu",
    threads: int = 1,
) -> list[Translator]:
    """The generators ``networks`` of ``source``; without names, its only one.

    ``source``: a run's name or folder, a weight file, a folder with weights and their specs, or a file that
    ``coronet export`` wrote. ``norm_mode`` is of those that are not exported (an export has its own),
    ``threads`` of those that are.

    Raises:
        CheckpointError: there is nothing of the kind, or it is damaged.
        OptionError: it has no such network, or several and none is named; or no such device is here.
        DataError: it does not go from one picture to one.
    """
    _check_device(device)
    record = _record_of(Path(source))
    if record is not None:
        return [_exported(Path(source), record, device, threads)]
    weights = _weights(source, checkpoints_dir, epoch)
    return [_trained(name, weights[name], norm_mode, device) for name in _chosen(source, weights, networks)]


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise OptionError(f"--device {device} is none; give cpu, cuda, or cuda:1") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"--device {device}: torch {torch.__version__} finds no GPU here; leave it out")


# -- trained generators ----------------------------------------------------------
def _weights(source: str, checkpoints_dir: Path | str, epoch: str) -> dict[str, Path]:
    """Weight files by generator."""
    path = Path(source)
    if path.is_file():
        return {path.stem.rpartition("_net_")[2]: path}
    if path.is_dir() and not read_options(path).values:
        files = (file for ending in WEIGHTS for file in sorted(path.glob(f"*{ending}")))
        found = {file.stem.rpartition("_net_")[2]: file for file in files if spec_path(file).is_file()}
        if found:
            return found
    if path.suffix and "/" in source and not path.exists():
        raise CheckpointError(f"there is no {source}; give a run, a weight file, or an exported file")
    return find_weights(source, checkpoints_dir, epoch)


def _chosen(source: str, weights: Mapping[str, Path], networks: Sequence[str]) -> Sequence[str]:
    there = ", ".join(weights)
    for name in networks:
        if name not in weights:
            raise OptionError(f"--networks {name}: {source} has {there}")
    if not networks and len(weights) > 1:
        raise OptionError(f"{source} has {there}; say which with --networks {next(iter(weights))}")
    return networks or list(weights)


def _trained(name: str, path: Path, norm_mode: str, device: str) -> Translator:
    stored = read_generator(name, path)
    _check_channels(path, stored.channels)
    generator = normalised(stored.generator, norm_mode).to(device)

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        output: Tensor = generator(images.to(device))
        return output.float().cpu()

    return Translator(
        name,
        run,
        stored.channels,
        stored.size,
        stored.multiple,
        limits=stored.family.output_range,
        colours=_are_colours(stored.channels, getattr(stored.config, "output_nc", 0)),
        generator=generator,
        bit_depth=stored.bit_depth,
        notes=stored.notes,
    )


def _are_colours(inputs: int, outputs: int) -> bool:
    return (inputs, outputs) == (1, 2)


def _check_channels(path: Path, channels: int) -> None:
    if channels not in MODES:
        kinds = ", ".join(f"{count} ({mode})" for count, mode in MODES.items())
        raise DataError(
            f"{path} takes {channels} channels, and pictures have {kinds}; it cannot be used here"
        )


# -- exported files --------------------------------------------------------------
def _record_of(path: Path) -> dict[str, Any] | None:
    """Read the record that ``coronet export`` wrote beside ``path``; None if that is not one of its files.

    Raises CheckpointError for a file of another kind, or where the record is missing or damaged.
    """
    if not path.exists():
        return None
    beside = path.with_name(path.name + ".json")
    if not beside.is_file():
        endings = {suffix for target in TARGETS.values() for suffix in target.suffixes}
        if path.suffix in endings and path.suffix not in WEIGHTS:
            raise CheckpointError(
                f"there is no {beside.name} beside {path}, which says what goes in and comes out; copy both "
                "files of coronet export, the first and its record"
            )
        return None
    try:
        record: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}")
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{beside} is not the record of an export ({error})") from error


def _exported(path: Path, record: Mapping[str, Any], device: str, threads: int) -> Translator:
    if device != "cpu":
        raise OptionError(f"--device {device} is for generators of torch; exported files run on the CPU here")
    if "input" not in record or "output" not in record:
        raise DataError(f"{path} has several inputs or outputs, and translating is from one picture to one")
    try:
        target = TARGETS[record["target"]]
        (low, high), shape = record["output"]["range"], record["input"]["shape"]
        channels, dynamic = int(shape[1]), bool(record["dynamic"])
        free = [_MULTIPLE.fullmatch(str(side)) for side in shape[2:]]
        multiple = max((int(side[1]) for side in free if side), default=1)
        height, width = map(int, record.get("trained_on", UNKNOWN) if dynamic else shape[2:])
        limits = float(low), float(high)
        colours = _are_colours(channels, int(record["output"]["shape"][1]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}.json is damaged ({type(error).__name__}: {error})") from error
    _check_channels(path, channels)
    model = target.load(path, threads)

    def run(images: Tensor) -> Tensor:
        parts = (images,) if dynamic else images.split(1)
        return torch.cat([torch.from_numpy(model(part.numpy())) for part in parts])

    name = str(record.get("network", "G"))
    return Translator(name, run, channels, (height, width), multiple, not dynamic, limits, colours=colours)
