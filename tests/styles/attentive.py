"""Attention over channels, over positions, and transformers as a bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from styles import Trunk, conv, style


@style("squeeze and excite, Linear", trunk=True)
class ExciteLinear(nn.Module):
    """channel gates from Linear layers on a view of the pooled features"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width)
        self.fc = nn.Sequential(
            nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        b, c, _, _ = h.size()
        gates = self.fc(F.adaptive_avg_pool2d(h, 1).view(b, c)).view(b, c, 1, 1)
        return x + h * gates.expand_as(h)


@style("squeeze and excite, 1x1", trunk=True)
class ExcitePoint(nn.Module):
    """RCAN: channel gates from 1x1 convolutions, on a plain residual branch"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width), nn.ReLU(True), conv(width, width))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, 4, 1),
            nn.ReLU(True),
            nn.Conv2d(4, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return h * self.gate(h) + x


@style("CBAM", channels=0.57, coverage=0.72, trunk=True)
class Cbam(nn.Module):
    """channel gates from mean and max pooling, then a spatial gate from mean and max over channels"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width))
        self.spatial = conv(2, 1, 7, bias=False)
        self.conv = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        gate = self.mlp(F.avg_pool2d(h, h.shape[2:])) + self.mlp(F.max_pool2d(h, h.shape[2:]))
        h = h * torch.sigmoid(gate).unsqueeze(2).unsqueeze(3)
        where = torch.cat([h.mean(1, keepdim=True), h.max(1, keepdim=True)[0]], dim=1)
        return x + h * torch.sigmoid(self.spatial(where))


@style("ECA", channels=0.96, coverage=0.99, trunk=True)
class EfficientChannel(nn.Module):
    """a 1-D convolution along the channels makes their gates"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = conv(width, width), conv(width, width)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.outer(F.relu(self.inner(x)))
        gate = (
            self.along(F.adaptive_avg_pool2d(h, 1).squeeze(-1).transpose(-1, -2))
            .transpose(-1, -2)
            .unsqueeze(-1)
        )
        return x + h * torch.sigmoid(gate)


@style("selective kernels", trunk=True)
class SelectiveKernels(nn.Module):
    """two branches weighed by a softmax between branches"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList((conv(width, width), nn.Conv2d(width, width, 3, padding=2, dilation=2)))
        self.squeeze = nn.Linear(width, 8)
        self.select = nn.ModuleList(nn.Linear(8, width) for _ in self.branches)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([F.relu(branch(x)) for branch in self.branches], dim=1)
        code = F.relu(self.squeeze(maps.sum(1).mean(-1).mean(-1)))
        weights = torch.softmax(torch.stack([select(code) for select in self.select], dim=1), dim=1)
        return (maps * weights[..., None, None]).sum(dim=1)


@style("coordinate attention", trunk=True)
class Coordinate(nn.Module):
    """pooled along each axis, joined along positions, split again, two gates"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = nn.Sequential(nn.Conv2d(width, 8, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.rows, self.columns = nn.Conv2d(8, width, 1), nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, _, h, w = x.size()
        rows, columns = F.adaptive_avg_pool2d(x, (h, 1)), F.adaptive_avg_pool2d(x, (1, w)).permute(0, 1, 3, 2)
        rows, columns = torch.split(self.join(torch.cat([rows, columns], dim=2)), [h, w], dim=2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid()


@style("SAGAN", trunk=True)
class SelfAttention(nn.Module):
    """1x1 queries, keys and values, bmm, a scale that starts at zero"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.f, self.g, self.h = nn.Conv2d(width, 8, 1), nn.Conv2d(width, 8, 1), nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.size()
        query = self.f(x).view(b, -1, height * width).permute(0, 2, 1)
        key = self.g(x).view(b, -1, height * width)
        attention = torch.softmax(torch.bmm(query, key), dim=-1)
        value = self.h(x).view(b, -1, height * width)
        out = torch.bmm(value, attention.permute(0, 2, 1)).view(b, c, height, width)
        return self.gamma * out + x


@style("non-local", trunk=True)
class NonLocal(nn.Module):
    """pooled keys and values, matmul, an output projection (BigGAN's attention)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.theta, self.phi, self.g = (nn.Conv2d(width, inner, 1, bias=False) for _ in range(3))
        self.out = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(x).flatten(2).transpose(1, 2)
        phi, g = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.phi, self.g))
        weights = (theta @ phi).softmax(-1)
        return x + self.out(
            (weights @ g.transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
        )


@style("multi-head, 1x1", trunk=True)
class MultiHead(nn.Module):
    """queries, keys and values of one 1x1 convolution, heads by view, scale of the first width"""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm = nn.GroupNorm(4, width)
        self.qkv, self.project = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=1)
        q, k, v = (t.reshape(b, self.heads, -1, h * w) for t in (q, k, v))
        attention = ((q.transpose(-2, -1) @ k) * self.scale).softmax(dim=-1)
        out = (v @ attention.transpose(-2, -1)).reshape(b, -1, h, w)
        return x + self.project(out)


@style("multi-head, scale read", trunk=True)
class MultiHeadLive(nn.Module):
    """separate queries, keys and values; the scale is read from the tensor's width as it runs"""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.project = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (layer(x).view(b, self.heads, -1, h * w) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("bhcn,bhcm->bhnm", q, k) / q.shape[2] ** 0.5
        out = torch.einsum("bhnm,bhcm->bhcn", weights.softmax(-1), v)
        return x + self.project(out.reshape(b, -1, h, w))


@style("scaled dot product", trunk=True)
class DotProduct(nn.Module):
    """F.scaled_dot_product_attention on tokens, one Linear for queries, keys and values"""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, -1)
        return x + self.project(out).transpose(1, 2).view(b, c, h, w)


