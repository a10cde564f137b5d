"""``coronet export-upstream``: files that compute the same without the package, and in a checkout."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FACTS, ROOT, run_test, smooth_image
from PIL import Image
from run_helpers import make_cycle_run, make_run, option_line
from torch import nn

import models
from coronet_plugin import CheckpointError, Compression, cost_of, example_input, load_generator
from coronet_plugin.cli import main
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.runs.run import find_weights
from coronet_plugin.standalone import export as exporter
from coronet_plugin.standalone.export import export_upstream

UPSTREAM = json.loads((FACTS / "state_dicts.json").read_text())["generators"]
SIZES = {
    "resnet_9blocks": 32,
    "resnet_6blocks": 32,
    "unet_128": 128,
    "unet_256": 256,
    "mobile_resnet_6blocks": 32,
    "cut_resnet_4blocks": 32,
}
CASES = [
    (netG, norm, number % 2 == 1, 1 if number % 3 == 0 else 3)
    for number, (netG, norm) in enumerate(itertools.product(SIZES, ("instance", "batch", "none")))
]


def save_weights(
    path: Path, netG: str, norm: str = "instance", dropout: bool = False, input_nc: int = 3, slim: bool = True
) -> nn.Module:
    """A compressed generator in ``path``, with statistics as if it had been trained."""
    torch.manual_seed(0)
    architecture = dict(netG=netG, input_nc=input_nc, output_nc=3, ngf=8, norm=norm, use_dropout=dropout)
    generator = build_generator(**architecture)
    example = example_input(generator, SIZES[netG])
    compression = Compression(generator, example, budget=0.5, search_steps=3, architecture=architecture)
    if slim:
        compression.slim()
    for tensor in [*generator.parameters(), *generator.buffers()]:
        if tensor.ndim == 1:
            tensor.data += torch.rand(tensor.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    compression.save(path)
    return generator


def imported(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def output(generator: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    return generator(x)


def export(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[list[Path], str]:
    """The files and the notes of a successful ``coronet export-upstream``."""
    code = main(["export-upstream", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return [Path(line) for line in out.splitlines()], err


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slim ResNet as ``slim_G`` and a slim U-Net with dropout as ``slim_U``."""
    root = tmp_path_factory.mktemp("exported")
    save_weights(root / "run" / "latest_net_G.pth", "resnet_6blocks")
    save_weights(root / "run" / "latest_net_U.pth", "unet_128", "batch", True, 1)
    weights = {name: root / "run" / f"latest_net_{name}.pth" for name in "GU"}
    export_upstream(weights, root / "out")
    return root


