"""Options that training and testing share, and how all of them are gathered.

Names, types and defaults are those of pytorch-CycleGAN-and-pix2pix as of 2024;
``--bit_depth``, ``--seed`` and ``--debug`` are new.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import data
import models
from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.files import write_text
from coronet_plugin.settings import add_option, settings_of
from coronet_plugin.training.speed import SpeedOptions
from options.parser import Parser
from util.distributed import launched, own_gpu

DIRECTIONS = ("AtoB", "BtoA")
GPUS = "GPUs, such as 0 or 0,1; -1 or no GPU here: the CPU; under torchrun each process takes its own"
NORMS = (
    "norm layers of all networks: instance, batch, none, or syncbatch, batch norm whose statistics all "
    "processes of torchrun share"
)


LIMITS = {
    **dict.fromkeys(("ngf", "ndf"), (1, 4096)),
    **dict.fromkeys(("load_size", "crop_size", "display_winsize"), (1, 16384)),
    **dict.fromkeys(("input_nc", "output_nc"), (1, 512)),
    "bit_depth": (8, 16),
    **dict.fromkeys(("batch_size", "max_dataset_size"), (1, math.inf)),
    "n_layers_D": (1, 8),
    "num_threads": (0, 1024),
    "load_iter": (0, math.inf),
    "init_gain": (0.0, 1e6),
    "seed": (0, 2**63 - 1),
}
"""Smallest and largest value of options that are numbers."""


class BaseOptions:
    """Gathers options in three rounds: general ones, the model's, the data set's."""

    limits: Mapping[str, tuple[float, float]] = LIMITS

    isTrain: bool
    program: str

    def initialize(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Add the options that both phases have; returns the parser."""
        add = parser.add_argument
        add("--dataroot", required=True, help="folder of the images; it has subfolders such as train, trainA")
        add("--name", type=str, default="experiment_name", help="name of the run; its folder has this name")
        add("--gpu_ids", type=str, default="0", help=GPUS)
        add("--checkpoints_dir", type=str, default="./checkpoints", help="where the folders of runs are")
        # networks
        add("--model", type=str, default="cycle_gan", help="model type: the file models/NAME_model.py")
        add("--input_nc", type=int, default=3, help="channels of input images: 3 RGB, 1 gray, 4 RGBA")
        add("--output_nc", type=int, default=3, help="channels of output images: 3 RGB, 1 gray, 4 RGBA")
        add("--ngf", type=int, default=64, help="channels of the generator's outermost feature map")
        add("--ndf", type=int, default=64, help="channels of the discriminator's first feature map")
        add("--netD", type=str, default="basic", help="discriminator: basic (70x70 patches), n_layers, pixel")
        add(
            "--netG",
            type=str,
            default="resnet_9blocks",
            help="generator: resnet_9blocks, resnet_6blocks, unet_256, unet_128, "
            "mobile_resnet_9blocks, mobile_resnet_6blocks, cut_resnet_9blocks, cut_resnet_6blocks",
        )
        add("--n_layers_D", type=int, default=3, help="layers of the discriminator with --netD n_layers")
        add("--norm", type=str, default="instance", help=NORMS)
        add("--init_type", type=str, default="normal", help="normal, xavier, kaiming or orthogonal")
        add("--init_gain", type=float, default=0.02, help="scale of normal, xavier and orthogonal weights")
        add("--no_dropout", action="store_true", help="build the generator without dropout")
        # data
        add("--dataset_mode", type=str, default="unaligned", help="data set: the file data/NAME_dataset.py")
        add("--direction", type=str, default="AtoB", help="translate AtoB or BtoA")
        add("--serial_batches", action="store_true", help="take images in order instead of shuffled")
        add("--num_threads", default=4, type=int, help="processes that load images; 0: load in this one")
        add("--batch_size", type=int, default=1, help="images a step; under torchrun, of each process")
        add("--load_size", type=int, default=286, help="side to which images are scaled, in pixels")
        add("--crop_size", type=int, default=256, help="side of the square cut from it, in pixels")
        add("--max_dataset_size", type=int, default=float("inf"), help="use at most so many images")
        add(
            "--preprocess",
            type=str,
            default="resize_and_crop",
            help="resize_and_crop, crop, scale_width, scale_width_and_crop or none",
        )
        add(
            "--bit_depth",
            type=int,
            default=16,
            help="bits that values have in files of 16 bits a channel, such as 12; all of them set is white",
        )
        add("--no_flip", action="store_true", help="do not mirror images at random")
        add("--display_winsize", type=int, default=256, help="width of images on pages, in pixels")
        # speed
        for each in settings_of(SpeedOptions):
            if self.isTrain or each.name not in ("fused", "accumulate"):
                add_option(parser, each, f"--{each.name}")
        # what to load and how to say it
        add("--epoch", type=str, default="latest", help="epoch whose networks are loaded")
        add(
            "--load_iter",
            type=int,
            default="0",
            help="iteration whose networks are loaded instead of --epoch's; 0: go by --epoch",
        )
        add("--verbose", action="store_true", help="print the networks layer by layer")
        add("--suffix", default="", type=str, help="appended to --name; {option} is replaced by its value")
        add("--seed", type=int, default=None, help="random seed; with one, CPU runs repeat bit for bit")
        add("--debug", action="store_true", help="show the whole traceback of an error")
        # wandb
        add("--use_wandb", action="store_true", help="also log to Weights & Biases, if it is installed")
        add("--wandb_project_name", type=str, default="CycleGAN-and-pix2pix", help="project there")
        return parser

    def parse(self, args: Sequence[str] | None = None) -> argparse.Namespace:
        """Options from ``args`` (default: the command line), printed and, of a training, written to a file.

        ``gpu_ids`` becomes a list of ints, ``device`` a torch.device; ``isTrain`` is added.
        Leaves with exit code 2 and one line when an option cannot work.
        """
        parser = self.initialize(Parser(args, prog=self.program))
        try:
            parser = self._gather(parser)
            opt = parser.finish()
            opt.isTrain = self.isTrain
            self._check(opt)
            opt.name += opt.suffix.format(**vars(opt))
            self._check_paths(opt)
            text = self._text(parser, opt)
            opt.gpu_ids, opt.device = choose_device(opt.gpu_ids)
        except UserError as error:
            parser.error(str(error))
        except (KeyError, IndexError, ValueError) as error:  # from str.format
            parser.error(f"--suffix names something that is not an option: {error}")
        print(text)
        try:
            self._write(opt, text)
        except (UserError, OSError) as error:
            parser.error(str(error))
        return opt

    def _gather(self, parser: Parser) -> Parser:
        known, _ = parser.parse_known_args()
        parser = models.get_option_setter(known.model)(parser, self.isTrain)
        known, _ = parser.parse_known_args()  # the model may have chosen another data set
        return data.get_option_setter(known.dataset_mode)(parser, self.isTrain)

    def _check(self, opt: argparse.Namespace) -> None:
        if opt.direction not in DIRECTIONS:
            raise OptionError(f"--direction {opt.direction} is not known; choose AtoB or BtoA")
        for name, (low, high) in self.limits.items():
            value = getattr(opt, name)
            if isinstance(value, (int, float)) and not low <= value <= high:  # nor is nan
                known = f"at most {high}" if value > high else f"at least {low}"
                raise OptionError(f"--{name} must be {known}, not {value}")

    def _check_paths(self, opt: argparse.Namespace) -> None:
        """Names that files are made of stay inside their folder."""
        name = Path(opt.name)
        if not opt.name.strip() or name.is_absolute() or ".." in name.parts or not opt.name.isprintable():
            raise OptionError(f"--name {opt.name!r} is no name of a run; give one such as facades_small")
        if Path(opt.epoch).name != opt.epoch:
            raise OptionError(f"--epoch {opt.epoch!r} is no epoch; give a number such as 20, or latest")
        if Path(opt.phase).name != opt.phase:
            raise OptionError(f"--phase {opt.phase!r} is no subfolder of --dataroot, such as test")

    def _text(self, parser: Parser, opt: argparse.Namespace) -> str:
        lines = ["----------------- Options ---------------"]
        for key, value in sorted(vars(opt).items()):
            default = parser.get_default(key)
            changed = str(value) != str(default)
            lines.append(f"{key:>25}: {value!s:<30}" + (f"\t[default: {default}]" if changed else ""))
        return "\n".join([*lines, "----------------- End -------------------"])

    def _write(self, opt: argparse.Namespace, text: str) -> None:
        """Of a training alone: a test's lie beside its results (:mod:`coronet_plugin.runs.tested`)."""
        if self.isTrain:
            folder = os.path.join(opt.checkpoints_dir, opt.name)
            os.makedirs(folder, exist_ok=True)
            write_text(os.path.join(folder, f"{opt.phase}_opt.txt"), text + "\n")


def choose_device(gpu_ids: str) -> tuple[list[int], torch.device]:
    """GPUs of ``"0,1"`` that exist and the first of them; the CPU for ``"-1"`` or without any GPU.

    A process that torchrun started has one.

    Raises:
        OptionError: not a list of numbers, or there are GPUs but none of these.
    """
    try:
        wanted = [number for number in map(int, gpu_ids.split(",")) if number >= 0]
    except ValueError as error:
        raise OptionError(f"--gpu_ids {gpu_ids} is not a list of numbers such as 0,1 or -1") from error
    if launched():
        wanted = own_gpu(gpu_ids, wanted)
    if not wanted or not torch.cuda.is_available():
        return [], torch.device("cpu")
    existing = [number for number in wanted if number < torch.cuda.device_count()]
    if not existing:
        raise OptionError(f"--gpu_ids {gpu_ids}: there are only GPUs 0 to {torch.cuda.device_count() - 1}")
    return existing, torch.device("cuda", existing[0])
