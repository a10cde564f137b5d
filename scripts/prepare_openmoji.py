"""Make the bundled data set ``datasets/openmoji`` from a folder of OpenMoji picture pairs.

The source folder holds ``train/*.png`` and ``test/*.png``: pairs side by side, the
black outline on the left (A), the colour picture on the right (B). Each half is
resized by itself, so nothing leaks across the seam, and the pair is saved as one
palette PNG. The same source and arguments give the same files; which pictures are
taken depends on their names and contents alone, never on the order of a folder.

Left out: pairs whose colouring changes hardly any pixel (an outline that stays an
outline teaches nothing), and training pictures whose outline is nearly that of a test
picture (the man, woman and person of one profession), so that the test is a test, and
the logos of companies and products, which are marks of their owners.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

LOGOS = range(0xE040, 0xE070)  # OpenMoji's private code points for brands
THUMBNAIL = 32  # pixels a side, for the search for near-duplicates


class Pair(NamedTuple):
    """One picture: file stem, outline and colour as RGB images of the final size."""

    stem: str
    outline: Image.Image
    colour: Image.Image


def read_pair(path: Path, size: int) -> Pair:
    """The two halves of an AB picture, each resized to (size, size) on white."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    half = image.width // 2
    halves = (image.crop((x, 0, x + half, image.height)) for x in (0, half))
    outline, colour = (part.resize((size, size), Image.Resampling.LANCZOS) for part in halves)
    return Pair(path.stem, outline, colour)


def is_logo(stem: str) -> bool:
    """True if a file named after code points (``1F600``, ``1F9D1-200D-1F527``) shows a brand."""
    try:
        return int(stem.split("-")[0], 16) in LOGOS
    except ValueError:
        return False


def coloured_area(pair: Pair) -> float:
    """Share of the pixels, 0 to 1, that colouring changes by more than 24 of 255 levels."""
    outline, colour = (np.asarray(image, dtype=np.int16) for image in (pair.outline, pair.colour))
    return float((np.abs(outline - colour).max(axis=2) > 24).mean())


def thumbnail(pair: Pair) -> np.ndarray:
    """The outline as a small grey vector in [0, 1]."""
    grey = pair.outline.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.float32).ravel() / 255


def encode(pair: Pair, colours: int) -> bytes:
    """The pair as the bytes of one palette PNG of (2 size, size)."""
    size = pair.outline.width
    joined = Image.new("RGB", (2 * size, size), "white")
    joined.paste(pair.outline, (0, 0))
    joined.paste(pair.colour, (size, 0))
    palette = joined.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    palette.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def usable(folder: Path, size: int, min_area: float) -> list[Pair]:
    """Pairs of a folder with enough colour, in an order drawn from their names."""
    paths = sorted(folder.glob("*.png"), key=lambda path: hashlib.sha256(path.stem.encode()).digest())
    pairs = (read_pair(path, size) for path in paths if not is_logo(path.stem))
    return [pair for pair in pairs if coloured_area(pair) >= min_area]


def far_from(pairs: list[Pair], others: list[Pair], min_distance: float) -> list[Pair]:
    """Those pairs whose outline differs from all others by min_distance (mean absolute, 0 to 1)."""
    taken = np.stack([thumbnail(other) for other in others])
    return [pair for pair in pairs if np.abs(taken - thumbnail(pair)).mean(axis=1).min() >= min_distance]


def prepare(args: argparse.Namespace) -> dict[str, tuple[int, int]]:
    """Write both phases; gives (pictures, bytes) by phase. Training pictures stop at the byte limit."""
    test = usable(args.source / "test", args.size, args.min_area)[: args.test]
    train = far_from(usable(args.source / "train", args.size, args.min_area), test, args.min_distance)
    room = args.max_bytes
    written = {}
    for phase, pairs, count in (("test", test, args.test), ("train", train, args.train)):
        folder = args.output / phase
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        total = number = 0
        for pair in pairs[:count]:
            data = encode(pair, args.colours)
            if total + len(data) > room:
                break
            (folder / f"{pair.stem}.png").write_bytes(data)
            total, number = total + len(data), number + 1
        room -= total
        written[phase] = (number, total)
    return written


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder with train/ and test/ of AB pictures")
    parser.add_argument("--output", type=Path, default=Path("datasets/openmoji"), help="folder to write to")
    parser.add_argument("--size", type=int, default=128, help="pixels a side of each half")
    parser.add_argument("--train", type=int, default=1000, help="training pictures at most")
    parser.add_argument("--test", type=int, default=48, help="test pictures at most")
    parser.add_argument("--colours", type=int, default=32, help="palette entries of a pair")
    parser.add_argument("--max_bytes", type=int, default=3_600_000, help="sum of all file sizes at most")
    parser.add_argument("--min_area", type=float, default=0.02, help="coloured share of the pixels at least")
    parser.add_argument(
        "--min_distance", type=float, default=0.02, help="between a training and any test outline, 0 to 1"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    for phase, (number, size) in prepare(parse()).items():
        print(f"{phase}: {number} pictures, {size / 1e6:.2f} MB")
