"""Which test pictures a comparison page shows, and what its script does with them, in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import SIZE, make_run

from coronet_plugin import cli
from coronet_plugin.comparison.measure import Measuring
from coronet_plugin.comparison.pictures import shown_pictures
from coronet_plugin.comparison.report import write_comparison
from coronet_plugin.errors import DataError
from coronet_plugin.runs.run import Translation, find_run

TRANSLATION = Translation("G", "real_A", "fake_B", "real_B")
STEMS = tuple("abcdefghijklmnopqrst")
OFF = {"m": 200, "c": 150, "q": 100, "a": 50}
"""Pictures by how many levels the slim run is off; all others are off by one."""
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list:
    root = tmp_path_factory.mktemp("runs")
    for name, budget in (("dense", None), ("slim", 0.4)):
        make_run(root, name, budget=budget, stems=STEMS)
        for stem in STEMS:
            level = 0 if name == "dense" else OFF.get(stem, 1)
            for visual in ("fake_B", "real_B"):
                path = root / f"results/{name}/test_latest/images/{stem}_{visual}.png"
                Image.fromarray(np.full((SIZE, SIZE, 3), level, np.uint8)).save(path)
    return [find_run(name, root / "checkpoints", root / "results") for name in ("dense", "slim")]


def stems(shown: list) -> str:
    return "".join(picture.stem for picture in shown)


def test_what_differs_most_comes_first_and_others_are_spread(runs: list) -> None:
    shown, worst = shown_pictures(runs, TRANSLATION, count=6, worst=3)
    assert worst == 3 and stems(shown[:3]) == "mcq"
    assert [round(255 * (picture.difference or 0)) for picture in shown[:4]] == [200, 150, 100, 50]
    assert stems(shown[3:])[0] == "a" and "t" in stems(shown)  # the first and the last of the others
    assert len(shown) == len(set(stems(shown))) == 6


def test_eight_of_twelve_by_default(runs: list) -> None:
    shown, worst = shown_pictures(runs, TRANSLATION, count=12)
    assert (len(shown), worst) == (12, 8) and stems(shown[:4]) == "mcqa"
    assert shown_pictures(runs, TRANSLATION, count=2)[1] == 2
    assert len(shown_pictures(runs, TRANSLATION, count=100)[0]) == len(STEMS)


def test_one_run_is_held_against_the_truth(runs: list, tmp_path: Path) -> None:
    make_run(tmp_path, "alone", stems=("a", "b"))
    images = tmp_path / "results/alone/test_latest/images"
    shutil.copyfile(images / "a_real_B.png", images / "a_fake_B.png")
    run = find_run("alone", tmp_path / "checkpoints", tmp_path / "results")
    shown, _ = shown_pictures([run], TRANSLATION, 2)
    assert stems(shown) == "ba" and shown[1].difference == 0
    unpaired = Translation("G", "real_A", "fake_B", None)
    shown, worst = shown_pictures([run], unpaired, 2)
    assert stems(shown) == "ab" and worst == 0  # nothing to compare with


def test_pictures_of_other_sizes_and_damaged_ones(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path, name, stems=("a", "b", "c"))
    images = tmp_path / "results/two/test_latest/images"
    Image.new("RGB", (SIZE, SIZE + 1)).save(images / "a_fake_B.png")
    runs = [find_run(name, tmp_path / "checkpoints", tmp_path / "results") for name in ("one", "two")]
    shown, worst = shown_pictures(runs, TRANSLATION, 3)
    assert stems(shown)[-1] == "a" and shown[-1].difference is None and worst == 2
    (images / "b_fake_B.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="b_fake_B.png cannot be read"):
        shown_pictures(runs, TRANSLATION, 3)


def test_the_option(runs: list, tmp_path: Path) -> None:
    root = runs[0].folder.parents[1]
    folders = ["--checkpoints_dir", str(root / "checkpoints"), "--results_dir", str(root / "results")]
    words = ["compare", "dense", "slim", *folders, "--output", str(tmp_path), "--images", "3", "--worst", "1"]
    assert cli.main([*words, "--repeats", "1", "--no_fid", "--no_memory", "--runtimes", "torch"]) == 0
    text = (tmp_path / "index.html").read_text()
    assert re.findall(r'data-name="(.)"', text)[0] == "m"
    assert "3 of 20, never seen in training: the 1 that differ most from those of dense" in text


# -- in a browser ------------------------------------------------------------------
@pytest.fixture(scope="module")
def page(runs: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_comparison(runs, folder, Measuring(repeats=1, memory=False))


def in_browser(page: Path, script: str, width: int) -> dict:
    """What ``script``, which fills ``said``, found on the page in a window (a frame) of ``width`` pixels."""
    if BROWSER is None:
        pytest.skip("no chromium is installed")
    report = f"{{ const said = {{}}; {script}; parent.document.body.dataset.said = JSON.stringify(said); }}"
    copy, frame = page.with_name("copy.html"), page.with_name("frame.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{report}</script></body>"))
    style = f"width: {width}px; height: 2000px; border: 0"
    frame.write_text(f"<body><iframe src='copy.html' style='{style}'></iframe></body>")
    flags = "headless no-sandbox disable-gpu no-first-run disable-sync disable-background-networking dump-dom"
    flags += " disable-component-update allow-file-access-from-files virtual-time-budget=5000"
    profile = f"--user-data-dir={page.parent / 'profile'}"
    words = [
        BROWSER,
        *(f"--{flag}" for flag in flags.split()),
        profile,
        f"--window-size={width + 100},2000",
        frame.as_uri(),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-said="([^"]*)"', done.stdout)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


MEASURE = """
const parts = [...document.querySelectorAll(".scroll")];
said.page = [document.documentElement.scrollWidth, innerWidth];
said.parts = parts.map((part) => part.scrollWidth - part.clientWidth);
const rows = [...document.querySelectorAll(".example")];
said.heights = rows.map((row) => new Set([...row.children].map((figure) => figure.offsetTop)).size);
said.sideways = rows.map((row) => row.scrollWidth - row.clientWidth);
said.figures = rows.map((row) => row.children.length);
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_scrolls_sideways_and_a_row_is_a_row(page: Path, width: int) -> None:
    said = in_browser(page, MEASURE, width)
    assert said["page"][0] <= said["page"][1] == width
    assert len(said["parts"]) >= 4 and max(said["parts"]) <= 0  # numbers, curves, channels
    assert set(said["figures"]) == {4} and set(said["heights"]) == {1}
    assert max(said["sideways"]) <= 0


