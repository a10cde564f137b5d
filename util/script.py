"""Handle the errors of train.py and test.py."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

from coronet_plugin.distributed import is_main
from coronet_plugin.errors import UserError, debugging, describe
from coronet_plugin.interruption import Interrupted
from util import distributed


def run(program: str, work: Callable[[argparse.Namespace], None], opt: argparse.Namespace) -> int:
    """Do ``work(opt)`` and return an exit code: 0, or 2 after one line about what the user can mend.

    130 after Ctrl-C and 143 after SIGTERM, as shells do. With ``--debug`` or ``CORONET_DEBUG=1`` the error
    is raised; errors of the program itself always are. Of several processes one says it.
    """
    try:
        work(opt)
    except (UserError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
        line, code = _told(error)
        if opt.debug or debugging() or not line:
            raise
        if is_main() if isinstance(error, Interrupted) else distributed.first_to_fail():
            print(f"{program}: {line}", file=sys.stderr)
        return code
    return 0


def _told(error: BaseException) -> tuple[str, int]:
    """One line and an exit code; no line for an error of the program itself."""
    if isinstance(error, Interrupted):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "stopped", 130
    if isinstance(error, (UserError, OSError)):
        return f"error: {describe(error)}", 2
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error)):
        return "error: out of memory; lower --batch_size, --crop_size or --ngf", 2
    if distributed.another_died(error):
        return "error: another process of this training ended before its time", 2
    return "", 1
