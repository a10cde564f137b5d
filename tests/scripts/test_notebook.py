"""notebooks/coronet.ipynb, executed from top to bottom with small settings; and the output that is kept in it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
for library in ("onnxruntime", "onnxscript", "safetensors", "dominate"):
    pytest.importorskip(library)
sys.path.insert(0, str(ROOT / "scripts"))
SMALL = {"EPOCHS": "2", "IMAGES": "20", "SIZE": "32", "WIDTH": "8", "BUDGET": "0.3"}
"""A budget that a generator of this width can reach."""


def outputs(notebook: dict, kind: str) -> list:
    found = [one.get("data", {}) for cell in notebook["cells"] for one in cell.get("outputs", ())]
    return [data[kind] for data in found if kind in data]


def printed(notebook: dict) -> str:
    streams = [one.get("text", "") for cell in notebook["cells"] for one in cell.get("outputs", ())]
    return "".join("".join(text) for text in streams)


@pytest.mark.timeout(600)  # seven processes, on a machine that may be busy
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from run_notebook import execute

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work = tmp_path / "work"
    done = execute({**SMALL, "WORK": repr(str(work))}, ROOT / "notebooks")
    assert len(outputs(done, "image/png")) == 4  # two trainings, the comparison, the picture of one's own
    (numbers,) = (text for text in outputs(done, "text/markdown") if text.startswith("| | dense | slim |"))
    macs = [int(n.replace(",", "")) for n in re.findall(r"[\d,]{5,}", numbers.splitlines()[2])]
    assert len(macs) == 2 and macs[1] <= 0.3 * macs[0]
    assert str(work / "export/G_fp32.onnx") in printed(done) and "difference to torch" in printed(done)
    for file in ("page/index.html", "export/G_fp32.onnx", "packed/G.safetensors", "packed/README.md"):
        assert (work / file).is_file(), file


def test_what_is_kept_can_be_read_without_running_it() -> None:
    text = (ROOT / "notebooks/coronet.ipynb").read_text()
    kept = json.loads(text)
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code" and cell["source"]]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len(outputs(kept, "image/png")) == 4
    assert not re.search(r"/home/|/root/|/tmp/|/work/", text)  # nor say where that was
    assert len(text) < 2_000_000
    settings = "".join(
        next(c["source"] for c in kept["cells"] if c["metadata"].get("tags") == ["parameters"])
    )
    assert {key for key in SMALL} <= set(re.findall(r"^(\w+) =", settings, re.M))