@style("nn.MultiheadAttention", trunk=True)
class StockAttention(nn.Module):
    """torch's own multi-head attention on tokens, layer norm before"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).permute(0, 2, 1)
        h = self.norm(tokens)
        tokens = tokens + self.attention(h, h, h, need_weights=False)[0]
        tokens = tokens + self.mlp(tokens)
        return tokens.permute(0, 2, 1).reshape(x.shape)


@style("transformer bottleneck")
class TransformerBottleneck(nn.Module):
    """UVCGAN: patches through nn.TransformerEncoder with a learned position, then upsampled"""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.up = nn.Sequential(nn.ConvTranspose2d(width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.to_image = nn.ConvTranspose2d(width, 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x)
        tokens = self.encoder(h.flatten(2).transpose(1, 2) + self.position)
        return torch.tanh(self.to_image(self.up(tokens.transpose(1, 2).view_as(h))))


@style("Swin", trunk=True)
class Windowed(nn.Module):
    """attention in shifted windows with a relative position bias, tokens last"""

    def __init__(self, width: int, window: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.window, self.heads, self.scale = window, heads, (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        away = at[:, :, None] - at[:, None] + window - 1
        self.register_buffer("index", away[0] * (2 * window - 1) + away[1])

    def attend(self, tokens: Tensor) -> Tensor:
        b, n, c = tokens.shape
        q, k, v = (
            self.qkv(tokens).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        bias = self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1)
        weights = torch.softmax((q * self.scale) @ k.transpose(-2, -1) + bias.unsqueeze(0), -1)
        return self.project((weights @ v).transpose(1, 2).reshape(b, n, c))

    def forward(self, x: Tensor) -> Tensor:
        s = self.window
        x = x.permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        shifted = torch.roll(self.norm1(x), shifts=(-s // 2, -s // 2), dims=(1, 2))
        windows = shifted.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        merged = (
            self.attend(windows)
            .view(b, h // s, w // s, s, s, -1)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(b, h, w, -1)
        )
        x = x + torch.roll(merged, shifts=(s // 2, s // 2), dims=(1, 2))
        return (x + self.mlp(self.norm2(x))).permute(0, 3, 1, 2)


@style("Restormer", channels=0.62, coverage=0.92, trunk=True)
class TransposedAttention(nn.Module):
    """attention between channels of normalised queries and keys, then a gated depthwise feed-forward"""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.norm1, self.norm2 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.qkv = nn.Sequential(nn.Conv2d(width, 3 * width, 1), conv(3 * width, 3 * width, groups=3 * width))
        self.project = nn.Conv2d(width, width, 1)
        self.ffn_in = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1), conv(4 * width, 4 * width, groups=4 * width)
        )
        self.ffn_out = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, self.heads, -1, h * w) for t in self.qkv(self.norm1(x)).chunk(3, dim=1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        x = x + self.project((attention @ v).reshape(b, -1, h, w))
        left, right = self.ffn_in(self.norm2(x)).chunk(2, dim=1)
        return x + self.ffn_out(F.gelu(left) * right)


@style("linear attention", channels=0.4, coverage=0.98, trunk=True)
class LinearAttention(nn.Module):
    """keys and values first: a softmax over positions, a context of channels by channels"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Conv2d(width, 24, 1, bias=False), nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = self.qkv(x).chunk(3, 1)
        q, k, v = q.sigmoid().flatten(2), k.flatten(2).softmax(-1), v.flatten(2)
        context = torch.bmm(k, v.transpose(1, 2))
        return x + self.out(torch.bmm(context.transpose(1, 2), q).view(b, -1, h, w))


