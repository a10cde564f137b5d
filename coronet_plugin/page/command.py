"""``coronet page``: a generator live in the browser."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coronet_plugin.command import Command, add_norm_mode_option, add_run_options, height_width, positive, say

if TYPE_CHECKING:
    from coronet_plugin.runs.opener import StoredGenerator


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights", metavar="RUN_OR_FILE", help="name or folder of a run, or a weight file (.pth)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the page")
    parser.add_argument(
        "--dense", metavar="RUN_OR_FILE", help="what to show beside it (default: its figures alone)"
    )
    parser.add_argument(
        "--input",
        nargs="+",
        choices=("draw", "photo", "webcam"),
        default=[],
        help="what to offer, the first at the start (default: draw and photo where the run's pictures are "
        "lines on paper, else photo and webcam)",
    )
    parser.add_argument(
        "--network", default="", help="generator of the run, such as G_A (default: the first)"
    )
    parser.add_argument(
        "--size", type=height_width, metavar="PIXELS", help="256, or height x width (default: as trained)"
    )
    parser.add_argument("--dtype", default="fp16", help="weights in the files: fp32 or fp16 (default: fp16)")
    add_norm_mode_option(parser)
    parser.add_argument("--title", default="", help="heading of the page (default: the name of the run)")
    parser.add_argument(
        "--credit", default="", help="a line at its end, such as whose pictures it was trained on"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="examples to start from (default: the run's test pictures)",
    )
    parser.add_argument(
        "--examples", type=positive, default=12, help="how many at most (default: %(default)s)"
    )
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="FOLDER",
        help="the npm package onnxruntime-web (default: node_modules here, or the clone's docs/browser)",
    )
    add_run_options(parser)


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.export.normalisation import check_norm_mode
    from coronet_plugin.export.pictures import pictures_for
    from coronet_plugin.page.build import Page, write_page
    from coronet_plugin.page.runtime import find_runtime

    check_norm_mode(options.norm_mode)
    runtime = find_runtime(options.runtime)
    name, path, slim = _stored(options, options.weights, options.network)
    dense = _stored(options, options.dense, name)[2] if options.dense else None
    page = Page(
        title=options.title or path.resolve().parent.name,
        runtime=runtime,
        size=options.size or slim.size,
        credit=options.credit,
        inputs=options.input,
        dtype=options.dtype,
        norm_mode=options.norm_mode,
    )
    examples = pictures_for(
        path,
        name,
        slim.channels,
        page.size,
        images=options.images,
        results_dir=options.results_dir,
        epoch=options.epoch,
        phase=options.phase,
        count=options.examples,
    )
    if not examples.are_real:
        say("there are no test pictures of this run, so the page has no examples; --images FOLDER gives some")
    write_page(page, slim, dense, examples, options.output)
    print(options.output / "index.html")
    print(f"note: look at it with: python -m http.server -d {options.output}", file=sys.stderr)
    return 0


def _stored(options: argparse.Namespace, where: str, network: str) -> tuple[str, Path, StoredGenerator]:
    """Name, weight file and generator of a run; the first if ``network`` is empty."""
    from coronet_plugin.runs.opener import read_generator
    from coronet_plugin.runs.run import find_weights

    found = find_weights(where, options.checkpoints_dir, options.epoch, network)
    name, path = next(iter(found.items()))
    return name, path, read_generator(name, path)


COMMANDS = (Command("page", "write a page that runs a generator live in the browser", _options, _run),)
