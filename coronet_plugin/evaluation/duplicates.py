"""Test pictures that the training has seen: equal ones, and nearly equal ones such as compressed twice.

Pictures are compared as the generator sees them, after decoding and resizing. *Exact*: all pixels
are equal. *Near*: no cell of the pictures' 16 x 16 thumbnails (means of areas) differs by more than 16 of 255
in any colour. Mirrored or differently cut copies are not found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from coronet_plugin.evaluation.cache import Arrays, cached
from coronet_plugin.evaluation.pictures import Pictures

CELLS = 16
TOLERANCE = 16
"""At 256 pixels JPEG of quality 50 moves cells of three data sets by up to 14, others differ by 54."""
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Duplicates:
    """Pairs of file names, (test, train). A picture with an exact double is not among the near ones."""

    exact: Pairs
    near: Pairs


def looks(pictures: Pictures, folder: Path) -> Arrays:
    """``digests`` (N,), ``thumbnails`` (N, 16, 16, 3) uint8 and ``sizes`` (N, 2), height first."""
    return cached(folder / f"looks-{pictures.fingerprint[:32]}.npz", lambda: _looks(pictures))


def duplicates(test: Pictures, train: Pictures, folder: Path) -> Duplicates:
    """The first training picture that equals each test picture, and the first that nearly does."""
    seen, known = looks(test, folder), looks(train, folder)
    first = {digest: place for place, digest in reversed(list(enumerate(known["digests"].tolist())))}
    exact, near = [], []
    for place, digest in enumerate(seen["digests"].tolist()):
        name = test.paths[place].name
        if digest in first:
            exact.append((name, train.paths[first[digest]].name))
            continue
        apart = np.abs(known["thumbnails"].astype(np.int16) - seen["thumbnails"][place]).max(axis=(1, 2, 3))
        if apart.min() <= TOLERANCE:
            near.append((name, train.paths[int(apart.argmin())].name))
    return Duplicates(tuple(exact), tuple(near))


def _looks(pictures: Pictures) -> Arrays:
    rows = [(_digest(picture), _thumbnail(picture), picture.shape[:2]) for picture in pictures]
    digests, thumbnails, sizes = zip(*rows)
    return {"digests": np.array(digests), "thumbnails": np.stack(thumbnails), "sizes": np.array(sizes)}


def _digest(picture: np.ndarray) -> str:
    return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((CELLS, CELLS), Image.Resampling.BOX))