class LayerInstanceNorm(nn.Module):
    """Instance and layer norm mixed by a learned rho; scale and shift from outside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, width, 1, 1), 0.9))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        in_mean, in_var = x.mean(dim=[2, 3], keepdim=True), x.var(dim=[2, 3], keepdim=True)
        ln_mean, ln_var = x.mean(dim=[1, 2, 3], keepdim=True), x.var(dim=[1, 2, 3], keepdim=True)
        out_in, out_ln = (x - in_mean) / torch.sqrt(in_var + 1e-5), (x - ln_mean) / torch.sqrt(ln_var + 1e-5)
        rho = self.rho.expand(x.shape[0], -1, -1, -1)
        out = rho * out_in + (1 - rho) * out_ln
        return out * gamma.unsqueeze(2).unsqueeze(3) + beta.unsqueeze(2).unsqueeze(3)


@style("U-GAT-IT", last=("to_image", "gap_fc", "gmp_fc"))
class Ugatit(nn.Module):
    """class activation maps by a Linear's own weights, adaptive layer-instance norm, three outputs"""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        wide = 2 * width
        self.encode = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=False), nn.InstanceNorm2d(width), nn.ReLU(True),
            conv(width, wide, stride=2, bias=False), nn.InstanceNorm2d(wide), nn.ReLU(True),
        )  # fmt: skip
        self.gap_fc, self.gmp_fc = nn.Linear(wide, 1, bias=False), nn.Linear(wide, 1, bias=False)
        self.point = nn.Conv2d(2 * wide, wide, 1)
        self.fc = nn.Sequential(nn.Linear(wide, wide), nn.ReLU(True), nn.Linear(wide, wide), nn.ReLU(True))
        self.gamma, self.beta = nn.Linear(wide, wide, bias=False), nn.Linear(wide, wide, bias=False)
        self.conv1, self.conv2 = conv(wide, wide, bias=False), conv(wide, wide, bias=False)
        self.norm1, self.norm2 = LayerInstanceNorm(wide), LayerInstanceNorm(wide)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), conv(wide, width), nn.ReLU(True))
        self.to_image = conv(width, 3, 7, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.encode(x)
        logits, maps = [], []
        for pool, fc in ((F.adaptive_avg_pool2d, self.gap_fc), (F.adaptive_max_pool2d, self.gmp_fc)):
            logits.append(fc(pool(x, 1).view(x.shape[0], -1)))
            maps.append(x * list(fc.parameters())[0].unsqueeze(2).unsqueeze(3))
        x = F.relu(self.point(torch.cat(maps, 1)))
        heat = torch.sum(x, dim=1, keepdim=True)
        code = self.fc(F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1))
        gamma, beta = self.gamma(code), self.beta(code)
        h = F.relu(self.norm1(self.conv1(x), gamma, beta))
        x = x + self.norm2(self.conv2(h), gamma, beta)
        return torch.tanh(self.to_image(self.up(x))), torch.cat(logits, 1), heat


@style("TransUNet", trunk=True)
class ClassToken(nn.Module):
    """a learned token is put before the image's, sees them all, and its features are added back"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = torch.cat([self.token.expand(b, -1, -1), x.view(b, c, -1).permute(0, 2, 1)], dim=1)
        scores = torch.matmul(self.q(tokens), self.k(tokens).transpose(1, 2)) * 0.25
        tokens = tokens + self.project(torch.matmul(F.softmax(scores, dim=-1), self.v(tokens)))
        return tokens[:, 1:].transpose(1, 2).reshape(b, c, h, w) + tokens[:, 0, :, None, None]


@style("attention in the bottleneck")
def attention_bottleneck() -> nn.Module:
    """SAGAN's attention after a residual block, as most users combine them"""
    return Trunk(lambda width: nn.Sequential(ExcitePoint(width), SelfAttention(width)))
