"""The tables of the examples: rows by budget and method, means over seeds, floors."""

from __future__ import annotations

import json

from scripts import compare_examples
from scripts.compare_examples import Job, markdown


def record(method, budget, seed, kid, macs, **own):
    near = {"precision": 0.5, "recall": 0.25, "neighbours": 3}
    return {
        "family": "vae", "method": method, "budget": budget, "seed": seed, "macs": macs, "macs_dense": 4_000_000,
        "distance": {"kid": kid, "count": 96}, "floor": {"kid": 0.001}, "overlap": near, "overlap_floor": near,
        "elbo": -0.5, "reconstruction_error": 0.1, "seconds": 10.0, "ms_a_picture": 2.0,
        "change_at_cut": None if method == "dense" else 1e-7 * (seed + 1), **own,
    }  # fmt: skip


def test_a_row_for_each_budget_and_method_with_the_mean_over_seeds():
    found = [record("dense", "1.0", 0, 0.1, 4_000_000)]
    found += [record("gates", "0.25", seed, kid, 1_000_000) for seed, kid in enumerate((0.2, 0.4))]
    lines = markdown(found).splitlines()
    dense, gates = (next(line for line in lines if f"| {name} |" in line) for name in ("dense", "gates"))
    assert "| 1.0 | dense | 1 | 4.00 | 100.0 | 100.0 |" in dense and dense.endswith("|  |")
    assert "| 0.25 | gates | 2 | 1.00 | 25.0 | 300.0 ± 141.4 | 0.50 ± 0.00 |" in gates
    assert gates.endswith("| 2e-07 |")  # the worst of both
    assert "KID 1.0, precision 0.50, recall 0.25; 96 pictures a side" in lines[-1]


def test_tables_are_written_from_records_alone_in_order(tmp_path, capsys):
    (tmp_path / "records").mkdir()
    for method, budget in (("uniform", "0.1"), ("gates", "0.25"), ("dense", "1.0")):
        path = tmp_path / "records" / f"{Job('vae', method, budget, 0).name}.json"
        path.write_text(json.dumps(record(method, budget, 0, 0.1, 1)))
    compare_examples.write(tmp_path, tmp_path)
    lines = (tmp_path / "examples.jsonl").read_text().splitlines()
    assert [json.loads(line)["method"] for line in lines] == ["dense", "gates", "uniform"]
    assert (tmp_path / "examples.md").read_text() in capsys.readouterr().out
