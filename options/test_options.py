"""Options of test.py."""

from __future__ import annotations

import argparse
import math
import os

from coronet_plugin.errors import OptionError
from coronet_plugin.generators.registry import find_family
from options import base_options
from options.base_options import BaseOptions
from util.distributed import launched


class TestOptions(BaseOptions):
    """The shared options and those of the results."""

    __test__ = False  # not a test case, whatever pytest makes of the name
    isTrain = False
    limits = {**base_options.LIMITS, "num_test": (1, math.inf), "aspect_ratio": (0.01, 100.0)}
    limits |= {"pad_to_multiple": (0, 4096)}
    program = "test.py"

    def initialize(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser = super().initialize(parser)
        add = parser.add_argument
        add("--results_dir", type=str, default="./results/", help="where the pages of results go")
        add("--aspect_ratio", type=float, default=1.0, help="width by height of saved images, if not as is")
        add("--phase", type=str, default="test", help="subfolder of --dataroot to test on")
        add("--eval", action="store_true", help="no dropout, running statistics in batch norm")
        add("--num_test", type=int, default=50, help="test at most so many images")
        add(
            "--pad_to_multiple",
            type=int,
            default=None,
            help="mirror images out to sides of such multiples for the generator and cut its output back; "
            "0 or 1: take them as they are; without the option what --netG needs",
        )
        # Without random crops there is nothing to scale beyond the crop.
        parser.set_defaults(model="test", load_size=parser.get_default("crop_size"))
        return parser

    def _check(self, opt: argparse.Namespace) -> None:
        super()._check(opt)
        if launched() and int(os.environ["WORLD_SIZE"]) > 1:
            raise OptionError("test.py tests in one process; start it without torchrun")
        if opt.pad_to_multiple is None:
            family = find_family(opt.netG)
            opt.pad_to_multiple = family.side_multiple(family.default_config()) if family else 1