# -- the same generator --------------------------------------------------------
@pytest.mark.parametrize(("netG", "norm", "dropout", "input_nc"), CASES)
def test_the_file_computes_what_the_generator_does(netG, norm, dropout, input_nc, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    generator = save_weights(path, netG, norm, dropout, input_nc)
    files, notes = export_upstream({"G": path}, tmp_path / "out")
    assert notes == [] and [file.name for file in files] == ["slim_G.pth", "slim_G.py", "slim_test_model.py"]
    module = imported(tmp_path / "out" / "slim_G.py")
    x = torch.rand(2, input_nc, SIZES[netG], SIZES[netG]) * 2 - 1
    for evaluation in (True, False):  # upstream tests in train mode
        rebuilt = module.load(eval=evaluation)
        assert rebuilt.training is not evaluation
        assert torch.equal(output(rebuilt, x), output(generator.train(not evaluation), x))
    keys = list(torch.load(tmp_path / "out" / "slim_G.pth", weights_only=True))
    assert keys == list(module.build().state_dict()) == list(generator.state_dict())
    if f"netG={netG} norm={norm} dropout={dropout}" in UPSTREAM:
        assert keys == list(UPSTREAM[f"netG={netG} norm={norm} dropout={dropout}"])


@pytest.mark.parametrize("name", ["G", "U"])
def test_the_file_says_what_the_generator_costs_and_where_it_is_from(exported, name):
    module = imported(exported / "out" / f"slim_{name}.py")
    spec = json.loads((exported / "run" / f"latest_net_{name}.json").read_text())
    side = module.TRAINED_ON[0]
    cost = cost_of(module.load(), torch.zeros(1, module.INPUT_NC, side, side))
    assert cost.as_dict() == spec["slim"]
    for figure in (*spec["slim"].values(), *spec["dense"].values()):
        assert standalone_human(figure) in module.__doc__
    assert f"From latest_net_{name}.pth, trained with coronet_plugin" in module.__doc__
    assert f"(N, {module.INPUT_NC}, H, W) in [-1, 1]" in module.__doc__
    assert ("dropout is active" in module.__doc__) is (name == "U")


def standalone_human(figure: int) -> str:
    """Four digits and a prefix, as the file writes figures."""
    return next(f"{figure / f:.4g} {p}" for f, p in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if figure >= f)


def test_widths_are_data_that_can_be_edited(exported, tmp_path):
    text = (exported / "out" / "slim_U.py").read_text()
    up = next(line for line in text.splitlines() if line.startswith("UP = "))
    (tmp_path / "edited.py").write_text(text.replace(up, "UP = (3, 4, 5, 6, 7, 8)"))
    levels = [
        m for m in imported(tmp_path / "edited.py").build().modules() if isinstance(m, nn.ConvTranspose2d)
    ]
    assert [level.out_channels for level in levels] == [8, 7, 6, 5, 4, 3, 3]


# -- on its own ---------------------------------------------------------------
ALONE = """
import importlib.util, sys, torch

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("coronet_plugin", "PIL", "models"):
            raise ImportError(name + " is not here")

sys.meta_path.insert(0, Refuse())
before = {name.partition(".")[0] for name in sys.modules}
for path, inputs, expected in torch.load(sys.argv[1]):
    spec = importlib.util.spec_from_file_location("alone", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.no_grad():
        assert torch.equal(module.load(eval=True)(inputs), expected)
    try:
        module.pillow()
    except SystemExit as error:
        print(error)
after = {name.partition(".")[0] for name in sys.modules}
print(sorted(after - before - set(getattr(sys, "stdlib_module_names", after))))
"""


def test_the_file_needs_nothing_but_torch(exported, tmp_path):
    cases = []
    for name, channels in (("G", 3), ("U", 1)):
        x = torch.rand(1, channels, 128, 128)
        expected = output(load_generator(exported / "run" / f"latest_net_{name}.pth").eval(), x)
        cases.append((str(exported / "out" / f"slim_{name}.py"), x, expected))
    torch.save(cases, tmp_path / "cases.pth")
    command = [sys.executable, "-I", "-c", ALONE, str(tmp_path / "cases.pth")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }  # as this process: sums depend on the number of threads
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    *messages, extra = done.stdout.splitlines()
    assert extra == "[]" and len(messages) == 2 and "pip install pillow" in messages[0]


@pytest.mark.parametrize("name", ["slim_G", "slim_U", "slim_test_model"])
def test_the_text_of_the_files(exported, name):
    path = exported / "out" / f"{name}.py"
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    found = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    known = {
        "__future__",
        "argparse",
        "collections.abc",
        "importlib.util",
        "inspect",
        "pathlib",
        "sys",
        "typing",
    }
    assert set(found) - known == ({"models.base_model"} if name == "slim_test_model" else {"torch"})
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_picture_from_the_command_line(exported, tmp_path, monkeypatch, capsys):
    module = imported(exported / "out" / "slim_G.py")
    smooth_image(1, 46, 33).save(tmp_path / "in.png")
    monkeypatch.setattr(sys, "argv", ["slim_G.py", str(tmp_path / "in.png"), str(tmp_path / "out.png")])
    module.main()
    assert "resized from 46x33 to 48x32" in capsys.readouterr().err
    shown = np.asarray(Image.open(tmp_path / "out.png")).astype(float)
    x = module.read_picture(str(tmp_path / "in.png"))
    assert x.shape == (1, 3, 32, 48) and shown.shape == (32, 48, 3)
    expected = output(module.load(), x)[0].permute(1, 2, 0).numpy()
    assert np.abs((expected + 1) / 2 * 255 - shown).max() <= 1  # rounded down
    for arguments, message in (
        (["no.png", "out.png"], "no.png"),
        ([str(tmp_path / "in.png"), "out.xyz"], "xyz"),
    ):
        monkeypatch.setattr(sys, "argv", ["slim_G.py", *arguments])
        with pytest.raises(SystemExit, match=message):
            module.main()


def test_pictures_of_sixteen_bits_and_with_alpha(exported, tmp_path, monkeypatch):
    module = imported(exported / "out" / "slim_G.py")
    assert module.BIT_DEPTH == 16
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) << 6  # of 12 bits
    Image.fromarray(values).save(tmp_path / "deep.png")
    monkeypatch.setattr(module, "BIT_DEPTH", 12)
    found = (module.read_picture(str(tmp_path / "deep.png")) + 1) * 127.5
    assert np.array_equal(found[0, 0].round().numpy(), values >> 4)
    glass = smooth_image(0, 8, 8).convert("RGBA")
    glass.putalpha(smooth_image(1, 8, 8).convert("L"))
    glass.save(tmp_path / "glass.png")
    monkeypatch.setattr(module, "INPUT_NC", 4)
    monkeypatch.setattr(module, "OUTPUT_NC", 4)
    module.write_picture(module.read_picture(str(tmp_path / "glass.png")), str(tmp_path / "again.png"))
    again = np.asarray(Image.open(tmp_path / "again.png")).astype(int)
    assert again.shape == (8, 8, 4) and np.abs(again - np.asarray(glass)).max() <= 1  # rounded down


