"""Many paths: U-Nets, pyramids, branches at several resolutions, concatenations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styles import conv, noise, normed, style


@style("U-Net, functional", example=noise(2, 3, 32, 32))
class FunctionalUnet(nn.Module):
    """skips concatenated in forward, functional dropout, double convolutions, max pooling"""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.downs = nn.ModuleList(self.double(i, o) for i, o in zip([3, *widths], widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.joins = nn.ModuleList(self.double(2 * w, w) for w in widths[-2::-1])
        self.to_image = nn.Conv2d(width, 3, 1)

    @staticmethod
    def double(inputs: int, outputs: int) -> nn.Module:
        first = normed(conv(inputs, outputs, bias=False), outputs, nn.BatchNorm2d)
        return nn.Sequential(first, normed(conv(outputs, outputs, bias=False), outputs, nn.BatchNorm2d))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, down in enumerate(self.downs):
            x = down(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        x = F.dropout(skips.pop(), 0.5, self.training)
        for up, join in zip(self.ups, self.joins):
            x = join(torch.cat([skips.pop(), up(x)], dim=1))
        return torch.tanh(self.to_image(x))


@style("U-Net, group norm")
class GroupNormUnet(nn.Module):
    """group norm and SiLU, skips by concatenation"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = self.block(3, width)
        self.second = self.block(width, 2 * width, stride=2)
        self.third = self.block(2 * width, 2 * width, stride=2)
        self.up2, self.up1 = self.block(4 * width, width), self.block(2 * width, width)
        self.to_image = conv(width, 3)

    @staticmethod
    def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(conv(inputs, outputs, stride=stride), nn.GroupNorm(4, outputs), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.second(a)
        h = F.interpolate(self.third(b), scale_factor=2)
        h = F.interpolate(
            self.up2(torch.cat((h, b), 1)), size=a.shape[-2:], mode="bilinear", align_corners=False
        )
        return self.to_image(self.up1(torch.cat((h, a), 1)))


class Gate(nn.Module):
    """Additive attention of a skip ``x`` by the signal ``g`` from below."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.of_g = nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner))
        self.of_x = nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * self.psi(F.relu(self.of_g(g) + self.of_x(x)))


@style("attention U-Net", channels=0.98)
class AttentionUnet(nn.Module):
    """every skip goes through an attention gate"""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.c = (normed(conv(i, o), o) for i, o in ((3, width), (width, 16), (16, 32)))
        self.up_b, self.up_a = normed(conv(32, 16), 16), normed(conv(16, width), width)
        self.gate_b, self.gate_a = Gate(16, 8), Gate(width, 4)
        self.join_b, self.join_a = normed(conv(32, 16), 16), normed(conv(2 * width, width), width)
        self.to_image = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        g = self.up_b(F.interpolate(c, scale_factor=2))
        h = self.join_b(torch.cat((self.gate_b(g, b), g), 1))
        g = self.up_a(F.interpolate(h, scale_factor=2))
        return torch.tanh(self.to_image(self.join_a(torch.cat((self.gate_a(g, a), g), 1))))


@style("U-Net++")
class NestedUnet(nn.Module):
    """nested skips: every node reads all before it on its level and one from below"""

    def __init__(self, widths: tuple[int, ...] = (8, 12, 16)) -> None:
        super().__init__()
        self.depth = len(widths)
        self.nodes = nn.ModuleDict()
        for level, width in enumerate(widths):
            for step in range(self.depth - level):
                inputs = step * width + widths[level + 1] if step else (widths[level - 1] if level else 3)
                self.nodes[f"{level}_{step}"] = normed(conv(inputs, width), width)
        self.to_image = nn.Conv2d(widths[0], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: dict[tuple[int, int], Tensor] = {}
        for level in range(self.depth):
            below = x if level == 0 else F.max_pool2d(found[level - 1, 0], 2)
            found[level, 0] = self.nodes[f"{level}_0"](below)
        for step in range(1, self.depth):
            for level in range(self.depth - step):
                up = F.interpolate(
                    found[level + 1, step - 1], scale_factor=2, mode="bilinear", align_corners=True
                )
                row = [found[level, earlier] for earlier in range(step)]
                found[level, step] = self.nodes[f"{level}_{step}"](torch.cat([*row, up], 1))
        return self.to_image(found[0, self.depth - 1])


class JoinedResidual(nn.Module):
    """Residual layer that concatenates its shortcut instead of adding it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed(conv(inputs, outputs, stride=stride), outputs),
            conv(outputs, outputs),
            nn.InstanceNorm2d(outputs),
        )
        self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.InstanceNorm2d(outputs))
        self.merge = nn.Sequential(conv(2 * outputs, outputs), nn.InstanceNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.merge(torch.cat((self.body(x), self.short(x)), 1)))


