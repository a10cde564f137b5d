"""A training run, found by its name: its options, log, weights, specs and test pictures.

Reads what ``train.py`` and ``test.py`` left on disk, those of this repository or of an
upstream checkout, and changes nothing. A run knows how to rebuild its generators;
measuring and showing them is for others (:mod:`~coronet_plugin.comparison`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from coronet_plugin.checkpoint.spec import Spec, spec_path
from coronet_plugin.checkpoint.storage import packed_weights
from coronet_plugin.checkpoint.tensors import ENDINGS, is_weight_file
from coronet_plugin.errors import CheckpointError, DataError, OptionError
from coronet_plugin.files import settle
from coronet_plugin.runs.opener import read_generator, takes_one_image
from coronet_plugin.runs.options import Options, read_options
from coronet_plugin.runs.tested import Tested
from coronet_plugin.runs.tested import read as read_tested

PAIRED = ("aligned", "colorization", "template")
"""Data sets in which every picture has its truth."""
VISUALS = {"colorization": ("real_A", "fake_B_rgb", "real_B_rgb"), "template": ("data_A", "output", "data_B")}
"""Names that models have for the pictures of their generator, where they do not call them as pix2pix does."""


@dataclass(frozen=True)
class Translation:
    """One generator's translation by visual names of the results: source -> output, truth if known."""

    generator: str
    source: str
    output: str
    truth: str | None