# -- in a checkout --------------------------------------------------------------
def test_slim_test_in_the_bundled_host(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(exported / "out")])
    monkeypatch.delitem(sys.modules, "models.slim_test_model", raising=False)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, size in (("G", 32), ("U", 128)):
        smooth_image(3, size, size).save(pictures / "a.png")
        run = (
            "--name",
            f"only_{name}",
            "--results_dir",
            tmp_path,
            "--checkpoints_dir",
            tmp_path,
            "--gpu_ids",
            -1,
        )
        choice = () if name == "G" else ("--slim", "slim_U.py", "--eval")
        assert run_test("--model", "slim_test", *choice, "--dataroot", pictures, *run) == 0
        module = imported(exported / "out" / f"slim_{name}.py")
        shown = np.asarray(Image.open(next((tmp_path / f"only_{name}").rglob("a_fake.png")))).astype(int)
        translated = output(module.load(eval=name == "U"), module.read_picture(str(pictures / "a.png")))
        module.write_picture(translated, str(tmp_path / "direct.png"))
        direct = np.asarray(Image.open(tmp_path / "direct.png")).astype(int)
        assert set(np.unique(shown - direct)) == {0, 1}  # the bundled host rounds, upstream rounds down


def test_slim_test_in_a_host_that_initialises_later(exported, monkeypatch):
    class BaseModel:
        """As before 2019: made without options, then initialised."""

        def initialize(self, opt):
            self.device, self.model_names = torch.device("cpu"), []

    monkeypatch.setitem(sys.modules, "models.base_model", types.SimpleNamespace(BaseModel=BaseModel))
    model = imported(exported / "out" / "slim_test_model.py").SlimTestModel()
    model.initialize(types.SimpleNamespace(slim="slim_G.py"))
    model.set_input({"A": torch.zeros(1, 3, 32, 32), "A_paths": ["a.png"]})
    model.forward()
    assert model.name() == "SlimTestModel" and model.model_names == [] and model.image_paths == ["a.png"]
    assert torch.equal(model.fake, imported(exported / "out" / "slim_G.py").load()(model.real))


# -- the command ------------------------------------------------------------------
def test_runs_by_name_folder_and_network(tmp_path, capsys):
    make_run(tmp_path, "small", budget=0.3, stems=())
    make_cycle_run(tmp_path, "cycle")
    checkpoints = tmp_path / "checkpoints"
    by_name, _ = export(capsys, "small", "--checkpoints_dir", checkpoints, "--output", tmp_path / "1")
    by_folder, _ = export(capsys, checkpoints / "small", "--output", tmp_path / "2")
    assert [path.read_bytes() for path in by_name] == [path.read_bytes() for path in by_folder]
    assert [path.name for path in by_name] == ["slim_G.pth", "slim_G.py", "slim_test_model.py"]
    both, notes = export(capsys, checkpoints / "cycle", "--output", tmp_path / "3")
    assert [path.stem for path in both[1::2]] == ["slim_G_A", "slim_G_B"] and notes == ""
    assert 'SLIM = "slim_G_A.py"' in both[-1].read_text()
    one, _ = export(capsys, checkpoints / "cycle", "--network", "G_B", "--output", tmp_path / "4")
    assert [path.name for path in one] == ["slim_G_B.pth", "slim_G_B.py", "slim_test_model.py"]
    assert imported(one[1]).TRAINED_ON == (32, 32)
    assert "From latest_net_G_B.pth of the run cycle; written by" in imported(one[1]).__doc__


