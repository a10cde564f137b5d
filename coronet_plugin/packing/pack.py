"""Write the folder: weights as safetensors, the spec, an ONNX file that was checked, pictures and the card.

Everything is made in a temporary folder; the packed weights are loaded from there and must compute what the
run's do, bit by bit, before any of it appears.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coronet_plugin.checkpoint.spec import Spec, spec_path
from coronet_plugin.checkpoint.storage import load_generator, packed_weights, save_generator
from coronet_plugin.checkpoint.tensors import SAFETENSORS
from coronet_plugin.compression import Compression
from coronet_plugin.errors import CheckpointError, ExportError, OptionError
from coronet_plugin.evaluation.evaluate import evaluate_run
from coronet_plugin.evaluation.record import Evaluation
from coronet_plugin.export.normalisation import check_norm_mode
from coronet_plugin.export.pictures import pictures_for
from coronet_plugin.export.pipeline import Result, export_generator
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import target_named
from coronet_plugin.export.verify import TANH, in_words
from coronet_plugin.files import appearing_in, write_text
from coronet_plugin.packing.card import About, Packed, card
from coronet_plugin.packing.examples import draw_examples
from coronet_plugin.runs.opener import StoredGenerator, read_generator
from coronet_plugin.runs.run import Run, Translation
from coronet_plugin.training import provenance

CARD = "README.md"
ATTRIBUTION = "ATTRIBUTION.md"


@dataclass(frozen=True)
class Choices:
    """How a run is packed.

    ``onnx``: whether with an ONNX file, of ``dtype`` and ``norm_mode`` as in ``coronet export``.
    ``examples``: test pictures to show. ``dataroot``: where the data lies now. ``attribution``: a file about
    the data, which is copied; by default ``ATTRIBUTION.md`` beside them. ``results_dir``, ``epoch``: where
    pictures to check the ONNX file on are looked for.
    """

    onnx: bool = True
    dtype: str = "fp32"
    norm_mode: str = "batch"
    examples: int = 4
    dataroot: Path | None = None
    attribution: Path | None = None
    results_dir: Path | str = "./results"
    epoch: str = "latest"
    overwrite: bool = False
    say: Callable[[str], Any] = print


def pack(run: Run, folder: Path, about: About, choices: Choices, network: str = "") -> list[Path]:
    """Pack the generators of ``run``, or ``network`` alone, into ``folder``; gives the files written.

    ``about``: what the user said of it; what was not said is filled in from the run.

    Raises:
        CheckpointError: weights or spec are missing or damaged, or the folder holds a file already.
        OptionError: there is no such network, or a library is missing.
        ExportError: the ONNX file does not compute the same.
    """
    check_norm_mode(choices.norm_mode)
    translations = [t for t in run.translations if network in ("", t.generator)]
    if not translations:
        raise OptionError(f"--network {network}: {run.name} has {', '.join(run.weights)}")
    _check_free(folder, {f"{t.generator}{SAFETENSORS}" for t in translations}, choices.overwrite)
    attribution = _attribution(run, choices)
    with appearing_in(folder) as made:
        packed = [_one(run, translation, made, choices) for translation in translations]
        if attribution is not None:
            shutil.copyfile(attribution, made / ATTRIBUTION)
            about = dataclasses.replace(about, attribution=ATTRIBUTION)
        write_text(made / CARD, card(_filled(about, run, folder, choices.epoch), packed))
        names = sorted(path.name for path in made.iterdir())
    return [folder / name for name in names]


def _check_free(folder: Path, weights: set[str], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"--output {folder} is a file; name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"--output {folder} is not empty; name another folder, or say --overwrite")
    others = sorted({path.name for path in packed_weights(folder).values()} - weights)
    if others:
        raise CheckpointError(f"{folder} also holds {', '.join(others)} of another pack; remove it first")


def _attribution(run: Run, choices: Choices) -> Path | None:
    if choices.attribution is not None:
        if not choices.attribution.is_file():
            raise OptionError(f"--attribution {choices.attribution} is no file")
        return choices.attribution
    root = choices.dataroot or Path(run.options.text("dataroot", ""))
    found = root / ATTRIBUTION
    return found if found.is_file() and root != Path() else None


# -- one generator -------------------------------------------------------------
def _one(run: Run, translation: Translation, folder: Path, choices: Choices) -> Packed:
    name = translation.generator
    stored = read_generator(name, run.weights[name])
    spec = stored.spec or _dense_spec(stored)
    weights = folder / f"{name}{SAFETENSORS}"
    save_generator(stored.generator, weights, spec)
    _prove(stored, weights)
    onnx = _export(run, stored, folder, choices) if choices.onnx else None
    examples = folder / f"examples_{name}.png"
    columns = draw_examples(run, translation, choices.examples, examples) if choices.examples else ()
    written = [weights, spec_path(weights), *(onnx.files if onnx else ())]
    return Packed(
        name=name,
        does=_does(stored, translation),
        spec=spec,
        weights=weights.name,
        files={path.name: path.stat().st_size for path in written},
        norms=choices.norm_mode,
        onnx=onnx.record if onnx else None,
        evaluation=_evaluation(run, name, choices),
        examples=examples.name if columns else "",
        columns=columns,
    )


def _dense_spec(stored: StoredGenerator) -> Spec:
    """The spec of a generator that was never compressed: all of every channel set is kept."""
    dense = stored.family.build(stored.config)
    example, architecture = stored.example(), stored.architecture
    compression = Compression(dense, example, search_steps=1, budget=1.0, architecture=architecture)
    compression.slim()
    return compression.spec({"bit_depth": stored.bit_depth})


@torch.no_grad()
def _prove(stored: StoredGenerator, weights: Path) -> None:
    """Raises CheckpointError unless the packed weights compute what the run's do."""
    example = stored.example()
    first, second = (net.eval()(*example) for net in (stored.generator, load_generator(weights)))
    if not torch.equal(first, second):
        raise CheckpointError(
            f"{weights.name} does not compute what {stored.origin} does; nothing was written, please report "
            "it"
        )


