"""A slim generator on a folder of pictures: ``--model slim_test`` of pytorch-CycleGAN-and-pix2pix.

Put this file, the generator's file (slim_....py) and its weights (.pth) into the folder models/ of a
checkout, any version from 2018-09 on, and run there

    python test.py --model slim_test --dataroot FOLDER --name NAME

The pictures of FOLDER go through the generator, and the results are written to results/NAME. Another
generator than the one named below is chosen with --slim FILE. Nothing is read from checkpoints/.
"""

# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026, the coronet-plugin developers

import importlib.util
from pathlib import Path

from models.base_model import BaseModel

SLIM = "slim_G.py"  # beside this file, unless --slim says otherwise


def load_file(name):
    """The generator's file as a module. ``name``: path from here, or name of a file beside this one."""
    beside = Path(__file__).resolve().parent / name
    path = beside if beside.is_file() else Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"--slim {name}: there is no such file, neither here nor in {beside.parent}")
    spec = importlib.util.spec_from_file_location(path.stem, str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SlimTestModel(BaseModel):
    """One generator, on pictures without a truth. It has visuals ``real`` and ``fake``."""

    @staticmethod
    def modify_commandline_options(parser, is_train=True):
        """Add --slim; channels and size follow from the generator, old names of options included."""
        if is_train:
            raise ValueError("--model slim_test is for test.py; it has nothing to train")
        parser.add_argument("--slim", default=SLIM, help="file of the generator")
        slim = load_file(parser.parse_known_args()[0].slim)
        parser.set_defaults(dataset_mode="single", input_nc=slim.INPUT_NC, output_nc=slim.OUTPUT_NC)
        height, width = slim.TRAINED_ON
        if height == width:
            parser.set_defaults(load_size=width, crop_size=width, loadSize=width, fineSize=width)
        return parser

    def __init__(self, opt=None):
        if opt is None:  # before 2019: initialize(opt) follows
            super().__init__()
        else:
            BaseModel.__init__(self, opt)
            self.prepare(opt)

    def initialize(self, opt):
        """Take the options, in versions before 2019."""
        BaseModel.initialize(self, opt)
        self.prepare(opt)

    def prepare(self, opt):
        """Load the generator. It stays out of ``model_names``, whose networks are loaded and initialised."""
        self.visual_names = ["real", "fake"]
        self.generator = load_file(opt.slim).load().to(self.device)

    def name(self):
        """Versions before 2019 ask for it."""
        return "SlimTestModel"

    def eval(self):
        """For --eval."""
        self.generator.eval()

    def set_input(self, input):
        """Take a batch of the single data set."""
        self.real = input["A"].to(self.device)
        self.image_paths = input["A_paths"]

    def forward(self):
        """Translate the batch."""
        self.fake = self.generator(self.real)

    def optimize_parameters(self):
        """There is nothing to train; newer versions want the method."""
