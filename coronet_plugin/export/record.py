"""The record of an export: how its file was made, what goes in and comes out, how close it is."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coronet_plugin.export.ports import Port, Ports
from coronet_plugin.export.request import Request
from coronet_plugin.export.verify import TANH, Difference, Range, Sample, range_of
from coronet_plugin.versions import versions

BYTES: Range = (0.0, 255.0)
FORMAT, VERSION = "coronet-export", 1


def size_in_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def record_of(
    request: Request,
    ports: Ports,
    samples: Sequence[Sample],
    limits: Sequence[Range],
    facts: Mapping[str, Any],
    made: Sequence[Path],
    measured: Mapping[str, Difference],
) -> dict[str, Any]:
    """The record of the files ``made`` for ``request``.

    ``samples``: what was compared on. ``limits``: ranges of the outputs. ``facts``: what the target says,
    with ``inputs`` and ``outputs`` where its file has other names. ``measured``: by output; empty where the
    file cannot be run.
    """
    target, facts = request.target, dict(facts)
    check: dict[str, Any] = {"ran": bool(measured)}
    if measured:
        worst = functools.reduce(Difference.or_worse, measured.values())
        check["difference_to_torch"] = worst.as_dict()
        check["outputs"] = {name: found.as_dict() for name, found in measured.items()}
    else:
        check.update(difference_to_torch=None, why_not_run=target.why_not_run())
    given = [range_of(values, TANH) for values in zip(*samples)]
    if request.embed_preprocessing:
        given, limits = [BYTES], [BYTES]
    return {
        "format": FORMAT,
        "version": VERSION,
        "target": target.name,
        "dtype": request.dtype,
        "files": {path.name: size_in_bytes(path) for path in made},
        **_ends("input", request, ports.inputs, given, facts.pop("inputs", ())),
        **_ends("output", request, ports.outputs, limits, facts.pop("outputs", ())),
        "dynamic": request.dynamic,
        "norm_mode": request.norm_mode,
        "dropout": "off",
        "rewrite": list(target.pieces(request.dtype, request.dynamic)),
        "check": check,
        "versions": {**versions(), **target.versions()},
        **facts,
        **request.about,
    }


def _ends(
    name: str,
    request: Request,
    ports: Sequence[Port],
    limits: Sequence[Range],
    in_file: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """``input`` or ``output`` where there is one, else a list under that name with an ``s``."""
    entries = [
        {**_entry(port, request), "range": [int(x) if x.is_integer() else x for x in limit], **other}
        for port, limit, other in zip(ports, limits, in_file or [{}] * len(ports))
    ]
    return {name: entries[0]} if len(entries) == 1 else {f"{name}s": entries}


def _entry(port: Port, request: Request) -> dict[str, Any]:
    shape: list[int | str] = list(port.shape)
    if request.dynamic:
        sides = (1, 2) if request.embed_preprocessing else (2, 3)
        free = {0: "N", **dict.fromkeys(sides if port.is_picture else (), f"multiple of {request.multiple}")}
        shape = [free.get(axis, side) for axis, side in enumerate(port.shape)]
    order = "NHWC" if request.embed_preprocessing else "NCHW"
    layout = {"layout": order} if port.is_picture else {}
    return {"name": port.name, **layout, "shape": shape, "dtype": port.dtype}
