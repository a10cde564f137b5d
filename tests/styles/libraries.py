"""The classes of diffusers themselves, at small configs, where that is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from styles import noise, style


class Sampled(nn.Module):
    """The tensor in what a model of diffusers returns."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.net(*inputs)
        return out[0] if isinstance(out, tuple) else out.sample


class Labelled(Sampled):
    """The last input is a class."""

    def forward(self, x: Tensor, steps: Tensor, labels: Tensor) -> Tensor:
        return self.net(x, steps, class_labels=labels).sample


class Coded(Sampled):
    """Encoder and decoder without the bytes between them."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net.decode(self.net.encode(x).latents).sample


def steps(channels: int = 3) -> Any:
    return lambda: (noise(2, channels, 16, 16)(), torch.tensor([7, 401]))


def text() -> tuple[Tensor, Tensor, Tensor]:
    return noise(2, 4, 16, 16)(), torch.tensor([7, 401]), noise(2, 5, 24)()


def classes() -> tuple[Tensor, Tensor, Tensor]:
    return noise(2, 4, 16, 16)(), torch.tensor([7, 401]), torch.tensor([1, 4])


WIDTHS = {"block_out_channels": (16, 32), "norm_num_groups": 4}
CODER = {
    **WIDTHS,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
}
UNET = {**WIDTHS, "sample_size": 16, "layers_per_block": 1}

if find_spec("diffusers"):

    @style("diffusers UNet2DModel", example=steps(), last=("net.conv_out",))
    def unet2d() -> nn.Module:
        """attention on both levels and in the middle, heads of eight channels"""
        from diffusers import UNet2DModel

        blocks = {"down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2}
        return Sampled(UNet2DModel(**UNET, **blocks, attention_head_dim=8))

    @style("diffusers UNet2DConditionModel", example=text, last=("net.conv_out",))
    def unet2d_condition() -> nn.Module:
        """transformer blocks that attend to a text, tiny"""
        from diffusers import UNet2DConditionModel

        blocks = {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        }
        return Sampled(UNet2DConditionModel(**UNET, **blocks, attention_head_dim=4, cross_attention_dim=24))

    @style("diffusers AutoencoderKL", example=noise(2, 3, 16, 16), last=("net.decoder.conv_out",))
    def autoencoder_kl() -> nn.Module:
        """encoder, latent and decoder, attention in both middles"""
        from diffusers import AutoencoderKL

        return Sampled(AutoencoderKL(**CODER))

    @style("diffusers AutoencoderTiny", example=noise(2, 3, 32, 32), last=("net.decoder.layers.18",))
    def autoencoder_tiny() -> nn.Module:
        """encode and decode, without the bytes that its forward rounds latents to"""
        from diffusers import AutoencoderTiny

        widths = (16, 16, 16, 16)
        return Coded(AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths))

    @style("diffusers VQModel", channels=0.99, example=noise(2, 3, 16, 16), last=("net.decoder.conv_out",))
    def vq_model() -> nn.Module:
        """the quantised autoencoder of VQ-GAN"""
        from diffusers import VQModel

        return Sampled(VQModel(**CODER, num_vq_embeddings=32, vq_embed_dim=4))

    @style("diffusers DiT", channels=0.93, coverage=0.95, example=classes, last=("net.proj_out_2",))
    def dit() -> nn.Module:
        """DiTTransformer2DModel: fixed positions in a buffer, modulated norms, two blocks"""
        from diffusers import DiTTransformer2DModel

        sizes = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "sample_size": 16}
        return Labelled(
            DiTTransformer2DModel(
                **sizes, in_channels=4, out_channels=4, norm_num_groups=4, num_embeds_ada_norm=10
            )
        )
