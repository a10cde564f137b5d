"""Diffusion models and autoencoders as diffusers writes them, in torch alone; transformers that make images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styles import conv, noise, style


def steps() -> tuple[Tensor, Tensor]:
    """Noisy images and their time steps."""
    return noise(2, 3, 32, 32)(), torch.tensor([7, 401])


def time_code(steps: Tensor, width: int) -> Tensor:
    frequencies = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angles = steps[:, None].float() * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Timed(nn.Module):
    """Residual block told of the time by a shift, or by a scale and a shift."""

    def __init__(self, inputs: int, outputs: int, code: int, scale_shift: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, inputs), nn.GroupNorm(4, outputs)
        self.conv1, self.conv2 = conv(inputs, outputs), conv(outputs, outputs)
        self.time = nn.Linear(code, (1 + scale_shift) * outputs)
        self.scale_shift = scale_shift
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        told = self.time(F.silu(code))[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + told)
        return (self.shortcut(x) + self.conv2(F.silu(h))) / 1.0


class Resampled(nn.Module):
    """Halves or doubles, and checks the width that it was made for."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.channels, self.up = channels, up
        self.conv = conv(channels, channels, stride=1 if up else 2)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return self.conv(F.interpolate(x, scale_factor=2.0) if self.up else x)


class Attended(nn.Module):
    """Group norm, linear projections, heads by the width of the keys, attention at the default scale."""

    def __init__(self, width: int, heads: int = 2, context: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, width)
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(context or width, width), nn.Linear(context or width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        b, channels, height, width = x.shape
        tokens = self.norm(x).view(b, channels, height * width).transpose(1, 2)
        source = tokens if context is None else context
        q, k, v = self.q(tokens), self.k(source), self.v(source)
        inner = k.shape[-1]
        size = inner // self.heads
        q, k, v = (t.view(b, -1, self.heads, size).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, self.heads * size)
        return x + self.out(out.to(q.dtype)).transpose(-1, -2).reshape(b, channels, height, width)


class Denoiser(nn.Module):
    """Two levels with attention in the lower one and in the middle, skips concatenated."""

    def __init__(self, width: int = 12, context: int = 0, scale_shift: bool = False) -> None:
        super().__init__()
        wide, code = 2 * width, 32
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, code), nn.SiLU(), nn.Linear(code, code))
        self.conv_in = conv(3, width)
        self.first, self.down = Timed(width, width, code, scale_shift), Resampled(width, up=False)
        self.second, self.attend = Timed(width, wide, code, scale_shift), Attended(wide, context=context)
        self.middle, self.between = Timed(wide, wide, code, scale_shift), Attended(wide, context=context)
        self.third, self.again = Timed(2 * wide, wide, code, scale_shift), Attended(wide, context=context)
        self.up = Resampled(wide, up=True)
        self.fourth = Timed(wide + width, width, code, scale_shift)
        self.fifth = Timed(2 * width, width, code, scale_shift)
        self.norm = nn.GroupNorm(4, width)
        self.to_image = conv(width, 3)

    def encode(self, x: Tensor, code: Tensor, context: Tensor | None) -> list[Tensor]:
        skips = [self.conv_in(x)]
        skips.append(self.first(skips[-1], code))
        skips.append(self.attend(self.second(self.down(skips[-1]), code), context))
        return skips

    def decode(self, skips: list[Tensor], code: Tensor, context: Tensor | None) -> Tensor:
        h = self.between(self.middle(skips[-1], code), context)
        h = self.again(self.third(torch.cat([h, skips[2]], dim=1), code), context)
        h = self.fourth(torch.cat([self.up(h), skips[1]], dim=1), code)
        h = self.fifth(torch.cat([h, skips[0]], dim=1), code)
        return self.to_image(F.silu(self.norm(h)))

    def forward(self, x: Tensor, steps: Tensor, context: Tensor | None = None) -> Tensor:
        code = self.time(time_code(steps, 12))
        return self.decode(self.encode(x, code, context), code, context)


