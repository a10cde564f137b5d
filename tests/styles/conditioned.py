"""Generators steered by a second input: a segmentation map, a style, a label, noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styles import conv, noise, normed, style


def image_and(*shape: int) -> Any:
    return lambda: (noise(2, 3, 32, 32)(), noise(*shape)())


class SpatialNorm(nn.Module):
    """Normalised features, scaled and shifted by maps made from the segmentation."""

    def __init__(self, width: int, labels: int, hidden: int = 16) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.shared = nn.Sequential(conv(labels, hidden), nn.ReLU())
        self.gamma, self.beta = conv(hidden, width), conv(hidden, width)

    def forward(self, x: Tensor, seg: Tensor) -> Tensor:
        code = self.shared(F.interpolate(seg, size=x.size()[2:], mode="nearest"))
        return self.norm(x) * (1 + self.gamma(code)) + self.beta(code)


class SpadeBlock(nn.Module):
    """Residual block of two modulated norms; a third on the shortcut if the width changes."""

    def __init__(self, inputs: int, outputs: int, labels: int, spectral: bool) -> None:
        super().__init__()
        wrap = nn.utils.spectral_norm if spectral else nn.Identity()
        middle = min(inputs, outputs)
        self.norm0, self.norm1 = SpatialNorm(inputs, labels), SpatialNorm(middle, labels)
        self.conv0, self.conv1 = wrap(conv(inputs, middle)), wrap(conv(middle, outputs))
        self.learned = inputs != outputs
        if self.learned:
            self.norm_s, self.conv_s = (
                SpatialNorm(inputs, labels),
                wrap(nn.Conv2d(inputs, outputs, 1, bias=False)),
            )

    def forward(self, x: Tensor, seg: Tensor) -> Tensor:
        short = self.conv_s(self.norm_s(x, seg)) if self.learned else x
        h = self.conv0(F.leaky_relu(self.norm0(x, seg), 2e-1))
        return short + self.conv1(F.leaky_relu(self.norm1(h, seg), 2e-1))


class Spade(nn.Module):
    """From a coarse segmentation map upwards."""

    def __init__(self, spectral: bool, labels: int = 5, width: int = 8) -> None:
        super().__init__()
        self.first = conv(labels, 2 * width)
        self.head = SpadeBlock(2 * width, 2 * width, labels, spectral)
        self.up = SpadeBlock(2 * width, width, labels, spectral)
        self.to_image = conv(width, 3)

    def forward(self, seg: Tensor) -> Tensor:
        h = self.head(self.first(F.interpolate(seg, size=(16, 16))), seg)
        h = self.up(F.interpolate(h, scale_factor=2), seg)
        return torch.tanh(self.to_image(F.leaky_relu(h, 2e-1)))


@style("SPADE", example=noise(2, 5, 32, 32))
def spade() -> nn.Module:
    """norms modulated by convolutions of the segmentation map"""
    return Spade(spectral=False)


@style("SPADE, spectral norm", channels=0.62, coverage=0.82, example=noise(2, 5, 32, 32))
def spade_spectral() -> nn.Module:
    """the same with spectral norm on the main convolutions"""
    return Spade(spectral=True)


class AdainBlock(nn.Module):
    """Convolution whose instance norm gets scale and shift from a style."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.conv, self.norm = conv(inputs, outputs), nn.InstanceNorm2d(outputs, affine=False)
        self.affine = nn.Linear(code, 2 * outputs)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = self.affine(code)
        gamma, beta = torch.chunk(h.view(h.size(0), h.size(1), 1, 1), chunks=2, dim=1)
        return F.leaky_relu((1 + gamma) * self.norm(self.conv(x)) + beta, 0.2)


