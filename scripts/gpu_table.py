"""The markdown of scripts/gpu_check.py: where it was measured, and a table for every part."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scripts import records

Row = Mapping[str, Any]
MIB = 2**20


def markdown(state: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """All parts of ``state`` that were begun, each with its status and what it measured so far."""
    lines = ["# On a GPU, measured", "", *head(state["about"])]
    for name, title in titles.items():
        part = state["parts"].get(name)
        if part is not None:
            spent = f" ({part['seconds']:.0f} s)" if "seconds" in part else ""
            lines += ["", f"## {title}", "", f"{part['status']}{spent}"]
            rows = [row for row in part["rows"] if "failed" not in row]
            lines += ["", TABLES[name](rows)] if rows else []
            lines += [f"\n- {row['key']}: {row['failed']}" for row in part["rows"] if "failed" in row]
    return "\n".join(lines) + "\n"


def head(about: Mapping[str, Any]) -> list[str]:
    """The machine, the software and the data."""
    found = about["commit"] or {"commit": "not known", "dirty": False}
    commit = f"{found['commit'][:10]}{' and changes' * found['dirty']}"
    card = "none: a dry run on the CPU"
    if "card" in about:
        card = f"{about['card']} ({about['memory_gib']} GiB, compute capability {about['capability']})"
    parts = {
        "card": card,
        "driver": about.get("driver"),
        "torch": about["torch"],
        "CUDA": about["cuda"],
        "cuDNN": about["cudnn"],
        "fp32": "convolutions in TF32, as torch has it by default" if about.get("tf32") else None,
        "coronet_plugin": f"{about['coronet_plugin']}, {commit}",
        "CPU": f"{about['machine']['cpu']}, {about['machine']['cores']} cores",
        "data": f"{about['data']}{', at toy size' * about['dry']}",
    }
    return [records.table(["", ""], [[key, str(value)] for key, value in parts.items() if value])]


def _tests(rows: Sequence[Row]) -> str:
    cells = [[str(row[key]) for key in ("tests", "passed", "skipped")] for row in rows]
    return records.table(["tests", "passed", "skipped"], cells)


def _steps(rows: Sequence[Row]) -> str:
    plain = {_case(row): row["seconds"] for row in rows if row["method"] == "plain"}
    cells = []
    for row in sorted(rows, key=lambda row: (_case(row), row["seconds"])):
        ratio = row["seconds"] / plain[_case(row)] if _case(row) in plain else None
        spread = f"{1e3 * row['seconds']:.1f} ({1e3 * row['least']:.1f} to {1e3 * row['most']:.1f})"
        memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / MIB:.0f}"
        cells.append([*_case(row), row["method"], spread, f"{ratio:.2f}" if ratio else "", memory])
    header = ["model", "batch", "precision", "training", "step, ms", "of plain", "peak, MiB"]
    return records.table(header, [[str(cell) for cell in line] for line in cells])


def _case(row: Row) -> tuple[str, int, str]:
    return row["model"], row["batch"], row["precision"]


def _curves(rows: Sequence[Row]) -> str:
    ends = list(dict.fromkeys(key for row in rows for key in row["apart"]))
    cells = [
        [
            row["model"],
            row["method"],
            *(f"{row['apart'][key]:.2g}" if key in row["apart"] else "" for key in ends),
        ]
        for row in rows
    ]
    worst = max(max(row["apart"].values()) for row in rows)
    said = f"Largest difference of a loss, by its mean: {worst:.2g}. Single precision, TF32 off."
    header = ["model", "training", *(f"{key} step{'s' * (key != 'after 1')}" for key in ends)]
    return f"{said}\n\n{records.table(header, cells)}"


def _latency(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        what = [row["net"], str(row["side"]), row["runtime"]]
        if "missing" in row:
            cells.append([*what, f"missing: {row['missing']}", "", ""])
            continue
        dense, slim = (row[name]["median_ms"] for name in ("dense", "slim"))
        cells.append([*what, f"{dense:.2f}", f"{slim:.2f}", f"{dense / slim:.2f}"])
    return records.table(["generator", "pixels", "runtime", "dense, ms", "slim, ms", "faster"], cells)


def _facades(rows: Sequence[Row]) -> str:
    columns = {"macs_share": (100, 1), "kid": (1000, 1), "ssim": (1, 3), "training_seconds": (1, 0)}
    lines = []
    for row in rows:
        for name, run in row["runs"].items():
            found = [(run.get(key), factor, digits) for key, (factor, digits) in columns.items()]
            cells = [
                "" if value is None else f"{factor * value:.{digits}f}" for value, factor, digits in found
            ]
            lines.append([name, *cells])
    steps = statistics.mean(row["steps"] for row in rows)
    said = f"{steps:.0f} steps of one picture each, ngf {rows[0]['ngf']}, all runs at a time."
    header = ["run", "MACs, % of dense", "KID x 1000", "SSIM", "training, s"]
    return f"{said}\n\n{records.table(header, lines)}"


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "tests": _tests,
    "steps": _steps,
    "curves": _curves,
    "latency": _latency,
    "facades": _facades,
}
