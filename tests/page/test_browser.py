"""A page in headless Chromium: what is drawn is translated as torch does, at a desktop's width and a phone's.

Needs playwright, a Chromium, and the runtime in docs/browser; skipped where one of them is missing.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, smooth_image
from PIL import Image
from run_helpers import SIZE, make_run

from coronet_plugin.cli import main
from coronet_plugin.export.onnx import load
from coronet_plugin.export.verify import as_pixels
from coronet_plugin.page.build import PARTS
from coronet_plugin.page.runtime import ASSETS, NOTICES, PACKED, SCRIPT
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.runs.run import find_run, find_weights

PAGE = ROOT / "docs" / "browser"


@pytest.fixture(scope="module")
def script():
    """scripts/try_browser.py"""
    spec = importlib.util.spec_from_file_location("try_browser_script", ROOT / "scripts/try_browser.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chromium(script):
    pytest.importorskip("playwright")
    program = script.find_chromium()
    if program is None:
        pytest.skip("there is no Chromium")
    camera = " --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
    with script.browser(program, script.FLAGS + camera) as started:
        yield started


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a slim and a dense run, and a page of them."""
    pytest.importorskip("onnxscript")
    root = tmp_path_factory.mktemp("runs")
    make_run(root, "slim", budget=0.3)
    make_run(root, "dense")
    where = ["--checkpoints_dir", str(root / "checkpoints"), "--results_dir", str(root / "results")]
    words = ["--input", "draw", "photo", "webcam", "--runtime", str(PAGE), "--output", str(root / "page")]
    assert main(["page", "slim", "--dense", "dense", *where, *words]) == 0
    return root


@pytest.fixture
def url(script, runs):
    with script.served(runs / "page") as address:
        yield address


