"""Generators taken out again: one Python file and its weights, for whoever has no plug-in.

``slim_G.py`` builds the generator with torch alone, its widths written in as data, and
``slim_G.pth`` beside it is a state_dict under upstream's keys; ``slim_test_model.py`` makes
them usable in an upstream checkout. Files are made in a temporary folder, imported and
compared with the generator, and only then put where the user wants them.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from coronet_plugin.channels.cut import copy_with
from coronet_plugin.checkpoint.storage import save_tensors, write_atomically
from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.runs.opener import StoredGenerator, read_generator
from coronet_plugin.standalone.text import file_text, upstream_model_text


def export_upstream(weights: Mapping[str, Path], folder: Path) -> tuple[list[Path], list[str]]:
    """Write ``slim_<name>.py`` and ``.pth`` for each generator, and the model file for test.py.

    Returns the files, and notes for the user. Nothing is written unless all files prove right.

    Raises:
        CheckpointError: weights are damaged, of a class of the user's own, or do not survive the way.
        OptionError: the folder cannot be made.
    """
    exports = [read_generator(name, path) for name, path in weights.items()]
    with tempfile.TemporaryDirectory() as temporary:
        made = _make(exports, Path(temporary))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"--output {folder} cannot be made: {error.strerror}") from error
        for path in made:
            write_atomically(folder / path.name, functools.partial(shutil.copyfile, path))
    notes = [f"{exported.name}: {note}" for exported in exports for note in _notes(exported)]
    return [folder / path.name for path in made], notes


def _notes(exported: StoredGenerator) -> tuple[str, ...]:
    assumed = "taken to have dropout; otherwise write DROPOUT = () in its file"
    return exported.notes if exported.dropout_known else (*exported.notes, assumed)


def _make(exports: Sequence[StoredGenerator], folder: Path) -> list[Path]:
    """Write all files into ``folder`` and verify them; the order is that in which to place them."""
    made = []
    for exported in exports:
        side = exported.multiple * -(-32 // exported.multiple)  # a size of at least 32 that it takes
        stem = "slim_" + re.sub(r"\W", "_", exported.name, flags=re.ASCII)
        weights, code = folder / f"{stem}.pth", folder / f"{stem}.py"
        save_tensors(exported.generator.state_dict(), weights)
        code.write_text(file_text(exported, stem), encoding="utf-8")
        verify_file(code, exported.generator, exported.example((side, side)))
        made += [weights, code]
    model = folder / "slim_test_model.py"
    model.write_text(upstream_model_text(made[1].stem), encoding="utf-8")
    return [*made, model]


# -- the proof ---------------------------------------------------------------
def verify_file(path: Path, generator: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Import the file ``path`` and check that its ``load()`` computes what ``generator`` does, bit by bit.

    Tried on ``example`` in evaluation and train mode, dropout equally seeded.

    Raises:
        CheckpointError: it does not, or does not run.
    """
    try:
        rebuilt = _imported(path).load()
    except Exception as error:  # whatever the written file may do wrong
        line = " ".join(str(error).split())[:200]
        raise _not_written(path, f"does not load its weights ({line})") from error
    original = copy_with(generator)  # running in train mode changes running statistics
    if list(rebuilt.state_dict()) != list(original.state_dict()):
        raise _not_written(path, "has other tensors than the generator")
    for training in (False, True):
        outputs = [_output(net.train(training), example) for net in (rebuilt, original)]
        if not torch.allclose(outputs[0], outputs[1], rtol=0, atol=0, equal_nan=True):
            raise _not_written(path, "does not compute what the generator does")


def _not_written(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path.name} {what}; nothing was written, please report it")


@torch.no_grad()
def _output(net: nn.Module, example: tuple[Tensor, ...]) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return net(*example)


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
