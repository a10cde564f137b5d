"""Options of train.py."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from coronet_plugin.distributed import is_main
from coronet_plugin.errors import OptionError
from coronet_plugin.runs.options import parse_options, read_options
from options import base_options
from options.base_options import BaseOptions
from util.distributed import restarted

INDIFFERENT = frozenset(
    "checkpoints_dir continue_train debug display_env display_freq display_id display_ncols display_port "
    "display_server display_winsize epoch epoch_count gpu_ids isTrain load_iter no_html num_threads "
    "overwrite print_freq save_by_iter save_epoch_freq save_latest_freq suffix update_html_freq use_wandb "
    "verbose wandb_project_name".split()
)
"""Options that do not make it another training: what is shown and saved, and where it runs."""


LIMITS = {
    **base_options.LIMITS,
    **dict.fromkeys(("display_freq", "update_html_freq", "print_freq"), (1, math.inf)),
    **dict.fromkeys(("save_latest_freq", "save_epoch_freq", "epoch_count", "lr_decay_iters"), (1, math.inf)),
    **dict.fromkeys(("n_epochs", "n_epochs_decay"), (0, 10**6)),
    **dict.fromkeys(("pool_size",), (0, 10**6)),
    "lr": (0.0, 1e6),
    "beta1": (0.0, 0.9999999),
}


class TrainOptions(BaseOptions):
    """The shared options and those of displays, saving, schedule and losses."""

    isTrain = True
    limits = LIMITS
    program = "train.py"

    def initialize(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser = super().initialize(parser)
        add = parser.add_argument
        # displays
        add("--display_freq", type=int, default=400, help="images between two updates of the pictures")
        add("--display_ncols", type=int, default=4, help="pictures in a row of the visdom window")
        add("--display_id", type=int, default=1, help="number of the visdom window; 0 or less: no visdom")
        add("--display_server", type=str, default="http://localhost", help="address of the visdom server")
        add("--display_env", type=str, default="main", help="environment of visdom")
        add("--display_port", type=int, default=8097, help="port of the visdom server")
        add("--update_html_freq", type=int, default=1000, help="images between two updates of the page")
        add("--print_freq", type=int, default=100, help="images between two lines of losses")
        add("--no_html", action="store_true", help="do not write the page web/index.html")
        # saving and continuing
        add("--save_latest_freq", type=int, default=5000, help="images between two savings as latest")
        add("--save_epoch_freq", type=int, default=5, help="epochs between two savings that are kept")
        add("--save_by_iter", action="store_true", help="keep what --save_latest_freq saves, by iteration")
        add("--continue_train", action="store_true", help="load the networks of --epoch and go on")
        add("--overwrite", action="store_true", help="begin anew under the name of a run with other options")
        add("--epoch_count", type=int, default=1, help="number of the first epoch")
        add("--phase", type=str, default="train", help="subfolder of --dataroot to train on")
        # schedule
        add("--n_epochs", type=int, default=100, help="epochs with the first learning rate")
        add("--n_epochs_decay", type=int, default=100, help="further epochs in which it falls to zero")
        add("--beta1", type=float, default=0.5, help="first momentum of Adam")
        add("--lr", type=float, default=0.0002, help="first learning rate of Adam")
        add("--gan_mode", type=str, default="lsgan", help="adversarial loss: lsgan, vanilla or wgangp")
        add("--pool_size", type=int, default=50, help="earlier fakes kept for the discriminator; 0: none")
        add("--lr_policy", type=str, default="linear", help="linear, step, plateau or cosine")
        add("--lr_decay_iters", type=int, default=50, help="epochs between two drops with --lr_policy step")
        return parser

    def _write(self, opt: argparse.Namespace, text: str) -> None:
        """Raises OptionError if the name is that of a run that was trained with other options."""
        folder = Path(opt.checkpoints_dir, opt.name)
        if not is_main() or (restarted() and (folder / f"{opt.phase}_opt.txt").exists()):
            return
        if not opt.continue_train and not opt.overwrite and list(folder.glob("*_net_*.pth")):
            before, now = read_options(folder).values, parse_options(text).values
            changed = [key for key in before.keys() & now.keys() - INDIFFERENT if before[key] != now[key]]
            if changed:
                key = sorted(changed)[0]
                raise OptionError(
                    f"--name {opt.name}: {folder} holds a run with other options (--{key} {before[key]}, not "
                    f"{now[key]}); choose another --name, go on with --continue_train, or begin anew with "
                    "--overwrite"
                )
        super()._write(opt, text)
