"""The model card of a packed folder: ``README.md`` with the YAML header that model hubs read.

Text made of facts; nothing is measured or read here. What is not known is left out or said to be unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coronet_plugin.channels.cost import human
from coronet_plugin.checkpoint.spec import SEARCH, Spec
from coronet_plugin.evaluation.protocols import PROTOCOLS
from coronet_plugin.evaluation.record import Evaluation
from coronet_plugin.export.normalisation import NORM_MODES

UNKNOWN = "unknown"
"""The hub's identifier of a licence that nobody named."""
LIBRARY = "coronet-plugin"
COSTS = {
    "macs": "MACs (multiply-adds really done)",
    "macs_literature": "MACs (literature's count)",
    "parameters": "parameters",
}


@dataclass(frozen=True)
class About:
    """Said on the card of the whole. ``license``: the hub's identifier of that of the weights.

    ``data``: a sentence on the data, who made them and under what licence. ``dataset``: their name.
    ``attribution``: name of a file in the folder with more about them. ``tags``: further words for the hub.
    ``training``: words by what they are about.
    """

    name: str
    title: str
    description: str = ""
    license: str = UNKNOWN
    data: str = ""
    dataset: str = ""
    attribution: str = ""
    tags: tuple[str, ...] = ()
    training: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Packed:
    """One generator as it stands in the folder.

    ``does``: what it is given and gives, in words. ``files``: sizes in bytes by name. ``onnx``: record of the
    ONNX file, or None. ``examples``: name of a picture of test pictures in ``columns``, if there is one.
    """

    name: str
    does: str
    spec: Spec
    weights: str
    files: Mapping[str, int]
    norms: str
    onnx: Mapping[str, Any] | None = None
    evaluation: Evaluation | None = None
    examples: str = ""
    columns: tuple[str, ...] = ()


def card(about: About, packed: Sequence[Packed]) -> str:
    """The whole README.md."""
    lines = [*_header(about, packed), "", f"# {about.title}", "", *_introduction(about, packed)]
    for one in packed:
        if len(packed) > 1:
            lines += [f"## {one.name}: {one.does}", ""]
        lines += [*_pictures(one), *_cost(one), *_quality(one)]
    lines += [*_loading(about, packed), *_data(about), *_training(about)]
    return "\n".join(lines).rstrip() + "\n"


# -- the header ------------------------------------------------------------------
def _header(about: About, packed: Sequence[Packed]) -> Iterator[str]:
    """Strings are written as JSON has them, which is YAML, too."""
    yield "---"
    yield f"license: {json.dumps(about.license)}"
    yield f"library_name: {LIBRARY}"
    yield "pipeline_tag: image-to-image"
    yield "tags:"
    families = dict.fromkeys(str(one.spec.architecture.get("netG", "")) for one in packed)
    formats = ["safetensors", *(["onnx"] if any(one.onnx for one in packed) else [])]
    for tag in dict.fromkeys((*about.tags, "gan", "image-to-image", "pruning", *families, *formats)):
        yield f"- {json.dumps(tag)}"
    if about.dataset:
        yield from ("datasets:", f"- {json.dumps(about.dataset)}")
    metrics = {one.name: dict(_metrics(one.evaluation)) for one in packed if one.evaluation}
    if any(metrics.values()):
        yield from _model_index(about, metrics)
    yield "---"


