"""Notice a generator that makes the same of everything.

A network that lost too much may end with one flat colour, or one image whatever it is shown. Its losses
hardly tell, so its images are looked at now and then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EVERY = 25
"""Runs of the generator between two looks."""
LOOKS = 3
"""Looks in a row that must show the same before it is said."""
LEVEL = 2 / 255
"""One step of an 8-bit image in [-1, 1]: smaller differences cannot be seen."""
OTHER = 0.1
"""Inputs that differ by more than this somewhere, at 8x8 pixels, are different."""


class CollapseWatch:
    """Looks at the images of ``network`` while it trains; ``found`` says what is wrong with them, if any."""

    def __init__(self, network: nn.Module) -> None:
        self.found: str | None = None
        self._runs = self._in_a_row = 0
        self._last: tuple[Tensor, Tensor] | None = None
        self._device: torch.device | None = None
        """Where the first image was: DataParallel runs the generator on several GPUs at once."""
        self._hook = network.register_forward_hook(self._look)

    def stop(self) -> None:
        """Look no more."""
        self._hook.remove()

    @torch.no_grad()
    def _look(self, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._device = self._device or getattr(output, "device", None)
        if getattr(output, "device", None) != self._device:
            return
        self._runs += 1
        if self._runs % EVERY or not all(_is_image(x) for x in (*inputs[:1], output)):
            return
        flat = _spread(output[:1]) < LEVEL
        now = _small(inputs[0]), _small(output)
        last, self._last = self._last, now
        if last is not None and not flat and _distance(now[0], last[0]) < OTHER:
            return  # much the same input tells nothing
        same = last is not None and _distance(now[1], last[1]) < LEVEL
        self._in_a_row = self._in_a_row + 1 if flat or same else 0
        if self._in_a_row >= LOOKS:
            self.found = "one flat colour" if flat else "the same image of different inputs"
            self.stop()


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def _small(image: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(image[:1].float(), 8)


def _spread(image: Tensor) -> float:
    """Largest range of values within a channel."""
    flattened = image.float().flatten(2)
    return float((flattened.amax(-1) - flattened.amin(-1)).max())


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max()) if first.shape == second.shape else float("inf")
