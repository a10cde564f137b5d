"""Tables and pictures of the comparison of methods, from the records of its runs."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.comparison.pareto import Point, draw_points  # noqa: E402
from coronet_plugin.comparison.quantities import KID  # noqa: E402
from coronet_plugin.drawing import new_figure, save_svg  # noqa: E402
from scripts import records as records_of  # noqa: E402
from scripts.method_tasks import AVERAGED, DENSE_BUDGET, HELD_OUT, RAW, ROWS, TASKS  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = (("kid", 1000, 1, "KID x 1000"), ("ssim", 1, 3, "SSIM"), ("l1", 1, 3, "L1"))
Records = list[dict[str, Any]]


def chosen(records: Records) -> Iterator[tuple[tuple[str, str, str], Records]]:
    """By (task, budget, row): the runs at the best rate that were judged on test pictures, by seed."""
    groups: dict[tuple[str, str, str], Records] = {}
    for record in records:
        groups.setdefault((record["task"], record["budget"], record["row"]), []).append(record)
    order = {name: index for index, name in enumerate((*TASKS, *ROWS))}
    for key in sorted(groups, key=lambda k: (order[k[0]], -float(k[1]), order[k[2]])):
        found = [r for r in groups[key] if AVERAGED in r["looks"]]
        if found:
            tested = {r["factor"] for r in found}
            factor = best_factor([r for r in groups[key] if r["factor"] in tested])
            found = [r for r in found if r["factor"] == factor]
            yield key, sorted(found, key=lambda r: int(r["seed"]))


def best_factor(records: Records) -> str:
    """The rate with the best mean KID on held-out pictures; where none was judged, the one tried."""
    found: dict[str, list[float]] = {}
    for record in records:
        if HELD_OUT in record["looks"]:
            found.setdefault(str(record["factor"]), []).append(float(record["looks"][HELD_OUT]["kid"]))
    if not found:
        return str(records[0]["factor"])
    return min(found, key=lambda factor: statistics.mean(found[factor]))


def value(record: dict[str, Any], key: str, plain: bool = False) -> float | None:
    """A figure with averaged weights, or the mean over the last saves of the plain ones."""
    looks = record["looks"]
    names = [n for n in looks if n.startswith(RAW) and n != AVERAGED or n.startswith("test_iter")]
    found = [looks[n].get(key) for n in (names if plain else [AVERAGED])]
    return None if None in found or not found else float(np.mean(found))


def against(default: Records, rows: Records, key: str) -> list[float]:
    """Differences to the default, of the seeds that both have."""
    mine, theirs = ({r["seed"]: value(r, key) for r in group} for group in (rows, default))
    pairs = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
    return [a - b for a, b in pairs if a is not None and b is not None]


def markdown(records: Records, default: str) -> str:
    """A table for each task and budget, and the grid of learning rates."""
    found = dict(chosen(records))
    parts = []
    for task, budget in dict.fromkeys((task, budget) for task, budget, _ in found):
        if budget == DENSE_BUDGET:
            continue  # in every table of its task
        rows = {row: r for (t, b, row), r in found.items() if t == task and b in (budget, DENSE_BUDGET)}
        parts.append(_table(task, budget, rows, rows.get(default, []), default))
    return "\n".join([*parts, _grid(records)])


def _table(task: str, budget: str, rows: dict[str, Records], base: Records, default: str) -> str:
    kinds = [f for f in FIGURES if f[0] == "kid" or TASKS[task].paired]
    header = [f"{task}, {budget}", "rate", "seeds", "MACs, %"]
    header += [label for *_, label in kinds] + ["KID, plain weights", f"KID less that of {default}, paired"]
    lines = []
    for row, runs in rows.items():
        shares = [100 * r["looks"][AVERAGED]["macs_share"] for r in runs]
        cells = [row, runs[0]["factor"], str(len(runs)), f"{statistics.mean(shares):.1f}"]
        cells += [_cell([value(r, key) for r in runs], factor, digits) for key, factor, digits, _ in kinds]
        cells.append(_cell([value(r, "kid", plain=True) for r in runs], 1000, 1))
        cells.append("" if row == default else _difference(against(base, runs, "kid")))
        lines.append(cells)
    return records_of.table(header, lines) + "\n"


def _cell(values: Sequence[float | None], factor: float, digits: int) -> str:
    known = [factor * v for v in values if v is not None]
    return records_of.mean_cell(known, digits) if known else ""


def _difference(values: Sequence[float]) -> str:
    """Mean and standard error, x 1000."""
    if len(values) < 2:
        return f"{1000 * values[0]:+.1f}" if values else ""
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{1000 * statistics.mean(values):+.1f} ± {1000 * error:.1f}"


def _grid(records: Records) -> str:
    """Mean KID x 1000 on held-out pictures by learning rate, and of how many seeds if not of one."""
    tried: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for record in records:
        if HELD_OUT in record["looks"]:
            row = tried.setdefault((record["task"], record["budget"], record["row"]), {})
            row.setdefault(record["factor"], []).append(1000 * record["looks"][HELD_OUT]["kid"])
    factors = sorted({factor for row in tried.values() for factor in row}, key=float)
    lines = [[*key, *(_held_out(row.get(f, [])) for f in factors)] for key, row in tried.items()]
    return records_of.table(["held out", "budget", "row", *(f"x {f}" for f in factors)], lines) + "\n"


def _held_out(kids: Sequence[float]) -> str:
    if not kids:
        return ""
    return f"{statistics.mean(kids):.0f}" + (f" ({len(kids)})" if len(kids) > 1 else "")


COSTS = {
    "time": ("seconds of training, teacher and search included", lambda r: float(r["seconds"]), min),
    "macs": (
        "multiply-adds, % of the dense generator's",
        lambda r: 100 * value_of(r, "macs_share"),
        statistics.mean,
    ),
}
"""Label, figure, and how the seeds' figures become one: of seconds the least, as other programs take some."""


