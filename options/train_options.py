"""Options of train.py."""

from __future__ import annotations

import argparse

from coronet_plugin.errors import OptionError
from options.base_options import BaseOptions


class TrainOptions(BaseOptions):
    """The shared options and those of displays, saving, schedule and losses."""

    isTrain = True
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

    def _check(self, opt: argparse.Namespace) -> None:
        super()._check(opt)
        for name in ("display_freq", "update_html_freq", "print_freq", "save_latest_freq", "save_epoch_freq"):
            if getattr(opt, name) < 1:
                raise OptionError(f"--{name} must be at least 1, not {getattr(opt, name)}")
