from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_script", ROOT / "scripts/demo.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def given(command: tuple[str, ...]) -> dict[str, str]:
    """Options of a command line by name; flags have an empty value."""
    words = list(command) + ["--"]
    pairs = zip(words, words[1:])
    return {word: "" if value.startswith("--") else value for word, value in pairs if word.startswith("--")}


def test_trainings_differ_in_the_compression_alone(demo: ModuleType) -> None:
    dense, compressed = (given(part.command) for part in demo.parts(demo.parse([]))[:2])
    different = {key for key in dense.keys() | compressed.keys() if dense.get(key) != compressed.get(key)}
    assert different == {"--name", "--coronet_budget", "--coronet_method"}
    assert (dense["--coronet_budget"], compressed["--coronet_budget"]) == ("1.0", "0.1")
    asked = given(demo.parts(demo.parse(["--search_epochs", "1"]))[1].command)
    assert "--coronet_search_epochs" not in compressed and asked["--coronet_search_epochs"] == "1"


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_epochs_are_those_asked_for(demo: ModuleType, epochs: int) -> None:
    dense = given(demo.parts(demo.parse(["--epochs", str(epochs)]))[0].command)
    assert int(dense["--n_epochs"]) + int(dense["--n_epochs_decay"]) == epochs


def test_what_is_planned_fits_the_minutes(demo: ModuleType) -> None:
    """More pictures on a faster machine, then more epochs; a machine that is too slow trains on a few."""
    for step in (0.02, 0.05, 0.2):
        epochs, images = demo.planned(360, step, beginning=5, pictures=1000)
        expected = demo.PROGRAMS * 5 + epochs * images * step * (1 + demo.STEP_RATIO)
        assert 0.85 * 360 < expected <= 360, step
    assert demo.planned(360, 0.02, 5, 1000)[0] > demo.planned(360, 0.05, 5, 1000)[0] >= demo.EPOCHS
    assert demo.planned(60, 5.0, 20, 1000) == (demo.EPOCHS, demo.FEWEST)


def test_the_machine_is_timed_unless_the_training_is_said(demo: ModuleType) -> None:
    assert demo.parse([]).timed and demo.parse([]).minutes == 6
    assert not any(demo.parse(words).timed for words in (["--quick"], ["--epochs", "1"], ["--images", "9"]))
    with pytest.raises(SystemExit):
        demo.parse(["--minutes", "0"])


def test_keep_repeats_what_was_changed(demo: ModuleType, tmp_path: Path) -> None:
    def kept(*options: str) -> bool:
        parsed = demo.parse(["--output", str(tmp_path), "--keep", *options])
        return demo.is_kept(parsed, demo.parts(parsed)[0])

    assert not kept()
    parsed = demo.parse(["--output", str(tmp_path)])
    part = demo.parts(parsed)[0]
    record = demo.command_file(parsed, part)
    record.parent.mkdir(parents=True)
    record.write_text(part.shown() + "\n", encoding="utf-8")
    assert kept()
    assert not kept("--seed", "1")
    assert not demo.is_kept(parsed, part)  # without --keep


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts/demo.py", "--quick", "--output", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.splitlines()[-1])
    assert page == tmp_path / "comparison/index.html" and page.is_file()
    numbers = json.loads((page.parent / "comparison.json").read_text(encoding="utf-8"))
    runs = numbers["generators"]["G"]["runs"]
    assert 0.05 < runs["demo_coronet"]["ratios"]["macs"] <= 0.1
    assert runs["demo_dense"]["test_images"] == runs["demo_coronet"]["test_images"] == 6
    assert "python train.py" in page.read_text(encoding="utf-8")
