"""``--model test`` of a checkout on a slim run: by the shim and by the runner, the checkout's files as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_helpers import ARCHITECTURE, make_run
from test_checkout import LOOKUP, hashes, make_checkout
from test_runner import python

from coronet_plugin.checkout.install import install
from coronet_plugin.checkpoint.storage import load_generator

BASE_MODEL = """
import os
import torch

class BaseModel:
    def __init__(self, opt):
        self.opt, self.isTrain = opt, opt.isTrain
        self.save_dir, self.device = os.path.join(opt.checkpoints_dir, opt.name), torch.device("cpu")

    def setup(self, opt):
        if not self.isTrain or opt.continue_train:
            for name in self.model_names:
                state = torch.load(os.path.join(self.save_dir, f"{opt.epoch}_net_{name}.pth"))
                getattr(self, "net" + name).load_state_dict(state)  # strict, as upstream's
"""
TEST_MODEL = """
from .base_model import BaseModel
from . import networks

class TestModel(BaseModel):
    @staticmethod
    def modify_commandline_options(parser, is_train=True):
        parser.set_defaults(dataset_mode="single")
        parser.add_argument("--model_suffix", default="")
        return parser

    def __init__(self, opt):
        BaseModel.__init__(self, opt)
        self.model_names = ["G" + opt.model_suffix]
        self.netG = networks.define_G(opt)
        setattr(self, "netG" + opt.model_suffix, self.netG)
"""
NETWORKS = """
from coronet_plugin.generators.stock import build_generator

def define_G(opt):
    return build_generator(opt.input_nc, opt.output_nc, opt.ngf, opt.netG, opt.norm, not opt.no_dropout)
"""
SCRIPT = """
import argparse
import sys
import torch
from models import create_model, find_model_using_name

parser = argparse.ArgumentParser()
for name, default in dict(name="", model="", epoch="latest", checkpoints_dir="checkpoints", netG="resnet_9blocks",
                          norm="instance", dataset_mode="unaligned").items():
    parser.add_argument("--" + name, default=default)
for name, default in dict(input_nc=3, output_nc=3, ngf=64, load_size=256, crop_size=256, load_iter=0).items():
    parser.add_argument("--" + name, type=int, default=default)
parser.add_argument("--no_dropout", action="store_true")
known, _ = parser.parse_known_args()
opt = find_model_using_name(known.model).modify_commandline_options(parser, False).parse_args()
opt.isTrain = False
model = create_model(opt)
model.setup(opt)
torch.save([opt.load_size, model.netG.eval()(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32))], "out.pt")
"""


def checkout_with_a_slim_run(root: Path) -> torch.Tensor:
    """A checkout at ``root`` that loads strictly, with a slim run, and what its generator gives."""
    make_checkout(root, "2022")
    files = {
        "models/__init__.py": LOOKUP,
        "models/base_model.py": BASE_MODEL,
        "models/test_model.py": TEST_MODEL,
    }
    for name, text in {**files, "models/networks.py": NETWORKS, "test.py": SCRIPT}.items():
        (root / name).write_text(text)
    make_run(root, "slim", budget=0.3, stems=(), log=False)
    folder = root / "checkpoints" / "slim"
    spec = folder / "latest_net_G.json"  # as the model type writes it, with options
    options = {
        **{k: v for k, v in ARCHITECTURE.items() if k != "use_dropout"},
        "no_dropout": True,
        "crop_size": 32,
    }
    import json

    written = json.loads(spec.read_text())
    spec.write_text(
        json.dumps({**written, "options": {**options, "load_size": 40, "dataset_mode": "aligned"}})
    )
    return load_generator(folder / "latest_net_G.pth").eval()(
        torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    )


@pytest.mark.parametrize("way", ["shim", "runner"])
def test_a_slim_run_is_tested_as_upstream_users_type_it(tmp_path, way):
    expected = checkout_with_a_slim_run(tmp_path)
    before = hashes(tmp_path)
    words = ("test.py", "--name", "slim", "--model", "test")
    if way == "shim":
        install(tmp_path)
    done = python(*(("-m", "coronet_plugin") if way == "runner" else ()), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    load_size, output = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(output, expected)
    assert load_size == 32  # nothing is cropped at random
    assert {name: hashes(tmp_path)[name] for name in before} == before
    assert "slim" in done.stdout
