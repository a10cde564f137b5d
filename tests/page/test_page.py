"""coronet page: the folder it writes, what it offers by the data, and bad input in one line."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, paired_folder, smooth_image
from PIL import Image, ImageDraw
from run_helpers import SIZE, make_cycle_run, make_run

from coronet_plugin.cli import main
from coronet_plugin.export.onnx import load
from coronet_plugin.export.pictures import read_picture
from coronet_plugin.page.build import PARTS
from coronet_plugin.page.inputs import colours_for, inputs_for
from coronet_plugin.page.runtime import ASSETS, BINARY, PACKED, SCRIPT
from coronet_plugin.runs.run import find_run

pytest.importorskip("onnxscript")


@pytest.fixture
def runtime(tmp_path):
    """The two files of the npm package, in miniature."""
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    (dist / SCRIPT).write_text("export {};\n")
    (dist / BINARY).write_bytes(b"\0asm" + bytes(2000))
    return tmp_path / "package"


@pytest.fixture
def page(tmp_path, runtime, monkeypatch):
    """Runs the command in a folder of runs; gives its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*words, runtime=runtime) -> int:
        where = ["--runtime", str(runtime)] if runtime else []
        return main(["page", *map(str, words), "--output", "page", *where])

    return run


def about(tmp_path):
    return json.loads((tmp_path / "page" / "page.json").read_text())


def outlines(count: int = 5, tones: tuple[int, int] = (255, 0)) -> np.ndarray:
    """Drawings as a generator takes them: a few lines of the second tone on paper of the first."""
    pictures = []
    for number in range(count):
        image = Image.new("RGB", (64, 64), (tones[0],) * 3)
        ImageDraw.Draw(image).ellipse((8, 8, 40 + 3 * number, 50), outline=(tones[1],) * 3, width=2)
        pictures.append(np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1)
    return np.stack(pictures)


def test_slim_and_dense_side_by_side(tmp_path, page, capsys):
    make_run(tmp_path, "slim", budget=0.3)
    make_run(tmp_path, "dense")
    assert page("slim", "--dense", "dense", "--title", "Two", "--credit", "By us", "--examples", 2) == 0
    assert capsys.readouterr().out.strip() == "page/index.html"
    written = about(tmp_path)
    slim, dense = written["models"]
    assert (slim["name"], dense["name"], written["title"], written["credit"]) == (
        "slim",
        "dense",
        "Two",
        "By us",
    )
    assert slim["macs"] < 0.35 * dense["macs"] and slim["bytes"] < dense["bytes"]
    for model in (slim, dense):
        assert (tmp_path / "page" / model["file"]).stat().st_size == model["bytes"]
        assert model["input"] == model["output"] == [1, 3, SIZE, SIZE] and model["range"] == [-1, 1]
    assert [Image.open(tmp_path / "page" / name).size for name in written["examples"]] == [(SIZE, SIZE)] * 2
    for name in PARTS:
        assert (tmp_path / "page" / name).read_bytes() == (ASSETS / name).read_bytes()


def test_the_models_compute_what_torch_does_with_weights_of_half_the_size(tmp_path, page):
    make_run(tmp_path, "slim", budget=0.3)
    assert page("slim") == 0
    generator = find_run("slim", tmp_path / "checkpoints").load_generator("G")
    file = tmp_path / "page" / about(tmp_path)["models"][0]["file"]
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, SIZE, SIZE)).astype(np.float32)
    with torch.no_grad():
        expected = generator.train()(torch.from_numpy(x)).numpy()
    found = load(file)(x)
    assert 0 < np.abs(found - expected).max() < 2 / 255  # below a grey level, and not the fp32 file
    stored = onnx.load(str(file)).graph
    weights = [tensor for tensor in stored.initializer if len(tensor.dims) == 4]
    assert weights and all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights)
    casts = {node.output[0] for node in stored.node if node.op_type == "Cast"}
    assert all(node.input[1] in casts for node in stored.node if node.op_type.startswith("Conv"))


def test_fp32_when_asked_for(tmp_path, page):
    make_run(tmp_path, "slim", budget=0.3)
    assert page("slim", "--dtype", "fp32") == 0
    graph = onnx.load(str(tmp_path / "page" / "models" / "slim.onnx")).graph
    assert {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4} == {
        onnx.TensorProto.FLOAT
    }


def test_without_a_dense_run_its_figures_are_shown(tmp_path, page):
    make_run(tmp_path, "slim", budget=0.3)
    assert page("slim") == 0
    slim, dense = about(tmp_path)["models"]
    assert dense["file"] is None and dense["macs"] > slim["macs"] and dense["parameters"] > slim["parameters"]