def _model_index(about: About, metrics: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "model-index:"
    for name, values in metrics.items():
        yield f"- name: {json.dumps(f'{about.name} {name}')}"
        yield "  results:"
        yield "  - task:"
        yield "      type: image-to-image"
        yield "    dataset:"
        yield f"      name: {json.dumps(about.dataset or UNKNOWN)}"
        yield f"      type: {json.dumps(about.dataset or UNKNOWN)}"
        yield "      split: test"
        yield "    metrics:"
        for kind, value in values.items():
            yield from (f"    - type: {kind}", f"      value: {value:.5g}")


def _metrics(evaluation: Evaluation | None) -> Iterator[tuple[str, float]]:
    """Figures that were measured and are numbers."""
    if evaluation is None:
        return
    if evaluation.paired:
        found = {kind: getattr(evaluation.paired, kind) for kind in ("ssim", "psnr", "l1")}
        yield from ((kind, value) for kind, value in found.items() if math.isfinite(value))
    if evaluation.lpips is not None:
        yield "lpips", evaluation.lpips
    if evaluation.distance:
        yield from (("fid", evaluation.distance.fid), ("kid", evaluation.distance.kid))


# -- for people ------------------------------------------------------------------
def _introduction(about: About, packed: Sequence[Packed]) -> Iterator[str]:
    if about.description:
        yield from (about.description, "")
    first = packed[0].spec
    if first.slim["macs"] < first.dense["macs"]:
        share = _percent(first.slim["macs"], first.dense["macs"])
        yield (
            f"Compressed while it trained ([CoroNetGAN](https://arxiv.org/abs/2403.08261)): {share} of the "
            "multiply-adds of the dense generator are left."
        )
        yield ""
    if len(packed) == 1:
        yield from (f"It takes {packed[0].does}.", "")


def _pictures(one: Packed) -> Iterator[str]:
    if one.examples:
        columns = ", ".join(one.columns)
        yield from (f"![{columns}]({one.examples})", "")
        yield from (f"From left to right: {columns}. Test pictures, spread evenly over their names.", "")


def _cost(one: Packed) -> Iterator[str]:
    dense, slim = one.spec.dense, one.spec.slim
    size = " x ".join(map(str, one.spec.input_size[0][1:]))
    yield from ("| for a picture of " + size + " | before | after | |", "|---|---|---|---|")
    for key, label in COSTS.items():
        before, after = human(dense[key]), human(slim[key])
        yield f"| {label} | {before} | {after} | {_percent(slim[key], dense[key])} |"
    yield ""
    if one.spec.phase == SEARCH:
        yield from ("The search was not over when this was packed; the end of it would be smaller.", "")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"


def _quality(one: Packed) -> Iterator[str]:
    found = one.evaluation
    if found is None:
        yield from ("How good its pictures are was not measured.", "")
        return
    if found.paired:
        paired = found.paired
        yield (
            f"Likeness to the truth, means over {paired.count} test pictures of {found.size}: "
            f"SSIM {paired.ssim:.3f} (Gaussian window, sigma 1.5), PSNR {paired.psnr:.2f} dB, "
            f"L1 {paired.l1:.4f} (of values in [0, 1])"
            + (f", LPIPS {found.lpips:.3f}." if found.lpips is not None else ".")
        )
        yield ""
    if found.distance:
        yield _distance(found)
        yield ""


def _distance(found: Evaluation) -> str:
    made, floor = found.distance, found.floor
    assert made is not None  # _quality
    text = f"FID {made.fid:.2f}, KID x 1000 {1000 * made.kid:.2f} ± {1000 * made.kid_std:.2f}"
    if floor:
        text += f" (real against real: FID {floor.fid:.2f}, KID x 1000 {1000 * floor.kid:.2f})"
    return (
        f"{text}, by the protocol {found.protocol!r}: {PROTOCOLS[found.protocol]}, {made.count} against "
        f"{made.reference} pictures of {found.size}; features of {found.extractor}, resize {found.resize}."
    )


def _loading(about: About, packed: Sequence[Packed]) -> Iterator[str]:
    first = packed[0]
    channels = first.spec.input_size[0][0]
    where = about.name if len(packed) == 1 else f"{about.name}/{first.weights}"
    yield from ("## Use it", "")
    yield from ('`pip install "coronet-plugin[translate]"`, then, in the folder above this one:', "")
    yield from ("```python", "from coronet_plugin import load_generator", "")
    yield f'generator = load_generator("{where}")'
    yield f"output = generator(image)  # (N, {channels}, H, W) in [-1, 1]"
    yield from ("```", "")
    yield f"On a picture, without Python: `coronet translate {where} picture.png --output translated`."
    yield from ("", "| file | bytes | what it is |", "|---|---|---|")
    for one in packed:
        for name, size in one.files.items():
            yield f"| `{name}` | {size:,} | {_file(one, name)} |"
    yield ""
    for one in packed:
        if one.onnx:
            file, check = next(iter(one.onnx["files"])), one.onnx["check"]
            found = check["difference_to_torch"]
            yield (
                f"`{file}` was run beside torch on {found['pictures']} {check['pictures_from']}: outputs "
                f"differ by at most {found['max']:.1e} where they have a range of 2. In it, "
                f"{NORM_MODES[one.norms]}; dropout is off."
            )
            yield ""


def _file(one: Packed, name: str) -> str:
    if name == one.weights:
        return "weights: tensors under the keys of the architecture"
    if one.onnx and name in one.onnx["files"]:
        size = " x ".join(map(str, one.onnx["input"]["shape"]))
        return f"the same for ONNX Runtime, {one.onnx['dtype']}, input {size}"
    if one.onnx and name.removesuffix(".json") in one.onnx["files"]:
        return "how that file was made and checked"
    return "spec: architecture, channels kept of every set, costs"


def _data(about: About) -> Iterator[str]:
    yield from ("## Data and licence", "")
    if about.data:
        yield from (f"Trained on {about.data.rstrip('.')}.", "")
    elif about.dataset:
        yield from (f"Trained on {about.dataset}; its licence was not given when this was packed.", "")
    if about.attribution:
        link = f"[{about.attribution}]({about.attribution})"
        yield f"More about the data, who made them and what was changed: {link}."
        yield ""
    if about.license == UNKNOWN:
        yield "The licence of these weights was not given when this was packed; ask whoever shares them."
    else:
        yield f"These weights and pictures are shared under `{about.license}`."
    yield ""


def _training(about: About) -> Iterator[str]:
    if about.training:
        yield from ("## Training", "", "| | |", "|---|---|")
        for key, words in about.training.items():
            yield f"| {key} | {words} |"
