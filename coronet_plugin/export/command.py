"""``coronet export``: a run as files for edge runtimes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coronet_plugin.command import (
    Command,
    add_norm_mode_option,
    add_weights_options,
    height_width,
    positive,
    say,
)
from coronet_plugin.errors import OptionError

if TYPE_CHECKING:
    from coronet_plugin.export.pictures import Samples
    from coronet_plugin.export.pipeline import Result
    from coronet_plugin.export.request import Request
    from coronet_plugin.runs.opener import StoredGenerator

REJECTED_CODE = 3
"""Exit code when a file does not compute the same."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        nargs="?",
        metavar="RUN_OR_WEIGHTS",
        help="name or folder of a run, slim or dense, a packed folder, or a weight file",
    )
    add_weights_options(parser)
    parser.add_argument("--list", action="store_true", help="show all targets and what is installed here")
    parser.add_argument("--to", metavar="TARGET", help="runtime to export for; see --list")
    parser.add_argument("--dtype", default="fp32", help="fp32, fp16 or int8 (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=height_width,
        metavar="PIXELS",
        help="256, or 256x512 as height x width (default: as trained)",
    )
    parser.add_argument("--dynamic", action="store_true", help="leave batch, height and width free")
    parser.add_argument(
        "--embed_preprocessing",
        action="store_true",
        help="bake it into the file that pictures are bytes: (N, H, W, C) uint8 RGB in and out",
    )
    add_norm_mode_option(parser)
    parser.add_argument(
        "--rewrite",
        default="",
        metavar="PIECES",
        help="exact rewrites, separated by commas, to do before the target's own: subpixel_convolution turns "
        "transposed convolutions into ordinary ones (default: none)",
    )
    parser.add_argument("--network", default="", help="generator of the run, such as G_A (default: all)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where files go (default: exports/RUN)")
    _picture_options(parser)
    _int8_options(parser)


def _picture_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="pictures to compare on (default: the run's test pictures)",
    )
    parser.add_argument(
        "--pictures", type=positive, default=8, help="how many to compare on at most (default: %(default)s)"
    )
    parser.add_argument(
        "--results_dir", default="./results", help="folder of the test results (default: %(default)s)"
    )


def _run(options: argparse.Namespace) -> int:
    if options.list:
        print(listing())
        return 0
    if not options.weights or not options.to:
        raise OptionError(
            "give a run or a weight file, and --to TARGET; coronet export --list shows the targets"
        )
    results = [_export(options, name, path) for name, path in _weights(options).items()]
    return 0 if all(result.accepted for result in results) else REJECTED_CODE


def listing() -> str:
    """All targets: what they are for, what they offer, and whether they are installed here."""
    from coronet_plugin.export.targets import TARGETS

    rows = []
    for target in TARGETS.values():
        versions = ", ".join(f"{name} {version}" for name, version in target.versions().items())
        here = f'no: pip install "coronet-plugin[{target.extra}]"' if target.missing else f"yes: {versions}"
        sizes = "fixed or dynamic size" if target.dynamic else "fixed size"
        rows += [f"{target.name:<12} {target.purpose}", f"{'':<12} {', '.join(target.dtypes)}; {sizes}"]
        rows.append(f"{'':<12} installed here: {here}")
    return "\n".join(rows)


def _weights(options: argparse.Namespace) -> dict[str, Path]:
    from coronet_plugin.runs.run import find_weights

    return find_weights(options.weights, options.checkpoints_dir, options.epoch, options.network)


def _export(options: argparse.Namespace, name: str, path: Path) -> Result:
    from coronet_plugin.export.pipeline import export_generator
    from coronet_plugin.runs.opener import read_generator

    _request(options, None).check()  # before anything is read
    stored = read_generator(name, path)
    pictures, calibration, example = None, None, None
    request = _request(options, stored)
    request.check()
    if stored.family.draws:  # of noise and whatever else it takes, not of pictures
        example = stored.example()
    else:
        stored.family.check_one_image()
        pictures = _pictures(options, name, path, request, stored, options.images, "test", options.pictures)
        if request.dtype == "int8":
            calibration = _pictures(options, name, path, request, stored, options.calibration, "train", 64)
    folder = options.output or Path("exports") / path.resolve().parent.name
    result = export_generator(stored.generator, request, folder, name, pictures, calibration, example=example)
    _tell(result, stored.notes, pictures)
    return result


