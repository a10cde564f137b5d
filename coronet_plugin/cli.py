"""The ``coronet`` command: one subcommand for each thing to do with trained runs.

Every package that a user starts from the command line says so in its ``command.py``;
:data:`MODULES` lists them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from coronet_plugin._version import __version__
from coronet_plugin.benchmark import command as benchmark
from coronet_plugin.checkout import command as checkout
from coronet_plugin.command import say
from coronet_plugin.comparison import command as comparison
from coronet_plugin.errors import UserError, debugging, describe, printable
from coronet_plugin.evaluation import command as evaluation
from coronet_plugin.export import command as export
from coronet_plugin.inspection import command as inspection
from coronet_plugin.packing import command as packing
from coronet_plugin.page import command as page
from coronet_plugin.pictures import command as pictures
from coronet_plugin.sampling import command as sampling
from coronet_plugin.standalone import command as standalone
from coronet_plugin.sweep import command as sweep
from coronet_plugin.translation import command as translation

MODULES = (
    comparison,
    evaluation,
    inspection,
    checkout,
    standalone,
    sweep,
    export,
    benchmark,
    packing,
    page,
    pictures,
    translation,
    sampling,
)
"""They import what they need to work only when they are run."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of a usage text."""
        self.exit(2, f"{self.prog}: error: {printable(message)} (--help lists all options)\n")


def parser() -> argparse.ArgumentParser:
    """The command line with all subcommands."""
    top = _Parser(prog="coronet", description="Compress GAN generators while they train.")
    top.add_argument("--version", action="version", version=f"coronet-plugin {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (command for module in MODULES for command in module.COMMANDS):
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
    except BrokenPipeError:  # the reader had enough, as in ``coronet inspect RUN | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor complain on leaving
        return 0
    except (UserError, OSError) as error:
        if options.debug or debugging():
            raise
        say(describe(error))
        return 2
