"""Encoders and decoders in one line: stock networks, ResNets, DCGANs, upsamplers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coronet_plugin.generators.stock import build_generator
from styles import Trunk, conv, noise, normed, style


@style("resnet_9blocks", last=("model.26",))
def resnet_9blocks() -> nn.Module:
    """stock: instance norm, nine blocks"""
    return build_generator(3, 3, 8, "resnet_9blocks", "instance")


@style("resnet_6blocks", last=("model.23",))
def resnet_6blocks() -> nn.Module:
    """stock: batch norm, dropout, six blocks"""
    return build_generator(3, 3, 8, "resnet_6blocks", "batch", use_dropout=True)


@style("unet_128", example=noise(1, 3, 128, 128), last=("model.model.3",))
def unet_128() -> nn.Module:
    """stock: instance norm, seven halvings"""
    return build_generator(3, 3, 8, "unet_128", "instance")


@style("unet_256", example=noise(1, 3, 256, 256), last=("model.model.3",))
def unet_256() -> nn.Module:
    """stock: batch norm, dropout, eight halvings"""
    return build_generator(3, 3, 4, "unet_256", "batch", use_dropout=True)


@style("ResNet, functional", trunk=True)
class FunctionalResidual(nn.Module):
    """residual block with batch norm, activations and padding called as functions"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(F.pad(x, (1, 1, 1, 1), mode="reflect"))), inplace=True)
        out = F.dropout(out, 0.5, training=self.training)
        out = self.bn2(self.conv2(F.pad(out, (1, 1, 1, 1), mode="reflect")))
        out += x
        return out


class NormedWeights(nn.Module):
    """Residual block whose convolutions are wrapped by ``wrap``."""

    def __init__(self, width: int, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(wrap(conv(width, width)), nn.ReLU(), wrap(conv(width, width)))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


@style("weight norm")
def weight_norm() -> nn.Module:
    """ResNet with weight norm as a parametrization"""
    return Trunk(lambda width: NormedWeights(width, nn.utils.parametrizations.weight_norm))


@style("weight norm, old form")
def weight_norm_hook() -> nn.Module:
    """ResNet with weight norm as a forward hook"""
    return Trunk(lambda width: NormedWeights(width, nn.utils.weight_norm))


@style("spectral norm", channels=0.25, coverage=0.57)
def spectral_norm() -> nn.Module:
    """ResNet with spectral norm as a parametrization"""
    return Trunk(lambda width: NormedWeights(width, nn.utils.parametrizations.spectral_norm))


@style("spectral norm, old form", channels=0.25, coverage=0.57)
def spectral_norm_hook() -> nn.Module:
    """ResNet with spectral norm as a forward hook"""
    return Trunk(lambda width: NormedWeights(width, nn.utils.spectral_norm))


@style("PReLU", trunk=True)
class PReluResidual(nn.Module):
    """SRGAN block: batch norm and one PReLU slope a channel"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(width, width), nn.BatchNorm2d(width)
        self.act = nn.PReLU(width)
        self.conv2, self.bn2 = conv(width, width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x.add(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))


@style("DCGAN", example=noise(2, 24, 1, 1), last=("main.9",))
def dcgan(latent: int = 24, width: int = 8) -> nn.Module:
    """latent (N, nz, 1, 1), transposed convolutions, batch norm"""
    layers: list[nn.Module] = []
    widths = [latent, 4 * width, 2 * width, width]
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        up = (4, 1, 0) if i == 0 else (4, 2, 1)
        layers += [
            nn.ConvTranspose2d(inputs, outputs, *up, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(True),
        ]
    net = nn.Sequential()
    net.main = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
    return net


@style("DCGAN from Linear", example=noise(2, 24))
class DcganLinear(nn.Module):
    """latent (N, nz), Linear, view with an inferred width"""

    def __init__(self, latent: int = 24, width: int = 16) -> None:
        super().__init__()
        self.project = nn.Linear(latent, 2 * width * 4 * 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.ReLU(True),
            normed(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), width),
        )
        self.to_image = nn.ConvTranspose2d(width, 3, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.project(z).view(z.size(0), -1, 4, 4)
        return torch.tanh(self.to_image(self.body(h)))


@style("DCGAN from Linear, fixed width", channels=0.03, coverage=0.93, example=noise(2, 24))
class DcganFixed(DcganLinear):
    """the same with the width written into the view"""

    def forward(self, z: Tensor) -> Tensor:
        h = self.project(z).view(-1, 32, 4, 4)
        return torch.tanh(self.to_image(self.body(h)))


@style("resize convolution")
class ResizeConvolution(nn.Module):
    """nearest upsampling and a reflected 3x3 convolution instead of transposed ones"""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            normed(conv(3, width), width), normed(conv(width, 2 * width, stride=2), 2 * width)
        )
        self.decode = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.ReflectionPad2d(1),
            normed(nn.Conv2d(2 * width, width, 3), width),
        )
        self.to_image = conv(width, 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.to_image(self.decode(self.encode(x))))


class Blur(nn.Module):
    """Depthwise binomial filter from a buffer: halves, or doubles."""

    def __init__(self, width: int, up: bool = False) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if up else [1.0, 2.0, 1.0])
        kernel = torch.outer(taps, taps) / taps.sum() ** 2 * (4 if up else 1)
        self.register_buffer("kernel", kernel[None, None].repeat(width, 1, 1, 1))
        self.up, self.pad = up, nn.ReplicationPad2d(1) if up else nn.ReflectionPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(self.pad(x), self.kernel, stride=2, groups=x.shape[1])
        return F.conv_transpose2d(self.pad(x), self.kernel, stride=2, padding=3, groups=x.shape[1])


@style("CUT, anti-aliased")
class AntiAliased(nn.Module):
    """ResNet whose halving and doubling are fixed depthwise blurs kept in buffers"""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(
            normed(conv(3, width, 7), width), normed(conv(width, 2 * width), 2 * width), Blur(2 * width)
        )
        self.middle = FunctionalResidual(2 * width)
        self.up = nn.Sequential(Blur(2 * width, up=True), normed(conv(2 * width, width), width))
        self.to_image = conv(width, 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.to_image(self.up(self.middle(self.down(x)))))


class DenseBlock(nn.Module):
    """Five convolutions, each reading all before it; the last is scaled down and added."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(width + i * growth, width if i == 4 else growth) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.convs[:-1]:
            seen.append(F.leaky_relu(layer(torch.cat(seen, 1)), 0.2))
        return self.convs[-1](torch.cat(seen, 1)) * 0.2 + x


@style("ESRGAN")
class Rrdb(nn.Module):
    """residual in residual dense blocks, scaled by 0.2, nearest upsampling"""

    def __init__(self, width: int = 16, growth: int = 8) -> None:
        super().__init__()
        self.first = conv(3, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DenseBlock(width, growth) for _ in range(2))) for _ in range(2)
        )
        self.trunk = conv(width, width)
        self.up, self.hr = conv(width, width), conv(width, width)
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = h = self.first(x)
        for block in self.blocks:
            h = block(h) * 0.2 + h
        h = first + self.trunk(h)
        h = F.leaky_relu(self.up(F.interpolate(h, scale_factor=2, mode="nearest")), 0.2)
        return self.to_image(F.leaky_relu(self.hr(h), 0.2))


