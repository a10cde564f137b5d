"""A page of ``coronet page`` in headless Chromium: draws on it, takes pictures of it, compares with torch.

    pip install playwright          # and a Chromium, such as Debian's package
    python scripts/try_browser.py FOLDER --weights RUN --screenshots .

Prints the frame rates at two widths, a phone's and a desktop's, and how many grey levels the slim picture
is away from torch's; exit code 1 if it is more than two. ``tests/page/test_browser.py`` uses the functions.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import math
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
FLAGS += "--disable-component-update --disable-sync"
Stroke = Sequence[tuple[float, float]]
"""Points from (0, 0), the upper left corner, to (1, 1)."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Requests are of no interest."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of ``folder`` on a server that sends plain files and no headers of its own."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def find_chromium() -> str | None:
    """The program, by the names it has."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def browser(program: str, flags: str = FLAGS) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=flags.split())
        yield started
        started.close()


def open_page(started: Any, url: str, size: tuple[int, int] = WIDTHS["desktop"], patience: float = 60) -> Any:
    """The page at ``url`` in a window of (width, height) ``size``, when its models run, or say why not."""
    page = started.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
    page.goto(url)
    page.wait_for_selector("body[data-ready], #says.error", timeout=1000 * patience)
    return page


def draw(page: Any, stroke: Stroke) -> None:
    """One stroke of the mouse."""
    box = page.locator("#pad").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points:
        page.mouse.move(*point)
    page.mouse.up()


def wait_for(page: Any, model: str = "slim", patience: float = 60) -> None:
    """Until ``model`` has translated what is on the pad now."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_selector(f"#{model} canvas[aria-busy=false]", timeout=1000 * patience)


def pixels(page: Any, canvas: str) -> np.ndarray:
    """(H, W, 3) uint8 of a canvas: ``#sight`` is what models see, ``#slim canvas`` what one makes of it."""
    values, width = page.evaluate(
        "(selector) => { const canvas = document.querySelector(selector);"
        "const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        "return [Array.from(data), width]; }",
        canvas,
    )
    return np.array(values, np.uint8).reshape(-1, width, 4)[..., :3]


def in_torch(generator: Any, picture: np.ndarray) -> np.ndarray:
    """What ``generator`` makes of ``picture``, both (H, W, 3) uint8, as test.py saves it."""
    import torch

    from coronet_plugin.export.verify import as_pixels

    values = torch.from_numpy(picture.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)
    with torch.no_grad():
        return as_pixels(generator(values)[0].numpy())


def arc(x: float, y: float, wide: float, high: float, start: float = 0, end: float = 2) -> Stroke:
    """Part of an ellipse around (x, y), from ``start`` to ``end`` in half turns."""
    angles = [math.pi * (start + (end - start) * step / 40) for step in range(41)]
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


FACE = (
    arc(0.5, 0.5, 0.36, 0.36),
    arc(0.38, 0.43, 0.025, 0.05),
    arc(0.62, 0.43, 0.025, 0.05),
    arc(0.5, 0.55, 0.19, 0.16, 0.1, 0.9),
)


def figures(page: Any) -> str:
    """What the panels of the models say, in one line."""
    return "; ".join(" ".join(text.split()) for text in page.locator(".model").all_inner_texts())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="made by coronet page")
    parser.add_argument("--weights", help="run or weight file of the slim model, to compare with")
    parser.add_argument("--epoch", default="latest", help="of the run (default: %(default)s)")
    parser.add_argument("--screenshots", type=Path, help="folder for screenshot.png and screenshot_phone.png")
    parser.add_argument("--query", default="", help="such as ?backend=wasm&threads=2")
    parser.add_argument("--chromium", default=find_chromium() or "chromium")
    parser.add_argument("--flags", default=FLAGS, help="of Chromium (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=60, help="seconds (default: %(default)s)")
    options = parser.parse_args()
    gaps = []
    with served(options.folder) as url, browser(options.chromium, options.flags) as started:
        for name, size in WIDTHS.items():
            page = open_page(started, url + options.query, size, options.patience)
            page.click("#clear")
            for stroke in FACE:
                draw(page, stroke)
            for model in page.locator(".model:not(.absent)").all():
                wait_for(page, model.get_attribute("id"), options.patience)
            print(f"{name}, {size[0]} pixels wide: {figures(page)}")
            if options.screenshots:
                ending = "" if name == "desktop" else f"_{name}"
                page.screenshot(path=options.screenshots / f"screenshot{ending}.png", full_page=True)
            if options.weights:
                gaps.append(_gap(options, page))
                print(f"slim picture against torch: {gaps[-1]} grey levels at most")
    return int(any(gap > 2 for gap in gaps))


def _gap(options: argparse.Namespace, page: Any) -> int:
    from coronet_plugin.runs.opener import read_generator
    from coronet_plugin.runs.run import find_weights

    name, path = next(iter(find_weights(options.weights, ".", options.epoch).items()))
    expected = in_torch(read_generator(name, path).generator, pixels(page, "#sight"))
    return int(np.abs(pixels(page, "#slim canvas").astype(int) - expected).max())


if __name__ == "__main__":
    raise SystemExit(main())
