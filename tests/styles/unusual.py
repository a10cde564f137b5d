"""Code that is easily followed wrongly: loops, shared layers, literal widths, mixed channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styles import Trunk, conv, noise, normed, style


@style("recurrent refinement")
class Recurrent(nn.Module):
    """one block called three times, its features and image fed back"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = conv(6, width)
        self.block = nn.Sequential(normed(conv(width, width), width), conv(width, width))
        self.to_image = conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        image = x
        for _ in range(3):
            h = F.relu(self.first(torch.cat((x, image), 1)))
            for _ in range(2):
                h = F.relu(self.block(h) + h)
            image = torch.tanh(self.to_image(h)) + image
        return image


@style("control flow", example=noise(1, 3, 48, 32))
class ControlFlow(nn.Module):
    """as many halvings as the input's size asks for, a branch on its shape"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.down, self.up = (
            conv(3, width),
            conv(width, width, stride=2),
            nn.ConvTranspose2d(width, width, 2, 2),
        )
        self.wide, self.to_image = conv(width, width), conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, depth = self.first(x), 0
        while min(h.shape[-2:]) > 8:
            h, depth = F.relu(self.down(h)), depth + 1
        if x.shape[-2] > x.shape[-1]:
            h = h + self.wide(h)
        for _ in range(depth):
            h = F.relu(self.up(h))
        return torch.tanh(self.to_image(h[..., : x.shape[-2], : x.shape[-1]]))


@style("in-place everywhere", trunk=True)
class InPlace(nn.Module):
    """in-place activations and sums on tensors that are read again later"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu_()
        h += x
        h.mul_(0.7)
        y = self.b(h)
        y[:, :, 1:-1, 1:-1] += h[:, :, 1:-1, 1:-1]
        return y.add_(h).clamp_(min=-2)


@style("CoordConv", trunk=True)
class Coordinates(nn.Module):
    """coordinate maps made in forward are concatenated with the features"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width + 2, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h, device=x.device).view(1, 1, h, 1).expand(b, 1, h, w)
        columns = torch.linspace(-1, 1, w, device=x.device).view(1, 1, 1, w).expand(b, 1, h, w)
        return F.relu(self.conv(torch.cat([x, rows, columns], dim=1)))


@style("literal view", channels=0.5, coverage=0.72, trunk=True)
class LiteralView(nn.Module):
    """the width is written into a view"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width), conv(width, width)
        self.mix = nn.Linear(256, 256)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x)).view(x.size(0), 16, -1)
        return x + self.b(self.mix(h).view(x.size(0), 16, 16, 16))


@style("literal slice", channels=0.5, trunk=True)
class LiteralSlice(nn.Module):
    """channels are taken by number: the first eight carry features, the others gates"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, 16), conv(8, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return x + self.b(h[:, :8] * torch.sigmoid(h[:, 8:]))


@style("literal split", channels=0.5, trunk=True)
class LiteralSplit(nn.Module):
    """channels are split in pieces of a written size"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, 16), conv(8, width)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.a(x), 8, dim=1)
        return x + self.b(left * right.sigmoid())


@style("fixed widths", channels=0, coverage=0)
class FixedWidths(nn.Module):
    """every layer's width is written where its features are used"""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.to_image = conv(3, 8), conv(8, 16), conv(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x)).reshape(-1, 8, *x.shape[2:])
        h = F.relu(self.b(h)).reshape(-1, 16, *x.shape[2:])
        return torch.tanh(self.to_image(h))


@style("width read at run time", channels=0.5, trunk=True)
class WidthRead(nn.Module):
    """features are divided by the square root of how many there are"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return x + self.b(F.relu(h) / h.shape[1] ** 0.5)


@style("pixel norm", channels=0.66, coverage=0.99, trunk=True)
class PixelNormed(nn.Module):
    """ProGAN: weights scaled as they are used, every pixel divided by its mean square over channels"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width, 3, 3))
        self.bias, self.scale = nn.Parameter(torch.zeros(width)), (2 / (9 * width)) ** 0.5
        self.after = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(F.conv2d(x, self.weight * self.scale, self.bias, padding=1), 0.2)
        return self.after(h * torch.rsqrt(torch.mean(h**2, dim=1, keepdim=True) + 1e-8))


@style("softmax over channels", channels=0.5, trunk=True)
class ChannelSoftmax(nn.Module):
    """features become weights that sum to one in every pixel"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.softmax(self.a(x), dim=1))


@style("maxout", trunk=True)
class Maxout(nn.Module):
    """the larger of every two channels"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, 2 * width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        b, c, height, width = h.shape
        return x + self.b(h.view(b, c // 2, 2, height, width).max(dim=2)[0])


@style("unfold", channels=0.44, coverage=0.99, trunk=True)
class Unfolded(nn.Module):
    """patches by unfold, a Linear over channels and positions of each, folded back"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.mix, self.b = conv(width, 4), nn.Linear(16, 16), conv(4, width)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        patches = F.unfold(h, 2, stride=2).transpose(1, 2)
        h = F.fold(F.gelu(self.mix(patches)).transpose(1, 2), h.shape[-2:], 2, stride=2)
        return x + self.b(h)


@style("flow warp", channels=0.88, trunk=True)
class Warped(nn.Module):
    """features warped by a flow of two channels that the network predicts"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.flow, self.after = conv(width, 2), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        theta = torch.eye(2, 3).expand(x.shape[0], 2, 3)
        grid = (
            F.affine_grid(theta, list(x.shape), align_corners=False) + self.flow(x).permute(0, 2, 3, 1) * 0.1
        )
        return x + self.after(F.grid_sample(x, grid, align_corners=False))


@style("demodulated by hand", trunk=True)
class HandInstanceNorm(nn.Module):
    """instance norm written out with mean and standard deviation over positions"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width, bias=False)
        self.scale, self.shift = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        flat = h.view(h.shape[0], h.shape[1], -1)
        mean, std = flat.mean(2)[:, :, None, None], flat.std(dim=2)[:, :, None, None]
        return F.relu((h - mean) / (std + 1e-5) * self.scale + self.shift) + x


class TiedAutoencoder(nn.Module):
    """Decoder uses the encoder's weight, transposed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, width, 3, 3) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(F.relu(F.conv2d(x, self.weight, padding=1)), self.weight, padding=1)


@style("tied weights")
def tied() -> nn.Module:
    """a transposed convolution with the weight of the convolution before it"""
    return Trunk(TiedAutoencoder)