@style("AdaIN", example=image_and(2, 8))
class Adain(nn.Module):
    """StarGAN v2: style vector, mapping network, Linear, chunk, modulated instance norm"""

    def __init__(self, code: int = 8, width: int = 8) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(code, 16), nn.ReLU(), nn.Linear(16, 16))
        self.encode = nn.Sequential(
            normed(conv(3, width), width), normed(conv(width, 2 * width, stride=2), 2 * width)
        )
        self.middle, self.up = AdainBlock(2 * width, 2 * width, 16), AdainBlock(2 * width, width, 16)
        self.to_image = nn.Sequential(
            nn.InstanceNorm2d(width, affine=True), nn.LeakyReLU(0.2), conv(width, 3, 1)
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        code = self.mapping(code)
        h = self.middle(self.encode(x), code)
        return self.to_image(self.up(F.interpolate(h, scale_factor=2), code))


class AssignedNorm(nn.Module):
    """Instance norm as batch norm of a reshaped batch; its scale and shift are assigned before use."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features, self.weight, self.bias = width, None, None
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.size(0), x.size(1)
        mean, var = self.running_mean.repeat(b), self.running_var.repeat(b)
        flat = x.contiguous().view(1, b * c, *x.size()[2:])
        return F.batch_norm(flat, mean, var, self.weight, self.bias, True, 0.1, 1e-5).view(
            b, c, *x.size()[2:]
        )


class WholeNorm(nn.Module):
    """Layer norm over channels and positions, written with views."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.dim() - 1)
        mean, std = x.view(x.size(0), -1).mean(1).view(*shape), x.view(x.size(0), -1).std(1).view(*shape)
        x = (x - mean) / (std + 1e-5)
        return x * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)


@style("MUNIT", channels=0.21, coverage=0.83, example=image_and(2, 8, 1, 1))
class Munit(nn.Module):
    """content encoder; an MLP's output is cut by widths and assigned to norms; layer norm when upsampling"""

    def __init__(self, code: int = 8, width: int = 8) -> None:
        super().__init__()
        wide = 2 * width
        self.content = nn.Sequential(normed(conv(3, width, 7), width), normed(conv(width, wide, 4, 2), wide))
        self.conv1, self.norm1, self.conv2, self.norm2 = (
            conv(wide, wide),
            AssignedNorm(wide),
            conv(wide, wide),
            AssignedNorm(wide),
        )
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(code, 16), nn.ReLU(True), nn.Linear(16, 4 * wide))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2), conv(wide, width, 5), WholeNorm(width), nn.ReLU(True)
        )
        self.to_image = conv(width, 3, 7)

    def assign(self, parameters: Tensor) -> None:
        for module in self.modules():
            if isinstance(module, AssignedNorm):
                module.bias = parameters[:, : module.num_features].contiguous().view(-1)
                module.weight = (
                    parameters[:, module.num_features : 2 * module.num_features].contiguous().view(-1)
                )
                parameters = parameters[:, 2 * module.num_features :]

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = self.content(x)
        self.assign(self.mlp(code))
        h = h + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h)))))
        return torch.tanh(self.to_image(self.up(h)))


@style("StarGAN", example=image_and(2, 4))
class StarGan(nn.Module):
    """a label vector, repeated over the image and concatenated with it"""

    def __init__(self, labels: int = 4, width: int = 8) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            normed(conv(3 + labels, width, 7, bias=False), width), normed(conv(width, 16, 4, 2), 16)
        )
        self.body = nn.Sequential(conv(16, 16), nn.InstanceNorm2d(16, affine=True, track_running_stats=True))
        self.up = normed(nn.ConvTranspose2d(16, width, 4, 2, 1), width)
        self.to_image = conv(width, 3, 7, bias=False)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        label = label.view(label.size(0), label.size(1), 1, 1).repeat(1, 1, x.size(2), x.size(3))
        h = self.encode(torch.cat([x, label], dim=1))[..., :16, :16]
        return torch.tanh(self.to_image(self.up(h + self.body(h))))


