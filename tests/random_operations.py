"""What a step of a random generator can be: layers and idioms of image-translation generators.

:data:`UNDERSTOOD` must be pruned entirely, :data:`IMAGE` brings the image back among the
features, :data:`UNUSUAL` need only stay correct.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GENTLE = {"eps": 1e-2}
"""A norm of a constant feature multiplies rounding errors by 1 / sqrt(eps)."""


class Inline(nn.Module):
    """A forward of a few lines, given as a function, with the layers it uses."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *features: Tensor) -> Tensor:
        return self.run(self, *features)


def conv(inputs: int, outputs: int, size: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **{"padding": size // 2, **options})


def deconv(inputs: int, outputs: int, size: int = 3, **options) -> nn.ConvTranspose2d:
    """Doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, size, 2, 1, size % 2, **options)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def resized(image: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(image, size=like.shape[2:])


def residual_block(m: Inline, h: Tensor) -> Tensor:
    return h + m.b(torch.relu(m.norm(m.a(h))))


def squeeze_excite(m: Inline, h: Tensor) -> Tensor:
    gate = m.up(torch.relu(m.down(h.mean((2, 3)))))
    return h * torch.sigmoid(gate).view(h.shape[0], -1, 1, 1)


def squeeze_excite_conv(m: Inline, h: Tensor) -> Tensor:
    return h * torch.sigmoid(m.up(torch.relu(m.down(F.adaptive_avg_pool2d(h, 1)))))


def global_branch(m: Inline, h: Tensor) -> Tensor:
    return m.a(h) + m.pooled(h.mean((2, 3), keepdim=True)).expand(-1, -1, *h.shape[2:])


def attention(m: Inline, h: Tensor) -> Tensor:
    query, key, value = (layer(h).flatten(2) for layer in (m.query, m.key, m.value))
    weights = torch.softmax(torch.bmm(query.transpose(1, 2), key) * m.scale, -1)
    return h + torch.bmm(value, weights.transpose(1, 2)).view(h.shape)


def width_scaled_attention(m: Inline, h: Tensor) -> Tensor:
    query, key, value = (layer(h).flatten(2) for layer in (m.query, m.key, m.value))
    return h + (value @ torch.softmax(query.transpose(1, 2) @ key / query.shape[1] ** 0.5, -1)).view_as(h)


def two_heads(m: Inline, h: Tensor) -> Tensor:
    query, key, value = (layer(h).flatten(2).unflatten(1, (2, -1)) for layer in (m.query, m.key, m.value))
    heads = F.scaled_dot_product_attention(query.mT, key.mT, value.mT).mT
    return h + heads.reshape(h.shape)


def bare_attention(m: Inline, h: Tensor) -> Tensor:
    tokens = h.flatten(2).mT
    return h + F.scaled_dot_product_attention(tokens, tokens, tokens, scale=1.0).mT.reshape(h.shape)


def channel_attention(m: Inline, h: Tensor) -> Tensor:
    flat = h.flatten(2)
    return h + (torch.softmax(flat @ flat.transpose(1, 2), -1) @ flat).view(h.shape)


def projections(channels: int, width: int) -> dict[str, nn.Module]:
    return {
        "query": conv(channels, width, 1),
        "key": conv(channels, width, 1),
        "value": conv(channels, channels, 1),
    }


def channel_shuffle(m: Inline, h: Tensor) -> Tensor:
    n, channels, height, width = h.shape
    return h.reshape(n, 2, channels // 2, height, width).transpose(1, 2).reshape(h.shape)


def norm_by_hand(m: Inline, h: Tensor) -> Tensor:
    centred = h - h.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-2).sqrt()


def adain(m: Inline, h: Tensor, style: Tensor) -> Tensor:
    normal = (h - h.mean((2, 3), keepdim=True)) / (h.std((2, 3), keepdim=True) + 0.1)
    return normal * style.std((2, 3), keepdim=True) + style.mean((2, 3), keepdim=True)


def film(m: Inline, h: Tensor) -> Tensor:
    scale, shift = m.a(h.mean((2, 3)))[:, :, None, None].chunk(2, 1)
    return h * scale + shift


def warp(m: Inline, h: Tensor) -> Tensor:
    return F.grid_sample(h, torch.tanh(m.flow(h)).permute(0, 2, 3, 1), align_corners=False)


def channel_statistics_gate(m: Inline, h: Tensor) -> Tensor:
    return h * torch.sigmoid(m.a(torch.cat([h.amax(1, keepdim=True), h.mean(1, keepdim=True)], 1)))


def linear_attention(m: Inline, h: Tensor) -> Tensor:
    query, key, value = (layer(h).flatten(2) for layer in (m.query, m.key, m.value))
    context = torch.softmax(key, -1) @ value.transpose(1, 2)
    return h + (context.transpose(1, 2) @ query).view(h.shape)


def torch_attention(m: Inline, h: Tensor) -> Tensor:
    tokens = h.flatten(2).transpose(1, 2)
    return h + m.a(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(h.shape)


def demodulated(m: Inline, h: Tensor) -> Tensor:
    return F.conv2d(h, m.weight / m.weight.square().sum((1, 2, 3), keepdim=True).sqrt())


def predicted_kernel(m: Inline, h: Tensor) -> Tensor:
    kernels = m.a(F.adaptive_avg_pool2d(h, 3)).flatten(0, 1)[:, None]
    return F.conv2d(h.flatten(0, 1)[None], kernels, padding=1, groups=len(kernels)).view(h.shape)


def unet_level(m: Inline, h: Tensor) -> Tensor:
    return torch.cat([h, m.up(torch.relu(m.down(F.leaky_relu(h, 0.2))))], 1)


def tied_deconv(m: Inline, h: Tensor) -> Tensor:
    return F.conv_transpose2d(torch.relu(m.a(h)), m.a.weight, padding=1)


def written_in_place(m: Inline, h: Tensor) -> Tensor:
    out = torch.zeros(h.shape[0], 2 * h.shape[1], *h.shape[2:], dtype=h.dtype, device=h.device)
    out[:, ::2] = h
    return out


def tied(channels: int) -> Inline:
    first, second = conv(channels, channels), conv(channels, channels)
    second.weight = first.weight
    return Inline(lambda m, h: m.b(torch.relu(m.a(h))), a=first, b=second)


def written_through_a_view(m: Inline, h: Tensor, other: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out.view(out.shape).copy_(other)
    return out + 1


def slice_in_place(m: Inline, h: Tensor) -> Tensor:
    out = h.clone()
    out[:, :2].mul_(0.5)
    return out


class Op(NamedTuple):
    """What a step can be: ``make(channels it reads, width drawn)`` is its module.

    ``reads``: one feature; two ``alike`` in shape; ``several`` of one height; one and the ``image``.
    ``multiple``: its channels are a multiple of this. ``in_place``: never called twice.
    """

    make: Callable[[int, int], nn.Module]
    reads: str = "one"
    multiple: int = 1
    in_place: bool = False


UNDERSTOOD = {
    "conv 1x1": Op(lambda c, w: conv(c, w, 1)),
    "conv 3x3": Op(conv),
    "conv without bias": Op(lambda c, w: conv(c, w, bias=False)),
    "strided conv": Op(lambda c, w: conv(c, w, stride=2)),
    "reflect pad, conv": Op(lambda c, w: nn.Sequential(nn.ReflectionPad2d(1), conv(c, w, padding=0))),
    "zero pad, conv": Op(lambda c, w: nn.Sequential(nn.ZeroPad2d((0, 2, 1, 1)), conv(c, w, padding=0))),
    "deconv 3x3": Op(deconv),
    "deconv 4x4": Op(lambda c, w: deconv(c, w, 4, bias=False)),
    "again": Op(lambda c, w: nn.Identity()),
    "conv, reflecting": Op(lambda c, w: conv(c, w, padding_mode="reflect")),
    "functional conv": Op(lambda c, w: Inline(lambda m, h: F.conv2d(h, m.weight, m.bias), weight=parameter(w, c, 1, 1), bias=parameter(w))),
    "film": Op(lambda c, w: Inline(film, a=nn.Linear(c, 2 * c))),
    "branches": Op(lambda c, w: Inline(lambda m, h: torch.cat([m.a(h), m.b(h)], 1), a=conv(c, w), b=conv(c, w, 1))),
    "u-net level": Op(lambda c, w: Inline(unet_level, down=conv(c, w, stride=2), up=deconv(w, c))),
    "tied convs": Op(lambda c, w: tied(c)),
    "grouped conv": Op(lambda c, w: conv(c, w, groups=2), multiple=2),
    "grouped deconv": Op(lambda c, w: deconv(c, w, groups=4), multiple=4),
    "depthwise conv": Op(lambda c, w: conv(c, c, groups=c)),
    "depthwise conv, doubling": Op(lambda c, w: conv(c, 2 * c, groups=c)),
    "depthwise deconv": Op(lambda c, w: deconv(c, c, groups=c)),
    "batch norm": Op(lambda c, w: nn.BatchNorm2d(c)),
    "batch norm, not affine": Op(lambda c, w: nn.BatchNorm2d(c, affine=False)),
    "batch norm, no statistics": Op(lambda c, w: nn.BatchNorm2d(c, track_running_stats=False, **GENTLE)),
    "instance norm": Op(lambda c, w: nn.InstanceNorm2d(c, **GENTLE)),
    "instance norm, affine": Op(lambda c, w: nn.InstanceNorm2d(c, affine=True, **GENTLE)),
    "instance norm, statistics": Op(lambda c, w: nn.InstanceNorm2d(c, track_running_stats=True)),
    "group norm": Op(lambda c, w: nn.GroupNorm(4, c, **GENTLE), multiple=4),
    "group norm, one each": Op(lambda c, w: nn.GroupNorm(c, c, **GENTLE)),
    "norm by hand": Op(lambda c, w: Inline(norm_by_hand)),
    "adain": Op(lambda c, w: Inline(adain), "alike"),
    "dropout": Op(lambda c, w: nn.Dropout(0.5)),
    "where": Op(lambda c, w: Inline(lambda m, h: torch.where(h > 0, h, 0.1 * h))),
    "relu": Op(lambda c, w: nn.ReLU()),
    "in-place relu": Op(lambda c, w: nn.ReLU(True), in_place=True),
    "in-place leaky relu": Op(lambda c, w: nn.LeakyReLU(0.2, True), in_place=True),
    "prelu": Op(lambda c, w: nn.PReLU()),
    "prelu per channel": Op(lambda c, w: nn.PReLU(c)),
    "tanh gate": Op(lambda c, w: Inline(lambda m, h: torch.tanh(h) * torch.sigmoid(h))),
    "scalars": Op(lambda c, w: Inline(lambda m, h: 1 - 2.0 * (h / 4 + 0.5) ** 2)),
    "channel parameters": Op(lambda c, w: Inline(lambda m, h: h * m.scale + m.shift, scale=parameter(1, c, 1, 1), shift=parameter(c, 1, 1))),
    "pixel shuffle": Op(lambda c, w: nn.PixelShuffle(2), multiple=4),
    "pixel unshuffle": Op(lambda c, w: nn.PixelUnshuffle(2)),
    "chunk gate": Op(lambda c, w: Inline(lambda m, h: torch.mul(*torch.sigmoid(h).chunk(2, 1))), multiple=2),
    "glu": Op(lambda c, w: nn.GLU(1), multiple=2),
    "upsample nearest": Op(lambda c, w: nn.Upsample(scale_factor=2)),
    "upsample bilinear": Op(lambda c, w: nn.Upsample(scale_factor=2, mode="bilinear")),
    "average pool": Op(lambda c, w: nn.AvgPool2d(2)),
    "max pool": Op(lambda c, w: nn.MaxPool2d(2)),
    "residual block": Op(lambda c, w: Inline(residual_block, a=conv(c, w), norm=nn.InstanceNorm2d(w, **GENTLE), b=conv(w, c))),
    "squeeze-excite": Op(lambda c, w: Inline(squeeze_excite, down=nn.Linear(c, w), up=nn.Linear(w, c))),
    "squeeze-excite, convs": Op(lambda c, w: Inline(squeeze_excite_conv, down=conv(c, w, 1), up=conv(w, c, 1))),
    "global branch": Op(lambda c, w: Inline(global_branch, a=conv(c, w), pooled=conv(c, w, 1))),
    "attention": Op(lambda c, w: Inline(attention, **projections(c, w), scale=parameter(1))),
    "add": Op(lambda c, w: Inline(lambda m, h, other: h + other), "alike"),
    "in-place add": Op(lambda c, w: Inline(lambda m, h, other: h.add_(other)), "alike", in_place=True),
    "product": Op(lambda c, w: Inline(lambda m, h, other: h * torch.tanh(other)), "alike"),
    "mean of two": Op(lambda c, w: Inline(lambda m, h, other: (h + other) / 2), "alike"),
    "concatenate": Op(lambda c, w: Inline(lambda m, *parts: torch.cat(parts, 1)), "several"),
    "add projected image": Op(lambda c, w: Inline(lambda m, h, x: h + resized(m.a(x), h), a=conv(3, c, 1)), "image"),
}  # fmt: skip

IMAGE = {
    "concatenate image": Op(lambda c, w: Inline(lambda m, h, x: torch.cat([h, resized(x, h)], 1)), "image"),
    "image first": Op(lambda c, w: Inline(lambda m, h, x: torch.cat([resized(x, h), h], 1)), "image"),
    "add image": Op(lambda c, w: Inline(lambda m, h, x: m.a(h) + resized(x, h), a=conv(c, 3)), "image"),
}

UNUSUAL = {
    "spectral norm": Op(lambda c, w: nn.utils.parametrizations.spectral_norm(conv(c, w))),
    "weight norm": Op(lambda c, w: nn.utils.parametrizations.weight_norm(conv(c, w, bias=False))),
    "spectral norm by hook": Op(lambda c, w: nn.utils.spectral_norm(conv(c, w))),
    "scaled weight": Op(lambda c, w: Inline(lambda m, h: F.conv2d(h, m.weight * 0.5), weight=parameter(w, c, 1, 1))),
    "attention scaled by width": Op(lambda c, w: Inline(width_scaled_attention, **projections(c, w))),
    "linear attention": Op(lambda c, w: Inline(linear_attention, **projections(c, w))),
    "two-headed attention": Op(lambda c, w: Inline(two_heads, **projections(c, w)), multiple=2),
    "attention without projections": Op(lambda c, w: Inline(bare_attention)),
    "channel attention": Op(lambda c, w: Inline(channel_attention)),
    "scaled by width": Op(lambda c, w: Inline(lambda m, h: h / h.shape[1] ** 0.5)),
    "attention of torch": Op(lambda c, w: Inline(torch_attention, a=nn.MultiheadAttention(c, 2, batch_first=True)), multiple=2),
    "one gate for all": Op(lambda c, w: Inline(lambda m, h: h * torch.sigmoid(m.a(h)), a=conv(c, 1))),
    "channel statistics gate": Op(lambda c, w: Inline(channel_statistics_gate, a=conv(2, 1))),
    "warp": Op(lambda c, w: Inline(warp, flow=conv(c, 2))),
    "group norm, one group": Op(lambda c, w: nn.GroupNorm(1, c, **GENTLE)),
    "demodulated": Op(lambda c, w: Inline(demodulated, weight=parameter(w, c, 1, 1))),
    "shifted weight": Op(lambda c, w: Inline(lambda m, h: F.conv2d(h, m.weight + 1), weight=parameter(w, c, 1, 1))),
    "predicted kernel": Op(lambda c, w: Inline(predicted_kernel, a=conv(c, c))),
    "sorted": Op(lambda c, w: Inline(lambda m, h: h.sort(1)[0])),
    "gram": Op(lambda c, w: Inline(lambda m, h: m.a((h.flatten(2) @ h.flatten(2).mT).flatten(1))[:, :, None, None] + h, a=nn.Linear(c * c, c))),
    "softmax over channels": Op(lambda c, w: nn.Softmax(1)),
    "minus channel mean": Op(lambda c, w: Inline(lambda m, h: h - h.mean(1, keepdim=True))),
    "layer norm": Op(lambda c, w: Inline(lambda m, h: m.n(h.movedim(1, -1)).movedim(-1, 1), n=nn.LayerNorm(c))),
    "channel shuffle": Op(lambda c, w: Inline(channel_shuffle), multiple=2),
    "fixed view": Op(lambda c, w: Inline(lambda m, h: h.reshape(-1, c * h.shape[2], h.shape[3]).view(-1, c, *h.shape[2:]))),
    "uneven split": Op(lambda c, w: Inline(lambda m, h: torch.relu(torch.cat(h.split([1, c - 1], 1), 1)))),
    "first half": Op(lambda c, w: Inline(lambda m, h: h[:, : c // 2]), multiple=8),
    "every other": Op(lambda c, w: Inline(lambda m, h: h[:, ::2]), multiple=8),
    "flipped": Op(lambda c, w: Inline(lambda m, h: h.flip(1))),
    "rolled": Op(lambda c, w: Inline(lambda m, h: h.roll(1, 1) + h)),
    "interleaved": Op(lambda c, w: Inline(lambda m, h, o: torch.stack([h, o], 2).flatten(1, 2)), "alike"),
    "written in place": Op(lambda c, w: Inline(written_in_place)),
    "data": Op(lambda c, w: Inline(lambda m, h: h.data + 1)),
    "out of torch": Op(lambda c, w: Inline(lambda m, h: torch.tensor(h.tolist(), dtype=h.dtype, device=h.device))),
    "maxout": Op(lambda c, w: Inline(lambda m, h: h.unflatten(1, (-1, 2)).amax(2)), multiple=8),
    "einsum": Op(lambda c, w: Inline(lambda m, h: torch.einsum("nchw,oc->nohw", h, m.weight), weight=parameter(w, c))),
    "positions of channels": Op(lambda c, w: Inline(lambda m, h: h * torch.arange(h.shape[1]).view(1, -1, 1, 1) / 8)),
    "hidden tensor": Op(lambda c, w: Inline(lambda m, h: h * m.hidden[0], hidden=[torch.randn(1, c, 1, 1)])),
    "scaled by a value": Op(lambda c, w: Inline(lambda m, h: h * h.amax().item())),
    "scaled by a pixel": Op(lambda c, w: Inline(lambda m, h: h * float(h.flatten()[-1]))),
    "tied deconv": Op(lambda c, w: Inline(tied_deconv, a=conv(c, w, bias=False))),
    "conv1d": Op(lambda c, w: Inline(lambda m, h: m.a(h.flatten(2)).unflatten(2, h.shape[2:]), a=nn.Conv1d(c, w, 1))),
    "repeated": Op(lambda c, w: Inline(lambda m, h: h.repeat(1, 2, 1, 1))),
    "unfolded": Op(lambda c, w: Inline(lambda m, h: m.a(F.unfold(h, 3, padding=1).unflatten(2, h.shape[2:])), a=conv(9 * c, w, 1))),
    "unit length": Op(lambda c, w: Inline(lambda m, h: F.normalize(h, dim=1))),
    "fourier": Op(lambda c, w: Inline(lambda m, h: torch.fft.irfft2(torch.fft.rfft2(h) * 0.5, s=h.shape[2:]))),
    "out argument": Op(lambda c, w: Inline(lambda m, h: torch.mul(h, 2, out=torch.empty_like(h)))),
    "written through a view": Op(lambda c, w: Inline(written_through_a_view), "alike"),
    "slice in place": Op(lambda c, w: Inline(slice_in_place)),
    "linear over channels": Op(lambda c, w: Inline(lambda m, h: m.a(h.movedim(1, -1)).movedim(-1, 1), a=nn.Linear(c, w))),
}  # fmt: skip

OPS = {**UNDERSTOOD, **IMAGE, **UNUSUAL}
