"""A diffusion model (Ho et al. 2020, arXiv 2006.11239) of diffusers' classes, compressed while it trains::

    pip install -e ".[diffusion,onnx]"
    python examples/diffusion.py --budget 0.25
    python examples/diffusion.py --budget 0.25 --method diff_pruning
    coronet sample my_diffusion --coronet_family examples/diffusion.py --count 64 --seed 0 --grid

``--pretrained FOLDER`` begins with a UNet2DModel that ``save_pretrained`` wrote, alone or in a DDPMPipeline.
Every run has such a folder again, ``RUN/pruned``. The config of diffusers has one width for all layers of a
level and cannot say what is left of each, so it is read by :func:`load_pruned`, not by ``from_pretrained``.
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))

import common  # noqa: E402

from coronet_plugin import load_generator  # noqa: E402
from coronet_plugin.errors import DataError, OptionError  # noqa: E402
from coronet_plugin.generators import Family, family  # noqa: E402
from coronet_plugin.generators.registry import family_named  # noqa: E402
from coronet_plugin.methods import Sample  # noqa: E402

WEIGHTS = "diffusion_pytorch_model.safetensors"
KNOWN = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self", "sample_size"}


class Denoiser(UNet2DModel):
    """Noisy pictures (N, 3, H, W) and time steps (N,) to the noise in them: UNet2DModel, with its keys."""

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        return super().forward(x, steps).sample


def layout(width: int) -> str:
    """The config of a small U-Net: three levels, attention in the second and in the middle."""
    entries = {
        "block_out_channels": (width, 2 * width, 2 * width),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": max(1, width // 4),
        "attention_head_dim": 8,
    }
    return json.dumps(entries)


@dataclass(frozen=True)
class Config:
    """``unet`` and ``schedule``: entries of the configs of UNet2DModel and DDPMScheduler, as JSON."""

    size: int = 32
    unet: str = layout(32)
    schedule: str = "{}"

    def __post_init__(self) -> None:
        """Raises OptionError unless both are objects in JSON, and of a size that somebody has."""
        try:
            unet, schedule = json.loads(self.unet), json.loads(self.schedule)
            small = len(unet.get("block_out_channels", ())) <= 8 and unet.get("layers_per_block", 1) <= 16
            sound = small and isinstance(schedule, dict) and 8 <= self.size <= 1024
        except (AttributeError, TypeError, ValueError, RecursionError):
            sound = False
        if not sound:
            raise OptionError("no diffusion model has this config")


@family("unet2d")
class UNet2D(Family):
    """diffusers' UNet2DModel: the noise in a picture at a time step."""

    config = Config
    inputs = 2
    untold = ("size", "schedule")

    def build(self, config: Config) -> nn.Module:
        entries = {key: value for key, value in json.loads(config.unet).items() if key in KNOWN}
        return Denoiser(sample_size=config.size, **entries)

    def side_multiple(self, config: Config) -> int:
        return 2 ** (len(json.loads(config.unet).get("block_out_channels", [0] * 4)) - 1)

    def example(self, config: Config, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)), torch.tensor([10])

    def deduce(self, state: Mapping[str, Tensor]) -> Config | None:
        first = state.get("conv_in.weight")
        return (
            None
            if first is None or "down_blocks.0.resnets.0.conv1.weight" not in state
            else Config(unet=layout(first.shape[0]))
        )

    def sample(
        self, generator: nn.Module, config: Config, count: int, noise: torch.Generator, steps: int
    ) -> Tensor:
        scheduler = DDIMScheduler.from_config(json.loads(config.schedule))
        scheduler.set_timesteps(steps)
        x = torch.stack([torch.randn(3, config.size, config.size, generator=noise) for _ in range(count)])
        for step in scheduler.timesteps:
            x = scheduler.step(generator(x, step.expand(count)), step, x).prev_sample
        return x


class TimeSteps(Sequence[Sample]):
    """A sample for each time step, all of the same pictures and noise: Diff-Pruning's."""

    def __init__(self, pictures: Tensor, scheduler: DDPMScheduler) -> None:
        self.pictures, self.scheduler = pictures, scheduler
        self.noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.scheduler.config.num_train_timesteps

    def __getitem__(self, number: int) -> Sample:  # type: ignore[override]
        steps = torch.full((len(self.pictures),), number)
        return Sample((self.scheduler.add_noise(self.pictures, self.noise, steps), steps), self.noise)


def read_pretrained(folder: Path, size: int) -> tuple[Config, nn.Module]:
    """The config and the model in a folder of diffusers. Raises DataError if it holds no UNet2DModel."""
    place = folder / "unet" if (folder / "unet").is_dir() else folder
    try:
        model = Denoiser.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"--pretrained {folder} holds no UNet2DModel of diffusers: {error}") from error
    entries = {key: value for key, value in dict(model.config).items() if key in KNOWN}
    schedule = folder / "scheduler" / "scheduler_config.json"
    text = schedule.read_text(encoding="utf-8") if schedule.is_file() else "{}"
    return Config(model.config.sample_size or size, json.dumps(entries), text), model


def save_pruned(training: common.Training, config: Config) -> None:
    """Write ``RUN/pruned``: the dense model's config as diffusers has it, the weights, and our spec."""
    folder = training.folder / "pruned"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "unet").mkdir(parents=True)
    training.generator.save_config(folder / "unet")
    training.compression.save(folder / "unet" / WEIGHTS)
    DDPMScheduler.from_config(json.loads(config.schedule)).save_pretrained(folder / "scheduler")


def load_pruned(folder: Path) -> nn.Module:
    """The model in a folder that :func:`save_pruned` wrote; needs no family."""
    entries = UNet2DModel.load_config(folder / "unet", local_files_only=True)
    return load_generator(folder / "unet" / WEIGHTS, build=lambda: Denoiser.from_config(entries))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train; gives the record, with the error of the noise that is told in held-out pictures."""
    parser = common.options_of(__doc__ or "", "my_diffusion", lr=1e-3, batch_size=16)
    parser.add_argument("--width", type=int, default=32, help="of the first level (default: %(default)s)")
    parser.add_argument("--pretrained", type=Path, metavar="FOLDER", help="of diffusers, to begin with")
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    made, config = family_named("unet2d"), Config(options.size, layout(options.width))
    if options.pretrained is None:
        generator = made.build(config)
    else:
        config, generator = read_pretrained(options.pretrained, options.size)
        options.size = config.size
    data, unseen = (common.pictures(options.data, config.size, held) for held in (False, True))
    scheduler = DDPMScheduler.from_config(json.loads(config.schedule))
    times, inputs = TimeSteps(data[:8], scheduler), made.example(config, (config.size, config.size))
    optimizer = torch.optim.Adam(generator.train().parameters(), options.lr)
    training = common.Training(options, made, config, generator, inputs, optimizer, {}, held_out=times)
    for image in training.batches(data):
        noise, steps = torch.randn(image.shape), torch.randint(len(times), (len(image),))
        loss = F.mse_loss(training.generator(scheduler.add_noise(image, noise, steps), steps), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.step(loss=loss)
    tried, every = TimeSteps(unseen[:32], scheduler), max(1, len(times) // 20)
    with torch.no_grad():
        told = [
            (training.generator.eval()(*tried[t].inputs), tried[t].truth) for t in range(0, len(times), every)
        ]
        error = torch.stack([F.mse_loss(*pair) for pair in told]).mean().item()
    save_pruned(training, config)
    return training.finish(noise_error=error)


if __name__ == "__main__":
    sys.exit(common.run(main))
