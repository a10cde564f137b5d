"""The ``coronet`` command: one subcommand for each thing to do with trained runs.

A subcommand is a function that takes parsed options and returns an exit code, and
a function that declares those options; :data:`COMMANDS` lists them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coronet_plugin._version import __version__
from coronet_plugin.errors import OptionError, UserError

if TYPE_CHECKING:
    from coronet_plugin.inspection.facts import Inspection


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


def _inspect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="resnet_9blocks, resnet_6blocks, unet_256 or unet_128; a weight file (.pth); name or folder of "
        "a trained run; or a generator of your own as path/to/file.py:Name or package.module:Name, which is "
        "imported and called",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw them to this .svg or .png file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all facts as data")
    parser.add_argument("--full", action="store_true", help="write out the names of all layers")
    parser.add_argument(
        "--size", type=_height_width, help="input to count for: 256, or 256x512 (default: as trained, or 256)"
    )
    _network_options(parser.add_argument_group("for the name of a stock generator (defaults as upstream)"))
    own = parser.add_argument_group("for a generator of your own")
    own.add_argument("--kwargs", type=_keywords, metavar="JSON", help="""arguments, as '{"ngf": 32}'""")
    own.add_argument("--channels", type=_positive, help="of its input (default: as its first convolution)")
    run = parser.add_argument_group("for a run")
    run.add_argument("--checkpoints_dir", default="./checkpoints", help="folder of it (default: %(default)s)")
    run.add_argument("--epoch", default="latest", help="which saved weights (default: %(default)s)")


def _network_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--ngf", type=_positive, help="channels of the first layer (default: 64)")
    group.add_argument("--input_nc", type=_positive, help="channels of the input image (default: 3)")
    group.add_argument("--output_nc", type=_positive, help="channels of the output image (default: 3)")
    group.add_argument("--norm", help="instance (default of ResNets), batch (default of U-Nets) or none")
    dropout = group.add_mutually_exclusive_group()
    dropout.add_argument("--use_dropout", action="store_true", default=None, help="default of U-Nets")
    dropout.add_argument("--no_dropout", action="store_false", dest="use_dropout", help="default of ResNets")


def _inspect(options: argparse.Namespace) -> int:
    from coronet_plugin.inspection.figure import check_output
    from coronet_plugin.inspection.source import ARCHITECTURE, Choices, inspect_model
    from coronet_plugin.inspection.table import text

    if options.output is not None:
        check_output(options.output)
    choices = Choices(
        size=options.size,
        channels=options.channels,
        kwargs=options.kwargs or {},
        architecture={k: v for k, v in vars(options).items() if k in ARCHITECTURE and v is not None},
        checkpoints_dir=options.checkpoints_dir,
        epoch=options.epoch,
    )
    inspections = inspect_model(options.model, choices)
    print("\n\n".join(text(inspection, options.full) for inspection in inspections.values()))
    _write_inspections(inspections, options.json, options.output)
    return 0


def _write_inspections(inspections: dict[str, Inspection], data: Path | None, picture: Path | None) -> None:
    """Write all to one JSON file and each to a picture, and print the paths."""
    from coronet_plugin.inspection.facts import as_json
    from coronet_plugin.inspection.figure import save_picture

    if data is not None:
        try:
            data.write_text(json.dumps(as_json(inspections), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OptionError(f"--json {data} cannot be written: {error.strerror}") from error
        print(data)
    for name, inspection in inspections.items() if picture is not None else ():
        assert picture is not None
        path = picture.with_stem(f"{picture.stem}_{name}") if len(inspections) > 1 else picture
        print(save_picture(inspection, path))


COMMANDS = (
    Command(
        "compare",
        "write one HTML page that shows runs side by side: pictures, cost, speed, likeness, curves",
        _compare_options,
        _compare,
    ),
    Command(
        "inspect",
        "show a generator's channel sets: widths, who shares with whom, cost, what is pinned and why",
        _inspect_options,
        _inspect,
    ),
)


def parser() -> argparse.ArgumentParser:
    """The command line with all subcommands."""
    top = argparse.ArgumentParser(prog="coronet", description="Compress GAN generators while they train.")
    top.add_argument("--version", action="version", version=f"coronet-plugin {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    from coronet_plugin import cli_checkout, cli_standalone  # they need Command from here

    for command in (*COMMANDS, *cli_checkout.COMMANDS, *cli_standalone.COMMANDS):
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
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader had enough, as in ``coronet inspect unet_256 | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor complain on leaving
        return 0
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


def _height_width(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _positive(height), _positive(width or height)


def _keywords(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be JSON such as '{{\"ngf\": 32}}': {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object such as '{{\"ngf\": 32}}', not {text}")
    return value
