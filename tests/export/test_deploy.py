"""The snippets of docs/deploy.md do what they say, in the runtimes that are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, smooth_image
from PIL import Image
from run_helpers import make_run

from coronet_plugin.export.pipeline import export_generator
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.export.verify import as_pixels
from coronet_plugin.generators.stock import build_generator

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


def built(name: str, folder, flags: list[str], libraries: list[Path]) -> Path:
    """The C++ program ``name`` of the document, linked against ``libraries``."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    (folder / "main.cpp").write_text(SNIPPETS[f"cpp {name}"])
    run_path = f"-Wl,-rpath,{libraries[0].parent}"
    files = ["-Wl,--no-as-needed", *(str(library) for library in libraries), run_path]
    command = ["g++", "-std=c++20", *flags, str(folder / "main.cpp"), *files, "-o", str(folder / "main")]
    subprocess.run(command, check=True)
    return folder / "main"


def check_mean(program: Path, file: str, folder) -> None:
    """The program says shape and mean of what it makes of a ramp."""
    done = subprocess.run([str(program), str(folder / file)], capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    generator = build_generator(3, 3, 4, "resnet_6blocks", "instance")
    with torch.no_grad():
        mean = generator(torch.linspace(-1, 1, 3 * 256 * 256).reshape(1, 3, 256, 256)).mean()
    shape, found = done.stdout.rsplit(" ", 1)
    assert re.findall(r"\d+", shape) == ["1", "3", "256", "256"]
    assert float(found) == pytest.approx(float(mean), abs=1e-5)


@pytest.mark.slow
def test_the_program_for_libtorch(tmp_path):
    """Compiled against the headers and libraries of the installed torch."""
    from torch.utils.cpp_extension import include_paths, library_paths

    exported("torchscript", tmp_path)
    flags = [f"-I{path}" for path in include_paths()]
    flags.append(f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}")
    libraries = [Path(library_paths()[0], f"lib{name}.so") for name in ("torch", "torch_cpu", "c10")]
    check_mean(built("libtorch", tmp_path, flags, libraries), "G_fp32.pt", tmp_path)


@pytest.mark.slow
def test_the_program_for_openvino(tmp_path):
    """Compiled against the headers and libraries of the installed package."""
    openvino = pytest.importorskip("openvino")
    exported("openvino", tmp_path)
    package = Path(openvino.__file__).parent
    libraries = sorted((package / "libs").glob("libopenvino.so*"))
    check_mean(built("openvino", tmp_path, [f"-I{package / 'include'}"], libraries), "G_fp32.xml", tmp_path)
