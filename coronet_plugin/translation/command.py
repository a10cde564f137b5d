"""``coronet translate``: a generator on one's own pictures and videos."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coronet_plugin.command import (
    Command,
    add_norm_mode_option,
    add_weights_options,
    height_width,
    needs_pillow,
    positive,
)

if TYPE_CHECKING:
    from coronet_plugin.translation.translate import Report

SKIPPED_CODE = 1
"""Exit code when a file could not be read and was left out."""
LISTED = 20
"""Of those files so many are named."""


def _size(text: str) -> Any:
    return text if text in ("trained", "own") else height_width(text)


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        metavar="RUN_OR_FILE",
        help="a run by name or folder, a weight file, a folder of weights with their spec, or a file that "
        "coronet export wrote",
    )
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="pictures, videos, and folders of them")
    add("--output", type=Path, required=True, metavar="FOLDER", help="where results go; names are kept")
    add(
        "--networks",
        "--network",
        default="",
        metavar="NAMES",
        help="generators of the run to use, such as G_A, separated by commas (default: its only one)",
    )
    add(
        "--size",
        type=_size,
        default="trained",
        metavar="SIZE",
        help="trained: scaled to the size of the training, proportions kept; own: as they are; or pixels, "
        "256 or 256x512 as height x width (default: %(default)s)",
    )
    add(
        "--tile",
        type=positive,
        metavar="PIXELS",
        help="translate pictures that are larger in overlapping tiles of this side",
    )
    add("--overlap", type=int, metavar="PIXELS", help="what tiles share (default: a quarter of a tile)")
    add(
        "--tile_norms",
        choices=("picture", "tile"),
        default="picture",
        help="norms take the statistics of the whole picture, which takes several times as long, or of each "
        "tile alone, with visible differences between tiles (default: %(default)s)",
    )
    add("--format", default="", help="png, jpg, webp, tif, bmp or ppm (default: as the picture was)")
    add("--side_by_side", action="store_true", help="write the picture and its translation in one")
    add("--keep_alpha", action="store_true", help="give the result the transparency of the picture")
    _machine_options(parser)


def _machine_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--batch_size", type=positive, default=1, help="pictures of one size at a time (default: %(default)s)"
    )
    add(
        "--threads", type=positive, default=os.cpu_count() or 1, help="of the CPU (default: all, %(default)s)"
    )
    add("--device", default="cpu", help="cpu, cuda, or one of several such as cuda:1 (default: %(default)s)")
    add_norm_mode_option(parser)
    add_weights_options(parser)


def _run(options: argparse.Namespace) -> int:
    needs_pillow()
    from coronet_plugin.translation.translate import translate

    report = translate(
        options.source,
        options.inputs,
        options.output,
        networks=[name.strip() for name in options.networks.split(",") if name.strip()],
        size=options.size,
        tile=options.tile,
        overlap=options.overlap,
        tile_norms=options.tile_norms,
        batch_size=options.batch_size,
        threads=options.threads,
        device=options.device,
        format=options.format,
        side_by_side=options.side_by_side,
        keep_alpha=options.keep_alpha,
        norm_mode=options.norm_mode,
        epoch=options.epoch,
        checkpoints_dir=options.checkpoints_dir,
    )
    return _tell(report, options.output)


def _tell(report: Report, output: Path) -> int:
    for note in dict.fromkeys(report.notes):
        print(f"note: {note}", file=sys.stderr)
    for number, reason in enumerate(report.skipped.values()):
        if number == LISTED:
            print(f"and {len(report.skipped) - LISTED} more", file=sys.stderr)
            break
        print(f"coronet: left out: {reason}", file=sys.stderr)
    if report.written:
        where = report.written[0] if len(report.written) == 1 else output
        print(f"{len(report.written)} files written: {where}" if where == output else f"{where}")
    print(report.speed)
    return SKIPPED_CODE if report.skipped else 0


COMMANDS = (Command("translate", "run a generator on pictures, folders of them, and videos", _options, _run),)