def test_the_search_is_written_at_full_size(tmp_path, capsys):
    path = tmp_path / "latest_net_G.pth"
    generator = save_weights(path, "resnet_6blocks", slim=False)
    files, notes = export(capsys, path, "--output", tmp_path / "out")
    assert notes == "note: G: the search is not over; it is written as it is now\n"
    module = imported(files[1])
    assert module.STEM == 8 and "at full size" in module.__doc__.splitlines()[0]
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(output(module.load(), x), output(generator, x))


@pytest.mark.parametrize("options", [None, "--no_dropout", ""])
def test_dense_weights_of_upstream(options, tmp_path, capsys):
    path = tmp_path / "run" / "latest_net_G.pth"
    path.parent.mkdir()
    generator = build_generator(3, 3, 4, "unet_128", "batch", options != "--no_dropout")
    torch.save({f"module.{key}": value for key, value in generator.state_dict().items()}, path)
    if options is not None:
        lines = [option_line("fineSize", 128, 256), option_line("no_dropout", options == "--no_dropout")]
        (path.parent / "opt.txt").write_text("".join(lines))
    files, notes = export(capsys, path, "--output", tmp_path / "out")
    assert len(notes.splitlines()) == (2 if options is None else 0)
    module = imported(files[1])
    assert (() if options == "--no_dropout" else (4, 5)) == module.DROPOUT
    assert ((256, 256) if options is None else (128, 128)) == module.TRAINED_ON
    x = torch.rand(1, 3, 128, 128)
    assert torch.equal(output(module.load(), x), output(generator, x))


def test_names_cannot_break_the_file(tmp_path):
    path = tmp_path / 'odd """ \\" name\n' / "latest_net_G-1\u00e9.pth"
    save_weights(path, "resnet_6blocks")
    (path.parent / "train_opt.txt").write_text(option_line("crop_size", 32))
    files, _ = export_upstream(find_weights(str(path), tmp_path), tmp_path / "out")
    assert files[1].name == "slim_G_1_.py" and "odd ''' /' name" in imported(files[1]).__doc__


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nn.LeakyReLU(0.2, True)", "nn.ReLU(True)", "does not compute"),
        ("UP = (", "UP = (1, ", "does not load"),
        ("DOWN", "DONE", "does not compute"),
    ],
)
def test_nothing_is_left_that_does_not_prove_right(old, new, message, tmp_path, monkeypatch):
    path = tmp_path / "latest_net_G.pth"
    save_weights(path, "unet_128")
    text = exporter.file_text
    if old == "DOWN":  # weights that are not those of the generator
        monkeypatch.setattr(
            exporter,
            "save_tensors",
            lambda state, where: torch.save({k: v * 1.0001 for k, v in state.items()}, where),
        )
    else:
        monkeypatch.setattr(exporter, "file_text", lambda *given: text(*given).replace(old, new))
    with pytest.raises(CheckpointError, match=f"slim_G.py {message}"):
        export_upstream({"G": path}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path, capsys):
    own, damaged, critic = (tmp_path / f"{name}.pth" for name in ("own", "damaged", "critic"))
    compression = Compression(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)),
        torch.rand(1, 3, 8, 8),
        budget=0.5,
        search_steps=1,
    )
    compression.slim()
    compression.save(own)
    damaged.write_bytes(b"half")
    torch.save(nn.Linear(1, 1).state_dict(), critic)
    make_run(tmp_path, "dense", stems=())
    run = tmp_path / "checkpoints" / "dense"
    (tmp_path / "file").write_text("")
    cases = [
        ((own,), "Sequential, whose source.*build="),
        ((damaged,), "damaged.pth cannot be read"),
        ((critic,), "critic.pth fits none of"),
        ((tmp_path / "none.pth",), "none.pth is not there"),
        (("none", "--checkpoints_dir", tmp_path), "no run 'none'"),
        ((run, "--network", "G_A"), "--network G_A: .* has G"),
        ((run, "--output", tmp_path / "file" / "out"), "--output .* cannot be made"),
    ]
    for arguments, message in cases:
        output = () if "--output" in arguments else ("--output", tmp_path / "out")
        assert main(["export-upstream", *map(str, arguments), *map(str, output)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and not (tmp_path / "out").exists()
        assert re.search(message, err), err
