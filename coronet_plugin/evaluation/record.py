"""``evaluation.json`` beside the results of a run: every figure, and what it was made from.

A record is good as long as the pictures, the protocol, the extractor and the version of this package are the
same, as its fingerprints say. The protocols are kept side by side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coronet_plugin.evaluation.distances import Distance, Overlap
from coronet_plugin.evaluation.duplicates import Duplicates
from coronet_plugin.evaluation.paired import PairedMetrics
from coronet_plugin.files import write_text
from coronet_plugin.versions import versions

FILE = "evaluation.json"
FORMAT, VERSION = "coronet-evaluation", 1
LIBRARIES = ("numpy", "pillow", "scikit-image", "torch-fidelity", "lpips")


@dataclass(frozen=True)
class Evaluation:
    """How good the pictures of one generator are, under one protocol. What was not measured is None.

    ``floor``: real test against real training pictures, what a perfect generator comes to. ``duplicates``:
    test pictures that are among the training pictures, of the side the generator makes. ``size``: of the
    pictures, width x height. ``notes``: sentences that belong beside the figures.
    """

    run: str
    generator: str
    output: str
    protocol: str
    size: str
    paired: PairedMetrics | None = None
    lpips: float | None = None
    distance: Distance | None = None
    floor: Distance | None = None
    overlap: Overlap | None = None
    overlap_floor: Overlap | None = None
    duplicates: Duplicates | None = None
    extractor: str = ""
    resize: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """Fingerprints of what figures were made from; empty for an extractor or LPIPS that was not there."""

    pictures: str
    extractor: str = ""
    lpips: str = ""

    def covers(self, wanted: Inputs) -> bool:
        """True if figures made from these are what is wanted; more than that is no harm."""
        same = self.pictures == wanted.pictures
        return same and wanted.extractor in ("", self.extractor) and wanted.lpips in ("", self.lpips)


def read(path: Path, protocol: str, wanted: Inputs) -> tuple[Evaluation, ...] | None:
    """The evaluations in ``path`` if they are good for what is ``wanted``, else None."""
    try:
        entry = _load(path)[protocol]
        if Inputs(**entry["inputs"]).covers(wanted):
            return tuple(_from_plain(values) for values in entry["translations"])
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return None


def write(path: Path, protocol: str, inputs: Inputs, evaluations: Sequence[Evaluation]) -> None:
    """Put them into ``path``, beside those of other protocols. Raises CheckpointError if it cannot be."""
    entry = {
        "inputs": asdict(inputs),
        "versions": versions(*LIBRARIES),
        "translations": [as_plain(evaluation) for evaluation in evaluations],
    }
    protocols = {**_load(path), protocol: entry}
    record = {"format": FORMAT, "version": VERSION, "protocols": protocols}
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def as_plain(evaluation: Evaluation) -> dict[str, Any]:
    """As JSON has it: no infinity (the PSNR of equal pictures is ``"inf"``)."""
    values = asdict(evaluation)
    if evaluation.paired is not None and math.isinf(evaluation.paired.psnr):
        values["paired"]["psnr"] = "inf"
    return values


def _load(path: Path) -> dict[str, Any]:
    """Entries by protocol; none if there is no such file, or it is damaged or of another version."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        return {}
    return dict(record["protocols"])


def _from_plain(values: dict[str, Any]) -> Evaluation:
    paired, doubles = values.pop("paired"), values.pop("duplicates")
    distance, floor = (values.pop(key) for key in ("distance", "floor"))
    near, near_floor = (values.pop(key, None) for key in ("overlap", "overlap_floor"))
    notes = tuple(values.pop("notes"))
    return Evaluation(
        **values,
        paired=paired and PairedMetrics(**{**paired, "psnr": float(paired["psnr"])}),
        distance=distance and Distance(**distance),
        floor=floor and Distance(**floor),
        overlap=near and Overlap(**near),
        overlap_floor=near_floor and Overlap(**near_floor),
        duplicates=doubles and Duplicates(**{kind: _pairs(found) for kind, found in doubles.items()}),
        notes=notes,
    )


def _pairs(found: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((first, second) for first, second in found)
