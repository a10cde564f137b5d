"""An argument parser that can be asked before all its options are known.

Models and data sets add options of their own, and may look at what was typed to
decide which. So the parser remembers the command line, answers such questions
leniently, and is strict once, at the end.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from coronet_plugin.errors import printable
from util.distributed import first_to_fail

HELP = ("-h", "--help")


class Parser(argparse.ArgumentParser):
    """``ArgumentParser`` for ``arguments`` (default: ``sys.argv``); names are never abbreviated."""

    def __init__(self, arguments: Sequence[str] | None = None, **settings: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            conflict_handler="resolve",  # a model file from elsewhere may bring its own --seed
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            **settings,
        )
        self.arguments = list(sys.argv[1:] if arguments is None else arguments)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Without ``args``: what is known so far; ``--help`` and missing options are ignored."""
        if args is not None:
            return super().parse_known_args(args, namespace)
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        try:
            remaining = [word for word in self.arguments if word not in HELP]
            return super().parse_known_args(remaining, namespace)
        finally:
            for action in required:
                action.required = True

    def finish(self) -> argparse.Namespace:
        """Parse strictly. Leaves with exit code 2 on a missing or unknown option, 0 after ``--help``."""
        options, unknown = self.parse_known_args(self.arguments)
        if unknown:
            self.error(self._about_unknown(unknown))
        return options

    def error(self, message: str) -> NoReturn:
        """One line instead of a usage text of a hundred options; of several processes one says it."""
        line = f"{self.prog}: error: {printable(message)} (--help lists all options)\n"
        self.exit(2, line if first_to_fail() else None)

    def _about_unknown(self, words: Sequence[str]) -> str:
        known = sorted(name for action in self._actions for name in action.option_strings if name not in HELP)
        name = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if name is None:
            return f"unexpected argument {words[0]!r}; every value follows an option"
        close = difflib.get_close_matches(name, known, n=3)
        guess = f"did you mean {' or '.join(close)}? " if close else ""
        return f"unknown option {name}; {guess}There are {' '.join(known)}"
