"""A generator of the user's own, both ways: as a model type in a host, and in a plain training loop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, paired_folder, run_test, run_train
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import models
from coronet_plugin import Compression, PlanError, Spec, find_channels, load_generator, verify

MODEL = '''
"""A model type as a user writes it: own generator, own losses, nothing known of compression."""

import torch
from torch import nn

from .base_model import BaseModel


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels, channels // 2, 1)
        self.value, self.gamma = nn.Conv2d(channels, channels, 1), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
        return x + self.gamma * torch.bmm(v, weights.transpose(1, 2)).view_as(x)


class SketchGenerator(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.InstanceNorm2d(width), nn.ReLU(True))
        self.gated = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.attention = Attention(width)
        self.up = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.last = nn.Conv2d(width + 3, 3, 3, padding=1)

    def forward(self, image):
        x = self.down(image)
        content, gate = self.gated(x).chunk(2, dim=1)
        x = self.attention(x + content * torch.sigmoid(gate))
        return torch.tanh(self.last(torch.cat([image, self.up(x)], dim=1)))


class SketchModel(BaseModel):
    @staticmethod
    def modify_commandline_options(parser, is_train=True):
        parser.set_defaults(dataset_mode="aligned")
        parser.add_argument("--width", type=int, default=16)
        return parser

    def __init__(self, opt):
        BaseModel.__init__(self, opt)
        self.loss_names, self.visual_names, self.model_names = ["L1"], ["data_A", "output", "data_B"], ["G"]
        self.netG = SketchGenerator(opt.width).to(self.device)
        if self.isTrain:
            self.optimizer = torch.optim.Adam(self.netG.parameters(), lr=opt.lr)
            self.optimizers = [self.optimizer]

    def set_input(self, input):
        self.data_A, self.data_B, self.image_paths = input["A"], input["B"], input["A_paths"]

    def forward(self):
        self.output = self.netG(self.data_A)

    def optimize_parameters(self):
        self.forward()
        self.optimizer.zero_grad()
        self.loss_L1 = (self.output - self.data_B).abs().mean()
        self.loss_L1.backward()
        self.optimizer.step()
'''


@pytest.fixture
def sketch(tmp_path, monkeypatch):
    """``models/sketch_model.py``, found by the host as if it lay among its own."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "sketch_model.py").write_text(MODEL)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])
    monkeypatch.delitem(__import__("sys").modules, "models.sketch_model", raising=False)
    return __import__("importlib").import_module("models.sketch_model")


def real_macs(generator: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(x)
    return counter.get_total_flops() // 2


def test_as_a_model_type(sketch, tmp_path):
    where = ["--dataroot", paired_folder(tmp_path, 4, 32), "--name", "s", "--checkpoints_dir", tmp_path / "c"]
    where += ["--model", "coronet", "--coronet_base", "sketch", "--load_size", 32, "--crop_size", 32]
    schedule = ["--n_epochs", 2, "--n_epochs_decay", 1, "--coronet_search_epochs", 1, "--seed", 0]
    quiet = ["--display_id", -1, "--num_threads", 0, "--no_html"]
    assert run_train(*where, *schedule, *quiet, "--coronet_budget", 0.3) == 0
    weights = tmp_path / "c" / "s" / "latest_net_G.pth"
    spec = Spec.read(weights.with_suffix(".json"))
    generator = load_generator(weights, build=sketch.SketchGenerator)
    x = torch.rand(1, 3, 32, 32)
    assert real_macs(generator, x) == spec.slim["macs"] <= 0.3 * real_macs(sketch.SketchGenerator(), x)
    assert {s["name"] for s in spec.sets if not s["pinned"]} >= {"down.0", "attention.query", "up.0"}
    assert run_test(*where, "--results_dir", tmp_path / "r") == 0
    assert len(list((tmp_path / "r" / "s" / "test_latest" / "images").glob("*output*"))) == 4


def test_a_model_type_may_say_what_its_generator_is_run_on(sketch, tmp_path, monkeypatch):
    seen = []

    def coronet_example(self, name):
        seen.append(name)
        return torch.zeros(1, 3, 64, 64)

    monkeypatch.setattr(sketch.SketchModel, "coronet_example", coronet_example, raising=False)
    where = ["--dataroot", paired_folder(tmp_path, 2, 32), "--name", "s", "--checkpoints_dir", tmp_path / "c"]
    where += ["--model", "coronet", "--coronet_base", "sketch", "--load_size", 32, "--crop_size", 32]
    where += ["--n_epochs", 1, "--n_epochs_decay", 0, "--display_id", -1, "--no_html"]
    assert run_train(*where, "--coronet_budget", 0.4) == 0
    spec = Spec.read(tmp_path / "c" / "s" / "latest_net_G.json")
    assert seen == ["G"] and spec.input_size == [[3, 64, 64]]


def test_the_zero_gate_does_not_hide_the_attention_behind_it(sketch):
    generator = sketch.SketchGenerator()
    assert generator.attention.gamma == 0
    plan = find_channels(generator, torch.rand(1, 3, 32, 32))
    query = next(s for s in plan.prunable if s.name == "attention.query")
    assert query.producers == ("attention.query", "attention.key")
    wrong = plan.slices["attention.key.weight"][0]
    wrong[:] = wrong[::-1].copy()  # channel i of the query would lose its partner
    with pytest.raises(PlanError, match=r"attention\.query"):
        verify(generator, plan, torch.rand(1, 3, 32, 32))


def test_the_plain_training_loop_of_the_readme_runs_as_written(sketch, tmp_path, monkeypatch, capsys):
    text = (Path(ROOT) / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Use it in any training loop\s+```python\n(.*?)```", text, re.S)
    code = code.replace("search_steps=5000", "search_steps=6")
    monkeypatch.chdir(tmp_path)
    generator = sketch.SketchGenerator(64)
    loader = [(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)) for _ in range(9)]
    names = {"generator": generator, "example": torch.rand(1, 3, 32, 32), "loader": loader}
    exec(compile(code, "README.md", "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("% of the MACs left") and said[-1].startswith(("9.9", "10.0"))
    compression = names["compression"]
    assert isinstance(compression, Compression) and compression.phase == "compact"
    again = load_generator(tmp_path / "latest_net_G.pth", build=lambda: sketch.SketchGenerator(64))
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(x), generator(x))
    assert real_macs(again, x) == compression.cost().macs
