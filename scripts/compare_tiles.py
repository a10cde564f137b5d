"""Translate one large picture whole and in tiles, and say how far the results differ and what each took.

    python scripts/compare_tiles.py RUN --checkpoints_dir checkpoints --output docs/results/tiles.json

By default the picture is a photo that comes with scikit-image, enlarged to 2000 x 1500. Every way runs in a
process of its own: seconds are its CPU time, all included, and memory is its largest (MB). Differences are of
the values in 8 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIZE = (2000, 1500)
WAYS = {
    "whole": (),
    "tiles of 512, norms of each tile": ("--tile", "512", "--tile_norms", "tile"),
    "tiles of 512, norms of the picture": ("--tile", "512"),
}
WORKER = """
import resource, sys
from coronet_plugin.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)
sys.exit(code)
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="a run, or whatever else coronet translate takes")
    parser.add_argument("--checkpoints_dir", default="./checkpoints")
    parser.add_argument("--picture", type=Path, help="another picture, taken as it is")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--output", type=Path, help="where to write the figures (JSON)")
    parser.add_argument("--keep", type=Path, help="folder to keep the pictures in")
    return parser.parse_args()


def photo(path: Path) -> Path:
    """The photo in 2000 x 1500 pixels."""
    import skimage

    image = Image.open(Path(skimage.__file__).parent / "data" / "motorcycle_left.png").convert("RGB")
    height = image.width * SIZE[1] // SIZE[0]
    if height > image.height:
        width = image.height * SIZE[0] // SIZE[1]
        image = image.crop((0, 0, width, image.height))
    else:
        image = image.crop((0, 0, image.width, height))
    image.resize(SIZE, Image.Resampling.LANCZOS).save(path)
    return path


def translate(options: argparse.Namespace, picture: Path, folder: Path, words: tuple[str, ...]) -> dict:
    command = [sys.executable, "-c", WORKER, "translate", options.run, str(picture), "--output", str(folder)]
    command += ["--size", "own", "--threads", options.threads, "--checkpoints_dir", options.checkpoints_dir]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *words], env=env, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = done.stdout.splitlines()[-1].split()
    return {"cpu_s": round(float(seconds), 1), "peak_mb": int(peak)}


def main() -> None:
    options, found, first = parse(), {}, None
    with tempfile.TemporaryDirectory() as temporary:
        picture = options.picture or photo(Path(temporary, "photo.png"))
        for name, words in WAYS.items():
            folder = (options.keep or Path(temporary)) / name.replace(" ", "_").replace(",", "")
            figures = translate(options, picture, folder, words)
            output = np.asarray(Image.open(folder / picture.name).convert("RGB")).astype(int)
            first = output if first is None else first
            apart = np.abs(output - first)
            figures |= {"mean": round(float(apart.mean()), 3), "p99": int(np.percentile(apart, 99))}
            found[name] = {**figures, "largest": int(apart.max())}
            print(name, found[name], flush=True)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
