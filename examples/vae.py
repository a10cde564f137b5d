"""Variational autoencoders (Kingma and Welling 2014, arXiv 1312.6114), compressed while they train::

    python examples/vae.py --budget 0.25                        # encoder and decoder together
    python examples/vae.py --budget 0.25 --part decoder         # the decoder alone, latents as they are
    python examples/vae.py --budget 0.25 --net kl --width 16    # diffusers' AutoencoderKL, or tiny
    coronet sample my_vae --coronet_family examples/vae.py --count 64 --seed 0 --grid

The loss is the negative ELBO with the pictures' variance at its optimum (Rybkin et al. 2021, arXiv
2006.13202), so there is no weight to choose. Noise is an input, so that the whole can be exported.
"""

from __future__ import annotations

import math
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
from coronet_plugin.generators.registry import Family, family, family_named  # noqa: E402

HALVINGS = 2  # of diffusers' autoencoders; ours goes down to one place
FIXED = -2.0  # logarithm of the variance of latents whose encoder gives none


@dataclass(frozen=True)
class Config:
    """``net``: conv, kl or tiny. ``nz``: channels of the latent."""

    net: str = "conv"
    size: int = 32
    width: int = 32
    nz: int = 64

    def __post_init__(self) -> None:
        """Raises OptionError for what is none of these."""
        sound = 8 <= self.size <= 1024 and min(self.width, self.nz) > 0 and self.width % 4 == 0
        if not sound or self.net not in ("conv", "kl", "tiny"):
            raise OptionError(f"no autoencoder here has {self}")

    @property
    def latent(self) -> tuple[int, int, int]:
        side = 1 if self.net == "conv" else self.size // 2**HALVINGS
        return (self.nz, side, side)


class Stack(nn.Module):
    """Convolutions with batch norm: a picture to one place of 2 nz channels, or one of nz to a picture."""

    def __init__(self, config: Config, up: bool) -> None:
        super().__init__()
        levels = common.doublings(config.size)
        widths = [config.width * 2**i for i in range(levels)]
        kind = nn.ConvTranspose2d if up else nn.Conv2d
        order = [config.nz, *widths[::-1], 3] if up else [3, *widths, 2 * config.nz]
        self.stack = nn.Sequential()
        for number, (before, after) in enumerate(zip(order, order[1:])):
            whole = number == (0 if up else levels)  # between one place and 4 x 4
            self.stack.append(kind(before, after, 4) if whole else kind(before, after, 4, 2, 1))
            if number < levels:
                self.stack.append(nn.BatchNorm2d(after)).append(nn.ReLU(True))

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x)


def parts_of(config: Config) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder."""
    if config.net == "conv":
        return Stack(config, up=False), Stack(config, up=True)
    import diffusers

    width, levels, latent = config.width, HALVINGS + 1, {"latent_channels": config.nz}
    if config.net == "tiny":  # whose levels are all of one width
        widths, ones = (width,) * levels, (1,) * levels
        blocks = dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), widths)
        counts = dict.fromkeys(("num_encoder_blocks", "num_decoder_blocks"), ones)
        made = diffusers.AutoencoderTiny(**blocks, **counts, **latent)
    else:
        kinds = ("DownEncoderBlock2D",) * levels, ("UpDecoderBlock2D",) * levels
        plain = dict.fromkeys(("use_quant_conv", "use_post_quant_conv"), False)
        widths = (width, *[2 * width] * HALVINGS)
        made = diffusers.AutoencoderKL(3, 3, *kinds, widths, norm_num_groups=width // 2, **latent, **plain)
    return made.encoder, made.decoder


class Autoencoder(nn.Module):
    """Pictures and noise of the latent's shape to pictures, mean and log variance of the latent."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.encoder(image)
        several = found.shape[1] > noise.shape[1]  # AutoencoderTiny's gives no variance
        mean, spread = found.chunk(2, dim=1) if several else (found, torch.full_like(found, FIXED))
        spread = spread.clamp(-30, 20)
        return self.decoder(mean + (0.5 * spread).exp() * noise), mean, spread


