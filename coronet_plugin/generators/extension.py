"""The option ``--coronet_family``: a module of the user's that registers families of generators."""

from __future__ import annotations

import argparse
from typing import Any

from coronet_plugin.errors import UserError
from coronet_plugin.user_code import import_module


def import_families(modules: str = "") -> str:
    """Import modules named as ``package.module`` or ``path/to/file.py``, separated by commas; gives the text.

    Raises:
        OptionError: one is not there, or its code fails.
    """
    for where in modules.split(","):
        if where.strip():
            import_module(where.strip())
    return modules


def add_family_option(parser: Any) -> None:
    """Add ``--coronet_family`` to a parser or a group of it; parsing the option imports the modules."""

    def imported(modules: str) -> str:
        try:
            return import_families(modules)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    parser.add_argument(
        "--coronet_family",
        type=imported,
        default="",
        metavar="MODULE",
        help="module of your own that registers families of generators, as package.module or "
        "path/to/file.py; several are separated by commas (default: none)",
    )