@dataclass(frozen=True)
class LogEntry:
    """One line of ``loss_log.jsonl``: optimizer step, epoch, seconds of training so far, losses."""

    step: int
    epoch: int
    seconds: float | None
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A run by name. ``weights`` and ``specs`` are by generator: ``G``, or ``G_A`` and ``G_B``.

    ``images_dir`` is None until test.py has run; ``log`` is empty without ``loss_log.jsonl``; a
    dense generator has no spec.
    """

    name: str
    folder: Path
    options: Options
    weights: Mapping[str, Path]
    specs: Mapping[str, Spec]
    log: tuple[LogEntry, ...]
    images_dir: Path | None

    @property
    def is_dense(self) -> bool:
        return not self.specs

    @property
    def base_model(self) -> str:
        """The model class that was trained, seen through a wrapping ``--model coronet``."""
        model = self.options.text("model", "cycle_gan")
        return self.options.text("coronet_base", "pix2pix") if model == "coronet" else model

    @property
    def translations(self) -> tuple[Translation, ...]:
        """One for each generator with weights. The truth is known for aligned data alone."""
        aligned = self.options.text("dataset_mode", "unaligned") in PAIRED
        known = {
            "G": VISUALS.get(self.base_model, ("real_A", "fake_B", "real_B")),
            "G_A": ("real_A", "fake_B", "real_B"),
            "G_B": ("real_B", "fake_A", "real_A"),
        }
        return tuple(
            Translation(name, source, output, truth if aligned else None)
            for name, (source, output, truth) in known.items()
            if name in self.weights
        )

    @property
    def training_seconds(self) -> float | None:
        """Seconds of training by the log, or None if it does not say."""
        return self.log[-1].seconds if self.log else None

    @property
    def command(self) -> str:
        """The command that trained this run: ``command.txt``, else rebuilt from the changed options."""
        written = self.folder / "command.txt"
        return written.read_text(encoding="utf-8").strip() if written.is_file() else self.options.command()

    def channels(self, generator: str) -> tuple[int, int]:
        """(input, output) channels. ``G_B`` goes the other way; ``--direction`` swaps data, not networks."""
        first, second = self.options.integer("input_nc", 3), self.options.integer("output_nc", 3)
        return (second, first) if generator == "G_B" else (first, second)

    def input_size(self, generator: str) -> tuple[int, int, int]:
        """(C, H, W) of what the generator was trained on."""
        crop = self.options.crop_size
        return (self.channels(generator)[0], crop, crop)

    @cached_property
    def tested(self) -> Tested | None:
        """The note beside the test pictures, of what made them, if any. Raises DataError if it is damaged."""
        return read_tested(self.images_dir.parent) if self.images_dir else None

    def pictures(self, visual: str) -> list[Path]:
        """The files ``*_<visual>.png`` of the test, sorted; none of an earlier one, as far as is known."""
        return pictures_in(self.images_dir, visual, self.tested) if self.images_dir else []

    def can_rebuild(self, generator: str) -> bool:
        """True if it is of a registered family and takes one image, as what measures runs needs."""
        return generator not in self.specs or takes_one_image(self.specs[generator].architecture)

    def load_generator(self, generator: str) -> nn.Module:
        """The trained generator on the CPU, slim or dense, in evaluation mode."""
        return read_generator(generator, self.weights[generator]).generator.eval()


def find_run(
    name: str,
    checkpoints_dir: Path | str = "./checkpoints",
    results_dir: Path | str = "./results",
    phase: str = "test",
    epoch: str = "latest",
) -> Run:
    """Gather the run ``name``. Raises CheckpointError if there is none, or it has no weights of ``epoch``."""
    folder = Path(checkpoints_dir) / name
    if ".." in Path(name).parts:
        raise CheckpointError(f"the run {name!r} lies outside of {checkpoints_dir}; set --checkpoints_dir")
    if not name or not folder.is_dir():
        raise CheckpointError(
            f"no run {name!r} in {checkpoints_dir}{_others(Path(checkpoints_dir))}; "
            f"train it, or set --checkpoints_dir"
        )
    settle(folder)
    options = read_options(folder)
    if not options.values:
        raise CheckpointError(f"{folder} has no train_opt.txt; is it a folder that train.py wrote?")
    weights = weights_in(folder, epoch)
    if not weights:
        raise CheckpointError(f"{folder} has no {epoch}_net_G*.pth; let train.py save, or take another epoch")
    images = results_of(Path(results_dir) / name, phase, epoch) / "images"
    return Run(
        name=name,
        folder=folder,
        options=options,
        weights=weights,
        specs={key: Spec.read(spec_path(path)) for key, path in weights.items() if spec_path(path).is_file()},
        log=read_log(folder / "loss_log.jsonl"),
        images_dir=images if images.is_dir() else None,
    )


def weights_in(folder: Path, epoch: str) -> dict[str, Path]:
    """The weight files of ``epoch`` in the folder of a run, by generator, sorted."""
    start = f"{epoch}_net_"
    found = {
        path.stem[len(start) :]: path
        for ending in reversed(ENDINGS)
        for path in folder.glob(f"{start}G*{ending}")
    }
    return dict(sorted(found.items()))


def results_of(folder: Path, phase: str, epoch: str) -> Path:
    """The folder that test.py made in ``folder`` of the weights of ``epoch``; it need not be there.

    Weights ``iter_100``, by ``--load_iter 100``, become results such as ``test_latest_iter100``.
    """
    iteration = re.fullmatch(r"iter_(\d+)", epoch)
    found = sorted(folder.glob(f"{phase}_*_iter{iteration[1]}"), reverse=True) if iteration else []
    return found[0] if found else folder / f"{phase}_{epoch}"


def pictures_in(folder: Path, visual: str, made_by: Tested | None) -> list[Path]:
    """The files ``*_<visual>.png`` in ``folder``, sorted, of the test ``made_by``; all if it is None."""
    ending = f"_{visual}.png"
    found = sorted(folder.glob(f"*{ending}"))
    return [path for path in found if made_by is None or path.name[: -len(ending)] in made_by.names]


def run_folder(target: str, checkpoints_dir: Path | str) -> Path:
    """The folder of a run by its name in ``checkpoints_dir``, or by itself; it need not be there."""
    folder = Path(checkpoints_dir) / target
    return Path(target).resolve() if target and not folder.is_dir() and Path(target).is_dir() else folder


def find_weights(
    target: str, checkpoints_dir: Path | str, epoch: str = "latest", network: str = ""
) -> dict[str, Path]:
    """Weight files by generator: of a weight file, of a run by its name or folder, or of a packed folder.

    ``network``: the only generator to find; by default all.

    Raises:
        CheckpointError: there is no such run, or it has no weights of ``epoch``.
        OptionError: it has no generator ``network``.
    """
    if is_weight_file(target):
        weights = {Path(target).stem.rpartition("_net_")[2]: Path(target)}
    elif target and packed_weights(target) and not (Path(target) / "train_opt.txt").is_file():
        weights = packed_weights(target)
    else:
        folder = run_folder(target, checkpoints_dir)
        weights = dict(find_run(folder.name, folder.parent, epoch=epoch).weights)
    if network and network not in weights:
        raise OptionError(f"--network {network}: {target} has {', '.join(weights)}")
    return {network: weights[network]} if network else weights


def read_log(path: Path) -> tuple[LogEntry, ...]:
    """The entries of ``loss_log.jsonl``, oldest first; empty if there is no such file.

    A last line cut short by an interruption is left out; anything else unreadable raises DataError.
    """
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number}: not an entry of the training log") from error
    return tuple(entries)


def _entry(data: Mapping[str, Any]) -> LogEntry:
    seconds = data.get("seconds")
    return LogEntry(
        step=int(data["step"]),
        epoch=int(data["epoch"]),
        seconds=None if seconds is None else float(seconds),
        losses={key: float(value) for key, value in data["losses"].items()},
    )


def _others(checkpoints_dir: Path) -> str:
    names = sorted(path.name for path in checkpoints_dir.glob("*") if path.is_dir())
    return f" (there are: {', '.join(names)})" if names else ""