def _request(options: argparse.Namespace, stored: StoredGenerator | None) -> Request:
    """The request; without a generator, as far as it does not depend on one."""
    from coronet_plugin.export.normalisation import check_norm_mode
    from coronet_plugin.export.request import Request
    from coronet_plugin.export.targets import target_named

    check_norm_mode(options.norm_mode)
    target = target_named(options.to).with_rewrites([p for p in options.rewrite.split(",") if p])
    if stored is None:
        embed = options.embed_preprocessing
        return Request(target, options.dtype, dynamic=options.dynamic, embed_preprocessing=embed)
    about: dict[str, Any] = {"network": stored.name, "origin": stored.origin, "trained_on": stored.size}
    about.update(architecture=stored.architecture, output_range=list(stored.family.output_range))
    about.update(cost=dict(stored.slim), cost_dense=dict(stored.dense))
    return Request(
        target,
        options.dtype,
        size=options.size or stored.size,
        dynamic=options.dynamic,
        norm_mode=options.norm_mode,
        multiple=stored.multiple,
        embed_preprocessing=options.embed_preprocessing,
        about=about,
        quantization=_quantization(options, stored),
    )


def _pictures(
    options: argparse.Namespace,
    name: str,
    path: Path,
    request: Request,
    stored: StoredGenerator,
    images: Path | None,
    phase: str,
    count: int,
) -> Samples:
    from coronet_plugin.export.pictures import pictures_for

    return pictures_for(
        path,
        name,
        stored.channels,
        request.size,
        images=images,
        results_dir=options.results_dir,
        epoch=options.epoch,
        phase=phase,
        count=count,
    )


def _int8_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="int8: pictures to calibrate with (default: the run's training pictures)",
    )
    parser.add_argument(
        "--int8_max_drop",
        type=float,
        default=0.01,
        metavar="SSIM",
        help="int8: SSIM that may be lost against fp32, on pictures not calibrated with; layers that hurt "
        "most stay in floats until it is met (default: %(default)s)",
    )
    parser.add_argument(
        "--int8_full_range",
        action="store_true",
        help="int8 for onnx and openvino: 8 bits of weights instead of 7. Loses a little less, and needs an "
        "x86 CPU with AVX-512 VNNI or AVX-VNNI, or an ARM CPU; elsewhere the file computes something else",
    )


def _quantization(options: argparse.Namespace, stored: StoredGenerator) -> dict[str, Any]:
    """Settings of the int8 quantizer."""
    return {
        "max_drop": options.int8_max_drop,
        "full_range": options.int8_full_range,
        "ranges": stored.ranges,
    }


def _tell(result: Result, notes: Sequence[str], pictures: Samples | None) -> None:
    """Files to standard output, everything else to standard error."""
    for path in result.files:
        print(path)
    for line in (*notes, *_remarks(result, pictures)):
        say(line, "note")
    if not result.accepted:
        limit = result.record["check"]["tolerance"]
        say(
            f"{result.path.name} does not compute the same: accepted are at most {limit['max']}, on "
            f"average {limit['mean']}, where the output has a range of 2, and SSIM of at least "
            f"{limit['ssim']}; it is kept for inspection alone"
        )


def _remarks(result: Result, pictures: Samples | None) -> list[str]:
    from coronet_plugin.export.normalisation import NORM_MODES
    from coronet_plugin.export.verify import in_words

    norms = f"{NORM_MODES[result.record['norm_mode']]}; dropout is off"
    found = result.difference
    if found is None:
        return [norms, f"NOT compared with torch: {result.record['check']['why_not_run']}"]
    source = pictures.source if pictures and pictures.are_real else "pictures of seeded noise"
    compared = f"on {found.pictures} {source}"
    low, high = result.record.get("output", {"range": (0, 2)})["range"]  # of several: in shares
    figures = in_words(found, (low, high))
    took = result.record["latency"]
    speed = f"{took['median_ms']:.3g} ms a picture here on one thread, the median of {took['calls']}; "
    speed += "coronet bench measures more closely"
    figures += f" (calculated on {result.record['check']['instruction_set']})"
    return [norms, *_int8_remarks(result), f"difference to torch {compared}: {figures}", speed]


def _int8_remarks(result: Result) -> list[str]:
    if result.record["dtype"] != "int8":
        return []
    from coronet_plugin.export.quantization.quality import Quality

    facts = result.record["quantization"]
    loss, calibration = Quality(**facts["loss"]), facts["calibration"]
    left = ", ".join(facts["left_in_float"]) or "none"
    return [
        f"int8, calibrated with {calibration['pictures']} {calibration['from']}; "
        f"layers left in floats: {left} (of {facts['layers']})",
        f"int8 weights of {facts['weight_bits']} bits: right on {facts['right_on']}",
        f"int8 on {loss.pictures} others: {loss.in_words()}",
    ]


COMMANDS = (
    Command("export", "write a generator as a file for an edge runtime, and check it", _options, _run),
)
