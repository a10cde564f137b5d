"""The spec: a JSON file beside a generator's weights from which it is rebuilt.

It is data for people and programs: which architecture, what was asked, what is
left of every channel set, and the shapes of the tensors in the weight file.
Nothing in it is ever executed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coronet_plugin.checkpoint.spec_check import FILE_BYTES, Unsound, check
from coronet_plugin.errors import CheckpointError, printable
from coronet_plugin.generators.config import shorten

FORMAT = "coronet-spec"
VERSION = 2
SEARCH = "search"
"""Phase in which weights are generated and latents shrink; the generator has full size."""
COMPACT = "compact"
"""Phase after slimming; the generator is an ordinary small one."""


@dataclass(frozen=True)
class Spec:
    """Everything known of one saved generator.

    ``architecture``: ``netG``, the name of a registered family, and its config
    (:mod:`coronet_plugin.generators.registry`), or ``{"class": name}`` for another generator of the
    user's own.
    ``dense`` and ``slim``: ``macs``, ``macs_literature`` and ``parameters``.
    ``sets``: per channel set ``name``, ``channels``, ``kept`` (indices in the first
    producing layer) and ``pinned`` (reason or null).
    ``tensors``: shape of every entry of the weight file. ``widths``: attributes of
    modules whose width no tensor tells, such as affine-free norms. ``padded``: modules that mix all channels
    and run at their dense width (:class:`~coronet_plugin.channels.padding.Padding` as data); not written if
    there are none.
    ``options``: host options needed to build the same model for testing. ``quantization``: after
    quantization-aware training, what :meth:`coronet_plugin.training.qat.Rounding.facts` says; else empty and
    not written.
    """

    phase: str
    architecture: dict[str, Any]
    input_size: list[list[int]]
    budget: dict[str, Any]
    dense: dict[str, int]
    slim: dict[str, int]
    sets: list[dict[str, Any]]
    tensors: dict[str, list[int]]
    widths: dict[str, dict[str, int]]
    search: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)
    padded: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Readable JSON: one line per entry, lists of numbers not broken up."""
        entries = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for name in ("quantization", "padded"):
            if not entries[name]:
                del entries[name]
        lines = []
        for key, value in entries.items():
            if isinstance(value, (list, dict)) and value and key in ("sets", "tensors", "widths", "padded"):
                lines.append(f"  {json.dumps(key)}: {_rows(value)}")
            else:
                lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def read(cls, path: str | Path) -> Spec:
        """Read a spec file.

        Raises:
            CheckpointError: the file is missing, is not a spec, or was written by a newer version.
        """
        entries = _read_json(Path(path))
        if not isinstance(entries, dict) or entries.pop("format", None) != FORMAT:
            raise CheckpointError(f"{path} is not a coronet spec; one must lie beside the weights")
        version = entries.pop("version", None)
        while type(version) is int and version in MIGRATIONS:
            entries, version = MIGRATIONS[version](entries), version + 1
        if version != VERSION:
            raise CheckpointError(
                f"{path} has spec version {shorten(version)}, this coronet_plugin reads versions up to "
                f"{VERSION}; update the package"
            )
        if entries.get("phase") not in (SEARCH, COMPACT):
            named = shorten(entries.get("phase"))
            raise CheckpointError(f"{path} names the phase {named}, not {SEARCH!r} or {COMPACT!r}")
        try:
            check(entries)
            return cls(**entries)
        except (Unsound, TypeError) as error:
            raise CheckpointError(f"{path} is not a sound spec: {printable(str(error))}") from error


def _from_1(entries: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew no quantization."""
    return {"quantization": {}, **entries}


MIGRATIONS = {1: _from_1}
"""Functions from the entries of a version to those of the next."""


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > FILE_BYTES:
            raise CheckpointError(f"{path} is larger than {FILE_BYTES} bytes; no spec is")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise CheckpointError(f"the spec {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a spec: it is not valid JSON ({error})") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _rows(value: list[Any] | dict[str, Any]) -> str:
    if isinstance(value, dict):
        rows = [f"    {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n  }"
    return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"


def spec_path(weights: str | Path) -> Path:
    """The spec that belongs to a weight file: same name, ``.json``."""
    return Path(weights).with_suffix(".json")


def widths_of(where: str | Path, network: str) -> dict[str, int]:
    """Channels kept of every set, by its name: of a spec file, or of generator ``network`` of a run's folder.

    Raises:
        CheckpointError: there is no such spec.
    """
    path = Path(where)
    spec = Spec.read(path / f"latest_net_{network}.json" if path.is_dir() else path)
    return {entry["name"]: len(entry["kept"]) for entry in spec.sets}
