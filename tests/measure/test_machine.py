"""What figures say of the machine and the software they were taken with."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import pytest
import torch

from coronet_plugin import __version__
from coronet_plugin.errors import CheckpointError, describe
from coronet_plugin.measure import machine
from coronet_plugin.measure.memory import FORGET_PEAK, resident_bytes
from coronet_plugin.versions import versions


def test_a_machine_is_plain_data_without_its_name():
    found = machine.describe_machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cores"] >= 1 and found["cpu"] and found["instruction_set"].startswith(platform.machine())
    assert platform.node() not in found.values()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
def test_torch_and_linux_agree_on_what_the_processor_can(monkeypatch):
    asked = machine.instruction_set()
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert machine.instruction_set() == asked


def test_a_processor_that_nobody_knows_is_still_described(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    machine.CPUINFO.write_text("model name : Abacus 3\nflags : beads\n")
    assert machine.processor() == "Abacus 3" and machine.instruction_set().endswith("not known")


def test_versions_of_what_is_installed_and_of_nothing_else():
    found = versions("numpy", "no-such-package")
    assert found["coronet_plugin"] == __version__ and found["torch"] == torch.__version__
    assert found["numpy"] == metadata.version("numpy") and "no-such-package" not in found


def test_errors_of_others_are_one_line_and_cut_off_but_ours_are_whole():
    pages = "first\n" + "and so on " * 100
    assert (
        describe(RuntimeError(pages)).startswith("first and so on")
        and len(describe(RuntimeError(pages))) < 250
    )
    assert len(describe(CheckpointError(pages))) > 900 and "\n" not in describe(CheckpointError(pages))
    assert describe(KeyError()) == "KeyError"


@pytest.mark.skipif(not FORGET_PEAK.exists(), reason="only Linux tells")
def test_what_is_free_again_is_not_resident():
    before = resident_bytes()
    block = torch.ones(2**22)  # 16 MB
    assert resident_bytes() - before > 15e6
    del block
    assert resident_bytes() - before < 5e6