@style("diffusion U-Net, attention", example=steps)
def denoiser() -> nn.Module:
    """UNet2DModel's structure: asserted widths, attention at the default scale, norm groups across a concatenation"""
    return Denoiser()


@style("diffusion U-Net, scale and shift", example=steps)
def scale_shift_denoiser() -> nn.Module:
    """the same, where the time makes one scale and one shift a channel"""
    return Denoiser(scale_shift=True)


@style("diffusion U-Net, text", example=lambda: (*steps(), noise(2, 5, 10)()))
def text_denoiser() -> nn.Module:
    """UNet2DConditionModel's structure: queries of the image meet keys and values of a text"""
    return Denoiser(context=10)


@style("ControlNet", example=lambda: (*steps(), noise(2, 3, 32, 32)()))
class Controlled(nn.Module):
    """a second encoder reads a condition; 1x1 convolutions that start at zero add its features to the skips"""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.base, self.control = Denoiser(width), Denoiser(width)
        self.hint = nn.Sequential(conv(3, 8), nn.SiLU(), conv(8, width))
        self.zeros = nn.ModuleList(nn.Conv2d(c, c, 1) for c in (width, width, 2 * width))
        self.to_image = conv(3, 3)
        for parameter in self.zeros.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
        code = self.base.time(time_code(steps, 12))
        skips = self.base.encode(x, code, None)
        h = self.control.conv_in(x) + self.hint(condition)
        told = [h, self.control.first(h, code)]
        told.append(self.control.attend(self.control.second(self.control.down(told[-1]), code)))
        skips = [skip + zero(t) for skip, zero, t in zip(skips, self.zeros, told)]
        return self.to_image(self.base.decode(skips, code, None))


@style("VAE", channels=0.87)
class Variational(nn.Module):
    """AutoencoderKL's structure: mean and log variance by chunk, a sample, attention in the middle"""

    def __init__(self, width: int = 8, latent: int = 4) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            conv(3, width), nn.GroupNorm(4, width), nn.SiLU(), Resampled(width, up=False), Attended(width, 1),
            nn.GroupNorm(4, width), nn.SiLU(), conv(width, 2 * latent),
        )  # fmt: skip
        self.moments, self.from_latent = nn.Conv2d(2 * latent, 2 * latent, 1), nn.Conv2d(latent, latent, 1)
        self.decode = nn.Sequential(
            conv(latent, width),
            Attended(width, 1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            Resampled(width, up=True),
        )
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = torch.chunk(self.moments(self.encode(x)), 2, dim=1)
        spread = torch.exp(0.5 * torch.clamp(log_variance, -30.0, 20.0))
        z = mean + spread * torch.randn(mean.shape, device=x.device, dtype=x.dtype)
        return self.to_image(self.decode(self.from_latent(z)))


@style("VQ-GAN", channels=0.88)
class Quantised(nn.Module):
    """every feature vector becomes the nearest of a learned book; gradients pass straight through"""

    def __init__(self, width: int = 8, latent: int = 4) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            conv(3, width, stride=2), nn.SiLU(), conv(width, width), nn.SiLU(), conv(width, latent)
        )
        self.book = nn.Embedding(16, latent)
        self.decode = nn.Sequential(
            conv(latent, width), nn.SiLU(), nn.Upsample(scale_factor=2), conv(width, width), nn.SiLU()
        )
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x).permute(0, 2, 3, 1)
        flat = z.reshape(-1, z.shape[-1])
        chosen = self.book(torch.cdist(flat, self.book.weight).argmin(1)).view(z.shape)
        return self.to_image(self.decode((z + (chosen - z).detach()).permute(0, 3, 1, 2)))


