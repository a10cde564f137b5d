"""A DCGAN (Radford et al. 2016, arXiv 1511.06434), compressed while it trains::

    python examples/dcgan.py --budget 0.25
    coronet sample my_dcgan --coronet_family examples/dcgan.py --count 64 --seed 0 --grid

The networks and their training are those of PyTorch's own example: 100 numbers of noise, transposed
convolutions with batch norm, Adam with beta 0.5, binary cross entropy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402

from coronet_plugin.errors import OptionError  # noqa: E402
from coronet_plugin.generators import Family, family  # noqa: E402
from coronet_plugin.generators.registry import family_named  # noqa: E402


class Generator(nn.Module):
    """Noise (N, nz, 1, 1) to pictures (N, output_nc, size, size) in [-1, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        doublings = common.doublings(config.size)
        widths = [config.ngf * 2 ** (doublings - 1 - i) for i in range(doublings)]
        layers: list[nn.Module] = [nn.ConvTranspose2d(config.nz, widths[0], 4, bias=False)]
        for inputs, outputs in zip(widths, widths[1:]):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(True)]
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(widths[-1], config.output_nc, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        return torch.tanh(self.layers(noise))


def make_discriminator(size: int, ndf: int) -> nn.Sequential:
    """Pictures (N, 3, size, size) to one number each, above zero for what looks real."""
    layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    width = ndf
    for _ in range(common.doublings(size) - 1):
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2, True)]
        width *= 2
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 4, bias=False), nn.Flatten(0))


def init_(network: nn.Module) -> nn.Module:
    """Give a network the weights that a DCGAN begins with. In place."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network


@dataclass(frozen=True)
class Config:
    """``size``: pixels. ``nz``: numbers of noise. ``ngf``: channels before the last layer."""

    size: int = 64
    nz: int = 100
    ngf: int = 64
    output_nc: int = 3

    def __post_init__(self) -> None:
        """Raises OptionError for what is no DCGAN."""
        if not 8 <= self.size <= 1024 or min(self.nz, self.ngf, self.output_nc) < 1:
            raise OptionError(f"no DCGAN has {self}")


@family("dcgan")
class DCGAN(Family):
    """DCGAN: transposed convolutions from noise to a picture."""

    config = Config

    def build(self, config: Config) -> nn.Module:
        return init_(Generator(config))

    def example(self, config: Config, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return (torch.randn(1, config.nz, 1, 1, generator=torch.Generator().manual_seed(0)),)

    def deduce(self, state: Mapping[str, Tensor]) -> Config | None:
        kernels = [x for name, x in state.items() if name.startswith("layers.") and x.ndim == 4]
        if len(kernels) < 2 or len(kernels) != sum(x.ndim == 4 for x in state.values()):
            return None
        nz, (ngf, output_nc) = kernels[0].shape[0], kernels[-1].shape[:2]
        return Config(4 * 2 ** (len(kernels) - 1), nz, ngf, output_nc)

    def sample(
        self, generator: nn.Module, config: Config, count: int, noise: torch.Generator, steps: int
    ) -> Tensor:
        latent = [torch.randn(config.nz, 1, 1, generator=noise) for _ in range(count)]
        return generator(torch.stack(latent).to(next(generator.parameters()).device))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train; gives the record."""
    parser = common.options_of(__doc__ or "", "my_dcgan")
    parser.add_argument("--ngf", type=int, default=64, help="width of the generator (default: %(default)s)")
    parser.add_argument("--ndf", type=int, default=64, help="of the discriminator (default: %(default)s)")
    parser.add_argument("--nz", type=int, default=100, help="numbers of noise (default: %(default)s)")
    options = parser.parse_args(argv)
    data = common.pictures(options.data, options.size)

    torch.manual_seed(options.seed)
    made, config = family_named("dcgan"), Config(options.size, options.nz, options.ngf)
    generator = made.build(config)
    discriminator = init_(make_discriminator(options.size, options.ndf))
    optimizer, optimizer_d = (
        torch.optim.Adam(network.parameters(), options.lr, betas=(0.5, 0.999))
        for network in (generator, discriminator)
    )
    training = common.Training(
        options,
        made,
        config,
        generator,
        made.example(config, (1, 1)),
        optimizer,
        also={"discriminator": discriminator, "optimizer_d": optimizer_d},
    )
    one, zero = torch.ones(options.batch_size), torch.zeros(options.batch_size)
    for real in training.batches(data):
        fake = training.generator(torch.randn(options.batch_size, options.nz, 1, 1))
        loss_d = F.binary_cross_entropy_with_logits(discriminator(real), one)
        loss_d = loss_d + F.binary_cross_entropy_with_logits(discriminator(fake.detach()), zero)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        loss_g = F.binary_cross_entropy_with_logits(discriminator(fake), one)
        optimizer.zero_grad()
        loss_g.backward()
        optimizer.step()
        training.step(G=loss_g, D=loss_d)
    return training.finish()


if __name__ == "__main__":
    sys.exit(common.run(main))
