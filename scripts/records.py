"""Records of the benchmark scripts: files, cells of a table, a figure."""

from __future__ import annotations

import contextlib
import csv
import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


def write(rows: Sequence[dict[str, Any]], folder: Path, name: str, keys: Sequence[str] = ()) -> None:
    """``name.json`` with everything, ``name.csv`` with ``keys`` (by default those of the first row)."""
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    with (folder / f"{name}.csv").open("w", newline="") as file:
        sheet = csv.DictWriter(file, keys or list(rows[0]), extrasaction="ignore")
        sheet.writeheader()
        sheet.writerows(rows)


def keep(path: Path, record: dict[str, Any]) -> None:
    """Write the record of one run as it comes, and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record), flush=True)


def write_study(
    output: Path,
    name: str,
    variants: Iterable[str],
    header: Sequence[str],
    columns: Sequence[tuple[str, float, int]],
) -> None:
    """``name.jsonl`` and ``name.md`` from ``output/records``: a row for each task and variant.

    ``columns``: key of a figure, factor, digits.
    """
    records = [json.loads(path.read_text()) for path in sorted((output / "records").glob("*.json"))]
    (output / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = []
    for task in distinct(records, "task"):
        for variant in variants:
            rows = [r for r in records if (r["task"], r["variant"]) == (task, variant)]
            found = [[factor * r[key] for r in rows if r.get(key) is not None] for key, factor, _ in columns]
            cells = [mean_cell(v, digits) if v else "" for v, (*_, digits) in zip(found, columns)]
            if rows:
                lines.append([task, variant, str(len(rows)), *cells])
    (output / f"{name}.md").write_text(table(header, lines) + "\n")
    print((output / f"{name}.md").read_text())


def distinct(rows: Sequence[dict[str, Any]], key: str) -> list[Any]:
    """Values of ``key`` in any of the rows, in the order of their appearance."""
    return list(dict.fromkeys(row[key] for row in rows))


def values(rows: Sequence[dict[str, Any]], key: str, **where: Any) -> list[Any]:
    """``key`` of the rows that agree with ``where``."""
    return [row[key] for row in rows if all(row[name] == value for name, value in where.items())]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, without a newline at its end."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def median_cell(values: Sequence[float], digits: int) -> str:
    """Median (least to greatest)."""
    extremes = f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return f"{statistics.median(values):.{digits}f}{extremes}"


def mean_cell(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation; of one value itself."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


@contextlib.contextmanager
def figure(path: Path, columns: int = 1, size: tuple[float, float] = (6, 3.5)) -> Iterator[list[Any]]:
    """Axes side by side, of a picture that is written to ``path``; ``size`` in inches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, columns, figsize=size, squeeze=False)
    yield list(axes[0])
    drawn.tight_layout()
    drawn.savefig(path, dpi=120)
    pyplot.close(drawn)