class Adapted(nn.Module):
    """A block of DiT: norms without parameters, six modulations made of the condition."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU("tanh"), nn.Linear(2 * width, width))
        self.adapt = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def attend(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adapt(code)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attend(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


@style("DiT", coverage=0.99, example=steps)
class DiffusionTransformer(nn.Module):
    """patches with learned positions through blocks modulated by the time (adaLN-Zero), folded back"""

    def __init__(self, width: int = 16, patch: int = 4) -> None:
        super().__init__()
        self.patch, self.width = patch, width
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.position = nn.Parameter(torch.randn(1, (32 // patch) ** 2, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Adapted(width) for _ in range(2))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.to_image = nn.Linear(width, patch * patch * 3)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        h = self.embed(x)
        side = h.shape[-1]
        tokens, code = h.flatten(2).transpose(1, 2) + self.position, self.time(time_code(steps, 16))
        for block in self.blocks:
            tokens = block(tokens, code)
        out = self.to_image(self.norm(tokens)).view(-1, side, side, self.patch, self.patch, 3)
        return torch.einsum("nhwpqc->nchpwq", out).reshape(x.shape)


@style("MLP-Mixer", channels=0.83, coverage=0.87, trunk=True)
class Mixer(nn.Module):
    """a Linear over positions, then one over channels, each after a layer norm"""

    def __init__(self, width: int, positions: int = 256) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(positions, 32), nn.GELU(), nn.Linear(32, positions))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(2).transpose(1, 2)
        h = h + self.tokens(self.norm1(h).transpose(1, 2)).transpose(1, 2)
        return (h + self.channels(self.norm2(h))).transpose(1, 2).reshape(x.shape)


class Rms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@style("RMS norm, SwiGLU", trunk=True)
class Swish(nn.Module):
    """every token divided by its root mean square, heads of a written size, a gated feed-forward"""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.norm1, self.norm2 = Rms(width), Rms(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(width, 24), nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        h = x.flatten(2).transpose(1, 2)
        q, k, v = (
            f(self.norm1(h)).view(b, -1, self.heads, self.head_dim).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.head_dim)
        h = h + self.o(torch.matmul(scores.softmax(-1), v).transpose(1, 2).reshape(b, height * width, -1))
        normed = self.norm2(h)
        h = h + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return h.transpose(1, 2).reshape(b, -1, height, width)


class Response(nn.Module):
    """Global response normalisation, channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        strength = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * strength / (strength.mean(dim=-1, keepdim=True) + 1e-6)) + self.beta + x


