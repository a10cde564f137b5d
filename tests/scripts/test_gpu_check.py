"""The check of a GPU: to its end at toy size on the CPU, what is saved is kept, and what is missing is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from coronet_plugin.versions import OLD_TORCH
from scripts import gpu_check, gpu_parts
from scripts.gpu_check import Check, Part
from scripts.gpu_measure import TOY, Bench, Cell

ROOT = Path(__file__).resolve().parent.parent.parent


def check_in(folder: Path, **more: object) -> Check:
    (folder / "parts").mkdir(exist_ok=True)
    return Check(folder, ROOT / "datasets" / "openmoji", "AtoB", "cpu", True, **more)


@pytest.mark.skipif(OLD_TORCH, reason="it times --compile, too, which needs torch 2.6")
@pytest.mark.timeout(900)  # it starts a dozen processes one after the other
def test_a_dry_run_measures_everything_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--device", "cpu", "--dry", "--output", str(tmp_path)]
    command = [ROOT / "scripts/gpu_check.sh", *words]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    state = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    parts = {name: part["rows"] for name, part in state["parts"].items()}
    assert list(parts) == ["tests", "steps", "curves", "latency", "facades"]
    assert {part["status"] for part in state["parts"].values()} == {"done"}
    assert state["about"]["torch"] == torch.__version__ and state["about"]["dry"]

    (tests,) = parts["tests"]
    assert tests["tests"] == tests["passed"] + tests["skipped"] > 30
    assert {(row["model"], row["method"], row["precision"]) for row in parts["steps"]} >= {
        *((model, method, "fp32") for model in ("pix2pix", "cycle_gan") for method in ("plain", "default")),
        *(("pix2pix", "plain", precision) for precision in ("bf16", "bf16, compiled")),
    }
    assert all(0 < row["least"] <= row["seconds"] <= row["most"] < 60 for row in parts["steps"])
    assert all(row["peak_bytes"] > 2**26 for row in parts["steps"])
    for row in parts["curves"]:  # the CPU against itself, from one set of weights and pictures
        assert row["apart"] == {"after 1": 0, "after 4": 0}, row
        assert all(value > 0 for step in row["losses"]["cpu"] for value in step.values())
    assert [row["runtime"] for row in parts["latency"]] == ["torch", "CPUExecutionProvider"]
    assert all("missing" in row or row["dense"]["median_ms"] > row["slim"]["min_ms"] for row in parts["latency"])
    (sweep,) = parts["facades"]
    shares = {name: run["macs_share"] for name, run in sweep["runs"].items()}
    assert shares["dense_s0"] == 1 and all(
        0.05 < share <= 0.1 for name, share in shares.items() if name != "dense_s0"
    )
    assert len(shares) == 3 and all(-1 < run["ssim"] < 1 for run in sweep["runs"].values())

    table = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert table.count("\n## ") == 5 and "none: a dry run on the CPU" in table
    assert "| pix2pix | 1 | bf16, compiled | plain |" in table and "| uniform_0.1_s0 | 10.0 |" in table

    before = (tmp_path / "gpu_check.json").read_text(encoding="utf-8")
    monkeypatch.setattr(gpu_check, "run", lambda *given: pytest.fail("measured again"))
    assert gpu_check.main(words) == 0
    assert (tmp_path / "gpu_check.json").read_text(encoding="utf-8") == before


def test_a_killed_part_goes_on_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, measured = check_in(tmp_path), []

    def measure(key: str) -> dict[str, int]:
        measured.append(key)
        if key == "too large" and len(measured) < 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return {"figure": len(measured)}

    keys = ("kept", "new", "too large")
    cells = [Cell(key, lambda key=key: measure(key)) for key in keys]
    monkeypatch.setitem(gpu_parts.CELLS, "steps", lambda bench: iter(cells))
    check.lines("steps").write_text('{"key": "kept", "figure": 7}\n{"key": "new", "fig', encoding="utf-8")
    bench = Bench(check, TOY, time.monotonic() + 60)
    why = gpu_parts.work(bench, "steps")
    assert measured == ["new", "too large"]
    assert why == "1 of 3 missing, the first: too large: OutOfMemoryError: CUDA out of memory."
    assert gpu_parts.work(bench, "steps") and measured[2:] == ["too large"]
    assert gpu_parts.work(bench, "steps") == ""
    rows = {row["key"]: row for row in check.rows("steps")}
    assert rows["kept"]["figure"] == 7 and rows["new"]["figure"] == 1 and rows["too large"]["figure"] == 4
    late = Bench(check, TOY, time.monotonic() - 1)
    monkeypatch.setitem(gpu_parts.CELLS, "steps", lambda bench: iter([*cells, Cell("late", dict)]))
    assert gpu_parts.work(late, "steps") == "1 of 4 missing, the first: late: no time was left"


def test_a_part_that_takes_too_long_is_stopped_and_one_that_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    check = check_in(tmp_path)
    began = time.monotonic()
    assert gpu_check.run(check, Part("curves", "", 0.05, 0), 0.5)["status"] == "stopped after 0 s"
    assert time.monotonic() - began < 15
    assert gpu_check.run(check, Part("curves", "", 60, 20), 10) == {
        "status": "skipped: 10 s were left, and it takes at least 20"
    }


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "gpu_check.json").write_text(json.dumps({"about": {"torch": "1.0"}, "parts": {}}))
    for words, said in {
        (): "--device cpu --dry runs the same",
        ("--device", "cpu"): "--device cpu is for --dry",
        ("--data", "nowhere", "--device", "cpu", "--dry"): "nowhere has no folder train",
        ("--device", "cpu", "--dry"): "has figures of another coronet_plugin, python, torch",
    }.items():
        assert gpu_check.main([*words, "--output", str(tmp_path)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and said in lines[0]
    assert not (tmp_path / "parts").exists()