@style("BicycleGAN", example=image_and(2, 8))
class Bicycle(nn.Module):
    """a latent vector, expanded and concatenated at every level of the encoder"""

    def __init__(self, code: int = 8, width: int = 8) -> None:
        super().__init__()
        self.a, self.b = conv(3 + code, width, 3, 2), conv(width + code, 2 * width, 3, 2)
        self.up_b, self.up_a = (
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        )
        self.norm, self.to_image = nn.BatchNorm2d(width), conv(width, 3)

    @staticmethod
    def join(x: Tensor, z: Tensor) -> Tensor:
        z = z.view(z.size(0), z.size(1), 1, 1)
        return torch.cat([x, z.expand(z.size(0), z.size(1), x.size(2), x.size(3))], 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        a = F.leaky_relu(self.a(self.join(x, z)), 0.2, True)
        b = F.leaky_relu(self.b(self.join(a, z)), 0.2, True)
        up = self.norm(self.up_b(b))
        return torch.tanh(self.to_image(F.relu(self.up_a(F.relu(torch.cat([up, a], 1))))))


@style("FiLM", example=image_and(2, 6))
class Film(nn.Module):
    """Linear layers make one scale and one shift a channel, added as new axes"""

    def __init__(self, code: int = 6, width: int = 16) -> None:
        super().__init__()
        self.first, self.second = conv(3, width), conv(width, width)
        self.scale, self.shift = nn.Linear(code, width), nn.Linear(code, width)
        self.norm, self.to_image = nn.GroupNorm(4, width), conv(width, 3)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        h = self.norm(F.relu(self.first(x)))
        h = h * self.scale(code)[..., None, None] + self.shift(code)[..., None, None]
        return self.to_image(F.relu(self.second(h)) + h)


def latent_and_label() -> tuple[Tensor, Tensor]:
    return noise(2, 12)(), torch.tensor([1, 3])


class ClassNorm(nn.Module):
    """Batch norm whose scale and shift come from embeddings of a class and a chunk of the latent."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.gain, self.bias = nn.Linear(code, width, bias=False), nn.Linear(code, width, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain = (1 + self.gain(y)).view(y.size(0), -1, 1, 1)
        return self.norm(x) * gain + self.bias(y).view(y.size(0), -1, 1, 1)


@style("BigGAN", channels=0.007, coverage=0, example=latent_and_label)
class BigGan(nn.Module):
    """class embedding and latent chunks modulate batch norms; spectral norm; upsampling residual blocks"""

    def __init__(self, latent: int = 12, classes: int = 4, width: int = 16) -> None:
        super().__init__()
        wrap = nn.utils.parametrizations.spectral_norm
        part = latent // 3
        self.part, code = part, part + 8
        self.embed = nn.Embedding(classes, 8)
        self.first = wrap(nn.Linear(part, width * 8 * 8))
        self.norms = nn.ModuleList(ClassNorm(width, code) for _ in range(2))
        self.convs = nn.ModuleList(wrap(conv(width, width)) for _ in range(2))
        self.short = wrap(nn.Conv2d(width, width, 1))
        self.to_image = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), wrap(conv(width, 3)))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        pieces = torch.split(z, self.part, 1)
        codes = [torch.cat([self.embed(y), piece], 1) for piece in pieces[1:]]
        x = self.first(pieces[0]).view(z.size(0), -1, 8, 8)
        h = F.interpolate(F.relu(self.norms[0](x, codes[0])), scale_factor=2)
        h = self.convs[1](F.relu(self.norms[1](self.convs[0](h), codes[1])))
        return torch.tanh(self.to_image(h + self.short(F.interpolate(x, scale_factor=2))))


@style("StyleGAN", example=noise(2, 8))
class StyleGan(nn.Module):
    """learned constant, mapping network, scaled noise, AdaIN in every layer"""

    def __init__(self, code: int = 8, width: int = 16) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            nn.Linear(code, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.LeakyReLU(0.2)
        )
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.blocks = nn.ModuleList(AdainBlock(width, width, 16) for _ in range(3))
        self.strengths = nn.ParameterList(nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(3))
        self.register_buffer("fixed", torch.randn(1, 1, 32, 32))
        self.to_image = conv(width, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z)
        x = self.constant.expand(z.shape[0], -1, -1, -1)
        for block, strength in zip(self.blocks, self.strengths):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(x + strength * self.fixed[..., : x.shape[2], : x.shape[3]], w)
        return self.to_image(x)


class ModulatedConvolution(nn.Module):
    """Convolution whose weight is scaled by a style and normalised, one weight an image."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3))
        self.style = nn.Linear(code, inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        b, c, height, width = x.shape
        weight = self.weight * self.style(w).view(b, 1, c, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(b, -1, 1, 1, 1)
        out = F.conv2d(x.reshape(1, b * c, height, width), weight.flatten(0, 1), padding=1, groups=b)
        return out.view(b, -1, height, width)


@style("StyleGAN2 decoder", example=image_and(2, 8))
class ModulatedDecoder(nn.Module):
    """encoder, then convolutions whose weights are computed in forward, grouped by image"""

    def __init__(self, code: int = 8, width: int = 8) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            normed(conv(3, width), width), normed(conv(width, 2 * width, stride=2), 2 * width)
        )
        self.mod1, self.mod2 = ModulatedConvolution(16, 16, code), ModulatedConvolution(16, width, code)
        self.refine = normed(conv(width, width), width)
        self.to_image = conv(width, 3, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        h = F.leaky_relu(self.mod1(self.encode(x), w), 0.2)
        h = F.interpolate(F.leaky_relu(self.mod2(h, w), 0.2), scale_factor=2)
        return self.to_image(self.refine(h))
