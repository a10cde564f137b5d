"""``coronet bench --table`` and ``--table_kit``: times from a device, and a training that goes by them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coronet_plugin import Compression
from coronet_plugin.benchmark.time_table import printed_ms
from coronet_plugin.budget import latency_meter
from coronet_plugin.budget.latency_table import LatencyTable
from coronet_plugin.cli import main
from coronet_plugin.generators.registry import find_family

SMALL = ["--size", "32"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A narrow family and few widths: what is timed does not matter here."""
    family = find_family("resnet_6blocks")
    small = type(family.default_config())(3, 3, 16, "instance", use_dropout=False)
    monkeypatch.setattr(type(family), "default_config", lambda self: small)
    monkeypatch.setattr(latency_meter, "FRACTIONS", (1.0, 0.5))
    monkeypatch.setattr(latency_meter, "ENOUGH_S", 0.01)
    monkeypatch.setattr("coronet_plugin.benchmark.table.UNEVEN", 1)


def cut_by(table: Path) -> Compression:
    family = find_family("resnet_6blocks")
    generator = family.build(family.default_config())
    options = {"budget": 0.5, "kind": "latency", "method": "uniform", "table": str(table)}
    compression = Compression(generator, torch.rand(1, 3, 32, 32), search_steps=1, **options)
    compression.slim()
    return compression


def test_a_table_of_this_machine(tmp_path):
    file = tmp_path / "table.json"
    assert main(["bench", "resnet_6blocks", *SMALL, "--runtimes", "torch", "--table", str(file)]) == 0
    assert len(LatencyTable.read(file).rows) == 3 and LatencyTable.read(file).runtime == "torch"
    assert cut_by(file).remaining < 1


def test_a_kit_is_timed_by_a_program_that_knows_the_runtime_alone(tmp_path):
    """By its Python package, with nothing of ours; and by a command that prints a time, as on a phone."""
    pytest.importorskip("onnxruntime")
    kit = tmp_path / "kit"
    assert main(["bench", "resnet_6blocks", *SMALL, "--runtimes", "onnx", "--table_kit", str(kit)]) == 0
    script = (kit / "time_table.py").read_text()
    assert "coronet_plugin" not in script.replace("coronet_plugin/", "")
    program = [sys.executable, "-I", str(kit / "time_table.py")]
    subprocess.run(program, check=True, capture_output=True, cwd=tmp_path)
    here = LatencyTable.read(kit / "table.json")
    assert here.runtime == "onnxruntime" and len(here.rows) == 3
    assert here.rows[0].ms > here.rows[1].ms, "the dense one takes longer"
    phone = tmp_path / "phone.json"
    size = "import os, sys; print('Inference (avg):', os.path.getsize(sys.argv[1]))"
    command = f'{sys.executable} -c "{size}" {{file}}'
    subprocess.run([*program, "--command", command, "--output", str(phone)], check=True, capture_output=True)
    assert LatencyTable.read(phone).rows[0].ms == pytest.approx((kit / "generator_00.onnx").stat().st_size / 1e3)
    assert cut_by(phone).remaining <= 0.5 and "Inference" in json.loads(phone.read_text())["device"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("Inference timings in us: Init: 7, First inference: 9, Warmup (avg): 8, Inference (avg): 12500", 12.5),
        ("        generator  min =   20.90  max =   21.37  avg =   21.14", 21.14),
        ("[ - ] G.mnn      max =   9.2 ms  min =   8.7 ms  avg =   8.9 ms", 8.9),
        ("Average inference time cost total: 3.5 ms", 3.5),
    ],
)
def test_times_are_read_as_programs_print_them(text, ms):
    assert printed_ms(text) == pytest.approx(ms)


def test_what_prints_no_time_ends_it():
    with pytest.raises(SystemExit, match="no time in what the command printed: adb: no devices"):
        printed_ms("adb: no devices")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["resnet_6blocks", "--table", "t.json"], "one runtime"),
        (["resnet_6blocks", "--table", "t.json", "--runtimes", "coreml"], "one runtime"),
        (["resnet_6blocks", "resnet_6blocks@0.5", "--table", "t.json", "--runtimes", "torch"], "not of 2"),
        (["resnet_6blocks", "--table_kit", "kit", "--runtimes", "torch"], "no files"),
    ],
)
def test_what_cannot_be_a_table_is_refused_in_one_line(options, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *SMALL, *options]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
