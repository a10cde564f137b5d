"""Small generators as users write them: the registry and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin import ChannelPlan
from coronet_plugin.channels.plan import ChannelSet

try:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    PLAIN_ATTENTION = partial(sdpa_kernel, SDPBackend.MATH)
except ImportError:  # torch before 2.3
    PLAIN_ATTENTION = partial(torch.backends.cuda.sdp_kernel, enable_flash=False, enable_mem_efficient=False)

SIZE = 32


@dataclass(frozen=True)
class Style:
    """One way to write a generator, and how much of it must stay prunable.

    ``channels``: least fraction of the hidden channels that is prunable, 0 if none may be;
    ``coverage``: least fraction of the MACs in layers with a prunable axis;
    ``last``: prefixes of the layers that make the output, whose width is given;
    ``note``: what the style is made of, one line; ``family``: its file.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Callable[[], Any]
    note: str
    channels: float
    coverage: float
    last: tuple[str, ...]
    family: str

    def build(self) -> nn.Module:
        """The same weights at every call, as the user's code initialises them."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.make()

    def inputs(self) -> tuple[Any, ...]:
        example = self.example()
        return example if isinstance(example, tuple) else (example,)

    @property
    def prunable(self) -> bool:
        return self.channels > 0

    def is_last(self, layer: str) -> bool:
        return any(layer == prefix or layer.startswith(prefix + ".") for prefix in self.last)

    def hidden(self, plan: ChannelPlan) -> list[ChannelSet]:
        """The channel sets without those of the output layers."""
        return [s for s in plan.sets if not any(self.is_last(layer) for layer in s.producers)]

    def prunable_channels(self, plan: ChannelPlan) -> float:
        """Fraction of the hidden channels that is prunable."""
        hidden = self.hidden(plan)
        return sum(s.channels for s in hidden if s.pinned is None) / sum(s.channels for s in hidden)


STYLES: dict[str, Style] = {}


def noise(*shape: int) -> Callable[[], Tensor]:
    """An example of this shape, the same at every call."""
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


image = noise(2, 3, SIZE, SIZE)


def style(
    name: str,
    channels: float = 1.0,
    coverage: float = 1.0,
    example: Callable[[], Any] = image,
    last: tuple[str, ...] = ("to_image",),
    trunk: bool = False,
) -> Callable[[Any], Any]:
    """Register a class or function that makes a generator, or a block to be tried in a :class:`Trunk`."""

    def add(made: Any) -> Any:
        make = (lambda: Trunk(made)) if trunk else made
        note = (made.__doc__ or "").strip().splitlines()[0]
        family = made.__module__.rpartition(".")[2]
        STYLES[name] = Style(name, make, example, note, channels, coverage, last, family)
        return made

    return add


def shake(net: nn.Module) -> nn.Module:
    """Random numbers for all that is learned or measured, in place.

    A branch scaled by zero, or deep layers scaled down by the usual start, would hide every mistake in them.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.add_(values, alpha=0.3)
            else:
                parameter.copy_(values * (2 * len(parameter) / parameter.numel()) ** 0.5)
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
    return net


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, **options)


def normed(layer: nn.Module, width: int, norm: Any = nn.InstanceNorm2d) -> nn.Sequential:
    """``layer``, norm, ReLU."""
    return nn.Sequential(layer, norm(width), nn.ReLU())


class Trunk(nn.Module):
    """Stem, a halving, two blocks of one kind, a doubling: the usual place of a block."""

    def __init__(self, block: Callable[[int], nn.Module], width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ReflectionPad2d(3), normed(nn.Conv2d(3, width, 7), width))
        self.down = normed(conv(width, 2 * width, stride=2), 2 * width)
        self.blocks = nn.Sequential(block(2 * width), block(2 * width))
        self.up = normed(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), width)
        self.to_image = conv(width, 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.down(self.stem(x)))
        return torch.tanh(self.to_image(self.up(h)))
