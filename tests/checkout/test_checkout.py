"""Recognising checkouts and putting the shim into them, on small made-up checkouts of every age."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from coronet_plugin.checkout import command as checkout_command
from coronet_plugin.checkout import install as checkout
from coronet_plugin.checkout.install import (
    MARKER,
    SHIM,
    SHIM_TEXT,
    TEST_SHIM,
    CheckoutError,
    install,
    read_checkout,
    uninstall,
)

OLDEST = "which_model_netG which_direction which_epoch batchSize fineSize no_lsgan niter niter_decay gpu_ids display_id"
LATE_2018 = "netG direction epoch batch_size fineSize no_lsgan niter niter_decay gpu_ids display_id"
OF_2019 = "netG direction epoch batch_size crop_size gan_mode niter niter_decay gpu_ids display_id"
OF_2020 = "netG direction epoch batch_size crop_size gan_mode n_epochs n_epochs_decay gpu_ids display_id"
WITHOUT_VISDOM = OF_2020.replace(" display_id", " use_wandb")
NEWEST = WITHOUT_VISDOM.replace(" gpu_ids", "")

AGES = {
    "classic": {"options": OLDEST, "initialize": True, "imresize": True, "norm_none": "None"},
    "late-2018": {"options": LATE_2018, "initialize": True, "imresize": True, "norm_none": "None"},
    "2019": {"options": OF_2019, "imresize": True},
    "2020": {"options": OF_2020},
    "2021": {"options": OF_2020 + " use_wandb", "wandb": "import wandb"},
    "2022": {
        "options": OF_2020 + " use_wandb",
        "wandb": "try:\n    import wandb\nexcept ImportError:\n    pass",
    },
    "2025-07": {"options": WITHOUT_VISDOM, "wandb": "import wandb", "setup": "torch.compile(self.netG)"},
    "2025-08": {"options": NEWEST, "wandb": "import wandb", "main": "opt.device = 'cpu'"},
    "cut": {"options": OF_2020, "methods": ("data_dependent_initialize", "parallelize"), "model": "cut"},
    "ganilla": {
        "options": LATE_2018 + " fpn_weights",
        "initialize": True,
        "imresize": True,
        "norm_none": "None",
    },
    "too-old": {"options": OLDEST, "initialize": True, "lookup": "def create_model(opt):\n    pass"},
}
DEFAULTS = {
    "netG": "resnet_9blocks",
    "which_model_netG": "resnet_9blocks",
    "gpu_ids": "0",
    "display_id": 1,
} | dict.fromkeys(("niter", "niter_decay", "n_epochs", "n_epochs_decay"), 100)
METHODS = ("setup", "test", "save_networks", "load_networks", "update_learning_rate", "optimize_parameters")

LOOKUP = """
import importlib
from models.base_model import BaseModel

def find_model_using_name(name):
    library = importlib.import_module("models." + name + "_model")
    wanted = name.replace("_", "") + "model"
    classes = [c for n, c in vars(library).items() if n.lower() == wanted and issubclass(c, BaseModel)]
    return classes[-1]

def create_model(opt):
    return find_model_using_name(opt.model)(opt)
"""
MODEL = """
from models.base_model import BaseModel

class {title}Model(BaseModel):
    @staticmethod
    def modify_commandline_options(parser, is_train=True):
        parser.set_defaults(netG="unet_256")
        return parser

    def {start}(self, opt):
        self.model_names = ["G", "D"] if opt.isTrain else ["G"]
        self.optimizers = []
"""
TEST_MODEL = """
from models.base_model import BaseModel

class TestModel(BaseModel):
    def {start}(self, opt):
        self.model_names = ["G" + opt.model_suffix]
"""
TRAIN = """
import time
from options.train_options import TrainOptions
from models import create_model
from util.visualizer import Visualizer

if __name__ == "__main__":
    opt = TrainOptions().parse()
    {main}
    model = create_model(opt)
    model.setup(opt)
    model.set_input({{}})
    model.optimize_parameters()
    model.save_networks("latest")
    model.update_learning_rate()