@style("ConvNeXt V2", trunk=True)
class Next(nn.Module):
    """ConvNeXt whose hidden channels compete by their share of the mean strength"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth, self.norm = conv(width, width, 7, groups=width), nn.LayerNorm(width, eps=1e-6)
        self.up, self.response, self.down = (
            nn.Linear(width, 2 * width),
            Response(2 * width),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + self.down(self.response(F.gelu(self.up(h)))).permute(0, 3, 1, 2)


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)


@style("CBAM, in modules", channels=0.94, coverage=0.98, trunk=True)
class Cbam(nn.Module):
    """the authors' own form: mean and maximum over channels in a module of their own"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = conv(width, width)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width))
        self.compress, self.spatial = Pooled(), nn.Sequential(conv(2, 1, 7, bias=False), nn.BatchNorm2d(1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        gate = self.mlp(F.avg_pool2d(h, h.shape[2:])) + self.mlp(F.max_pool2d(h, h.shape[2:]))
        h = h * torch.sigmoid(gate).unsqueeze(2).unsqueeze(3).expand_as(h)
        return x + h * torch.sigmoid(self.spatial(self.compress(h)))


@style("global context", channels=0.95, coverage=0.98, trunk=True)
class Context(nn.Module):
    """GCNet: a softmax over positions pools the features, a bottleneck with a layer norm adds them to all"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mask = nn.Conv2d(width, 1, 1)
        self.add = nn.Sequential(
            nn.Conv2d(width, 8, 1), nn.LayerNorm([8, 1, 1]), nn.ReLU(True), nn.Conv2d(8, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        where = self.mask(x).view(b, 1, height * width).softmax(2).unsqueeze(-1)
        pooled = torch.matmul(x.view(b, c, height * width).unsqueeze(1), where)
        return x + self.add(pooled.view(b, c, 1, 1))


@style("partial convolution, sizes as attributes", trunk=True)
class Partial(nn.Module):
    """FasterNet's own form: convolved and untouched channels are split by numbers that the module keeps"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dim_conv, self.dim_untouched = width // 4, width - width // 4
        self.part = conv(self.dim_conv, self.dim_conv, bias=False)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, [self.dim_conv, self.dim_untouched], dim=1)
        return x + self.mlp(torch.cat((self.part(first), rest), 1))


@style("low-rank adapters", trunk=True)
class Merged(nn.Module):
    """a frozen convolution to whose weight a low-rank product is added as it runs"""

    def __init__(self, width: int, rank: int = 2) -> None:
        super().__init__()
        self.conv = conv(width, width)
        self.up, self.down = nn.Parameter(torch.zeros(width, rank)), nn.Parameter(torch.randn(rank, width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight + 0.5 * (self.up @ self.down)[:, :, None, None]
        return x + F.relu(F.conv2d(x, weight, self.conv.bias, padding=1))


class Standard(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (std + 1e-5), self.bias)


@style("weight standardisation", channels=0.75, coverage=0.99, trunk=True)
class Standardised(nn.Module):
    """BiT: every filter has mean zero and variance one over all that it reads; group norm, residual"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Standard(width, width, 3, padding=1), nn.GroupNorm(4, width), nn.ReLU(), conv(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Equal(nn.Module):
    """Linear layer with an equalised rate, of weight and bias."""

    def __init__(self, inputs: int, outputs: int, rate: float = 0.01) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, bias=self.bias * self.rate)


class Modulated(nn.Module):
    """StyleGAN2's convolution as most copies write it."""

    def __init__(self, inputs: int, outputs: int, style: int, size: int = 3, demodulate: bool = True) -> None:
        super().__init__()
        self.in_channel, self.out_channel, self.size, self.demodulate = inputs, outputs, size, demodulate
        self.scale = 1 / math.sqrt(inputs * size * size)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size))
        self.modulation = Equal(style, inputs)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        code = self.modulation(code).view(batch, 1, channels, 1, 1)
        weight = self.scale * self.weight * code
        if self.demodulate:
            length = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)
            weight = weight * length.view(batch, -1, 1, 1, 1)
        weight = weight.view(-1, channels, self.size, self.size)
        out = F.conv2d(
            x.reshape(1, batch * channels, height, width), weight, padding=self.size // 2, groups=batch
        )
        return out.view(batch, -1, height, width)


class Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


@style("StyleGAN2", example=lambda: noise(2, 16)(), last=("rgb1", "rgb2"))
class StyleGan2(nn.Module):
    """latent to styles, a learned constant, modulated convolutions, noise, images of two sizes summed"""

    def __init__(self, width: int = 12, style: int = 16) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            Unit(), Equal(16, style), nn.LeakyReLU(0.2), Equal(style, style), nn.LeakyReLU(0.2)
        )
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.conv1, self.conv2 = Modulated(width, width, style), Modulated(width, 8, style)
        self.rgb1, self.rgb2 = Modulated(width, 3, style, 1, False), Modulated(8, 3, style, 1, False)
        self.strength, self.bias1 = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, width, 1, 1))
        self.bias2 = nn.Parameter(torch.zeros(1, 8, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        code = self.mapping(z)
        h = self.conv1(self.constant.repeat(z.shape[0], 1, 1, 1), code)
        h = F.leaky_relu(h + self.strength * h.new_empty(z.shape[0], 1, 4, 4).normal_() + self.bias1, 0.2)
        image = self.rgb1(h, code)
        h = F.leaky_relu(self.conv2(F.interpolate(h, scale_factor=2), code) + self.bias2, 0.2)
        return self.rgb2(h, code) + F.interpolate(image, scale_factor=2, mode="bilinear")


@style("spatial gating", trunk=True)
class Gated(nn.Module):
    """gMLP: half of the channels, normed and mixed over positions, is multiplied into the other half"""

    def __init__(self, width: int, positions: int = 256) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mix = nn.Linear(positions, positions)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.gelu(self.up(self.norm(x.flatten(2).mT))).chunk(2, dim=-1)
        right = self.mix(self.inner(right).transpose(-1, -2)).transpose(-1, -2)
        return x + self.down(left * right).mT.reshape(x.shape)
