"""A training run, found by its name: its options, log, weights, specs and test pictures.

Reads what ``train.py`` and ``test.py`` left on disk, those of this repository or of an
upstream checkout, and changes nothing. A run knows how to rebuild its generators;
measuring and showing them is for others (:mod:`~coronet_plugin.comparison`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from coronet_plugin.errors import CheckpointError, DataError, OptionError
from coronet_plugin.files import settle
from coronet_plugin.spec import Spec, spec_path
from coronet_plugin.tested import Tested
from coronet_plugin.tested import read as read_tested

_DEFAULT_NOTE = re.compile(r"\s*\t\[default: (?P<default>.*)\]\s*$")
_NOT_OPTIONS = frozenset({"isTrain", "device", "suffix"})  # attributes; the suffix is in the name already


@dataclass(frozen=True)
class Translation:
    """What one generator does, in the visual names of the results: source -> output, truth if known."""

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
class Options:
    """The options of a run as text, and the defaults of those that were changed."""

    values: Mapping[str, str]
    changed: Mapping[str, str]

    def text(self, key: str, default: str | None = None) -> str:
        """Raises OptionError when the option file lacks ``key`` and there is no default."""
        if key in self.values:
            return self.values[key]
        if default is None:
            raise OptionError(f"the option file does not say --{key}; was it written by train.py?")
        return default

    def integer(self, key: str, default: int | None = None) -> int:
        text = self.text(key, None if default is None else str(default))
        try:
            return int(text)
        except ValueError as error:
            raise OptionError(f"--{key} is {text!r} in the option file, expected a whole number") from error

    def flag(self, key: str) -> bool:
        return self.values.get(key, "False") == "True"

    @property
    def crop_size(self) -> int:
        """Side of the training crops in pixels, by its name of today or until 2019."""
        return self.integer("crop_size", self.integer("fineSize", 256))

    def command(self) -> str:
        """A ``train.py`` command line that says what differs from the defaults."""
        words = ["python", "train.py"]
        for key in self.changed:
            value = self.values[key]
            if key in _NOT_OPTIONS or value in ("False", "None"):
                continue
            words += [f"--{key}"] if value == "True" else [f"--{key}", value]
        return shlex.join(words)


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
        aligned = self.options.text("dataset_mode", "unaligned") == "aligned"
        known = {
            "G": ("real_A", "fake_B", "real_B"),
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
        """What made the test pictures; None without a note beside them. Raises DataError if it is damaged."""
        return read_tested(self.images_dir.parent) if self.images_dir else None

    def pictures(self, visual: str) -> list[Path]:
        """The files ``*_<visual>.png`` of the test, sorted; none of an earlier one, as far as is known."""
        return pictures_in(self.images_dir, visual, self.tested) if self.images_dir else []

    def can_rebuild(self, generator: str) -> bool:
        """False for a slimmed generator of the user's own class, which only their code can build."""
        return generator not in self.specs or "netG" in self.specs[generator].architecture

    def load_generator(self, generator: str) -> nn.Module:
        """The trained generator on the CPU, slim or dense, in evaluation mode."""
        path = self.weights[generator]
        if generator in self.specs:
            from coronet_plugin.checkpoint import load_generator

            return load_generator(path).eval()
        return self._load_dense(path, self.channels(generator)).eval()

    def _load_dense(self, path: Path, channels: tuple[int, int]) -> nn.Module:
        from coronet_plugin.foreign import adapt_state_dict, read_state_dict
        from coronet_plugin.generators import build_generator

        options = self.options
        net = build_generator(
            input_nc=channels[0],
            output_nc=channels[1],
            ngf=options.integer("ngf", 64),
            netG=options.text("netG"),
            norm=options.text("norm", "instance"),
            use_dropout=not options.flag("no_dropout"),
        )
        net.load_state_dict(adapt_state_dict(read_state_dict(path), net))
        return net


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
    weights = {path.stem[len(f"{epoch}_net_") :]: path for path in sorted(folder.glob(f"{epoch}_net_G*.pth"))}
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


def find_weights(target: str, checkpoints_dir: Path | str, epoch: str = "latest") -> dict[str, Path]:
    """Weight files by generator: of a weight file (.pth), or of a run by its name or folder.

    Raises:
        CheckpointError: there is no such run, or it has no weights of ``epoch``.
    """
    if target.endswith(".pth"):
        return {Path(target).stem.rpartition("_net_")[2]: Path(target)}
    folder = Path(checkpoints_dir) / target
    if target and not folder.is_dir() and Path(target).is_dir():
        folder = Path(target).resolve()
    return dict(find_run(folder.name, folder.parent, epoch=epoch).weights)


def read_options(folder: Path) -> Options:
    """The options of the run in ``folder``; none if it is no run."""
    for path in (folder / "train_opt.txt", folder / "opt.txt"):
        if path.is_file():
            return parse_options(path.read_text(encoding="utf-8"))
    return Options({}, {})


def parse_options(text: str) -> Options:
    """Read ``train_opt.txt``: lines ``key: value``, then a tab and ``[default: x]`` if it was changed."""
    values: dict[str, str] = {}
    changed: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        key = key.strip()
        if not colon or not key.isidentifier():  # the dashed header and footer
            continue
        note = _DEFAULT_NOTE.search(rest)
        values[key] = (rest[: note.start()] if note else rest).strip()
        if note:
            changed[key] = note["default"]
    return Options(values, changed)


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