"""


def make_checkout(root: Path, age: str, poison: bool = False) -> Path:
    """A checkout with the marks of an age and little else; poisoned ones cannot be imported."""
    marks = AGES[age]
    start, model = ("initialize" if "initialize" in marks else "__init__"), marks.get("model", "pix2pix")
    methods = (start, *METHODS, *marks.get("methods", ()))
    bodies = "".join(
        f"    def {name}(self, *args):\n        {marks.get('setup', 'pass') if name == 'setup' else 'pass'}\n"
        for name in methods
    )
    declared = "".join(
        f"        parser.add_argument('--{name}', default={DEFAULTS.get(name)!r})\n"
        for name in marks["options"].split()
    )
    files = {
        "models/__init__.py": marks.get("lookup", LOOKUP),
        "models/base_model.py": f"import torch\n\nclass BaseModel:\n{bodies}",
        "models/networks.py": f"def get_norm_layer(norm_type):\n    layer = {marks.get('norm_none', 'print')}\n    return layer\n",
        f"models/{model}_model.py": MODEL.format(title=model.title(), start=start),
        "models/test_model.py": TEST_MODEL.format(start=start),
        "options/__init__.py": "",
        "options/base_options.py": (
            "class BaseOptions:\n    def initialize(self, parser):\n"
            f"        parser.add_argument('--model', default={model!r})\n        parser.add_argument('--epoch', default='latest')\n{declared}"
        ),
        "options/train_options.py": "from .base_options import BaseOptions\n\nclass TrainOptions(BaseOptions):\n    pass\n",
        "util/__init__.py": "",
        "util/visualizer.py": f"from PIL import Image\n{marks.get('wandb', '')}\n"
        + ("from scipy.misc import imresize\n" if "imresize" in marks else ""),
        "train.py": TRAIN.format(main=marks.get("main", "pass")),
        "test.py": "from models import create_model\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("raise RuntimeError('imported')\n" * poison + text)
    return root


def hashes(root: Path) -> dict[str, str]:
    """Every file of a folder but the shims and compiled files."""
    ours = (root / SHIM, root / TEST_SHIM)
    files = (f for f in root.rglob("*") if f.is_file() and f.suffix != ".pyc" and f not in ours)
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def coronet(*words: object) -> int:
    """The subcommand ``words[0]`` with the other words."""
    command = next(c for c in checkout_command.COMMANDS if c.name == words[0])
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    return command.run(parser.parse_args([str(word) for word in words[1:]]))


@pytest.mark.parametrize("age", AGES)
def test_recognised_by_features_without_importing(tmp_path, age):
    found = read_checkout(make_checkout(tmp_path, age, poison=True))
    assert found.kind == age
    assert bool(found.why_not) == (age == "too-old")
    assert not found.unreadable


def test_the_bundled_host_is_recognised_and_left_alone(tmp_path, capsys):
    for part in ("models", "options"):  # a copy, lest a mistake here damages the real one
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    before = (tmp_path / SHIM).read_bytes()
    assert read_checkout(tmp_path).kind == "bundled"
    assert coronet("install", tmp_path) == 0
    assert "left as it is" in capsys.readouterr().out
    with pytest.raises(CheckoutError, match="not written by"):
        uninstall(tmp_path)
    assert (tmp_path / SHIM).read_bytes() == before


def test_options_models_and_packages_are_read(tmp_path):
    found = read_checkout(make_checkout(tmp_path, "classic"))
    assert found.options["which_model_netG"] == "resnet_9blocks" and found.options["niter"] == 100
    models = {model.name: model for model in found.models}
    assert models["pix2pix"].compressible and models["pix2pix"].networks == ("G", "D")
    assert models["pix2pix"].architecture == "unet_256"
    assert models["test"].generators == ("G",) and not models["test"].compressible
    assert found.required == {"time", "importlib", "torch", "PIL", "scipy"}


def test_conditional_imports_are_not_required(tmp_path):
    assert "wandb" not in read_checkout(make_checkout(tmp_path, "2022")).required
    (tmp_path / "wandb").mkdir()  # wandb keeps its runs in such a folder
    (tmp_path / "train.py").write_text("import wandb\n")
    assert "wandb" in read_checkout(tmp_path).required


@pytest.mark.parametrize(
    ("text", "problem", "generators"),
    [
        ("class OtherModel(BaseModel): pass", "no class of the name oddmodel", ()),
        ("class OddModel: pass", "not a subclass of BaseModel", ()),
        ("class OddModel(BaseModel)", "cannot be parsed: line 1", ()),
        ("class ODDModel(Pix2PixModel): pass", "", ("G",)),
        (
            "class OddModel(module.Pix2PixModel):\n  def f(self): self.model_names += ['G2', 'G' + s]",
            "",
            ("G2", "G"),
        ),
        ("OddModel = make(BaseModel)", "", ()),
        ("class OddModel(elsewhere.Model): pass", "", ()),
        ("from .pix2pix_model import Pix2PixModel as OddModel", "", ("G",)),
    ],
)
def test_model_types(tmp_path, text, problem, generators):
    make_checkout(tmp_path, "2022")
    (tmp_path / "models" / "odd_model.py").write_text(text)
    odd = next(model for model in read_checkout(tmp_path).models if model.name == "odd")
    assert problem in odd.problem and bool(problem) == bool(odd.problem)
    assert odd.generators == generators


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "nowhere", "not there"),
        (lambda root: make_checkout(root, "2022") / "train.py", "is a file"),
        (lambda root: root, "models/__init__.py, models/base_model.py, options/base_options.py"),
        (lambda root: make_checkout(root, "too-old"), "June 2018"),
        (lambda root: _folders(root, "deepliif/models/__init__.py"), "DeepLIIF"),
        (
            lambda root: _folders(make_checkout(root, "2022"), "distillers/a", "supernets/b"),
            "gan-compression",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_not_written_to(tmp_path, make, said):
    path = make(tmp_path)
    before = hashes(tmp_path)
    with pytest.raises(CheckoutError) as error:
        coronet("install", path)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert hashes(tmp_path) == before and not (tmp_path / SHIM).exists()


def _folders(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.mark.parametrize("age", [age for age in AGES if age != "too-old"])
def test_install_and_uninstall_touch_no_file_of_the_checkout(tmp_path, age, capsys):
    before = hashes(make_checkout(tmp_path, age))
    assert coronet("install", tmp_path) == 0
    assert (tmp_path / SHIM).read_text() == SHIM_TEXT
    assert "written" in capsys.readouterr().out
    coronet("install", tmp_path)
    assert "already there and current" in capsys.readouterr().out
    assert hashes(tmp_path) == before
    kept = _folders(
        tmp_path,
        "models/__pycache__/coronet_model.cpython-311.pyc",
        "models/test_model/__pycache__/__init__.cpython-311.pyc",
        "models/__pycache__/other.pyc",
        "checkpoints/run/latest_net_G.pth",
    )
    assert coronet("uninstall", kept) == 0
    left = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()}
    assert left == {*before, "models/__pycache__/other.pyc", "checkpoints/run/latest_net_G.pth"}
    assert not (tmp_path / TEST_SHIM).parent.exists()
    assert "nothing to remove" in uninstall(tmp_path)


def test_an_older_shim_is_updated(tmp_path):
    make_checkout(tmp_path, "2022")
    (tmp_path / SHIM).write_text(f"{MARKER}\nold = True\n")
    assert "updated" in install(tmp_path)
    assert (tmp_path / SHIM).read_text() == SHIM_TEXT


def test_the_second_file_is_added_to_an_older_installation_and_is_none_of_somebody_else(tmp_path):
    make_checkout(tmp_path, "2022")
    (tmp_path / SHIM).write_text(SHIM_TEXT)
    assert "updated" in install(tmp_path) and MARKER in (tmp_path / TEST_SHIM).read_text()
    (tmp_path / TEST_SHIM).write_text("class TestModel: pass\n")
    install(tmp_path)
    uninstall(tmp_path)
    assert (tmp_path / TEST_SHIM).read_text() == "class TestModel: pass\n"


@pytest.mark.parametrize("text", ["class CoronetModel: pass\n", ""])
def test_a_file_of_somebody_else_stays(tmp_path, text):
    make_checkout(tmp_path, "2022")
    (tmp_path / SHIM).write_text(text)
    for command in (install, uninstall):
        with pytest.raises(CheckoutError, match=r"coronet_model\.py"):
            command(tmp_path)
    assert (tmp_path / SHIM).read_text() == text


def test_a_dangling_link_is_not_written_through(tmp_path):
    make_checkout(tmp_path, "2022")
    (tmp_path / SHIM).symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(CheckoutError, match="not coronet-plugin's"):
        install(tmp_path)
    assert not (tmp_path / "elsewhere.py").exists()


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    make_checkout(tmp_path, "2022")
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(CheckoutError, match=r"cannot be written: Permission denied"):
        install(tmp_path)


def find_coronet(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Let the checkout in ``root`` look for ``--model coronet`` in a new process."""
    code = "import models; c = models.find_model_using_name('coronet'); print(c.__name__, c.__mro__[-2].__module__)"
    return subprocess.run(
        [sys.executable, *arguments, "-c", code],
        cwd=root,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("age", ["classic", "2025-08"])
def test_the_checkout_finds_the_model_type(tmp_path, age):
    install(make_checkout(tmp_path, age))
    found = find_coronet(tmp_path, PYTHONPATH=str(ROOT))
    assert found.stdout.split() == ["CoronetModel", "models.base_model"], found.stderr


def test_without_the_package_the_shim_says_what_to_install(tmp_path):
    install(make_checkout(tmp_path, "2022"))
    (tmp_path / "torch.py").write_text("")  # nothing else of this environment is needed
    found = find_coronet(tmp_path, "-S", PYTHONPATH="")
    assert found.returncode == 2
    assert "pip install" in found.stderr and len(found.stderr.splitlines()) == 1


def test_the_shim_has_one_name_that_can_be_taken_for_the_class():
    names = {}
    source = SHIM_TEXT.replace("from models.base_model import BaseModel", "class BaseModel: pass")
    exec(source, names)
    assert [name for name in names if name.lower() == "coronetmodel"] == ["CoronetModel"]


def test_every_kind_has_a_name():
    assert {*AGES, "bundled", "deepliif", "gan-compression", "none"} == checkout.KINDS.keys()
