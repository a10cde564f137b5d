"""Files that appear whole or not at all, alone or several together.

A file is written under a temporary name in the same folder, flushed to disk and renamed. Files that
only make sense together (weights, specs, training state) are all written first; then a *journal*
lists the renames to come, and they happen. Whoever looks into the folder after an interruption finishes
what a journal lists (:func:`settle`), so that all files are of the old save or all of the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from coronet_plugin.errors import CheckpointError, describe

JOURNAL = ".journal"
"""Ending of a list of renames that were decided on; it exists only for the moment they take."""
_TEMPORARY = re.compile(r"(?P<name>.+)\.[0-9a-f]{8}\.tmp")
Pending = list[tuple[Path, Path]]
_pending: ContextVar[Pending | None] = ContextVar("pending", default=None)


def write_atomically(path: str | Path, write: Callable[[Path], Any], flush: bool = True) -> None:
    """Call ``write`` on a temporary path, flush it to disk, then rename it to ``path``.

    Inside :func:`together` the rename waits until all files of the group are written. Without ``flush``
    the file is whole whenever the program dies, but not if the power fails: for pictures and pages.

    Raises:
        CheckpointError: the disk is full, the folder read-only or missing; an earlier file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with _explain_failure(path):
        try:
            write(temporary)
            if flush:
                _flush(temporary)
            pending = _pending.get()
            if pending is not None:
                pending.append((temporary, path))
                return
            os.replace(temporary, path)
            if flush:
                _flush(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: str | Path, text: str, flush: bool = True) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), flush)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Files written atomically inside appear all at once at the end, or not at all after an error.

    The files are of one folder. A group inside a group is part of it.
    """
    if _pending.get() is not None:
        yield
        return
    pending: Pending = []
    token = _pending.set(pending)
    try:
        yield
        if pending:
            journal = _announce(pending)
            _rename(pending, journal)
    except BaseException:
        if not pending or not list(pending[0][0].parent.glob(f"*{JOURNAL}")):
            for temporary, _ in pending:
                temporary.unlink(missing_ok=True)
        raise
    finally:
        _pending.reset(token)


@contextlib.contextmanager
def appearing_in(folder: Path) -> Iterator[Path]:
    """A new folder, whose files go to ``folder`` at the end, in place of those of the same name.

    After an error nothing is left of it, nor is ``folder`` made. Files directly in it speak of those in its
    subfolders: they go first and come last, and are never those of others.

    Raises:
        CheckpointError: as :func:`write_atomically`.
    """
    there = next(place for place in folder.absolute().parents if place.is_dir())
    with _explain_failure(folder):
        temporary = tempfile.TemporaryDirectory(dir=there, prefix=".new-")
    with temporary:
        made = Path(temporary.name)
        yield made
        found = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
        with _explain_failure(folder):
            for path in found:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                if len(path.parts) == 1:
                    (folder / path).unlink(missing_ok=True)
            for path in sorted(found, key=lambda path: -len(path.parts)):
                shutil.move(made / path, folder / path)


def settle(folder: str | Path) -> None:
    """Finish the renames of a save that was interrupted, if there was one in ``folder``.

    Raises:
        CheckpointError: the folder cannot be written, or a journal lists something else than its own files.
    """
    for journal in sorted(Path(folder).glob(f"*{JOURNAL}")):
        with contextlib.suppress(FileNotFoundError):  # its owner has just finished
            pending = _listed(journal)
            with _explain_failure(journal):
                _rename(pending, journal)


def sweep(folder: str | Path) -> None:
    """Finish an interrupted save and remove the temporary files that killed runs left in ``folder``.

    For whoever is about to write there: files that another process is writing would be lost.
    """
    settle(folder)
    for file in Path(folder).glob("*.tmp"):
        if _TEMPORARY.fullmatch(file.name):
            with contextlib.suppress(OSError):
                file.unlink()


def _announce(pending: Pending) -> Path:
    folder = pending[0][1].parent
    assert all(path.parent == folder for _, path in pending), "a group of files shares one folder"
    journal = folder / f"save.{secrets.token_hex(4)}{JOURNAL}"
    _flush(folder)  # the temporary files themselves
    token = _pending.set(None)
    try:
        write_text(journal, json.dumps({temporary.name: path.name for temporary, path in pending}))
    finally:
        _pending.reset(token)
    return journal


def _rename(pending: Pending, journal: Path) -> None:
    for temporary, path in pending:
        with contextlib.suppress(FileNotFoundError):  # already done
            os.replace(temporary, path)
    _flush(journal.parent)
    journal.unlink(missing_ok=True)


def _listed(journal: Path) -> Pending:
    """The renames in ``journal``, all of files of its own folder: it may come from a stranger."""
    try:
        names = json.loads(journal.read_text(encoding="utf-8"))
        matches = {_TEMPORARY.fullmatch(temporary): name for temporary, name in names.items()}
        sound = all(m and m["name"] == n and Path(n).name == n for m, n in matches.items())
    except (ValueError, AttributeError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise CheckpointError(f"{journal} is not a journal of an interrupted save; remove it")
    return [(journal.parent / temporary, journal.parent / name) for temporary, name in names.items()]


def _flush(path: Path) -> None:
    """Let the disk catch up with a file or a folder; where folders cannot be opened (Windows), skip them."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explain_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        if path.parent.is_dir():
            raise
        raise CheckpointError(f"{path} cannot be written: there is no folder {path.parent}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {reason(error)}") from error


def reason(error: OSError) -> str:
    """The reason why a file failed, without its name, and what to do about it where that is known."""
    return describe(error, name=False)
