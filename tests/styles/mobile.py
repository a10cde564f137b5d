"""Blocks made to be cheap: separable, grouped, shuffled, split and gated ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styles import conv, normed, style


@style("MobileResnet", trunk=True)
class MobileResidual(nn.Module):
    """GAN Compression: depthwise, norm, pointwise, twice, added"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            self.separable(width), nn.InstanceNorm2d(width), nn.ReLU(True), nn.Dropout(0.0)
        )
        self.tail = nn.Sequential(self.separable(width), nn.InstanceNorm2d(width))

    @staticmethod
    def separable(width: int) -> nn.Module:
        depth = nn.Conv2d(width, width, 3, groups=width)
        return nn.Sequential(
            nn.ReflectionPad2d(1), depth, nn.InstanceNorm2d(width), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tail(self.body(x))


@style("inverted residual", trunk=True)
class InvertedResidual(nn.Module):
    """MobileNetV3: expansion, depthwise, squeeze and excite with hard sigmoid, projection"""

    def __init__(self, width: int, factor: int = 3) -> None:
        super().__init__()
        wide = factor * width
        self.expand = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish()
        )
        self.depth = nn.Sequential(
            conv(wide, wide, 5, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, width // 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 2, wide, 1),
            nn.Hardsigmoid(),
        )
        self.project = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.depth(self.expand(x))
        return x + self.project(h * self.gate(h))


@style("ResNeXt", trunk=True)
class GroupedResidual(nn.Module):
    """bottleneck whose 3x3 convolution has four groups"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed(nn.Conv2d(width, width, 1), width, nn.BatchNorm2d),
            normed(conv(width, width, groups=4), width, nn.BatchNorm2d),
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


@style("ShuffleNet", trunk=True)
class Shuffled(nn.Module):
    """half of the channels through a separable branch, then a channel shuffle"""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            normed(nn.Conv2d(half, half, 1), half, nn.BatchNorm2d),
            conv(half, half, groups=half),
            nn.BatchNorm2d(half),
            normed(nn.Conv2d(half, half, 1), half, nn.BatchNorm2d),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        out = torch.cat((left, self.branch(right)), dim=1)
        n, c, h, w = out.size()
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class GhostModule(nn.Module):
    """Some features by a 1x1 convolution, as many again by a cheap depthwise one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = normed(nn.Conv2d(inputs, half, 1), half, nn.BatchNorm2d)
        self.cheap = normed(conv(half, half, groups=half), half, nn.BatchNorm2d)

    def forward(self, x: Tensor) -> Tensor:
        some = self.primary(x)
        return torch.cat([some, self.cheap(some)], dim=1)


@style("GhostNet", trunk=True)
class GhostResidual(nn.Module):
    """two ghost modules (primary and cheap features concatenated), added"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(GhostModule(width, 2 * width), GhostModule(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@style("Res2Net", trunk=True)
class Hierarchical(nn.Module):
    """channels split in four, each part reads the one before"""

    def __init__(self, width: int, parts: int = 4) -> None:
        super().__init__()
        self.part = width // parts
        self.first, self.last = normed(nn.Conv2d(width, width, 1), width), nn.Conv2d(width, width, 1)
        self.convs = nn.ModuleList(normed(conv(self.part, self.part), self.part) for _ in range(parts - 1))

    def forward(self, x: Tensor) -> Tensor:
        done, *pieces = torch.chunk(self.first(x), 4, 1)
        outs, h = [done], 0
        for layer, piece in zip(self.convs, pieces):
            h = layer(piece + h)
            outs.append(h)
        return x + self.last(torch.cat(outs, 1))


@style("CSP block", trunk=True)
class CrossStage(nn.Module):
    """chunked in two, one half through convolutions, all pieces concatenated (C2f)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.layers = nn.ModuleList(nn.Sequential(conv(width // 2, width // 2), nn.SiLU()) for _ in range(2))
        self.last = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pieces = list(self.first(x).chunk(2, 1))
        pieces.extend(layer(pieces[-1]) for layer in self.layers)
        return self.last(torch.cat(pieces, 1))


@style("RepVGG", trunk=True)
class ThreeBranches(nn.Module):
    """3x3, 1x1 and identity branches, each with its norm, summed"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(conv(width, width, bias=False), nn.BatchNorm2d(width))
        self.point = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.identity = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.stack([self.wide(x), self.point(x), self.identity(x)]).sum(dim=0))


@style("gated convolution, chunk", trunk=True)
class GatedChunk(nn.Module):
    """inpainting: one convolution makes features and their gates, chunked"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = conv(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        features, gate = torch.chunk(self.both(x), 2, dim=1)
        return F.elu(features) * torch.sigmoid(gate)


@style("gated convolution, two", trunk=True)
class GatedTwo(nn.Module):
    """inpainting: features and gates from two convolutions, instance norm on the product"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features, self.gate, self.norm = conv(width, width), conv(width, width), nn.InstanceNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.leaky_relu(self.features(x), 0.2) * self.gate(x).sigmoid())


@style("GLU", trunk=True)
class GatedLinear(nn.Module):
    """FastGAN: batch norm and gated linear units, excited by a skip layer"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(width, 2 * width, bias=False), nn.BatchNorm2d(2 * width), nn.GLU(dim=1)
        )
        self.skip = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(width, width, 4, bias=False), nn.SiLU())
        self.excite = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * self.excite(self.skip(x))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of an image, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        return self.weight.view(1, -1, 1, 1) * ((x - mean) / torch.sqrt(var + 1e-6)) + self.bias.view(
            1, -1, 1, 1
        )


@style("NAFNet", trunk=True)
class SimpleGateBlock(nn.Module):
    """hand-written layer norm, gates by chunk and product, simplified channel attention, scaled residuals"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.widen = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), conv(2 * width, 2 * width, groups=2 * width)
        )
        self.attend = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.narrow = nn.Conv2d(width, width, 1)
        self.ffn_in, self.ffn_out = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.widen(self.norm1(x)).chunk(2, dim=1)
        h = left * right
        x = x + self.narrow(h * self.attend(h)) * self.beta
        left, right = self.ffn_in(self.norm2(x)).chunk(2, dim=1)
        return x + self.ffn_out(left * right) * self.gamma


@style("ConvNeXt", trunk=True)
class ConvNextBlock(nn.Module):
    """depthwise 7x7, permuted, LayerNorm and Linear layers, scaled residual"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth = conv(width, width, 7, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.depth(x).permute(0, 2, 3, 1))
        h = self.scale * self.narrow(F.gelu(self.widen(h)))
        return x + h.permute(0, 3, 1, 2)


@style("partial convolution", channels=0.84, trunk=True)
class PartialConvolution(nn.Module):
    """FasterNet: a fixed quarter of the channels is convolved, then a 1x1 MLP"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.part, self.rest = width // 4, width - width // 4
        self.spatial = conv(self.part, self.part, bias=False)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        some, rest = torch.split(x, [self.part, self.rest], dim=1)
        return x + self.mlp(torch.cat((self.spatial(some), rest), 1))