@style("GANILLA")
class Ganilla(nn.Module):
    """residual layers that concatenate; decoder is a feature pyramid with upsampled sums"""

    def __init__(self, widths: tuple[int, ...] = (8, 12, 16), inner: int = 12) -> None:
        super().__init__()
        self.stem = normed(conv(3, widths[0], 7), widths[0])
        self.layers = nn.ModuleList(
            JoinedResidual(i, o, 1 if n == 0 else 2)
            for n, (i, o) in enumerate(zip((widths[0], *widths), widths))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(w, inner, 1) for w in widths)
        self.smooth = conv(inner, inner)
        self.to_image = conv(inner, 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.stem(x)]
        for layer in self.layers:
            levels.append(layer(levels[-1]))
        top = None
        for lateral, level in zip(reversed(self.lateral), reversed(levels[1:])):
            here = lateral(level)
            top = here if top is None else here + F.interpolate(top, scale_factor=2, mode="nearest")
        return torch.tanh(self.to_image(F.relu(self.smooth(top))))


class Exchange(nn.Module):
    """Every resolution gets the sum of all: strided convolutions down, 1x1 and upsampling up."""

    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        high, low = widths
        self.branches = nn.ModuleList(normed(conv(w, w), w, nn.BatchNorm2d) for w in widths)
        self.down = nn.Sequential(conv(high, low, stride=2), nn.BatchNorm2d(low))
        self.up = nn.Sequential(nn.Conv2d(low, high, 1), nn.BatchNorm2d(high), nn.Upsample(scale_factor=2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        high, low = (branch(m) for branch, m in zip(self.branches, maps))
        return [F.relu(high + self.up(low)), F.relu(low + self.down(high))]


@style("HRNet")
class HrNet(nn.Module):
    """two resolutions side by side, exchanged twice, concatenated at the end"""

    def __init__(self, high: int = 8, low: int = 16) -> None:
        super().__init__()
        self.stem, self.split = normed(conv(3, high), high), normed(conv(high, low, stride=2), low)
        self.stages = nn.Sequential(Exchange((high, low)), Exchange((high, low)))
        self.head = normed(nn.Conv2d(high + low, 16, 1), 16)
        self.to_image = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        high, low = self.stages([h, self.split(h)])
        joined = torch.cat(
            [high, F.interpolate(low, size=high.shape[2:], mode="bilinear", align_corners=False)], 1
        )
        return self.to_image(self.head(joined))


@style("ASPP")
class Aspp(nn.Module):
    """dilated branches and a global one, concatenated (DeepLab head)"""

    def __init__(self, width: int = 16, inner: int = 8) -> None:
        super().__init__()
        self.stem = normed(conv(3, width, stride=2), width)
        self.point = normed(nn.Conv2d(width, inner, 1), inner, nn.BatchNorm2d)
        self.dilated = nn.ModuleList(
            normed(nn.Conv2d(width, inner, 3, padding=d, dilation=d), inner, nn.BatchNorm2d) for d in (2, 4)
        )
        self.overall = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, inner, 1), nn.ReLU())
        self.project = normed(nn.Conv2d(4 * inner, width, 1), width, nn.BatchNorm2d)
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        overall = self.overall(h).expand(-1, -1, *h.shape[-2:])
        h = torch.cat([self.point(h), *(branch(h) for branch in self.dilated), overall], dim=1)
        h = F.interpolate(self.project(h), scale_factor=2, mode="bilinear", align_corners=False)
        return torch.tanh(self.to_image(h))


@style("DenseNet")
class DenseNet(nn.Module):
    """features grow by concatenation; norms read the concatenation; 1x1 transitions"""

    def __init__(self, width: int = 8, growth: int = 8, layers: int = 3) -> None:
        super().__init__()
        self.stem = conv(3, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width + i * growth), nn.ReLU(), conv(width + i * growth, growth))
            for i in range(layers)
        )
        total = width + layers * growth
        self.transition = nn.Sequential(
            nn.BatchNorm2d(total), nn.ReLU(), nn.Conv2d(total, 16, 1), nn.AvgPool2d(2)
        )
        self.up = nn.ConvTranspose2d(16, width, 2, 2)
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return self.to_image(F.relu(self.up(self.transition(x))))


