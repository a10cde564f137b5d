"""The comparison of methods: what is held out, which rate is chosen, and what the table says of records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import paired_folder, unpaired_folder

from coronet_plugin.sweep.plan import method_named
from scripts.compare_methods import Comparison, averaged
from scripts.method_tables import against, chosen, markdown, points
from scripts.method_tasks import AVERAGED, HELD_OUT, ROWS, TASKS, Job, prepared


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_rows_are_methods_of_the_sweep() -> None:
    assert all(method_named(method.split()[0]) for method in ROWS.values())


def test_held_out_pictures_are_never_trained_on(tmp_path: Path) -> None:
    source = unpaired_folder(tmp_path, images=(200, 130), size=8)
    made = prepared("horse2zebra", source, tmp_path / "out")
    for side, left in (("A", 100), ("B", 30)):
        train, val, test = (names(made / f"{phase}{side}") for phase in ("train", "val", "test"))
        assert (len(train), len(val)) == (left, 100) and not train & val
        assert test == names(source / f"test{side}")


def test_without_a_test_set_val_is_the_test(tmp_path: Path) -> None:
    source = paired_folder(tmp_path, images=30, size=8)
    (source / "test").rename(source / "val")
    made = prepared("edges2shoes", source, tmp_path / "out")
    assert names(made / "test") == names(source / "val")
    assert len(names(made / "val")) == 20 and not names(made / "val") & names(made / "train")


def record(row: str, factor: str, seed: int, held_out: float, test: float | None = None) -> dict:
    looks = {HELD_OUT: {"kid": held_out}}
    if test is not None:
        figures = {"kid": test, "ssim": 0.5, "l1": 0.1, "macs_share": 0.1}
        looks |= {
            AVERAGED: figures,
            "test_latest": {"kid": test + 0.01},
            "test_iter_1100": {"kid": test + 0.03},
        }
    budget = "1.0" if row == "dense" else "0.1"
    known = {"task": "facades", "row": row, "budget": budget, "factor": factor, "seed": seed}
    return {**known, "looks": looks, "seconds": 100 + seed}


RECORDS = [
    *(record("implicit", "1", seed, 0.3, test) for seed, test in enumerate((0.30, 0.34, 0.32))),
    *(record("uniform", "2.5", seed, 0.4, test) for seed, test in enumerate((0.35, 0.40, 0.36))),
    record("uniform", "1", 0, 0.5, 0.1),  # better on test pictures, which does not count
    record("dense", "1", 0, 0.3, 0.31),
]


def test_the_rate_is_chosen_on_held_out_pictures() -> None:
    found = dict(chosen(RECORDS))
    assert {run["factor"] for run in found["facades", "0.1", "uniform"]} == {"2.5"}


def test_of_one_rate_nothing_is_held_out_and_it_is_the_best(tmp_path: Path) -> None:
    alone = record("random", "5", 0, 0.4, 0.41)
    del alone["looks"][HELD_OUT]
    assert dict(chosen([alone, *RECORDS]))["facades", "0.1", "random"] == [alone]
    (tmp_path / "records").mkdir()
    job = Job("facades", "random", "0.1", "5", 0, (AVERAGED,))
    (tmp_path / "records" / f"{job.name}.json").write_text(json.dumps(alone))
    Comparison(tmp_path, {}, saves=0).row("facades", "random", "0.1", [0], ["5"])  # has no data to train on


def test_a_rate_that_was_never_judged_on_test_pictures_is_not_shown() -> None:
    found = dict(chosen([*RECORDS, record("dense", "5", 0, 0.2)]))  # better on held-out pictures, later
    assert {run["factor"] for run in found["facades", "1.0", "dense"]} == {"1"}


def test_differences_are_paired_by_seed() -> None:
    found = dict(chosen(RECORDS))
    differences = against(found["facades", "0.1", "implicit"], found["facades", "0.1", "uniform"], "kid")
    assert differences == pytest.approx([0.05, 0.06, 0.04])


def test_the_table() -> None:
    text = markdown(RECORDS, "implicit")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    uniform = next(row for row in rows if row[0] == "uniform")
    # the mean of 350, 400 and 360, 20 more in the mean of two plain saves; 50 ± 5.8 above the default
    assert uniform[1:4] == ["2.5", "3", "10.0"] and uniform[4].startswith("370.0 ±")
    assert uniform[-2].startswith("390.0 ±") and uniform[-1] == "+50.0 ± 5.8"
    dense = next(row for row in rows if row[0] == "dense")
    assert dense[-1] == "+10.0"
    assert ["facades", "0.1", "uniform", "500", "400 (3)"] in rows  # both rates of the grid


def test_points_are_means_of_quality_at_the_least_disturbed_time() -> None:
    by_time = {point.run: point for point in points(RECORDS, "time")["facades"]}
    assert by_time["implicit"].cost == 100 and by_time["implicit"].quality == pytest.approx(320)
    by_macs = {point.run: point for point in points(RECORDS, "macs")["facades"]}
    assert by_macs.keys() == {"dense", "uniform 0.1", "implicit 0.1"} and by_macs["uniform 0.1"].cost == 10


def test_pictures_leave_out_what_would_hide_the_rest() -> None:
    half = {**record("gates", "1", 0, 0.4, 0.36), "row": "gates, half"}
    gates = record("gates", "1", 0, 0.4, 0.35)
    smaller = {**gates, "budget": "0.05"}
    alone = {point.run for point in points([*RECORDS, half], "time")["facades"]}
    both = {point.run for point in points([*RECORDS, half, gates, smaller], "time")["facades"]}
    assert "gates, half" in alone and both == {"dense", "uniform", "implicit", "gates"}
    by_macs = {point.run for point in points([*RECORDS, gates, smaller], "macs")["facades"]}
    assert by_macs == {"dense", "gates 0.1", "gates 0.05"}


def test_a_teacher_has_the_averaged_weights(tmp_path: Path) -> None:
    run = tmp_path / "dense_s0"
    run.mkdir()
    for name in ("latest_net_G_A.pth", "latest_average_net_G_A.pth", "latest_average_net_G_B.pth", "opt.txt"):
        (run / name).write_text(name)
    folder = averaged(run, tmp_path / "teachers" / run.name)
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {
        "latest_net_G_A.pth": "latest_average_net_G_A.pth",
        "latest_net_G_B.pth": "latest_average_net_G_B.pth",
        "opt.txt": "opt.txt",
    }


def test_what_has_a_record_is_not_done_again(tmp_path: Path) -> None:
    job = Job("facades", "uniform", "0.1", "1", 0, (HELD_OUT,))
    comparison = Comparison(tmp_path, {})  # which has no data to train on
    with pytest.raises(KeyError):
        comparison.done(job)
    (tmp_path / "records").mkdir()
    kept = record("uniform", "1", 0, 0.4)
    (tmp_path / "records" / f"{job.name}.json").write_text(json.dumps(kept))
    assert comparison.done(job) == kept


def test_the_last_saves_are_judged() -> None:
    assert TASKS["facades"].looks(3) == [AVERAGED, "test_latest", "test_iter_1100", "test_iter_1000"]
    assert TASKS["facades"].looks(0) == [AVERAGED]
