"""What train.py and test.py do about errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from coronet_plugin.errors import UserError


def run(program: str, work: Callable[[argparse.Namespace], None], opt: argparse.Namespace) -> int:
    """Do ``work(opt)`` and return an exit code: 0, or 2 after one line about what the user can mend.

    With ``--debug`` the error is raised; errors of the program itself always are.
    """
    try:
        work(opt)
    except UserError as error:
        if opt.debug:
            raise
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if opt.debug:
            raise
        print(f"{program}: stopped", file=sys.stderr)
        return 130
    return 0
