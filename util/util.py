"""Small things: tensors to image files, folders, random seeds."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image

from coronet_plugin.files import write_atomically


def tensor2im(input_image: Any, imtype: type = np.uint8) -> np.ndarray:
    """The first image of a batch (N, C, H, W) in [-1, 1] as (H, W, 3) in [0, 255]; of RGBA as (H, W, 4).

    An array is returned as it is.
    """
    if not isinstance(input_image, torch.Tensor):
        return input_image
    image = input_image.detach()[0].float().cpu().numpy()
    if image.shape[0] == 1:
        image = np.repeat(image, 3, axis=0)
    pixels = (image.transpose(1, 2, 0) + 1.0) * 127.5
    return np.clip(np.rint(pixels), 0, 255).astype(imtype)  # without rounding, images would darken


def save_image(image_numpy: np.ndarray, image_path: str, aspect_ratio: float = 1.0) -> None:
    """Write an image (H, W, 3 or 4) atomically; ``aspect_ratio`` above 1 widens it, below 1 heightens it."""
    image = Image.fromarray(image_numpy)
    height, width = image_numpy.shape[:2]
    if aspect_ratio > 1.0:
        width = int(width * aspect_ratio)
    elif aspect_ratio < 1.0:
        height = int(height / aspect_ratio)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    kind = Image.registered_extensions()[os.path.splitext(image_path)[1].lower()]
    write_atomically(image_path, lambda temporary: image.save(temporary, format=kind), flush=False)


def mkdirs(paths: str | Iterable[str]) -> None:
    """Make folders that do not exist yet."""
    for path in [paths] if isinstance(paths, str) else paths:
        mkdir(path)


def mkdir(path: str) -> None:
    """Make a folder if it does not exist yet."""
    os.makedirs(path, exist_ok=True)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and ask torch for repeatable algorithms where it has them.

    Worker processes of a DataLoader take their seeds from torch's. On a GPU some
    operations have no repeatable form; torch warns of them.
    """
    seed_random_numbers(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def seed_random_numbers(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
