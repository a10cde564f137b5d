"""Keep what the runtimes' tools print, Python or C++, off the user's screen unless they fail."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO

from coronet_plugin.errors import COLOUR, ExportError, printable


@contextlib.contextmanager
def silenced() -> Iterator[IO[bytes]]:
    """Send standard output and error, of this process and of what it starts, to a file; gives the file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, _ in kept:
            os.dup2(file.fileno(), number)
        try:
            with contextlib.redirect_stdout(sys.__stdout__), contextlib.redirect_stderr(sys.__stderr__):
                yield file
        finally:
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    stream.flush()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)


def last_line(file: IO[bytes]) -> str:
    """The last line that was written to ``file`` and says something."""
    file.seek(0)
    return last_of(file.read().decode("utf-8", "replace"))


def last_of(text: str) -> str:
    """The last line of what a tool wrote that says something, without colours."""
    lines = [printable(COLOUR.sub("", line)) for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")[:200]


def failed(tool: str, file: IO[bytes]) -> ExportError:
    """The error for a tool that wrote nothing but messages."""
    return ExportError(f"{tool} cannot convert this generator: {last_line(file)}")
