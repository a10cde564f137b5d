"""The ``coronet`` command: one subcommand for each thing to do with trained runs.

A subcommand is a function that takes parsed options and returns an exit code, and
a function that declares those options; :data:`COMMANDS` lists them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin._version import __version__
from coronet_plugin.errors import UserError


@dataclass(frozen=True)
class Command:
    """A subcommand: its name, one line of help, its options and what it does."""

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Where runs are found; the same for every subcommand that takes runs by name."""
    parser.add_argument(
        "--checkpoints_dir", default="./checkpoints", help="folder of the trained runs (default: %(default)s)"
    )
    parser.add_argument(
        "--results_dir", default="./results", help="folder of the test results (default: %(default)s)"
    )
    parser.add_argument(
        "--phase", default="test", help="phase of the test results: test, val or train (default: %(default)s)"
    )
    parser.add_argument(
        "--epoch", default="latest", help="which saved weights, as test.py took them (default: %(default)s)"
    )


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name of a trained and tested run (--name)")
    add_run_options(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("comparison"), help="folder of the page (default: %(default)s)"
    )
    parser.add_argument(
        "--images", type=_positive, default=12, help="test pictures to show (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=_positive, default=1, help="CPU threads for the latency (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=_positive,
        default=30,
        help="timed forward passes for the latency (default: %(default)s)",
    )
    parser.add_argument("--title", default="", help="heading of the page (default: the names of the runs)")


def _compare(options: argparse.Namespace) -> int:
    from coronet_plugin.report import write_comparison
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
        _compare_options,
        _compare,
    ),
)


def parser() -> argparse.ArgumentParser:
    """The command line with all subcommands."""
    top = argparse.ArgumentParser(prog="coronet", description="Compress GAN generators while they train.")
    top.add_argument("--version", action="version", version=f"coronet-plugin {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        part = commands.add_parser(
            command.name,
            help=command.help,
            description=command.help,
        )
        part.add_argument("--debug", action="store_true", help="show where an error comes from")
        command.add_options(part)
        part.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``; gives the exit code: 2 for an error that the user can mend."""
    options = parser().parse_args(argv)
    try:
        return int(options.run(options))
    except UserError as error:
        if options.debug:
            raise
        print(f"coronet: {error}", file=sys.stderr)
        return 2


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value
