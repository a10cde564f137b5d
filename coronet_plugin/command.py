"""The parts of a subcommand of ``coronet``, and the options and option types that several share."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from coronet_plugin.errors import OptionError
from coronet_plugin.generators.extension import add_family_option


@dataclass(frozen=True)
class Command:
    """A subcommand: its name, one line of help, its options and what it does."""

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """Where weights are found, and whose; the same for every subcommand that takes any generator."""
    _add_checkpoints_dir(parser)
    parser.add_argument(
        "--epoch", default="latest", help="which saved weights of a run (default: %(default)s)"
    )


def _add_checkpoints_dir(parser: argparse.ArgumentParser) -> None:
    add_family_option(parser)
    parser.add_argument(
        "--checkpoints_dir", default="./checkpoints", help="folder of the trained runs (default: %(default)s)"
    )


def needs_pillow() -> None:
    """Raises OptionError without Pillow."""
    if importlib.util.find_spec("PIL") is None:
        raise OptionError('this needs Pillow, not installed here: pip install "coronet-plugin[translate]"')


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Where runs are found; the same for every subcommand that takes runs by name."""
    _add_checkpoints_dir(parser)
    parser.add_argument(
        "--results_dir", default="./results", help="folder of the test results (default: %(default)s)"
    )
    parser.add_argument(
        "--phase", default="test", help="phase of the test results: test, val or train (default: %(default)s)"
    )
    parser.add_argument(
        "--epoch", default="latest", help="which saved weights, as test.py took them (default: %(default)s)"
    )
    parser.add_argument(
        "--load_iter",
        dest="epoch",
        type=_iteration,
        metavar="N",
        help="those of iteration N, as test.py took them",
    )


def _iteration(text: str) -> str:
    return f"iter_{positive(text)}"


NORM_MODE = "batch"
"""How norms compute by default, wherever a generator is exported, timed or compared."""


def add_norm_mode_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--norm_mode``, the same for every subcommand that exports or times."""
    parser.add_argument(
        "--norm_mode",
        default=NORM_MODE,
        help="batch: what test.py shows; running: what test.py --eval shows (default: %(default)s)",
    )


def say(line: str, who: str = "coronet") -> None:
    """Tell the user what takes long, what is missing, or (``who``) a note: one line on standard error."""
    print(for_terminal(f"{who}: {line}", sys.stderr), file=sys.stderr, flush=True)


def for_terminal(text: str, stream: TextIO) -> str:
    """``text`` for ``stream``: broken at spaces where a terminal is narrower; one line in files and pipes.

    Words stay whole, so that paths can be copied.
    """
    if not stream.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    return textwrap.fill(
        text, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def positive(text: str) -> int:
    """An option's whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def height_width(text: str) -> tuple[int, int]:
    """Pixels: ``256``, or ``256x512`` as height x width."""
    height, _, width = text.partition("x")
    return positive(height), positive(width or height)


def keywords(text: str) -> dict[str, Any]:
    """Keyword arguments as a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be JSON such as '{{\"ngf\": 32}}': {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object such as '{{\"ngf\": 32}}', not {text}")
    return value
