"""``coronet export-upstream``: a generator as one Python file and its weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from coronet_plugin.command import Command, add_weights_options, say


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights", metavar="RUN_OR_WEIGHTS", help="name or folder of a run, a packed folder, or a weight file"
    )
    add_weights_options(parser)
    parser.add_argument("--network", default="", help="generator of the run, such as G_A (default: all)")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where slim_G.py, slim_G.pth and slim_test_model.py go; models/ of a checkout makes "
        "test.py --model slim_test work there",
    )


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.runs.run import find_weights
    from coronet_plugin.standalone.export import export_upstream

    weights = find_weights(options.weights, options.checkpoints_dir, options.epoch, options.network)
    files, notes = export_upstream(weights, options.output)
    for file in files:
        print(file)
    for note in notes:
        say(note, "note")
    return 0


COMMANDS = (
    Command(
        "export-upstream",
        "write a generator as one Python file and its weights, which need torch alone",
        _options,
        _run,
    ),
)