SLIDE = """
const names = () => [...document.querySelectorAll(".row")].map((row) => row.dataset.name).join("");
const choose = (where, value) => {
  const select = document.querySelector(where);
  select.value = value;
  select.dispatchEvent(new Event("change"));
};
said.tools = getComputedStyle(document.querySelector(".tools")).display;
said.written = names();
choose(".order", "name"); said.byName = names();
choose(".order", "difference"); said.byDifference = names();
choose(".wiper", "2");
const row = document.querySelector(".example"), wipe = row.querySelector(".wipe");
said.visible = [...row.children].filter((figure) => !figure.hidden).length;
said.over = wipe.querySelector(".over").alt; said.under = wipe.querySelector("img:not(.over)").alt;
const range = wipe.querySelector("input");
range.value = 25; range.dispatchEvent(new Event("input", { bubbles: true }));
const clip = getComputedStyle(wipe.querySelector(".over")).clipPath;
said.clip = clip; said.at = wipe.style.getPropertyValue("--at");
wipe.querySelector("input").click(); said.dialog = document.querySelector("dialog").open;
choose(".wiper", "");
said.back = [...row.children].filter((figure) => !figure.hidden).length;
row.querySelector("a").click(); said.large = document.querySelector("dialog").open;
"""


def test_the_slider_and_the_order(page: Path) -> None:
    said = in_browser(page, SLIDE, 1280)
    assert said["tools"] != "none"
    assert said["written"][:4] == "mcqa" == said["byDifference"][:4]
    assert said["byName"] == "".join(sorted(said["written"]))
    assert said["visible"] == 3 and (said["over"], said["under"]) == ("m: dense", "m: slim")
    assert said["at"] == "25%" and "75%" in said["clip"]  # three quarters of the first run's are cut off
    assert not said["dialog"] and said["back"] == 4 and said["large"]


def test_without_scripts_it_is_a_plain_page(page: Path) -> None:
    text = page.read_text()
    assert re.search(r'<div class="tools" hidden', text) and "<noscript" not in text
    links = re.findall(r'<a href="(images/[^"]+)"', text)
    assert len(links) == 4 * 12 and all((page.parent / link).is_file() for link in links)
