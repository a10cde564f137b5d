"""Pictures as CIE Lab: lightness, which a generator of colours is given, and the two colours, which it gives.

Scaled as generators take them: ``L`` (1, H, W) from black -1 to white 1, ``ab`` (2, H, W) by 110. Needs
scikit-image.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coronet_plugin.errors import OptionError

COLOURS = 110.0
"""Number that colours are divided by; those of sRGB are between -108 and 99."""


def to_lab(picture: Image.Image) -> tuple[Tensor, Tensor]:
    """``L`` and ``ab`` of a picture; raises OptionError without scikit-image."""
    lab = _colour().rgb2lab(np.asarray(picture.convert("RGB"))).astype(np.float32)
    values = torch.from_numpy(np.ascontiguousarray(lab.transpose(2, 0, 1)))
    return values[:1] / 50.0 - 1.0, values[1:] / COLOURS


def to_rgb(lightness: Tensor, colours: Tensor) -> np.ndarray:
    """The picture (H, W, 3), uint8, of ``L`` and ``ab``; colours that no screen shows are cut off."""
    lab = torch.cat(((lightness + 1.0) * 50.0, colours * COLOURS)).detach().cpu().double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of colours that are cut off
        rgb = _colour().lab2rgb(lab.permute(1, 2, 0).numpy())
    found: np.ndarray = np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
    return found


def _colour() -> ModuleType:
    try:
        import skimage.color
    except ImportError as error:
        raise OptionError('Lab colours need scikit-image: pip install "coronet-plugin[metrics]"') from error
    module: ModuleType = skimage.color
    return module
