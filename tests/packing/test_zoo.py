"""The model in ``zoo/openmoji``: it colours outlines, is what its card says, and names whose pictures it saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from coronet_plugin import cost_of, load_generator
from coronet_plugin.channels.cost import human
from coronet_plugin.evaluation.paired import l1, ssim
from coronet_plugin.export.verify import as_pixels
from coronet_plugin.runs.opener import read_generator

pytest.importorskip("safetensors")
FOLDER = ROOT / "zoo/openmoji"
OUTLINES = sorted((ROOT / "datasets/openmoji/test").glob("*.png"))[::4]


@pytest.fixture(scope="module")
def generator() -> torch.nn.Module:
    return load_generator(FOLDER)


def halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Outline and colours, (128, 128, 3) uint8."""
    pair = np.asarray(Image.open(path).convert("RGB"))
    return pair[:, :128], pair[:, 128:]


def as_input(outline: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(outline.copy()).permute(2, 0, 1)[None] / 127.5 - 1


@torch.no_grad()
def coloured(generator: torch.nn.Module, outline: np.ndarray) -> np.ndarray:
    return as_pixels(generator(as_input(outline))[0].numpy())


def test_it_colours_outlines_it_has_not_seen(generator: torch.nn.Module) -> None:
    """On the whole nearer to the truth than the outlines are, which random colours are not."""
    found, nothing = [], []
    for path in OUTLINES:
        outline, truth = halves(path)
        made = coloured(generator, outline)
        found.append((ssim(made, truth), l1(made, truth)))
        nothing.append(l1(outline, truth))
        saturation = made.max(axis=2).astype(int) - made.min(axis=2)
        assert saturation.max() > 60, path.name  # there is colour in it
    likeness, error = np.mean(found, axis=0)
    assert likeness > 0.8 and error < 0.08 and error < 0.85 * np.mean(nothing)


def test_the_octopus(generator: torch.nn.Module) -> None:
    outline, truth = halves(ROOT / "datasets/openmoji/test/1F419.png")
    made = coloured(generator, outline)
    assert ssim(made, truth) > 0.8 and l1(made, truth) < 0.12
    dark = outline.max(axis=2) < 40
    assert made[dark].mean() < 60  # lines stay lines
    assert made[:8, :8].min() > 240  # and what is outside stays white


def test_the_card_says_what_the_network_is(generator: torch.nn.Module) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    counted = cost_of(generator, torch.zeros(1, 3, 128, 128)).as_dict()
    dense = read_generator("G", FOLDER / "G.safetensors").dense
    for key, value in counted.items():
        assert f"| {human(dense[key])} | {human(value)} | {100 * value / dense[key]:.3g} % |" in card
    assert sum(p.numel() for p in generator.parameters()) == counted["parameters"]
    for file in FOLDER.glob("G*"):
        assert f"| `{file.name}` | {file.stat().st_size:,} |" in card


def test_the_licence_of_the_pictures_goes_with_it() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert 'license: "cc-by-sa-4.0"' in card and "CC BY-SA 4.0" in card and "https://openmoji.org" in card
    ours, theirs = FOLDER / "ATTRIBUTION.md", ROOT / "datasets/openmoji/ATTRIBUTION.md"
    assert ours.read_bytes() == theirs.read_bytes()


def test_it_is_small_and_complete() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {"README.md", "G.json", "G.safetensors", "examples_G.png", "ATTRIBUTION.md"} <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000


def test_its_onnx_file_computes_the_same(generator: torch.nn.Module) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    (file,) = FOLDER.glob("*.onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    outline, _ = halves(OUTLINES[0])
    (made,) = session.run(None, {session.get_inputs()[0].name: as_input(outline).numpy()})
    tolerance = 2 if "fp32" in file.name else 12  # levels of 255
    assert np.abs(as_pixels(made[0]).astype(int) - coloured(generator, outline)).max() <= tolerance
