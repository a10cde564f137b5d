"""The bundled pictures: what the demo, the README and the licence rely on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "datasets" / "openmoji"
PHASES = {phase: sorted((DATA / phase).glob("*.png")) for phase in ("train", "test")}


def test_enough_pictures_in_little_space() -> None:
    assert len(PHASES["train"]) >= 1000 and len(PHASES["test"]) == 48
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 4_000_000


def test_every_pair_can_be_read() -> None:
    for path in (*PHASES["train"], *PHASES["test"]):
        with Image.open(path) as image:
            assert image.size == (256, 128), path
            assert image.mode == "P", path
            image.load()


def test_left_is_an_outline_and_right_is_coloured() -> None:
    for path in PHASES["test"]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=int)
        outline, colour = pixels[:, :128], pixels[:, 128:]
        saturation = [(half.max(2) - half.min(2)).mean() for half in (outline, colour)]
        assert saturation[0] < 8, path  # black on white; the palette may tint an edge a little
        changed = (np.abs(outline - colour).max(2) > 24).mean()
        assert changed > 0.015, path  # 0.02 before the palette was reduced


def test_no_test_picture_is_trained_on() -> None:
    stems = {phase: {path.stem for path in paths} for phase, paths in PHASES.items()}
    assert not stems["train"] & stems["test"]
    train = {path.read_bytes() for path in PHASES["train"]}
    assert not any(path.read_bytes() in train for path in PHASES["test"])


def test_no_test_outline_has_a_twin_in_training() -> None:
    def outlines(paths: list[Path]) -> np.ndarray:
        halves = (Image.open(path).convert("L").crop((0, 0, 128, 128)) for path in paths)
        return np.stack([np.asarray(half.resize((32, 32), Image.Resampling.BOX)) for half in halves]) / 255.0

    train = outlines(PHASES["train"])
    nearest = [np.abs(train - outline).mean((1, 2)).min() for outline in outlines(PHASES["test"])]
    assert min(nearest) > 0.018  # 0.02 before the palette was reduced


def test_the_licence_is_kept() -> None:
    text = (DATA / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for needed in (
        "OpenMoji",
        "the open-source emoji and icon project",
        "https://openmoji.org",
        "https://creativecommons.org/licenses/by-sa/4.0/",
        "CC BY-SA 4.0",
        "What was changed",
    ):
        assert needed in text
    assert f"{len(PHASES['train'])} pictures are for training" in text


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_openmoji", ROOT / "scripts/prepare_openmoji.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five pairs: a twin of the test picture, one without colour, three good ones."""
    rng = np.random.default_rng(0)
    shapes = {
        name: (rng.random((64, 64)) > 0.5).astype(np.uint8) * 255 for name in ("t", "g1", "g2", "g3", "n")
    }
    for phase, names in (("test", ["t"]), ("train", ["twin", "g1", "g2", "g3", "n"])):
        (tmp_path / "source" / phase).mkdir(parents=True)
        for name in names:
            outline = np.repeat(shapes["t" if name == "twin" else name][..., None], 3, axis=2)
            colour = outline.copy()
            if name != "n":
                colour[..., 2] = 0
            pair = Image.fromarray(np.concatenate([outline, colour], axis=1))
            pair.save(tmp_path / "source" / phase / f"{name}.png")
    return tmp_path / "source"


def test_preparing_is_deterministic_and_leaves_out_twins_and_colourless_pairs(
    source: Path, tmp_path: Path
) -> None:
    script = load_script()
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        script.prepare(script.parse([str(source), "--output", str(folder), "--size", "32"]))
    assert sorted(path.stem for path in (folders[0] / "train").iterdir()) == ["g1", "g2", "g3"]
    for path in folders[0].rglob("*.png"):
        assert path.read_bytes() == (folders[1] / path.relative_to(folders[0])).read_bytes()
        assert Image.open(path).size == (64, 32)


def test_preparing_stops_at_the_byte_limit(source: Path, tmp_path: Path) -> None:
    script = load_script()
    full = script.prepare(script.parse([str(source), "--output", str(tmp_path / "o"), "--size", "32"]))
    total = sum(size for _, size in full.values())
    limit = ["--max_bytes", str(total - 1)]
    less = script.prepare(
        script.parse([str(source), "--output", str(tmp_path / "o"), "--size", "32", *limit])
    )
    assert less["train"][0] == full["train"][0] - 1
    assert sum(path.stat().st_size for path in (tmp_path / "o").rglob("*.png")) < total
