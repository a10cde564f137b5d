"""The snippets of docs/deploy.md do what they say, in the runtimes that are installed."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, smooth_image
from PIL import Image
from run_helpers import make_run

from coronet_plugin.export.pipeline import Request, export_generator
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.export.verify import as_pixels
from coronet_plugin.generators import build_generator

TEXT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"^```(\w+ \w+|python)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
SLOW = ("executorch", "litert")


@torch.no_grad()
def exported(target: str, folder, size: int = 256) -> np.ndarray:
    """A file of ``target`` and IN.png in ``folder``; gives the pixels that are to come out."""
    torch.manual_seed(0)
    generator = build_generator(3, 3, 4, "resnet_6blocks", "instance")
    export_generator(generator, Request(TARGETS[target], size=(size, size)), folder, "G")
    smooth_image(1, size, size).save(folder / "IN.png")
    values = np.asarray(Image.open(folder / "IN.png"), dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    return as_pixels(generator(torch.from_numpy(values))[0].numpy())


def test_every_target_has_a_snippet_or_a_reason():
    shown = {name.split()[1] for name in SNIPPETS if name.startswith("python ")} - {"api"}
    assert shown == set(TARGETS) - {"coreml"}  # which no Python elsewhere than on macOS runs
    assert all(f"coronet-plugin[{target.extra}]" in TEXT for target in TARGETS.values() if target.extra)


@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=pytest.mark.slow) if t in SLOW else t for t in TARGETS if t != "coreml"]
)
def test_python_snippets(target, tmp_path, monkeypatch):
    for name in TARGETS[target].packages:
        pytest.importorskip(name)
    expected = exported(target, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(SNIPPETS["python"] + SNIPPETS[f"python {target}"], {})
    found = np.asarray(Image.open("OUT.png"))
    # Grey levels: one for rounding. MNN calculates with fewer digits unless told otherwise.
    assert np.abs(found.astype(int) - expected).max() <= {"mnn": 4}.get(target, 1)
    assert expected.std() > 3  # a picture, not a plain colour


def test_the_snippet_for_ones_own_code(tmp_path, monkeypatch, capsys):
    make_run(tmp_path, "small", budget=0.5)
    monkeypatch.chdir(tmp_path / "checkpoints" / "small")
    exec(SNIPPETS["python api"], {})
    assert capsys.readouterr().out.startswith("True Difference(")


@pytest.mark.slow
def test_the_program_for_libtorch(tmp_path):
    """Compiled against the headers and libraries of the installed torch."""
    from torch.utils.cpp_extension import include_paths, library_paths

    if shutil.which("g++") is None:
        pytest.skip("no g++")
    exported("torchscript", tmp_path)
    (tmp_path / "main.cpp").write_text(SNIPPETS["cpp libtorch"])
    paths = [*(f"-I{path}" for path in include_paths()), *(f"-L{path}" for path in library_paths())]
    flags = ["-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    libraries = ["-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library_paths()[0]}", "-Wl,--no-as-needed"]
    subprocess.run(
        ["g++", *flags, str(tmp_path / "main.cpp"), *paths, *libraries, "-o", str(tmp_path / "main")],
        check=True,
    )
    done = subprocess.run(
        [str(tmp_path / "main"), str(tmp_path / "G_fp32.pt")], capture_output=True, text=True, check=True
    )
    with torch.no_grad():
        mean = torch.jit.load(str(tmp_path / "G_fp32.pt"))(torch.zeros(1, 3, 256, 256)).mean()
    assert done.stdout.startswith("[1, 3, 256, 256] ")
    assert float(done.stdout.split()[-1]) == pytest.approx(float(mean), abs=1e-5)
