"""``coronet compare``: runs side by side on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from coronet_plugin.command import Command, add_run_options, positive


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name of a trained and tested run (--name)")
    add_run_options(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("comparison"), help="folder of the page (default: %(default)s)"
    )
    parser.add_argument(
        "--images", type=positive, default=12, help="test pictures to show (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=positive, default=1, help="CPU threads for the latency (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        default=30,
        help="timed forward passes for the latency (default: %(default)s)",
    )
    parser.add_argument("--title", default="", help="heading of the page (default: the names of the runs)")


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.comparison.report import write_comparison
    from coronet_plugin.run import find_run

    runs = [
        find_run(name, options.checkpoints_dir, options.results_dir, options.phase, options.epoch)
        for name in options.runs
    ]
    page = write_comparison(
        runs,
        options.output,
        images=options.images,
        threads=options.threads,
        repeats=options.repeats,
        title=options.title,
    )
    print(page)
    return 0


COMMANDS = (
    Command(
        "compare",
        "write one HTML page that shows runs side by side: pictures, cost, speed, likeness, curves",
        _options,
        _run,
    ),
)
