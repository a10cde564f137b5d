"""Inputs that a page offers, by the pictures its generator is for: drawings or photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

INPUTS = ("draw", "photo", "webcam")
WHITE, BLACK = "#ffffff", "#000000"


def is_drawing(pictures: np.ndarray) -> bool:
    """Whether ``pictures``, (N, C, H, W) in [-1, 1], are lines on paper: gray, and mostly of one tone.

    It is decided by the middle one of them, so that a few odd ones do not matter.
    """
    colourful = np.ptp(pictures, axis=1) > 0.15
    plain = np.abs(pictures.mean(axis=1) - paper_tone(pictures)) < 0.1
    return bool(np.median(colourful.mean(axis=(1, 2))) < 0.02 and np.median(plain.mean(axis=(1, 2))) > 0.6)


def paper_tone(pictures: np.ndarray) -> float:
    """-1 for black paper, 1 for white."""
    return 1.0 if np.median(pictures) >= 0 else -1.0


def inputs_for(pictures: np.ndarray) -> list[str]:
    """Names of :data:`INPUTS` that the page offers for data of this kind; the first is shown first."""
    return ["draw", "photo"] if is_drawing(pictures) else ["photo", "webcam"]


def colours_for(pictures: np.ndarray) -> dict[str, str]:
    """``paper`` and ``ink`` as CSS writes colours: of drawings like these, else black on white."""
    dark = is_drawing(pictures) and paper_tone(pictures) < 0
    return {"paper": BLACK if dark else WHITE, "ink": WHITE if dark else BLACK}


def write_examples(pictures: np.ndarray, folder: Path) -> list[str]:
    """Write ``pictures``, (N, C, H, W) in [-1, 1], to the new ``folder`` as PNG; gives their names."""
    from PIL import Image

    folder.mkdir()
    names = []
    for number, values in enumerate(pictures, start=1):
        pixels = np.rint((values + 1) * 127.5).clip(0, 255).astype(np.uint8)
        names.append(f"{number:02d}.png")
        last = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
        Image.fromarray(last).save(folder / names[-1], optimize=True)
    return names