class TimedBlock(nn.Module):
    """Residual block of diffusion models: the time embedding is added between two group norms."""

    def __init__(self, inputs: int, outputs: int, emb: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(4, inputs), nn.SiLU(), conv(inputs, outputs))
        self.emb = nn.Sequential(nn.SiLU(), nn.Linear(emb, outputs))
        self.second = nn.Sequential(
            nn.GroupNorm(4, outputs), nn.SiLU(), nn.Dropout(0.1), conv(outputs, outputs)
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.first(x) + self.emb(emb)[:, :, None, None]
        return self.skip(x) + self.second(h)


def image_and_time() -> tuple[Tensor, Tensor]:
    return noise(2, 3, 32, 32)(), torch.tensor([3.0, 500.0])


@style("diffusion U-Net", example=image_and_time)
class DiffusionUnet(nn.Module):
    """group norm residual blocks with a sinusoidal time embedding through Linear layers"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width, emb = width, 4 * width
        self.time = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.first = conv(3, width)
        self.down1, self.shrink = TimedBlock(width, width, emb), conv(width, width, stride=2)
        self.down2 = TimedBlock(width, 2 * width, emb)
        self.middle = TimedBlock(2 * width, 2 * width, emb)
        self.up2, self.grow = TimedBlock(4 * width, width, emb), conv(width, width)
        self.up1 = TimedBlock(2 * width, width, emb)
        self.to_image = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), conv(width, 3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        steps = torch.exp(
            -math.log(10000) * torch.arange(self.width // 2, device=x.device) / (self.width // 2)
        )
        angles = t[:, None] * steps[None]
        emb = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))
        a = self.down1(self.first(x), emb)
        b = self.down2(self.shrink(a), emb)
        h = self.up2(torch.cat([self.middle(b, emb), b], dim=1), emb)
        h = self.grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.to_image(self.up1(torch.cat([h, a], dim=1), emb))


@style("input at the end")
class InputAtTheEnd(nn.Module):
    """the input image is concatenated before the last convolution"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(normed(conv(3, width), width), normed(conv(width, width), width))
        self.to_image = conv(width + 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.to_image(torch.cat([self.body(x), x], 1)))


@style("residual to the image")
class ResidualToImage(nn.Module):
    """output is the input plus what the network adds, clamped"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, width), nn.ReLU(), conv(width, width), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x + self.to_image(self.body(x)), -1, 1)


@style("AttentionGAN", last=("content", "attention"))
class AttentionGan(nn.Module):
    """content masks weighed by a softmax over attention masks, the input among them"""

    def __init__(self, width: int = 8, masks: int = 4) -> None:
        super().__init__()
        self.encode = nn.Sequential(normed(conv(3, width), width), normed(conv(width, 16, stride=2), 16))
        self.to_content, self.to_attention = (
            normed(nn.ConvTranspose2d(16, width, 4, 2, 1), width) for _ in range(2)
        )
        self.content, self.attention = conv(width, 3 * (masks - 1), 7), conv(width, masks, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x)
        content = torch.tanh(self.content(self.to_content(h)))
        attention = torch.softmax(self.attention(self.to_attention(h)), dim=1)
        out = x * attention[:, 0:1]
        for i in range(attention.shape[1] - 1):
            out = out + content[:, 3 * i : 3 * i + 3] * attention[:, i + 1 : i + 2].repeat(1, 3, 1, 1)
        return out


@style("several outputs", last=("to_images",))
class SeveralOutputs(nn.Module):
    """an image at every scale of the decoder, each fed to the next (MSG-GAN, deep supervision)"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.encode = nn.Sequential(normed(conv(3, width), width), normed(conv(width, width, 4, 4), width))
        self.ups = nn.ModuleList((normed(conv(width, width), width), normed(conv(width + 3, width), width)))
        self.to_images = nn.ModuleList(nn.Conv2d(width, 3, 1) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        h, images = self.encode(x), []
        for up, to_image in zip(self.ups, self.to_images):
            h = torch.cat([h, images[-1]], 1) if images else h
            h = up(F.interpolate(h, scale_factor=2, mode="nearest"))
            images.append(torch.tanh(to_image(h)))
        return images


@style("Laplacian pyramid", last=("to_low", "to_mask"))
class LaplacianPyramid(nn.Module):
    """low frequencies translated, high ones multiplied by a predicted mask (LPTN)"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.low = nn.Sequential(conv(3, width), nn.InstanceNorm2d(width), nn.LeakyReLU(), conv(width, width))
        self.to_low = conv(width, 3)
        self.mask = nn.Sequential(conv(9, width), nn.LeakyReLU())
        self.to_mask = conv(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 2)
        high = x - F.interpolate(small, scale_factor=2)
        low = torch.tanh(small + self.to_low(self.low(small)))
        up = F.interpolate(low, scale_factor=2)
        mask = self.to_mask(self.mask(torch.cat([high, up, F.interpolate(small, scale_factor=2)], 1)))
        return high * mask + up