@family("vae")
class VAE(Family):
    """Variational autoencoders: convolutional, or of diffusers' classes."""

    config = Config
    inputs = 2
    untold = ("size",)

    def build(self, config: Config) -> nn.Module:
        return Autoencoder(*parts_of(config))

    def example(self, config: Config, size: tuple[int, int]) -> tuple[Tensor, ...]:
        noise = torch.Generator().manual_seed(0)
        image = torch.rand(1, 3, config.size, config.size, generator=noise) * 2 - 1
        return image, torch.randn(1, *config.latent, generator=noise)

    def deduce(self, state: Mapping[str, Tensor]) -> Config | None:
        if self.inputs == 2:
            state = {name[8:]: x for name, x in state.items() if name.startswith("decoder.")}
        names = {"conv": "stack.0.weight", "kl": "conv_in.weight", "tiny": "layers.0.weight"}
        net = next((net for net, name in names.items() if name in state), None)
        kernels = [x for x in state.values() if x.ndim == 4]
        if net is None or len(kernels) < 2:
            return None
        axis = 0 if net == "conv" else 1  # transposed kernels have their inputs first
        size = 4 * 2 ** (len(kernels) - 1) if net == "conv" else Config.size
        return Config(net, size, kernels[-1].shape[axis], state[names[net]].shape[axis])

    def sample(
        self, generator: nn.Module, config: Config, count: int, noise: torch.Generator, steps: int
    ) -> Tensor:
        decoder = generator.decoder if isinstance(generator, Autoencoder) else generator
        return decoder(torch.stack([torch.randn(config.latent, generator=noise) for _ in range(count)]))


@family("vae_decoder")
class VAEDecoder(VAE):
    """The decoder of a variational autoencoder alone: latents to pictures."""

    inputs = 1

    def build(self, config: Config) -> nn.Module:
        return parts_of(config)[1]

    def example(self, config: Config, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return super().example(config, size)[1:]


def negative_elbo(image: Tensor, made: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """In nats a value of the picture, the pictures' variance being their mean squared error."""
    output, mean, spread = made
    gap = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum() / image.numel()
    return 0.5 * (2 * math.pi * F.mse_loss(output, image)).log() + 0.5 + gap


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train; gives the record, with ELBO and error of reconstructions of held-out pictures."""
    parser = common.options_of(__doc__ or "", "my_vae", lr=1e-3)
    parser.add_argument("--net", default="conv", choices=("conv", "kl", "tiny"), help="default: %(default)s")
    parser.add_argument("--part", default="both", choices=("both", "decoder"), help="default: %(default)s")
    parser.add_argument("--width", type=int, default=32, help="of the outermost layer (default: %(default)s)")
    parser.add_argument("--nz", type=int, help="channels of the latent (default: 64, of diffusers' 4)")
    options = parser.parse_args(argv)
    options.nz = options.nz or (64 if options.net == "conv" else 4)
    data, unseen = (common.pictures(options.data, options.size, held) for held in (False, True))

    torch.manual_seed(options.seed)
    both, config = options.part == "both", Config(options.net, options.size, options.width, options.nz)
    made = family_named("vae" if both else "vae_decoder")
    whole = Autoencoder(*parts_of(config))
    generator, also = (whole, {}) if both else (whole.decoder, {"encoder": whole.encoder})
    optimizer = torch.optim.Adam(whole.parameters(), options.lr)
    inputs = made.example(config, (options.size, options.size))
    training = common.Training(options, made, config, generator, inputs, optimizer, also)
    for image in training.batches(data):
        loss = negative_elbo(image, whole(image, torch.randn(len(image), *config.latent)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.step(loss=loss)
    noise = torch.randn(len(unseen), *config.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = F.mse_loss(whole.eval()(unseen, 0 * noise)[0], unseen).item()
        elbo = -negative_elbo(unseen, whole(unseen, noise)).item()
    return training.finish(elbo=elbo, reconstruction_error=error)


if __name__ == "__main__":
    sys.exit(common.run(main))