def points(records: Records, cost: str) -> dict[str, list[Point]]:
    """Mean KID x 1000 of rows on test pictures against their cost, by task.

    Against time the rows of one budget, 0.1, and dense; against multiply-adds those measured at several
    budgets, if there are any. Of a row that was measured with the usual length of the search, others are left
    out.
    """
    _, read, together = COSTS[cost]
    found: dict[str, list[Point]] = {}
    measured = dict(chosen(records))
    several = {task: _of_several_budgets(measured, task) for task, *_ in measured}
    for (task, budget, row), runs in measured.items():
        usual = (task, budget, row.replace(", half", "").replace(", eighth", ""))
        if usual in measured and usual[2] != row:
            continue
        if cost == "time" and budget not in ("0.1", DENSE_BUDGET):
            continue
        if cost == "macs" and row not in several[task]:
            continue
        kids = [1000 * value_of(r, "kid") for r in runs]
        spread = statistics.stdev(kids) if len(kids) > 1 else 0.0
        name = row if cost == "time" or budget == DENSE_BUDGET else f"{row} {budget}"
        at = together(map(read, runs))
        found.setdefault(task, []).append(
            Point(name, list(ROWS).index(row), at, statistics.mean(kids), spread)
        )
    return found


def _of_several_budgets(measured: Collection[tuple[str, str, str]], task: str) -> list[str]:
    """Rows of ``task`` that were measured at more than one budget, and dense; all, if there is none."""
    budgets: dict[str, set[str]] = {}
    for name, budget, row in measured:
        if name == task:
            budgets.setdefault(row, set()).add(budget)
    several = [row for row, found in budgets.items() if len(found) > 1]
    return [*several, "dense"] if several else list(budgets)


def pareto(records: Records, cost: str) -> Figure:
    """:func:`points` as a picture with a panel for each task."""
    found = points(records, cost)
    figure = new_figure(10, 6 * len(found))
    for axes, (task, rows) in zip(figure.subplots(len(found), 1, squeeze=False)[:, 0], found.items()):
        draw_points(axes, rows, KID, log=cost == "time")
        axes.set_title(task)
        axes.set_xlabel(COSTS[cost][0])
    return figure


def value_of(record: dict[str, Any], key: str) -> float:
    """A figure on test pictures, with averaged weights."""
    return float(record["looks"][AVERAGED][key])


def write(output: Path, folder: Path, default: str) -> None:
    """Everything from the records there are."""
    records = [json.loads(path.read_text()) for path in sorted((output / "records").glob("*.json"))]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "methods.jsonl").write_text(lines)
    (folder / "methods.md").write_text(markdown(records, default))
    for cost in COSTS if any(AVERAGED in record["looks"] for record in records) else ():
        save_svg(pareto(records, cost), folder / f"methods_{cost}.svg")
    print((folder / "methods.md").read_text())