@style("pixel shuffle", last=("to_image.0",))
class PixelShuffle(nn.Module):
    """EDSR: scaled residuals, pixel shuffle inside and at the output, pixel unshuffle at the input"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.PixelUnshuffle(2), conv(12, width))
        self.body = nn.ModuleList(
            nn.Sequential(conv(width, width), nn.ReLU(True), conv(width, width)) for _ in range(2)
        )
        self.up = nn.Sequential(conv(width, 4 * width), nn.PixelShuffle(2))
        self.to_image = nn.Sequential(conv(width, 12), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x)
        for block in self.body:
            h = h + block(h).mul(0.1)
        return self.to_image(self.up(h))


@style("Pix2PixHD")
class GlobalLocal(nn.Module):
    """global network at half size, its features added to a local enhancer's"""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            normed(conv(3, 2 * width, 7), 2 * width),
            normed(conv(2 * width, 4 * width, stride=2), 4 * width),
            NormedWeights(4 * width, lambda layer: layer),
            normed(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1), 2 * width),
        )
        self.fine_down = nn.Sequential(
            normed(conv(3, width, 7), width), normed(conv(width, 2 * width, stride=2), 2 * width)
        )
        self.fine_up = nn.Sequential(
            NormedWeights(2 * width, lambda layer: layer),
            normed(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1), width),
        )
        self.to_image = conv(width, 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        h = self.fine_up(self.fine_down(x) + self.coarse(small))
        return torch.tanh(self.to_image(h))


@style("SegNet")
class SegNet(nn.Module):
    """max pooling that remembers where, max unpooling"""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down1, self.down2 = normed(conv(3, width), width), normed(conv(width, 2 * width), 2 * width)
        self.up2, self.up1 = normed(conv(2 * width, width), width), normed(conv(width, width), width)
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, where1 = F.max_pool2d(self.down1(x), 2, return_indices=True)
        h, where2 = F.max_pool2d(self.down2(h), 2, return_indices=True)
        h = self.up2(F.max_unpool2d(h, where2, 2))
        return self.to_image(self.up1(F.max_unpool2d(h, where1, 2)))


@style("functional parameters")
class HandMade(nn.Module):
    """weights kept as bare parameters, every layer a function call"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(width, 3, 3, 3) * 0.2)
        self.w2 = nn.Parameter(torch.randn(width, width, 3, 3) * 0.1)
        self.gain, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.instance_norm(F.conv2d(x, self.w1, padding=1), weight=self.gain, bias=self.shift).relu()
        return torch.tanh(self.to_image(h + F.relu(F.conv2d(h, self.w2, padding=1))))
