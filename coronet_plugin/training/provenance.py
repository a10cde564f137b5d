"""``provenance.json``: what a run was made of, written beside its weights when a training begins.

Options, command, seed, versions, a fingerprint of the data, the commit of the code and the kind of
machine, so that somebody else can repeat the run or say why theirs differs. A continued training appends
an entry. There are no names of people or machines in it: the home folder is written ``~``. It costs
seconds at most, and never stops a training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coronet_plugin.distributed import is_main, say, world_size
from coronet_plugin.errors import CheckpointError
from coronet_plugin.files import write_text
from coronet_plugin.measure.machine import describe_machine
from coronet_plugin.measure.memory import peak_of_process
from coronet_plugin.runs.run import read_log
from coronet_plugin.training import host
from coronet_plugin.versions import versions

FILE = "provenance.json"
FORMAT, VERSION = "coronet-provenance", 1
CONTENT_BYTES = 64 * 2**20
"""How much of the data is read to fingerprint its contents."""
GIT_SECONDS = 20.0


@dataclass(frozen=True)
class Spent:
    """Costs of a training, its teacher's included: seconds, and bytes at the highest point.

    ``memory``: of the main process; ``gpu_memory``: what torch held on a GPU. None where it is not known.
    """

    seconds: float | None = None
    memory: int | None = None
    gpu_memory: int | None = None

    def __add__(self, other: Spent) -> Spent:
        """Of both, one after the other."""
        return Spent(
            sum(s for s in (self.seconds, other.seconds) if s is not None) or None,
            max((m for m in (self.memory, other.memory) if m is not None), default=None),
            max((m for m in (self.gpu_memory, other.gpu_memory) if m is not None), default=None),
        )


def begin(opt: Any, teacher: Path | None = None) -> None:
    """Write the file of the run of ``opt``, or append to it with ``--continue_train``.

    ``teacher``: folder of the run it learns from. What goes wrong costs one line: a training does not fail
    over its own record. Only the main process of several writes.
    """
    with _guarded():
        path = Path(opt.checkpoints_dir) / opt.name
        continued = bool(host.option(opt, "continue_train", default=False))
        earlier, new = read(path) if continued else [], entry(opt, continued)
        if earlier and (different := changes(earlier[-1], new)):
            say(
                f"coronet: goes on with {'; '.join(different)}: right, but not bit for bit what the run "
                "would have become"
            )
        if teacher is not None:
            new["teacher"] = {"run": teacher.name, **asdict(spent(teacher))}
        _write(path, [*earlier, new])


def note(opt: Any, seconds: float) -> None:
    """Note in the last entry that so many seconds of training are spent, and the memory that took."""
    with _guarded():
        path = Path(opt.checkpoints_dir) / opt.name
        entries = read(path)
        if entries:
            on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None
            entries[-1]["spent"] = asdict(Spent(seconds, peak_of_process(), on_gpu))
            _write(path, entries)


def spent(folder: Path) -> Spent:
    """Costs of the training in ``folder`` and of its teacher's; without a record, as its log has them."""
    total, teacher = Spent(), Spent()
    for one in read(folder):
        total += Spent(**one.get("spent", {}))
        teacher = Spent(**{key: value for key, value in one.get("teacher", {}).items() if key != "run"})
    if total.seconds is None:
        log = read_log(folder / "loss_log.jsonl")
        total += Spent(log[-1].seconds if log else None)
    return total + teacher


@contextmanager
def _guarded() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, CheckpointError) as error:
        say(f"coronet: warning: no {FILE} ({error}); training goes on without it")


