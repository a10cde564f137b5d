"""The folder of a page: assets of this package, models checked against torch, examples and the runtime."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coronet_plugin.errors import ExportError, OptionError
from coronet_plugin.export.browser import BROWSER
from coronet_plugin.export.pictures import Samples
from coronet_plugin.export.pipeline import export_generator
from coronet_plugin.export.request import Request
from coronet_plugin.export.verify import in_words
from coronet_plugin.files import appearing_in
from coronet_plugin.page.inputs import colours_for, inputs_for, write_examples
from coronet_plugin.page.runtime import ASSETS, copy_runtime
from coronet_plugin.runs.opener import StoredGenerator

PARTS = ("index.html", "page.css", "page.js", "pad.js", "worker.js", "isolate.js")
"""Files of the page itself, the same in every page."""
INVITATIONS = {
    "draw": "Draw, or start from an example: the pictures follow the pen.",
    "photo": "Choose a photo, or start from an example.",
    "webcam": "Start the camera, or begin with an example.",
}
_SHOWN = (1, 3)
"""Channels that a canvas can show."""


@dataclass(frozen=True)
class Page:
    """Wishes for a page. ``title`` and ``credit``: what it says of itself and of whose work it shows.

    ``runtime``: the folder of ONNX Runtime Web; ``inputs``: what it offers, by default as the data is;
    ``size``: (H, W) of pictures; ``dtype``: of the weights in its files, fp32 or fp16.
    """

    title: str
    runtime: Path
    size: tuple[int, int]
    credit: str = ""
    inputs: Sequence[str] = ()
    dtype: str = "fp16"
    norm_mode: str = "batch"


def write_page(
    page: Page, slim: StoredGenerator, dense: StoredGenerator | None, examples: Samples, folder: Path
) -> dict[str, Any]:
    """Write the page of ``slim``, with ``dense`` beside it if given, to ``folder``; gives its ``page.json``.

    ``examples``: what it may be given, of the page's size. Nothing is written if anything fails.

    Raises:
        OptionError: the generators do not fit the page or each other.
        ExportError: one cannot be exported, or does not compute the same afterwards.
    """
    _check_channels(slim.channels)
    with appearing_in(folder) as made:
        (made / "models").mkdir()
        is_dense = slim.slim == slim.dense
        models = [_model(page, slim, "dense" if is_dense else "slim", examples, made)]
        if dense is not None:
            models.append(_model(page, dense, "dense", examples, made))
            _check_alike(*models)
        elif not is_dense:
            models.append(_figures("dense", slim.dense))
        about = {**_about(page, examples, made), "models": models}
        (made / "page.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        copy_runtime(page.runtime, made / "runtime")
        for name in PARTS:
            shutil.copyfile(ASSETS / name, made / name)
    return about


def _about(page: Page, examples: Samples, made: Path) -> dict[str, Any]:
    pictures = examples.values if examples.are_real else np.zeros_like(examples.values)
    inputs = list(page.inputs) or inputs_for(pictures)
    names = write_examples(pictures, made / "examples") if examples.are_real else []
    return {
        "title": page.title,
        "credit": page.credit,
        "invitation": INVITATIONS[inputs[0]],
        "inputs": inputs,
        **colours_for(pictures),
        "examples": [f"examples/{name}" for name in names],
    }


def _figures(name: str, cost: Mapping[str, int]) -> dict[str, Any]:
    """Name and cost of a model, without its file."""
    return {
        "name": name,
        "title": f"{name} generator",
        "macs": cost["macs"],
        "parameters": cost["parameters"],
        "file": None,
    }


def _model(page: Page, stored: StoredGenerator, name: str, examples: Samples, made: Path) -> dict[str, Any]:
    """Export ``stored`` as ``models/NAME.onnx`` below ``made``; gives what the page needs to know of it."""
    request = Request(BROWSER, page.dtype, size=page.size, norm_mode=page.norm_mode, multiple=stored.multiple)
    file = f"models/{name}.onnx"
    with tempfile.TemporaryDirectory(dir=made, prefix=".export-") as temporary:
        result = export_generator(stored.generator, request, Path(temporary), name, examples)
        if result.difference and not result.accepted:
            low, high = result.record["output"]["range"]
            raise ExportError(
                f"the {name} generator in {page.dtype} does not compute the same as torch, but differs by "
                f"{in_words(result.difference, (low, high))}; take --dtype fp32"
            )
        os.replace(result.path, made / file)
    ends = {end: result.record[end] for end in ("input", "output")}
    _check_channels(ends["output"]["shape"][1])
    return {
        **_figures(name, stored.slim),
        "file": file,
        "bytes": (made / file).stat().st_size,
        "input": ends["input"]["shape"],
        "output": ends["output"]["shape"],
        "range": ends["output"]["range"],
    }


def _check_channels(channels: int) -> None:
    if channels not in _SHOWN:
        raise OptionError(f"a page shows pictures of 1 or 3 channels, and this generator has {channels}")


def _check_alike(slim: Mapping[str, Any], dense: Mapping[str, Any]) -> None:
    ends = [f"{model['input']} to {model['output']}" for model in (slim, dense)]
    if ends[0] != ends[1]:
        raise OptionError(
            f"--dense goes from {ends[1]} and the run from {ends[0]}; both must translate the same"
        )