def test_a_dense_run_alone(tmp_path, page):
    make_run(tmp_path, "dense")
    assert page("dense") == 0
    assert [model["name"] for model in about(tmp_path)["models"]] == ["dense"]


def test_the_runtime_is_packed_and_comes_with_its_licence(tmp_path, page, runtime):
    make_run(tmp_path, "dense")
    assert page("dense") == 0
    folder = tmp_path / "page" / "runtime"
    assert gzip.decompress((folder / PACKED).read_bytes()) == (runtime / "dist" / BINARY).read_bytes()
    assert "Microsoft" in (folder / "LICENSE.txt").read_text() and not (folder / BINARY).exists()
    assert (folder / "ThirdPartyNotices.txt").stat().st_size > 100_000
    (tmp_path / "page").rename(tmp_path / "other")
    assert page("dense", runtime=tmp_path / "other") == 0  # from another page
    assert (folder / PACKED).read_bytes() == (tmp_path / "other" / "runtime" / PACKED).read_bytes()


def test_npm_install_is_found(tmp_path, page, runtime):
    make_run(tmp_path, "dense")
    shutil.move(runtime, tmp_path / "node_modules" / "onnxruntime-web")
    assert page("dense", runtime=None) == 0
    assert (tmp_path / "page" / "runtime" / SCRIPT).read_text() == "export {};\n"  # not the checkout's


def test_drawings_are_drawn_and_photos_are_taken():
    photos = np.stack(
        [np.asarray(smooth_image(i, 64, 64), np.float32).transpose(2, 0, 1) / 127.5 - 1 for i in range(5)]
    )
    assert inputs_for(outlines()) == ["draw", "photo"]
    assert inputs_for(photos) == ["photo", "webcam"]
    assert inputs_for(photos.mean(axis=1, keepdims=True)) == [
        "photo",
        "webcam",
    ]  # gray photos are no drawings
    assert inputs_for(np.concatenate([outlines(), photos[:2]])) == ["draw", "photo"]  # by most of them
    assert colours_for(outlines()) == {"paper": "#ffffff", "ink": "#000000"}
    chalk = outlines(tones=(0, 255))
    assert inputs_for(chalk) == ["draw", "photo"] and colours_for(chalk) == {
        "paper": "#000000",
        "ink": "#ffffff",
    }


def test_the_bundled_outlines_are_drawings():
    files = sorted((ROOT / "datasets" / "openmoji" / "test").iterdir())[:6]
    assert inputs_for(np.stack([read_picture(file, 3, (64, 64), half=0) for file in files])) == [
        "draw",
        "photo",
    ]


def test_input_by_option_and_examples_from_a_folder(tmp_path, page):
    make_run(tmp_path, "dense", stems=())
    images = paired_folder(tmp_path) / "test"
    assert page("dense", "--input", "webcam", "draw", "--images", images) == 0
    written = about(tmp_path)
    assert written["inputs"] == ["webcam", "draw"] and "camera" in written["invitation"]
    assert len(written["examples"]) == 3


def test_without_pictures_there_are_no_examples(tmp_path, page, capsys):
    make_run(tmp_path, "dense", stems=())
    assert page("dense") == 0
    assert "--images" in capsys.readouterr().err
    assert about(tmp_path)["examples"] == [] and about(tmp_path)["inputs"] == ["photo", "webcam"]


def test_either_direction_of_a_cycle(tmp_path, page):
    make_cycle_run(tmp_path, "cycle")
    assert page("cycle", "--network", "G_B") == 0
    assert len(about(tmp_path)["examples"]) == 2  # the real_B of its test


MISTAKES = (
    (("none",), "no run 'none' in checkpoints"),
    (("dense", "--dense", "none"), "no run 'none' in checkpoints"),
    (("dense", "--network", "G_A"), "--network G_A: dense has G"),
    (("dense", "--dtype", "int8"), "choose one of fp32, fp16"),
    (("dense", "--size", "31"), "must be multiples of 4"),
    (("dense", "--images", "empty"), "no picture in empty"),
    (("dense", "--runtime", "empty"), "npm install onnxruntime-web@"),
)


@pytest.mark.parametrize(
    ("words", "message"), MISTAKES, ids=lambda value: value[-1] if isinstance(value, tuple) else ""
)
def test_bad_input_in_one_line(words, message, tmp_path, page, capsys):
    make_run(tmp_path, "dense")
    (tmp_path / "empty").mkdir()
    assert page(*words, **({"runtime": None} if "--runtime" in words else {})) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "page").exists()


def test_an_input_that_is_not_known(tmp_path, page, capsys):
    with pytest.raises(SystemExit, match="2"):
        page("dense", "--input", "voice")
    error = capsys.readouterr().err
    assert "voice" in error and error.count("\n") == 1
