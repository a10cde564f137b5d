"""What the doctor says of made-up checkouts of every age, in made-up environments."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from conftest import ROOT
from test_checkout import AGES, coronet, hashes, make_checkout

from coronet_plugin.checkout import doctor
from coronet_plugin.checkout.command import commands
from coronet_plugin.checkout.doctor import Environment, examine
from coronet_plugin.checkout.install import SHIM, install, read_checkout
from coronet_plugin.errors import OptionError

BARE = Environment(python="3.11.7", torch="2.13.0+cpu", cuda=False, absent=frozenset({"visdom"}))
RICH = Environment(python="3.11.7", torch="2.13.0+cu130", cuda=True, imresize=True)


def said(path, env: Environment = BARE) -> dict[str, tuple[str, str]]:
    """Status and text of each check, by name."""
    return {check.name: (check.status, check.text) for check in examine(read_checkout(path), env)}


# age: warnings without CUDA, visdom and old scipy; parts of the commands, absent parts of them
SAID = {
    "classic": (
        {"device", "visdom", "imresize", "--norm none"},
        {"--which_model_netG unet_256", "--niter 100", "--gpu_ids -1", "--display_id -1"},
        {"--netG", "--n_epochs"},
    ),
    "late-2018": (
        {"device", "visdom", "imresize", "--norm none"},
        {"--netG", "--niter_decay 100"},
        {"--n_epochs"},
    ),
    "2019": ({"device", "visdom", "imresize"}, {"--niter"}, {"--n_epochs"}),
    "2020": ({"device", "visdom"}, {"--n_epochs 100", "--n_epochs_decay 100"}, {"--niter"}),
    "2021": ({"device", "visdom", "--use_wandb"}, {"--n_epochs"}, set()),
    "2022": ({"device", "visdom"}, {"--n_epochs"}, set()),
    "2025-07": ({"device", "checkpoints"}, {"--gpu_ids -1"}, {"--display_id"}),
    "2025-08": ({"torchrun", "--norm syncbatch"}, {"--n_epochs"}, {"--gpu_ids", "--display_id"}),
    "cut": ({"device", "visdom", "checkpoints"}, {"--coronet_base cut", "--epoch_count NEXT_EPOCH"}, set()),
    "ganilla": ({"device", "visdom", "imresize", "--norm none"}, {"--netG", "--niter"}, {"--n_epochs"}),
}


@pytest.mark.parametrize("age", SAID)
def test_warnings_and_commands_of_each_age(tmp_path, age):
    warnings, there, not_there = SAID[age]
    checkout = read_checkout(make_checkout(tmp_path, age, poison=True))
    checks = examine(checkout, BARE)
    assert {c.name for c in checks if c.status == "warn"} == {*warnings, "shim"}
    assert not [c for c in checks if c.status == "no"]
    typed = commands(checkout, BARE)
    assert ("shim" in typed) == ("imresize" not in warnings)
    for way, lines in typed.items():
        text = " ".join(lines.values())
        assert all(part in text for part in there) and not any(part in text for part in not_there)
        assert all("--model coronet" in line for line in lines.values())
        assert text.startswith("python -m coronet_plugin train.py" if way == "runner" else "python train.py")


@pytest.mark.parametrize("age", SAID)
def test_little_to_say_where_everything_is_there(tmp_path, age):
    install(make_checkout(tmp_path, age))
    allowed = {"--norm none", "--use_wandb", "checkpoints", "torchrun", "--norm syncbatch"}
    checks = examine(read_checkout(tmp_path), RICH)
    assert {c.name for c in checks if c.status != "ok"} <= allowed
    assert "--gpu_ids" not in str(commands(read_checkout(tmp_path), RICH))


def test_a_hopeless_checkout_gets_one_line_and_no_commands(tmp_path, capsys):
    make_checkout(tmp_path, "too-old")
    assert coronet("doctor", tmp_path) == 1
    out = capsys.readouterr().out
    assert "no   version" in out and "any training loop" in out and "--model" not in out


@pytest.mark.parametrize(
    ("age", "change", "name", "text"),
    [
        ("2021", {"absent": frozenset({"wandb"})}, "wandb", "pip install wandb"),
        ("2022", {"absent": frozenset({"PIL"})}, "packages", "pip install pillow"),
        ("2025-07", {"compiler": False}, "torch.compile", "C++ compiler"),
        ("2022", {"torch": "2.0.1"}, "Python", "2.1 or newer"),
    ],
)
def test_what_the_environment_lacks(tmp_path, age, change, name, text):
    make_checkout(tmp_path, age)
    assert said(tmp_path)[name if name == "Python" else "version"][0] == "ok"
    status, found = said(tmp_path, replace(BARE, **change))[name]
    assert status == "no" and text in found


def test_torchvision_that_does_not_fit(tmp_path):
    make_checkout(tmp_path, "2022")
    env = replace(BARE, torchvision="RuntimeError: operator torchvision::nms does not exist")
    assert "torchvision" not in said(tmp_path, env)  # this checkout does not import it
    (tmp_path / "train.py").write_text("import torchvision.transforms as transforms\n")
    status, text = said(tmp_path, env)["torchvision"]
    assert status == "no" and "nms" in text


def test_missing_scipy_is_no_obstacle_where_only_imresize_is_wanted(tmp_path):
    make_checkout(tmp_path, "2019")
    found = said(tmp_path, replace(BARE, absent=frozenset({"scipy", "visdom"})))
    assert found["imresize"][0] == "warn" and "packages" not in found


def edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "name", "status", "text"),
    [
        ("models/base_model.py", "def save_networks", "def save_nets", "BaseModel", "no", "no save_networks"),
        ("models/__init__.py", "importlib.import_module", "REGISTRY", "plug-in point", "warn", "by name"),
        ("train.py", "model.update_learning_rate()", "", "train.py", "warn", "update_learning_rate"),
        ("options/base_options.py", "--netG", "--coronet_budget", "options", "no", "--coronet_budget"),
        ("util/visualizer.py", "from PIL", "from PIL !", "util/visualizer.py", "no", "line 1"),
        ("models/pix2pix_model.py", "class Pix2Pix", "class Pics", "--model pix2pix", "warn", "pix2pixmodel"),
        ("models/pix2pix_model.py", "'G'", "'F'", "--model pix2pix", "ok", "--coronet_networks"),
        ("models/pix2pix_model.py", "self.model_names", "names", "--model pix2pix", "warn", "not told"),
    ],
)
def test_edits_that_matter(tmp_path, file, old, new, name, status, text):
    make_checkout(tmp_path, "2022")
    edit(tmp_path / file, old.replace("'", '"'), new.replace("'", '"'))
    found = said(tmp_path)
    assert found[name][0] == status and text in found[name][1]


def test_a_model_the_scripts_cannot_call_is_not_offered(tmp_path):
    make_checkout(tmp_path, "cut")
    method = "    def data_dependent_initialize(self):\n        pass\n"
    with (tmp_path / "models" / "cut_model.py").open("a") as file:
        file.write(method)
    found = said(tmp_path)
    assert "takes no data" in found["--model cut"][1] and found["model types"][0] == "warn"


def test_shim_states(tmp_path):
    make_checkout(tmp_path, "2022")
    assert said(tmp_path)["shim"][0] == "warn"
    install(tmp_path)
    assert said(tmp_path)["shim"] == ("ok", "installed and current")
    (tmp_path / SHIM).write_text((tmp_path / SHIM).read_text() + "# more\n")
    assert "updates it" in said(tmp_path)["shim"][1]
    (tmp_path / SHIM).write_text("class CoronetModel: pass\n")
    assert said(tmp_path)["shim"][0] == "no"


def test_an_epoch_that_is_not_the_latest_by_default(tmp_path):
    make_checkout(tmp_path, "2022")
    edit(tmp_path / "options" / "base_options.py", "default='latest'", "default='100'")
    lines = commands(read_checkout(tmp_path), BARE)["shim"]
    assert "--epoch latest" in lines["test"] and "--epoch latest" in lines["continue"]
    assert "--epoch latest" not in lines["train"]


def test_base(tmp_path):
    checkout = read_checkout(make_checkout(tmp_path, "2022"))
    assert "--coronet_base pix2pix" in commands(checkout, BARE, "pix2pix")["shim"]["train"]
    for base in ("nope", "test"):  # which has nothing to train
        with pytest.raises(OptionError, match=rf"--base {base}: this checkout has pix2pix$"):
            commands(checkout, BARE, base)


def test_json_says_all_of_it(tmp_path, capsys):
    before = hashes(make_checkout(tmp_path, "2022", poison=True))
    code = coronet("doctor", tmp_path, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "2022" and facts["works"] == (code == 0)
    assert {c["status"] for c in facts["checks"]} <= {"ok", "warn", "no"}
    assert facts["commands"]["runner"]["test"].startswith("python -m coronet_plugin test.py")
    assert hashes(tmp_path) == before


def test_the_text_shows_each_check_and_one_way_to_type_it(tmp_path, capsys):
    install(make_checkout(tmp_path, "2022"))
    coronet("doctor", tmp_path)
    text = capsys.readouterr().out
    assert "shim is installed" in text and "\n  python train.py" in text
    assert "without the shim: python -m coronet_plugin" in text
    assert all(len(line) <= 112 for line in text.splitlines()[1:])


def test_the_bundled_host_works(capsys):
    assert coronet("doctor", ROOT) == 0
    text = capsys.readouterr().out
    assert "built in" in text and " warn " not in text and "  python train.py" in text


def test_the_environment_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "only_a_folder").mkdir()  # as wandb leaves one of its own name
    monkeypatch.syspath_prepend(tmp_path)
    env = doctor.environment(["PIL", "sys", "only_a_folder", "no_such_package"])
    assert env.absent - {"visdom"} == {"only_a_folder", "no_such_package"}
    assert env.torch[0].isdigit() and env.python.startswith("3.")


def test_every_age_is_covered():
    assert {*SAID, "too-old"} == AGES.keys()