def soon(check, seconds: float = 20) -> None:
    """Try ``check`` until it holds."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def check_translation(script, page, runs) -> np.ndarray:
    """Raises AssertionError unless the slim canvas shows what torch makes of what is seen, which is given."""
    seen, found = script.pixels(page, "#sight"), script.pixels(page, "#slim canvas")
    with torch.no_grad():
        expected = script.in_torch(find_run("slim", runs / "checkpoints").load_generator("G").train(), seen)
    assert np.abs(found.astype(int) - expected).max() <= 2  # grey levels: weights of fp16, and rounding
    return seen


def test_draws_as_torch_does_on_two_threads_without_headers_of_the_server(script, chromium, runs, url):
    page = script.open_page(chromium, f"{url}?threads=2")
    assert page.evaluate("crossOriginIsolated") and "WASM, 2 threads" in page.inner_text("#slim .on")
    assert "pictures follow the pen" in page.inner_text("#says")
    script.wait_for(page)
    example = np.asarray(Image.open(runs / "page" / "examples" / "01.png"))
    assert (check_translation(script, page, runs) == example).all()  # what it starts with
    page.click("#clear")
    script.wait_for(page)
    paper = script.pixels(page, "#slim canvas")
    script.draw(page, script.arc(0.5, 0.5, 0.3, 0.3))
    script.wait_for(page)
    assert 0.02 < (check_translation(script, page, runs) < 128).mean() < 0.3
    script.wait_for(page, "dense")
    found = script.pixels(page, "#slim canvas").astype(int)
    assert (
        np.abs(found - paper).max() > 10 and np.abs(found - script.pixels(page, "#dense canvas")).max() > 10
    )
    for model in ("slim", "dense"):
        assert float(page.inner_text(f"#{model} .speed strong").replace(",", "")) > 0
    macs = [entry["macs"] for entry in json.loads((runs / "page" / "page.json").read_text())["models"]]
    assert page.inner_text("#slim .macs") == f"{macs[0] / 1e6:.3g} M"


def test_eraser_undo_examples_photos_and_camera(script, chromium, runs, url, tmp_path):
    page = script.open_page(chromium, f"{url}?threads=1")
    assert "WASM, 1 thread" in page.inner_text("#slim .on")
    page.click("#clear")
    line = [(0.1, 0.5), (0.9, 0.5)]
    script.draw(page, line)
    script.wait_for(page)
    drawn = script.pixels(page, "#sight")
    page.click("#eraser")
    script.draw(page, line)
    script.wait_for(page)
    assert (script.pixels(page, "#sight") > 250).all() and (drawn < 200).any()
    page.click("#undo")
    script.wait_for(page)
    assert (script.pixels(page, "#sight") == drawn).all()

    page.click("#examples button:nth-child(2)")
    example = np.asarray(Image.open(runs / "page" / "examples" / "02.png"))
    soon(lambda: _assert(script.pixels(page, "#sight") == example))

    page.click("#modes button[value=photo]")
    assert page.is_hidden("#pen")
    photo = smooth_image(3, 90, 40)
    photo.save(tmp_path / "wide.png")
    page.set_input_files("#file", tmp_path / "wide.png")
    middle = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (25, 0, 65, 40))).astype(int)
    soon(lambda: _assert(np.abs(script.pixels(page, "#sight") - middle).mean() < 4))  # two ways to scale
    script.wait_for(page)
    check_translation(script, page, runs)
    (tmp_path / "text.png").write_text("not a picture")
    page.set_input_files("#file", tmp_path / "text.png")
    page.wait_for_selector("#says.error")
    assert "text.png is no picture" in page.inner_text("#says")

    page.click("#modes button[value=webcam]")
    page.click("#camera")
    page.wait_for_selector("text=Stop the camera")
    before = script.pixels(page, "#slim canvas")
    soon(lambda: _assert((script.pixels(page, "#slim canvas") != before).any()))  # it goes on by itself
    page.click("#modes button[value=draw]")
    script.wait_for(page)
    check_translation(script, page, runs)  # of the last frame


def _assert(conditions) -> None:
    assert np.all(conditions)


def test_fits_a_phone(script, chromium, url):
    width, height = script.WIDTHS["phone"]
    page = script.open_page(chromium, f"{url}?threads=1", (width, height))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    pad, slim, dense = (
        page.locator(f"{place} canvas").bounding_box() for place in ("#give", "#slim", "#dense")
    )
    assert slim["y"] == dense["y"] > pad["y"] + pad["height"] and slim["x"] + slim["width"] < dense["x"]
    assert dense["y"] + dense["height"] < height  # all are seen at once
    assert all(box["height"] == pytest.approx(box["width"], abs=2) for box in (pad, slim, dense))


@pytest.mark.parametrize("missing", ["page.json", f"runtime/{PACKED}", "models/slim.onnx"])
def test_what_is_missing_is_said(missing, script, chromium, runs, tmp_path):
    shutil.copytree(runs / "page", tmp_path / "page")
    (tmp_path / "page" / missing).unlink()
    with script.served(tmp_path / "page") as address:
        page = script.open_page(chromium, f"{address}?threads=1")
        assert "cannot run here" in page.inner_text("#says") and missing in page.inner_text("#says")


# -- the page that is committed ------------------------------------------------------
def in_onnx(picture: np.ndarray) -> np.ndarray:
    """What its slim model makes of ``picture``, both (H, W, 3)."""
    values = picture.transpose(2, 0, 1)[None] / np.float32(127.5) - 1
    return as_pixels(load(PAGE / "models" / "slim.onnx")(values)[0]).astype(int)


def test_docs_browser_is_made_by_this_package():
    for name in PARTS:
        assert (PAGE / name).read_bytes() == (ASSETS / name).read_bytes(), f"make docs/browser again: {name}"
    for name in NOTICES:
        assert (PAGE / "runtime" / name).read_bytes() == (ASSETS / "runtime" / name).read_bytes()
    about = json.loads((PAGE / "page.json").read_text())
    named = {PAGE / model["file"] for model in about["models"] if model["file"]}
    named |= {PAGE / name for name in about["examples"]} | {
        PAGE / "runtime" / PACKED,
        PAGE / "runtime" / SCRIPT,
    }
    named |= {PAGE / name for name in (*PARTS, "page.json")} | {PAGE / "runtime" / name for name in NOTICES}
    pictures = {path for path in PAGE.glob("screenshot*.png")}
    assert {path for path in PAGE.rglob("*") if path.is_file()} == named | pictures


def test_docs_browser_has_small_models_and_names_openmoji():
    about = json.loads((PAGE / "page.json").read_text())
    sizes = {
        model["name"]: (PAGE / model["file"]).stat().st_size for model in about["models"] if model["file"]
    }
    assert sizes["slim"] <= 1_000_000 and sizes.get("dense", 0) <= 8_000_000
    assert "OpenMoji" in about["credit"] and "CC BY-SA 4.0" in about["credit"]


def test_docs_browser_has_the_model_of_the_zoo(script):
    zoo = ROOT / "zoo" / "openmoji"
    if not zoo.is_dir():
        pytest.skip("there is no zoo/openmoji")
    pytest.importorskip("safetensors")
    name, path = next(iter(find_weights(str(zoo), ".").items()))
    picture = np.asarray(Image.open(PAGE / "examples" / "01.png").convert("RGB"))
    expected = script.in_torch(read_generator(name, path).generator, picture)
    assert np.abs(in_onnx(picture) - expected).max() <= 2  # grey levels: weights of fp16, and rounding


def test_docs_browser_colours_a_face(script, chromium):
    with script.served(PAGE) as address:
        page = script.open_page(chromium, f"{address}?threads=1", patience=120)
        page.click("#clear")
        for stroke in script.FACE:
            script.draw(page, stroke)
        script.wait_for(page)
        seen, found = script.pixels(page, "#sight"), script.pixels(page, "#slim canvas")
    assert np.abs(found.astype(int) - in_onnx(seen)).max() <= 1
    inside = found[40:90, 40:90].reshape(-1, 3)
    assert np.median(np.ptp(inside, axis=1)) > 40  # colours, where gray was given
    assert np.median(found[:10, :10]) > 240  # and none on the paper around it
