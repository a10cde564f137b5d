"""LPIPS through its library, where that can be imported, and what is said where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from run_helpers import make_run, picture

from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.evaluation.evaluate import evaluate_run
from coronet_plugin.evaluation.perceptual import load_lpips
from coronet_plugin.runs.run import find_run


@pytest.fixture
def library() -> Any:
    try:
        import lpips
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"lpips cannot be imported: {error}")
    return lpips


def backbone(path: Path, first: tuple[int, ...] = (64, 3, 11, 11)) -> Path:
    torch.save({"features.0.weight": torch.zeros(first)}, path)
    return path


def random_alexnet(path: Path) -> Path:
    """Random weights under torchvision's names."""
    torch.manual_seed(0)
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    state = {}
    for place, (out, into, side) in shapes.items():
        state[f"features.{place}.weight"] = torch.randn(out, into, side, side) / (into * side * side) ** 0.5
        state[f"features.{place}.bias"] = torch.randn(out) * 0.1
    torch.save({**state, "classifier.1.weight": torch.zeros(2)}, path)
    return path


def test_files_that_are_no_backbone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        load_lpips(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="no backbone of LPIPS; expected AlexNet's or VGG-16's"):
        load_lpips(backbone(tmp_path / "other.pth", (64, 3, 7, 7)))


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(OptionError, match=r"needs lpips and torchvision: .*coronet-plugin\[lpips\]"):
        load_lpips(backbone(tmp_path / "alex.pth"))


def test_an_incomplete_backbone_is_refused(tmp_path: Path, library: Any) -> None:
    with pytest.raises(CheckpointError, match="no backbone of LPIPS"):
        load_lpips(backbone(tmp_path / "alex.pth"))


def test_the_figure_is_the_library_s_own(tmp_path: Path, library: Any) -> None:
    make_run(tmp_path, "r", stems=("a", "b"))
    images = tmp_path / "results/r/test_latest/images"
    for seed, name in enumerate(("a_fake_B", "a_real_B", "b_fake_B", "b_real_B")):
        Image.fromarray(picture(seed, 64)).save(images / f"{name}.png")
    weights = random_alexnet(tmp_path / "alexnet.pth")
    run = find_run("r", tmp_path / "checkpoints", tmp_path / "results")
    (one,) = evaluate_run(run, lpips=load_lpips(weights), cache_dir=tmp_path / "cache")
    reference = library.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = torch.load(weights, weights_only=True)
    for name, parameter in reference.net.named_parameters():
        parameter.data = state["features." + name.split(".", 1)[1]]

    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(Image.open(images / name))).permute(2, 0, 1)[None].float() / 255

    with torch.no_grad():
        expected = [
            reference(read(f"{stem}_fake_B.png"), read(f"{stem}_real_B.png"), normalize=True).item()
            for stem in "ab"
        ]
    assert one.lpips == pytest.approx(np.mean(expected), rel=1e-5) and one.lpips > 0.01  # float32
