"""``coronet bench``: how fast generators are here, dense beside slim."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coronet_plugin.command import Command, add_norm_mode_option, add_weights_options, height_width, positive
from coronet_plugin.errors import OptionError
from coronet_plugin.generators.registry import FAMILIES

if TYPE_CHECKING:
    from coronet_plugin.benchmark.entries import Entry


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("must name at least one, separated by commas")
    return words


def _numbers(text: str) -> list[int]:
    return [positive(word) for word in _words(text)]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="name or folder of a run, or a weight file; or, with random weights, a family of generators "
        f"({', '.join(FAMILIES)}), FAMILY@0.1 (uniform width at that budget) or FAMILY@0.1/8 (channels in "
        "multiples of 8). The first is what the others are set against: name the dense one",
    )
    add_weights_options(parser)
    parser.add_argument(
        "--runtimes",
        type=_words,
        default=["torch", "onnx"],
        metavar="NAMES",
        help="torch (eager) and targets of coronet export, separated by commas; a rewrite is added as in "
        "onnx+subpixel_convolution (default: torch,onnx)",
    )
    parser.add_argument(
        "--dtypes",
        type=_words,
        default=["fp32"],
        help="of fp32,fp16,int8 (default: fp32); int8 quantizes all layers",
    )
    parser.add_argument("--threads", type=_numbers, default=[1], help="such as 1,2 (default: 1)")
    parser.add_argument(
        "--size",
        type=height_width,
        metavar="PIXELS",
        help="256, or 256x512 (default: as the first was trained)",
    )
    parser.add_argument("--repeats", type=positive, default=20, help="timed rounds (default: %(default)s)")
    parser.add_argument("--warmup", type=positive, default=3, help="untimed rounds (default: %(default)s)")
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="instead of comparing, time the one MODEL at several widths in the one runtime and write FILE, "
        "for --coronet_latency_table; run it on the device that the generators are for",
    )
    parser.add_argument(
        "--table_kit",
        type=Path,
        metavar="FOLDER",
        help="instead of timing, write files of the one MODEL at several widths and a script that times them "
        "on a device that has the runtime alone; the script writes the table",
    )
    add_norm_mode_option(parser)
    parser.add_argument("--no_profile", action="store_true", help="leave out the times of single layers")
    parser.add_argument(
        "--network", default="", help="generator of the runs, such as G_A (default: the first)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("benchmark"),
        metavar="FOLDER",
        help="where table, CSV, JSON and picture go (default: %(default)s)",
    )


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.benchmark.entries import read_entries
    from coronet_plugin.benchmark.report import as_text, write
    from coronet_plugin.benchmark.run import benchmark
    from coronet_plugin.drawing import new_figure
    from coronet_plugin.export.normalisation import check_norm_mode

    check_norm_mode(options.norm_mode)
    new_figure(1, 1)  # without matplotlib, say so before the work
    entries = read_entries(
        options.models, options.size, options.checkpoints_dir, options.epoch, options.network
    )
    if options.table or options.table_kit:
        return _table(entries, options)
    with tempfile.TemporaryDirectory() as folder:
        measured = benchmark(
            entries,
            options.runtimes,
            options.dtypes,
            options.threads,
            Path(folder),
            repeats=options.repeats,
            warmup=options.warmup,
            norm_mode=options.norm_mode,
            profile=not options.no_profile,
        )
    options.output.mkdir(parents=True, exist_ok=True)
    print(as_text(measured))
    for path in write(measured, options.output):
        print(path, file=sys.stderr)
    return 0


def _table(entries: Sequence[Entry], options: argparse.Namespace) -> int:
    from coronet_plugin.benchmark.table import runtime_for, write_kit, write_table

    if len(entries) != 1:
        raise OptionError(f"a latency table is of one dense generator, not of {len(entries)}")
    runtime = runtime_for(options.runtimes)
    if options.table:
        write_table(entries[0], runtime, options.table)
        print(options.table, file=sys.stderr)
    if options.table_kit:
        for path in write_kit(entries[0], runtime, options.table_kit):
            print(path, file=sys.stderr)
    return 0


COMMANDS = (
    Command(
        "bench",
        "time generators in several runtimes, formats and numbers of threads, dense beside slim",
        _options,
        _run,
    ),
)
