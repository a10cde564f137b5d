"""docs/browser/index.html in headless Chromium: the picture it shows, against ONNX Runtime in Python.

    npm pack onnxruntime-web && tar xzf onnxruntime-web-*.tgz
    python scripts/try_browser.py --onnx G_fp32.onnx --dist package/dist --picture IN.png --screenshot OUT.png

Prints the largest difference in grey levels; exit code 1 if it is more than 1.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.export.onnx import load  # noqa: E402
from coronet_plugin.export.verify import as_pixels  # noqa: E402

PAGE = ROOT / "docs" / "browser" / "index.html"
RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Requests are of no interest."""


def gather(options: argparse.Namespace, folder: Path, size: int) -> np.ndarray:
    """Put everything the page needs into ``folder``; gives the picture, (H, W, 3) uint8."""
    shutil.copyfile(PAGE, folder / "index.html")
    shutil.copyfile(options.onnx, folder / "model.onnx")
    for name in RUNTIME:
        shutil.copyfile(options.dist / name, folder / name)
    with Image.open(options.picture) as file:
        left = file.convert("RGB").crop((0, 0, min(file.size), min(file.size)))  # of a pair, its input
    picture = left.resize((size, size), Image.Resampling.BICUBIC)
    picture.save(folder / "picture.png")
    return np.asarray(picture)


def shoot(options: argparse.Namespace, folder: Path, size: int) -> np.ndarray:
    """Serve ``folder`` and take the screenshot of the page when it is done; gives what it shows."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/?model=model.onnx&picture=picture.png&size={size}"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags += [f"--window-size={max(2 * size, 480)},{size + 60}"]
    flags += [
        f"--virtual-time-budget={options.patience * 1000}",
        f"--screenshot={options.screenshot.resolve()}",
    ]
    try:
        subprocess.run(
            [options.chromium, *flags, url], check=True, capture_output=True, timeout=10 * options.patience
        )
    finally:
        server.shutdown()
    with Image.open(options.screenshot) as file:
        return np.asarray(file.convert("RGB"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--onnx", type=Path, required=True, help="made by coronet export, with its .json beside it"
    )
    parser.add_argument(
        "--dist", type=Path, required=True, help="folder dist of the npm package onnxruntime-web"
    )
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--screenshot", type=Path, required=True)
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--patience", type=int, default=60, help="seconds")
    options = parser.parse_args()
    size = json.loads(Path(f"{options.onnx}.json").read_text())["input"]["shape"][3]
    with tempfile.TemporaryDirectory() as temporary:
        picture = gather(options, Path(temporary), size)
        shown = shoot(options, Path(temporary), size)
    values = (picture.transpose(2, 0, 1)[None] / np.float32(127.5) - 1).astype(np.float32)
    expected = as_pixels(load(options.onnx)(values)[0])
    same_input = np.abs(shown[:size, :size].astype(int) - picture).max()
    gap = np.abs(shown[:size, size : 2 * size].astype(int) - expected).max()
    print(f"input differs by {same_input}, output by {gap} grey levels")
    return int(gap > 1 or same_input > 0)


if __name__ == "__main__":
    raise SystemExit(main())
