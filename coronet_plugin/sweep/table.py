"""A sweep's records as files: ``sweep.json``, ``sweep.csv``, ``sweep.md`` and ``sweep.png``.

Runs of one method and budget are put together over the seeds: mean and standard deviation. Rows stand by
the cost that was reached, so that methods can be compared at equal multiply-adds.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coronet_plugin.drawing import COLOURS, GREY, legend, new_figure, style
from coronet_plugin.files import write_atomically, write_text
from coronet_plugin.methods import registry
from coronet_plugin.sweep.plan import Trial, is_dense

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = Mapping[Trial, Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """A figure of the table: its key in the records, label, factor and digits, and which way is better."""

    key: str
    label: str
    digits: int
    factor: float = 1.0
    higher_is_better: bool = False
    judged: bool = True
    """Whether the best of a budget is marked."""

    def cell(self, values: Sequence[float]) -> str:
        """Mean and, of several values, standard deviation."""
        scaled = [self.factor * value for value in values]
        mean = f"{statistics.mean(scaled):.{self.digits}f}"
        return f"{mean} ± {statistics.stdev(scaled):.{self.digits}f}" if len(scaled) > 1 else mean


COLUMNS = (
    Column("macs_share", "MACs, %", 2, 100, judged=False),
    Column("parameters_share", "parameters, %", 2, 100, judged=False),
    Column("kid", "KID x 1000", 1, 1000),
    Column("fid", "FID", 1),
    Column("lpips", "LPIPS", 3),
    Column("ssim", "SSIM", 3, higher_is_better=True),
    Column("psnr", "PSNR, dB", 2, higher_is_better=True),
    Column("l1", "L1", 4),
    Column("training_seconds", "training, s", 0, judged=False),
    Column("training_memory", "training memory, MB", 0, 1e-6, judged=False),
)


@dataclass(frozen=True)
class Group:
    """Runs of one generator that differ in the seed alone. ``values``: by column key, one for each seed."""

    generator: str
    method: str
    budget: str
    seeds: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]

    def mean(self, key: str) -> float:
        return statistics.mean(self.values[key])

    def deviation(self, key: str) -> float:
        found = self.values[key]
        return statistics.stdev(found) if len(found) > 1 else 0.0


def groups(records: Records) -> list[Group]:
    """By generator, falling cost, then method; figures that not every seed has are left out."""
    together: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = {}
    for trial, record in records.items():
        for generator, found in record["figures"].items():
            together.setdefault((generator, trial.row, trial.budget), {})[trial.seed] = found
    made = [_group(*key, by_seed) for key, by_seed in together.items()]
    return sorted(made, key=lambda g: (g.generator, -round(g.mean("macs_share"), 2), g.method))


def _group(generator: str, method: str, budget: str, by_seed: Mapping[int, Mapping[str, Any]]) -> Group:
    rows = list(by_seed.values())
    values = {
        column.key: tuple(float(row[column.key]) for row in rows)
        for column in COLUMNS
        if all(row.get(column.key) is not None for row in rows)
    }
    return Group(generator, method, budget, tuple(by_seed), values)


def write(records: Records, folder: Path) -> None:
    """All four files, of the runs that are done; nothing if there are none."""
    if not records:
        return
    rows = [
        {**vars(trial), "name": trial.name, "generator": generator, **found}
        for trial, record in records.items()
        for generator, found in record["figures"].items()
    ]
    write_text(folder / "sweep.json", json.dumps(rows, indent=1) + "\n")
    write_text(folder / "sweep.csv", _csv(rows))
    found = groups(records)
    write_text(folder / "sweep.md", markdown(found, _floors(rows)))
    write_atomically(folder / "sweep.png", lambda path: _plot(found, _floors(rows), path))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    keys = dict.fromkeys(key for row in rows for key in row)
    table = csv.DictWriter(text, list(keys), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _floors(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Floors by generator and figure; they are the same for all runs of one data set."""
    return {
        (row["generator"], key): row[f"floor_{key}"]
        for row in rows
        for key in ("kid", "fid")
        if row.get(f"floor_{key}") is not None
    }


def markdown(found: Sequence[Group], floors: Mapping[tuple[str, str], float] | None = None) -> str:
    """A table for each generator: mean ± standard deviation over the seeds, best mean of a budget in bold."""
    parts = []
    for generator in dict.fromkeys(group.generator for group in found):
        rows = [group for group in found if group.generator == generator]
        columns = [column for column in COLUMNS if any(column.key in group.values for group in rows)]
        head = ["method", "budget", "seeds", *(column.label for column in columns)]
        lines = [f"### {generator}\n", _line(head), _line(["---"] * len(head))]
        lines += [_line(_cells(group, rows, columns)) for group in rows]
        given = [
            f"{c.label} {c.factor * floor:.{c.digits}f}"
            for c in columns
            if (floor := (floors or {}).get((generator, c.key))) is not None
        ]
        if given:
            lines.append(f"\nFloor, real test against real training pictures: {', '.join(given)}.")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(group: Group, rows: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    cells = [registry.labelled(group.method), group.budget, str(len(group.seeds))]
    rivals = [row for row in rows if row.budget == group.budget and not is_dense(row.method)]
    for column in columns:
        if column.key not in group.values:
            cells.append("")
            continue
        cell = column.cell(group.values[column.key])
        cells.append(f"**{cell}**" if _is_best(group, rivals, column) else cell)
    return cells


def _is_best(group: Group, rivals: Sequence[Group], column: Column) -> bool:
    """True if a quality is the best of several at the same budget."""
    means = [row.mean(column.key) for row in rivals if column.key in row.values]
    if not column.judged or is_dense(group.method) or len(set(means)) < 2:
        return False
    best = max if column.higher_is_better else min
    return group.mean(column.key) == best(means)


# -- the plot ------------------------------------------------------------------
def _plot(found: Sequence[Group], floors: Mapping[tuple[str, str], float], path: Path) -> None:
    """Quality over the multiply-adds that are left, a panel for each generator."""
    generators = list(dict.fromkeys(group.generator for group in found))
    figure = new_figure(6.8 * len(generators), 4.0)
    for axes, generator in zip(figure.subplots(1, len(generators), squeeze=False)[0], generators):
        rows = [group for group in found if group.generator == generator]
        column = next((c for c in COLUMNS[2:] if all(c.key in group.values for group in rows)), None)
        style(axes)
        axes.set_title(generator, color=GREY, fontsize=10)
        if column is not None:
            _panel(axes, rows, column, floors.get((generator, column.key)))
    figure.savefig(path, format="png", dpi=150, facecolor="white")


def _panel(axes: Axes, rows: Sequence[Group], column: Column, floor: float | None) -> None:
    for index, method in enumerate(dict.fromkeys(group.method for group in rows)):
        points = [group for group in rows if group.method == method]
        axes.errorbar(
            [100 * group.mean("macs_share") for group in points],
            [column.factor * group.mean(column.key) for group in points],
            [column.factor * group.deviation(column.key) for group in points],
            marker="o",
            capsize=3,
            color=COLOURS[index % len(COLOURS)],
            label=method,
        )
    if floor is not None:
        axes.axhline(column.factor * floor, color=GREY, lw=1, ls=":", label="floor")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g} %" if f"{value:g}"[0] in "25" else "")
    axes.tick_params(axis="x", which="minor", colors=GREY, labelsize=8)
    axes.margins(x=0.08)
    axes.set_xlabel("multiply-adds left")
    axes.set_ylabel(f"{column.label} ({'higher' if column.higher_is_better else 'lower'} is better)")
    legend(axes)
