"""The base of all models: networks by name, schedules, saving and loading.

A model lists its networks, losses and visuals by name (``"G"`` is ``self.netG``,
``"G_L1"`` is ``self.loss_G_L1``, ``"fake_B"`` is ``self.fake_B``); everything here
goes by these lists.
"""

from __future__ import annotations

import argparse
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from coronet_plugin.checkpoint.spec import spec_path
from coronet_plugin.checkpoint.storage import save_tensors
from coronet_plugin.checkpoint.upstream import adapt_state_dict, read_state_dict
from coronet_plugin.distributed import average_, is_main
from coronet_plugin.errors import CheckpointError, NumericsError
from coronet_plugin.files import together
from coronet_plugin.generators.resnet import has_dropout_slot
from coronet_plugin.training.host import unwrap
from coronet_plugin.training.numerics import bad_loss, bad_weights, numbers_in
from models import networks
from util.distributed import wrap_


class BaseModel(ABC):
    """A model made from options. Subclasses fill the lists of names and ``optimizers``.

    ``metric`` is the figure ``--lr_policy plateau`` goes by: the epoch's mean of what
    was given to :meth:`observe`, lower is better. ``progress`` is what the training loop wants to be saved
    and given back when the run is continued, by models that save all that takes.
    """

    notes_tests = True
    """To the plug-in, which does it for scripts that do not: test.py notes what it tested."""

    def __init__(self, opt: argparse.Namespace) -> None:
        self.opt = opt
        self.isTrain: bool = opt.isTrain
        self.gpu_ids: list[int] = opt.gpu_ids
        self.device = torch.device("cuda", self.gpu_ids[0]) if self.gpu_ids else torch.device("cpu")
        self.save_dir = os.path.join(opt.checkpoints_dir, opt.name)
        # Searching for the fastest kernels pays only if images have one size, and is not repeatable.
        same_size = opt.preprocess in ("resize_and_crop", "crop", "scale_width_and_crop")
        torch.backends.cudnn.benchmark = same_size and getattr(opt, "seed", None) is None
        self.loss_names: list[str] = []
        self.model_names: list[str] = []
        self.visual_names: list[str] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedulers: list[Any] = []
        self.image_paths: list[str] = []
        self.metric: float = 0
        self.observed: list[Tensor] = []
        self.progress: dict[str, Any] = {}

    @staticmethod
    def modify_commandline_options(
        parser: argparse.ArgumentParser, is_train: bool
    ) -> argparse.ArgumentParser:
        """Add options or change defaults; returns the parser."""
        return parser

    @abstractmethod
    def set_input(self, input: dict[str, Any]) -> None:
        """Take a batch of the data set and move it to ``device``."""

    @abstractmethod
    def forward(self) -> None:
        """Compute the generated images from the input."""

    @abstractmethod
    def optimize_parameters(self) -> None:
        """One training step: forward, losses, gradients, new weights."""

    def setup(self, opt: argparse.Namespace) -> None:
        """Make schedules, load networks if testing or continuing, and print them.

        Networks to be trained by several processes are wrapped.

        Raises:
            CheckpointError: the networks to load are missing or do not fit.
        """
        if self.isTrain:
            self.schedulers = [networks.get_scheduler(optimizer, opt) for optimizer in self.optimizers]
        if not self.isTrain or opt.continue_train:
            self.load_networks(f"iter_{opt.load_iter}" if opt.load_iter > 0 else opt.epoch)
        self.print_networks(opt.verbose)
        if self.isTrain:
            wrap_(self)

    def on_device(self, images: Tensor) -> Tensor:
        """``images`` on ``device``; a copy from pinned memory, which loaders give, is not waited for."""
        return images.to(self.device, non_blocking=True)

    def check_sizes(self, sizes: Mapping[tuple[int, int], str]) -> None:  # noqa: B027 (a hook, not a duty)
        """Raise DataError for images the model cannot take; anything goes by default.

        ``sizes``: each (width, height) there is, with a file that has it. Called before the first step.
        """

    # -- testing ---------------------------------------------------------
    def eval(self) -> None:
        """Put all networks into evaluation mode."""
        for _, net in self._networks():
            net.eval()

    def test(self) -> None:
        """Compute the visuals without gradients."""
        with torch.no_grad():
            self.forward()
            self.compute_visuals()

    def compute_visuals(self) -> None:  # noqa: B027 (a hook, not a duty)
        """Compute visuals that training does not need; nothing by default."""

    def get_image_paths(self) -> list[str]:
        """Where the images of the current batch came from."""
        return self.image_paths

    def get_current_visuals(self) -> OrderedDict[str, Tensor]:
        """Images (N, C, H, W) in [-1, 1] by name."""
        return OrderedDict((name, getattr(self, name)) for name in self.visual_names)

    # -- training --------------------------------------------------------
    def get_current_losses(self) -> OrderedDict[str, float]:
        """Losses of the last step by name."""
        return OrderedDict(numbers_in({name: getattr(self, "loss_" + name) for name in self.loss_names}))

    def observe(self, quality: Tensor) -> None:
        """Note a loss, lower is better, for ``--lr_policy plateau``."""
        if getattr(self.opt, "lr_policy", None) == "plateau":
            self.observed.append(quality.detach())

    def update_learning_rate(self) -> None:
        """Step all schedules; called at the end of every epoch."""
        if self.observed:
            mean = torch.stack(self.observed).mean()
            average_([mean])
            self.metric = float(mean)
            self.observed.clear()
        before = self.optimizers[0].param_groups[0]["lr"]
        for scheduler in self.schedulers:
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(self.metric)
            else:
                scheduler.step()
        after = self.optimizers[0].param_groups[0]["lr"]
        if after != before:
            print(f"learning rate {before:.7f} -> {after:.7f}")

    def check_losses(self) -> None:
        """Raises NumericsError when a loss of the last step is not finite."""
        problem = bad_loss(self)
        if problem:
            weights = bad_weights({name: unwrap(net) for name, net in self._networks()})
            raise NumericsError(
                f"{problem}; {weights or 'all weights are finite'}; what was saved before is kept; lower --lr"
            )

    def set_requires_grad(self, nets: nn.Module | Iterable[nn.Module], requires_grad: bool = False) -> None:
        """Switch gradients of all parameters of ``nets`` on or off."""
        for net in [nets] if isinstance(nets, nn.Module) else nets:
            for parameter in net.parameters():
                parameter.requires_grad = requires_grad

    # -- networks on disk ------------------------------------------------
    def save_networks(self, epoch: int | str) -> None:
        """Write every network to ``<epoch>_net_<name>.pth``, a plain state_dict on the CPU.

        All files appear together or not at all; of several processes the first one writes them.

        Raises:
            NumericsError: weights are not finite; what was saved before is kept.
        """
        if not is_main():
            return
        problem = bad_weights({name: unwrap(net) for name, net in self._networks()})
        if problem:
            raise NumericsError(f"{problem}; what was saved before is kept; lower --lr")
        os.makedirs(self.save_dir, exist_ok=True)
        with together():
            for name, net in self._networks():
                state = unwrap(net).state_dict()
                save_tensors(
                    OrderedDict((key, tensor.detach().cpu()) for key, tensor in state.items()),
                    self._path(epoch, name),
                )

    def load_networks(self, epoch: int | str) -> None:
        """Load every network from ``<epoch>_net_<name>.pth``, whichever upstream version wrote it.

        Raises:
            CheckpointError: a file is missing, damaged, or of another architecture.
        """
        for name, net in self._networks():
            path, net = self._path(epoch, name), unwrap(net)
            print(f"loading the model from {path}")
            state = read_state_dict(path)
            try:
                net.load_state_dict(adapt_state_dict(state, net))
            except (CheckpointError, RuntimeError) as error:
                raise CheckpointError(f"{path} does not fit net{name}: {_slim(path) or error}") from error
            made_with, has = has_dropout_slot(state), has_dropout_slot(net.state_dict())
            if made_with is False and has:
                print(f"note: {path} was trained without dropout; pass --no_dropout to use it so")
            elif made_with and has is False:
                print(f"note: {path} was trained with dropout, which --no_dropout leaves out")

    def print_networks(self, verbose: bool) -> None:
        """Print the number of parameters of each network, and its layers if ``verbose``."""
        for name, net in self._networks():
            if verbose:
                print(net)
            millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
            print(f"net{name} has {millions:.3f} M parameters")

    def _networks(self) -> Iterator[tuple[str, nn.Module]]:
        for name in self.model_names:
            yield name, getattr(self, "net" + name)

    def _path(self, epoch: int | str, name: str) -> str:
        return os.path.join(self.save_dir, f"{epoch}_net_{name}.pth")


def _slim(path: str) -> str:
    """What to type for a generator that is slim, which its spec tells; nothing for another."""
    if not spec_path(path).is_file():
        return ""
    return (
        f"it is slim, as {spec_path(path).name} beside it says; test it with --model coronet or --model test"
    )