def _does(stored: StoredGenerator, translation: Translation) -> str:
    height, width = stored.size
    channels = {1: "a grey picture", 3: "an RGB picture", 4: "an RGBA picture"}
    given = channels.get(stored.channels, f"a picture of {stored.channels} channels")
    any_size = f"; sides are multiples of {stored.multiple}" if stored.multiple > 1 else ""
    return (
        f"{given} (`{translation.source}`) and gives one of the same size (`{translation.output}`), "
        f"values in [-1, 1], trained on {width} x {height}{any_size}"
    )


def _export(run: Run, stored: StoredGenerator, folder: Path, choices: Choices) -> Result:
    request = Request(
        target_named("onnx"),
        choices.dtype,
        size=stored.size,
        norm_mode=choices.norm_mode,
        multiple=stored.multiple,
        about={"network": stored.name, "origin": stored.origin, "architecture": stored.architecture},
    )
    request.check()
    pictures = pictures_for(
        run.weights[stored.name],
        stored.name,
        stored.channels,
        stored.size,
        results_dir=choices.results_dir,
        epoch=choices.epoch,
    )
    result = export_generator(stored.generator, request, folder, stored.name, pictures)
    if not result.accepted:
        found = result.difference
        raise ExportError(
            f"{stored.name} as ONNX {choices.dtype} does not compute the same"
            f"{f' ({in_words(found, TANH)})' if found else ''}; nothing was written: take another --dtype, "
            "or leave it out with --no_onnx"
        )
    return result


# -- what is known of the run --------------------------------------------------
def _evaluation(run: Run, name: str, choices: Choices) -> Evaluation | None:
    """As evaluation.json says, or measured now; None for a run that was not tested."""
    if run.images_dir is None:
        choices.say(f"{run.name} has no test pictures: the card has no figures of quality; run test.py first")
        return None
    found = evaluate_run(run, dataroot=choices.dataroot, say=choices.say)
    return next((each for each in found if each.generator == name), None)


def _filled(about: About, run: Run, folder: Path, epoch: str) -> About:
    root = Path(run.options.text("dataroot", ""))
    return dataclasses.replace(
        about,
        name=folder.resolve().name,
        title=about.title or run.name,
        dataset=about.dataset or root.name,
        tags=(*about.tags, run.base_model),
        training={**dict(_training(run)), "weights": f"`{epoch}`"},
    )


def _training(run: Run) -> Iterator[tuple[str, str]]:
    """How it was trained, without the names of folders."""
    options = run.options
    epochs = [options.text(key, "") for key in ("n_epochs", "n_epochs_decay")]
    length = f", {sum(map(int, epochs))} epochs" if all(epoch.isdigit() for epoch in epochs) else ""
    yield "model", f"`{run.base_model}`{length}, batches of {options.text('batch_size', '1')}"
    for spec in list(run.specs.values())[:1]:
        method, budget = spec.search.get("method", ""), spec.budget
        steps = f"{spec.search.get('of')} steps of search"
        yield "compression", f"`{method}`, budget {budget['requested']} ({budget['kind']}), {steps}"
    for record in provenance.read(run.folder)[-1:]:
        words = provenance.in_words(record)
        yield from ((key, words[key]) for key in ("seed", "data", "versions"))
