"""The errors a user can mend.

Every message says what was found, what was expected and what to do about it.
``train.py``, ``test.py`` and the command line show a :class:`UserError` as one
line and leave with exit code 2; library callers catch the kind they care about.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from types import TracebackType


class UserError(Exception):
    """Something outside the program is wrong: an option, a file, a budget."""


class OptionError(UserError):
    """An option has a value that cannot work, or does not fit another option."""


class DataError(UserError):
    """A data set or an image cannot be read or does not have the expected form."""


class BudgetError(UserError):
    """A budget cannot be read, or no choice of channels reaches it."""


class PlanError(UserError):
    """A generator's channel sets cannot be found, or do not pass verification."""


class CheckpointError(UserError):
    """Weights or a spec are missing, damaged, or belong to another architecture."""


class NumericsError(UserError):
    """A loss or a weight is not a finite number."""


class ExportError(UserError):
    """A generator cannot be converted for a runtime, or the runtime cannot run what was converted."""


_MENDING = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EROFS: "choose another folder",
    errno.EACCES: "choose another folder, or make it writable",
    errno.EPERM: "choose another folder, or make it writable",
}


def printable(text: str) -> str:
    """``text`` in one line, whatever it repeats of files and options: no line breaks, no terminal codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


LONGEST = 200
"""Characters of another program's message that are shown."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Escape sequences by which tools colour their messages."""


def describe(error: BaseException, name: bool = True) -> str:
    """One line about an error for whoever can mend it; ``name``: with the file, if the system named one.

    Messages that are not ours may be coloured and go on for pages; they are cut off.
    """
    if not isinstance(error, OSError) or not error.strerror:
        text = printable(COLOUR.sub("", str(error))) or type(error).__name__
        whole = isinstance(error, UserError) or len(text) <= LONGEST
        return text if whole else f"{text[:LONGEST]} ..."
    where = f"{error.filename}: " if error.filename and name else ""
    mending = _MENDING.get(error.errno or 0)
    return printable(where + (f"{error.strerror}; {mending}" if mending else error.strerror))


def debugging() -> bool:
    """True if ``CORONET_DEBUG=1`` asks to see where errors come from."""
    return os.environ.get("CORONET_DEBUG", "0") != "0"


def show_in_one_line() -> None:
    """From now on, a :class:`UserError` that nobody catches ends the program with one line and exit code 2.

    For scripts of hosts that know nothing of such errors. ``CORONET_DEBUG=1`` shows where one comes from.
    """
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, UserError) or debugging():
            usual(kind, error, trace)
            return
        print(f"coronet: {describe(error)}", file=sys.stderr)
        raise SystemExit(2)

    if getattr(usual, "__qualname__", "") != hook.__qualname__:
        sys.excepthook = hook
