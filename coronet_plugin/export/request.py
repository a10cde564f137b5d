"""A request for an export, and whether a target can meet it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coronet_plugin.command import NORM_MODE
from coronet_plugin.errors import OptionError
from coronet_plugin.export.normalisation import why_not_fp16
from coronet_plugin.export.targets import TARGETS, Target


@dataclass(frozen=True)
class Request:
    """A target and how its file is to be.

    ``size``: (H, W) of the example, fixed in the file unless ``dynamic``. ``multiple``: what height and width
    must be multiples of. ``norm_mode``: see :data:`~coronet_plugin.export.normalisation.NORM_MODES`.
    ``embed_preprocessing``: the file takes and gives bytes, (N, H, W, C) in RGB.
    ``about``: what the record should also say. ``quantization``: settings of the int8 quantizer.
    """

    target: Target
    dtype: str = "fp32"
    size: tuple[int, int] = (256, 256)
    dynamic: bool = False
    norm_mode: str = NORM_MODE
    multiple: int = 1
    embed_preprocessing: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises OptionError where the target, or this torch, cannot do it."""
        target = self.target
        if self.dtype not in target.dtypes:
            offered = ", ".join(target.dtypes)
            raise OptionError(
                f"--dtype {self.dtype} is not offered for {target.name}; choose one of {offered}"
            )
        if self.embed_preprocessing and self.dtype == "int8":
            raise OptionError(
                "--embed_preprocessing is not possible with --dtype int8, whose tools quantize the input "
                "themselves; take fp32 or fp16"
            )
        if self.embed_preprocessing and not target.bytes:
            able = ", ".join(name for name, each in TARGETS.items() if each.bytes)
            raise OptionError(
                f"--embed_preprocessing is not possible for {target.name}; leave it out, or choose of {able}"
            )
        if self.dynamic and not target.dynamic:
            raise OptionError(f"--dynamic is not possible for {target.name}; leave it out and set --size")
        if any(side % self.multiple for side in self.size):
            height, width = self.size
            raise OptionError(
                f"--size {height}x{width} does not fit this generator; "
                f"height and width must be multiples of {self.multiple}"
            )
        target.require(self.dtype)
        if self.dtype == "fp16" and target.fp16 == "compute" and (why := why_not_fp16()):
            raise OptionError(f"--to {target.name} --dtype fp16: {why}; update torch, or take another target")
        if importlib.util.find_spec("skimage") is None:
            extra = target.extra or "export"
            raise OptionError(
                "exports are compared with torch by SSIM, which needs scikit-image: "
                f'pip install "coronet-plugin[{extra}]"'
            )