def _write(folder: Path, entries: list[dict[str, Any]]) -> None:
    if not is_main():
        return
    folder.mkdir(parents=True, exist_ok=True)
    record = {"format": FORMAT, "version": VERSION, "trainings": entries}
    write_text(folder / FILE, json.dumps(record, indent=1) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The entries of the run in ``folder``, oldest first; none if it has no such file or a damaged one."""
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        return []
    return [dict(one) for one in record["trainings"]]


def entry(opt: Any, continued: bool = False) -> dict[str, Any]:
    """Everything that is recorded of a training with the options ``opt``, as plain data."""
    package = Path(__file__).resolve().parent
    root, phase = host.option(opt, "dataroot"), str(host.option(opt, "phase", default="train"))
    return {
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "continued": continued,
        "command": command(),
        "options": {key: _plain(value) for key, value in sorted(vars(opt).items())},
        "seed": host.option(opt, "seed"),
        "processes": world_size(),
        "versions": software(),
        "code": {"plugin": commit_of(package), "host": commit_of(host_folder())},
        "data": fingerprint(Path(root), phase) if root else None,
        "machine": describe_machine(),
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what two entries differ in that rounding depends on: software, machine, threads, processes."""
    found = []
    for name, version in now["versions"].items():
        if (was := before["versions"].get(name)) != version:
            found.append(f"{name} {version or 'none'} after {was or 'none'}")
    then, here = ({**one["machine"], "processes": one.get("processes")} for one in (before, now))
    for key in ("cpu", "gpus", "threads", "processes"):
        was, value = (", ".join(v) if isinstance(v := one.get(key), list) else v for one in (then, here))
        if was != value:
            found.append(f"{key}: {value or 'none'} after {was or 'none'}")
    return found


# -- how it was called ---------------------------------------------------------
def command() -> str | None:
    """The command line of this process, or None if it is not a training's own, such as a notebook's."""
    words = list(getattr(sys, "orig_argv", ["python", *sys.argv]))  # sys.argv alone before Python 3.10
    if not any(word.partition("=")[0] == "--dataroot" for word in words):
        return None
    return without_home(shlex.join(["python", *words[1:]]))


def without_home(text: str) -> str:
    """``text`` with the home folder, whose name is often that of a person, as ``~``."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _plain(value: Any) -> Any:
    """An option's value as JSON has it; text for what JSON has no form for."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and np.isfinite(value):
        return value
    return without_home(str(value))


# -- software ------------------------------------------------------
def software() -> dict[str, str | None]:
    """Versions of what the numbers depend on."""
    cudnn = torch.backends.cudnn
    return {
        **versions("numpy"),
        "cuda": torch.version.cuda,
        "cudnn": str(cudnn.version()) if cudnn.is_available() else None,
    }


# -- code ----------------------------------------------------------------------
def host_folder() -> Path:
    """The checkout that trains: the folder of its ``models`` package, or the current one."""
    file = getattr(sys.modules.get("models"), "__file__", None)
    return Path(file).resolve().parent.parent if file else Path.cwd()


def commit_of(folder: Path) -> dict[str, Any] | None:
    """The commit that ``folder`` is at, and whether files that git knows there were changed since.

    None where git is not installed or does not know the folder's files, as with an installed package
    inside somebody's repository.
    """
    try:
        if not _git(folder, "ls-files", "--", "."):
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "-uno", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_SECONDS,
        env=environment,
    )
    return done.stdout.strip()


# -- data ----------------------------------------------------------------------
def fingerprint(dataroot: Path, phase: str = "train") -> dict[str, Any] | None:
    """Identify the files that a training reads: equal for equal data, wherever it lies.

    Of the folders of ``dataroot`` whose name begins with ``phase`` (``train``, ``trainA``), or of the whole
    where there are none. ``names_and_sizes``: SHA-256 over the sorted relative names and sizes of all files.
    ``contents``: SHA-256 over the contents of every ``every``-th of them, so that about
    :data:`CONTENT_BYTES` are read whatever the number of files. None if there are no files.
    """
    listed = sorted(_files(dataroot, phase))
    if not listed:
        return None
    names = hashlib.sha256()
    for name, size, _ in listed:
        names.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    total = sum(size for _, size, _ in listed)
    every = max(1, -(-total // CONTENT_BYTES))
    return {
        "phase": phase,
        "files": len(listed),
        "bytes": total,
        "names_and_sizes": names.hexdigest(),
        "contents": _contents(path for *_, path in listed[::every]),
        "every": every,
    }


def _files(dataroot: Path, phase: str) -> Iterator[tuple[str, int, str]]:
    """(name relative to ``dataroot``, size in bytes, path) of the files below."""
    folders = [path for path in dataroot.glob(f"{phase}*") if path.is_dir()] or [dataroot]
    for top in folders:
        for folder, _, files in os.walk(top, followlinks=True):
            below = Path(folder).relative_to(dataroot).as_posix()
            for file in files:
                path = os.path.join(folder, file)
                with suppress(OSError):  # a dangling link is no data
                    yield f"{below}/{file}", os.path.getsize(path), path


def _contents(paths: Iterable[str]) -> str:
    """SHA-256 over whole files, the last one cut off at :data:`CONTENT_BYTES` in all."""
    digest, left = hashlib.sha256(), CONTENT_BYTES
    for path in paths:
        with open(path, "rb") as file:
            piece = file.read(left)
        digest.update(f"{len(piece)}\n".encode() + piece)
        left -= len(piece)
        if not left:
            break
    return digest.hexdigest()


# -- for people ----------------------------------------------------------------
def in_words(one: Mapping[str, Any]) -> dict[str, str]:
    """An entry in short: what a page shows of it."""
    seen, data, kind = one["versions"], one["data"], one["machine"]
    parts = [f"Python {seen['python']}", f"torch {seen['torch']}", f"numpy {seen['numpy']}"]
    fingerprints = f"{data['names_and_sizes'][:8]} {data['contents'][:8]}" if data else ""
    return {
        "began": one["began"].replace("T", " ").replace("Z", " UTC"),
        "seed": "none" if one["seed"] is None else str(one["seed"]),
        "plug-in": _commit_in_words(seen["coronet_plugin"], one["code"]["plugin"]),
        "host": _commit_in_words("", one["code"]["host"]) or "not in git",
        "versions": ", ".join(parts),
        "data": f"{data['files']} files, {fingerprints}" if data else "not found",
        "machine": ", ".join([kind["cpu"], f"{kind['cores']} cores", *kind["gpus"]]),
    }


def _commit_in_words(version: str, code: Mapping[str, Any] | None) -> str:
    if not code:
        return version
    return f"{version} {code['commit'][:10]}{', changed since' if code['dirty'] else ''}".strip()
