"""Families of generators: registered by anybody, found by every command, never imported from a file."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import ROOT, paired_folder, run_test, run_train
from run_helpers import ARCHITECTURE, make_run, option_line
from torch import nn

from coronet_plugin import CheckpointError, Compression, DataError, OptionError, Spec, cost_of, load_generator
from coronet_plugin.benchmark.entries import read_entries
from coronet_plugin.cli import main
from coronet_plugin.evaluation.features import MissingWeights
from coronet_plugin.generators import Family, family
from coronet_plugin.generators.config import checked
from coronet_plugin.generators.registry import FAMILIES, families, read_architecture
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.inspection.source import inspect_weights
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.runs.run import find_run
from coronet_plugin.training import host
from models.networks import check_image_sizes

DOCS = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
STOCK = tuple(FAMILIES)


def forget_families() -> None:
    """As in a new process: only the stock families are registered."""
    for name in FAMILIES.keys() - set(STOCK):
        del FAMILIES[name]
    for name in [name for name in sys.modules if name.startswith("coronet_user_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def _only_stock_families() -> Iterator[None]:
    yield
    forget_families()


@pytest.fixture
def sketch_file(tmp_path: Path) -> Path:
    """The module of docs/families.md."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, re.S)
    path = tmp_path / "sketch_family.py"
    path.write_text(code)
    return path


def coronet(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """What ``coronet`` prints with these words, in as good as a new process."""
    forget_families()
    assert main([*map(str, words)]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


# -- the example of the docs -----------------------------------------------------
@pytest.fixture
def sketched(sketch_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the docs after those two that train and test were run, at toy size."""
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(r"```bash\n(.*?)```", DOCS, re.S)
    commands = [
        shlex.split(line)
        for line in text.replace("datasets/mine", str(paired_folder(tmp_path, 2, 32))).splitlines()
    ]
    toy = "--load_size 32 --crop_size 32 --num_threads 0".split()
    short = "--ngf 16 --ndf 4 --n_epochs 1 --n_epochs_decay 1 --display_id 0 --no_html --coronet_budget 0.5".split()
    assert [command[:2] for command in commands[:2]] == [["python", "train.py"], ["python", "test.py"]]
    assert run_train(*commands[0][2:], *toy, *short) == 0
    forget_families()
    assert run_test(*commands[1][2:], *toy) == 0
    return commands[2:]


def test_the_example_of_the_docs_runs_as_written(sketched, capsys, tmp_path):
    spec = Spec.read(tmp_path / "checkpoints" / "sketched" / "latest_net_G.json")
    assert spec.architecture == {"netG": "sketch", "input_nc": 3, "output_nc": 3, "ngf": 16, "layers": 3}
    assert len(list((tmp_path / "results" / "sketched").rglob("*fake_B.png"))) == 2
    capsys.readouterr()
    out = [coronet(capsys, *command[1:]) for command in sketched]
    assert (
        "sketch, input_nc 3, output_nc 3, ngf 16, layers 3, budget 0.5 of the MACs" in out[0]
        and " of 16 " in out[0]
    )
    files = [Path(line) for line in out[1].splitlines()]
    record = json.loads(next(path for path in files if path.suffix == ".json").read_text())
    assert record["architecture"] == spec.architecture and record["check"]["accepted"]


def test_every_command_takes_the_example_s_run(sketched, capsys, tmp_path, monkeypatch):
    def none_here(*_: object) -> None:
        raise MissingWeights("not here")

    monkeypatch.setattr("coronet_plugin.evaluation.features.load_extractor", none_here)
    capsys.readouterr()
    given = ("--coronet_family", "sketch_family.py")
    timed = ("--runtimes", "torch", "--repeats", 1, "--warmup", 1, "--threads", 1)
    out = coronet(capsys, "bench", "sketched", "sketch@0.5", *given, *timed)
    assert "uniform width, budget 0.5" in out
    coronet(
        capsys,
        "compare",
        "sketched",
        *given,
        "--repeats",
        1,
        "--no_fid",
        "--no_memory",
        "--runtimes",
        "torch",
    )
    spec = Spec.read(tmp_path / "checkpoints" / "sketched" / "latest_net_G.json")
    page = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    facts = page["generators"]["G"]["runs"]
    assert facts["sketched"]["macs"] == spec.slim["macs"] and facts["sketched"]["latency"]
    assert "SSIM" in coronet(capsys, "evaluate", "sketched", *given)
    error = coronet(capsys, "export-upstream", "sketched", *given, "--output", tmp_path / "out", code=2)
    assert "of the family sketch, which has no source that works without" in error and error.count("\n") == 1


def test_without_its_module_a_family_is_named_and_shown_from_the_spec(sketched, capsys):
    capsys.readouterr()
    assert "from the spec alone" in coronet(capsys, "inspect", "sketched")
    for command in (
        ["export", "sketched", "--to", "torchscript"],
        ["bench", "sketched"],
        ["export-upstream", "sketched", "--output", "out"],
    ):
        error = coronet(capsys, *command, code=2)
        assert (
            "--netG sketch is not known" in error and "--coronet_family" in error and error.count("\n") == 1
        )


def test_a_dense_file_of_the_example_is_recognised_by_its_tensors(sketch_file, tmp_path, capsys):
    weights = tmp_path / "latest_net_G.pth"
    coronet(
        capsys,
        "inspect",
        "sketch",
        "--coronet_family",
        sketch_file,
        "--ngf",
        6,
        "--kwargs",
        '{"layers": 2}',
        "--size",
        32,
    )
    found = FAMILIES["sketch"]
    wanted = checked(found.config, {"ngf": 6, "layers": 2, "input_nc": 1})
    torch.save(found.build(wanted).state_dict(), weights)
    assert read_generator("G", weights).config == wanted
    out = coronet(capsys, "inspect", weights, "--coronet_family", sketch_file)
    assert "sketch, input_nc 1, output_nc 3, ngf 6, layers 2" in out and "1 x 1 x 256 x 256" in out


def test_the_host_refuses_sizes_that_a_family_cannot_take(sketch_file, capsys):
    coronet(capsys, "inspect", "sketch", "--coronet_family", sketch_file, "--size", 32)
    testing = argparse.Namespace(netG="sketch", isTrain=False)
    check_image_sizes(testing, {(34, 32): ""})
    with pytest.raises(
        DataError, match="--netG sketch takes images with sides of multiples of 2 pixels, and got 33x32"
    ):
        check_image_sizes(testing, {(33, 32): ""})


def test_a_host_s_own_model_is_recognised_as_of_its_family(sketch_file, capsys):
    coronet(capsys, "inspect", "sketch", "--coronet_family", sketch_file, "--size", 32)
    found = FAMILIES["sketch"]
    generator = found.build(checked(found.config, {"ngf": 5}))
    opt = argparse.Namespace(netG="something_else", ngf=64, no_dropout=False, crop_size=48)
    assert host.architecture(generator, opt) == {
        "netG": "sketch",
        "input_nc": 3,
        "output_nc": 3,
        "ngf": 5,
        "layers": 3,
    }
    (example,) = host.example(generator, opt)
    assert example.shape == (1, 3, 48, 48)
    edited = type("Edited", (type(generator),), {})(3, 3, 5, 3)  # the same tensors, perhaps another forward
    assert host.architecture(edited, opt) == {"class": "Edited"}
    generator.up = nn.ConvTranspose2d(10, 3, 6, stride=2, padding=2)  # an edited one is not of the family
    assert host.architecture(generator, opt) == {"class": "SketchGenerator"}


# -- names of generators are in one place ---------------------------------------
def test_names_of_stock_generators_are_in_their_families_alone():
    names = re.compile("|".join([*STOCK, "RESNET_BLOCKS", "UNET_DOWNS"]))
    package = ROOT / "coronet_plugin"
    found = {
        str(path.relative_to(package)): len(names.findall(path.read_text(encoding="utf-8")))
        for path in sorted(package.rglob("*.py"))
    }
    assert {path: count for path, count in found.items() if count} == {
        "generators/blurred.py": 3,
        "generators/resnet.py": 5,
        "generators/unet.py": 2,
    }


def test_help_and_errors_name_the_families(capsys):
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in STOCK)
    with pytest.raises(
        OptionError, match="choose one of " + ", ".join(sorted(STOCK, key=list(families()).index))
    ):
        build_generator(3, 3, 4, "nothing")
    for name, one in families().items():
        assert one.name == name and one.about.endswith(".") and one.default_config()


# -- nothing in a file is imported ----------------------------------------------
@pytest.mark.parametrize(
    "architecture",
    [
        {"netG": "evil_family"},
        {"netG": "evil_family.py"},
        {"netG": "evil_family:Generator"},
        {"class": "evil_family.Generator"},
        {"netG": "resnet_6blocks", "module": "evil_family"},
        {**ARCHITECTURE, "coronet_family": "evil_family"},
        {**ARCHITECTURE, "norm": "evil_family.Norm"},
    ],
)
def test_a_module_that_a_spec_names_is_not_imported(architecture, tmp_path, monkeypatch, capsys):
    (tmp_path / "evil_family.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('proof').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    make_run(tmp_path, "slim", budget=0.5)
    weights = tmp_path / "checkpoints" / "slim" / "latest_net_G.pth"
    spec = json.loads(weights.with_suffix(".json").read_text())
    spec["architecture"] = architecture
    spec["options"] = {"coronet_base": "pix2pix", "coronet_family": "evil_family"}
    weights.with_suffix(".json").write_text(json.dumps(spec))
    for read in (load_generator, lambda path: read_generator("G", path)):
        with pytest.raises(CheckpointError) as caught:
            read(weights)
        assert "\n" not in str(caught.value)
    for command in (
        ["export", weights, "--to", "torchscript"],
        ["bench", weights],
        ["export-upstream", weights, "--output", "out"],
    ):
        assert main([str(word) for word in command]) == 2
    main(["inspect", str(weights)])  # may show the spec
    root = paired_folder(tmp_path, 1, 32)
    with contextlib.suppress(SystemExit):  # what the run was trained with is not imported again either
        run_test(
            "--dataroot",
            root,
            "--name",
            "slim",
            "--model",
            "coronet",
            "--num_threads",
            0,
            "--crop_size",
            32,
            "--load_size",
            32,
        )
    assert not (tmp_path / "proof").exists() and "evil_family" not in sys.modules
    assert main(["inspect", str(weights), "--coronet_family", "evil_family"]) is not None
    assert (tmp_path / "proof").exists()  # it would have been noticed
    del sys.modules["evil_family"]


def test_an_explicit_build_needs_no_family(tmp_path):
    generator = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    compression = Compression(
        generator,
        torch.rand(1, 3, 8, 8),
        budget=0.5,
        search_steps=1,
        architecture={"netG": "gone", "width": 16},
    )
    compression.slim()
    compression.save(tmp_path / "a.pth")

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))

    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(load_generator(tmp_path / "a.pth", build=build)(x), generator(x))
    with pytest.raises(CheckpointError, match="--netG gone is not known"):
        load_generator(tmp_path / "a.pth")


# -- one opener -------------------------------------------------------------------
@pytest.mark.parametrize("dropout", [True, False, None])
def test_all_find_the_same_dropout_in_a_dense_unet(dropout, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "latest_net_G.pth"
    torch.save(build_generator(3, 3, 4, "unet_128", "batch", bool(dropout)).state_dict(), path)
    if dropout is not None:
        lines = [
            option_line("crop_size", 128),
            option_line("no_dropout", not dropout),
            option_line("netG", "unet_128"),
        ]
        (folder / "train_opt.txt").write_text("".join(lines))
    wanted = dropout is not False  # pix2pix's default where nothing tells

    def count(generator: nn.Module) -> int:
        return sum(isinstance(module, nn.Dropout) for module in generator.modules())

    stored = read_generator("G", path)
    assert count(stored.generator) == 2 * wanted and stored.dropout_known is (dropout is not None)
    assert inspect_weights("G", path).about.endswith("with dropout" if wanted else "no dropout")
    (subject,) = read_entries([str(path)], (128, 128))
    assert count(subject.generator) == 2 * wanted
    assert main(["export-upstream", str(path), "--output", str(tmp_path / "out")]) == 0
    assert f"DROPOUT = {(4, 5) if wanted else ()}" in (tmp_path / "out" / "slim_G.py").read_text()
    if dropout is not None:
        assert count(find_run("run", tmp_path).load_generator("G")) == 2 * wanted


def test_a_slim_file_that_lost_its_spec_is_refused_by_all_in_the_same_words(tmp_path, capsys):
    make_run(tmp_path, "slim", budget=0.4, stems=())
    weights = tmp_path / "checkpoints" / "slim" / "latest_net_G.pth"
    wanted = read_generator("G", weights)
    assert wanted.slim == cost_of(wanted.generator, wanted.example()).as_dict() and wanted.spec is not None
    weights.with_suffix(".json").unlink()
    errors = set()
    for command in (
        ["inspect"],
        ["export", "--to", "torchscript"],
        ["bench"],
        ["export-upstream", "--output", tmp_path / "out"],
    ):
        assert main([*map(str, [command[0], weights, *command[1:]])]) == 2
        errors.add(capsys.readouterr().err)
    (error,) = errors
    assert "fits none of" in error and "a slim generator needs its spec" in error


def test_the_options_of_a_run_decide_between_families_with_the_same_tensors(tmp_path):
    @family("twin")
    class Twin(Family):
        """A ResNet that is given out under another name."""

        config = type(FAMILIES["resnet_6blocks"].default_config())

        def default_config(self):
            return FAMILIES["resnet_6blocks"].default_config()

        def build(self, config):
            return FAMILIES["resnet_6blocks"].build(config)

        def deduce(self, state):
            return FAMILIES["resnet_6blocks"].deduce(state)

    make_run(tmp_path, "dense", stems=())
    weights = tmp_path / "checkpoints" / "dense" / "latest_net_G.pth"
    assert read_generator("G", weights).family.name == "resnet_6blocks"
    options = weights.parent / "train_opt.txt"
    options.write_text(options.read_text().replace("resnet_6blocks", "twin"))
    assert read_generator("G", weights).family.name == "twin"


# -- what a family may be -----------------------------------------------------------
@dataclass(frozen=True)
class Plain:
    input_nc: int = 3
    slope: float = 0.2
    name: str = "a"
    wide: bool = False

    def __post_init__(self) -> None:
        if self.input_nc < 1:
            raise ValueError("there are no such images")


class Blur(nn.Module):
    """A kernel that no state_dict has: a buffer that is not saved, and a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.full((16, 1, 3, 3), 1 / 9), persistent=False)
        self.shift = torch.tensor(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.kernel[: x.shape[1]], padding=1, groups=x.shape[1]) + self.shift


def test_tensors_that_no_file_has_are_as_they_were_built(tmp_path):
    @family("blurred")
    class Blurred(Family):
        """Convolutions with a fixed blur between them."""

        config = Plain

        def build(self, config):
            return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Blur(), nn.Conv2d(16, 3, 3, padding=1))

    generator = FAMILIES["blurred"].build(Plain())
    architecture = FAMILIES["blurred"].architecture(Plain())
    Compression(
        generator, torch.rand(1, 3, 8, 8), search_steps=9, budget=1.0, architecture=architecture
    ).save(tmp_path / "a.pth")
    state, x = torch.get_rng_state(), torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_generator(tmp_path / "a.pth")(x), generator(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_generators_of_two_inputs_are_inspected_and_loaded_and_not_exported(tmp_path, capsys):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)
            self.last = nn.Conv2d(16, 3, 3, padding=1)

        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.last(torch.cat([self.first(image), self.second(mask)], 1))

    @family("masked")
    class Masked(Family):
        """An image and a mask."""

        config, inputs = Plain, 2

        def build(self, config):
            return Two()

        def example(self, config, size):
            return torch.zeros(1, 3, *size), torch.ones(1, 1, *size)

    found = FAMILIES["masked"]
    generator = found.build(Plain())
    assert len(host.example(generator, argparse.Namespace(netG="masked", crop_size=16))) == 2
    compression = Compression(
        generator,
        found.example(Plain(), (8, 8)),
        search_steps=1,
        budget=0.7,
        architecture=found.architecture(Plain()),
    )
    compression.slim()
    weights = tmp_path / "latest_net_G.pth"
    compression.save(weights)
    assert main(["inspect", "masked", "--size", "16"]) == main(["inspect", str(weights)]) == 0
    assert "1 x 3 x 8 x 8" in capsys.readouterr().out
    x = found.example(Plain(), (8, 8))
    assert torch.equal(load_generator(weights)(*x), generator(*x))
    for command in (
        ["export", weights, "--to", "torchscript"],
        ["bench", weights],
        ["bench", "masked"],
        ["export-upstream", weights, "--output", tmp_path],
    ):
        assert main([*map(str, command)]) == 2
        error = capsys.readouterr().err
        assert "take 2 inputs" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"input_nc": "3"}, "architecture.input_nc: expected a whole number"),
        ({"input_nc": True}, "architecture.input_nc"),
        ({"input_nc": 2**20 + 1}, "at most 1048576"),
        ({"input_nc": 0}, "unusable architecture: there are no such images"),
        ({"slope": float("nan")}, "architecture.slope"),
        ({"slope": 10**400}, "architecture.slope"),
        ({"wide": 1}, "architecture.wide: expected true or false"),
        ({"name": None}, "architecture.name: expected text"),
        ({"surprise": 1}, "surprise is missing or unknown"),
    ],
)
def test_a_config_is_checked_before_it_is_used(values, match):
    @family("plain")
    class PlainFamily(Family):
        """Nothing but a config."""

        config = Plain

    assert read_architecture({"netG": "plain", "slope": 1, "wide": True})[1] == Plain(slope=1.0, wide=True)
    with pytest.raises(OptionError, match=match):
        read_architecture({"netG": "plain", **values})


def test_host_options_of_the_same_names_make_the_config():
    @family("plain")
    class PlainFamily(Family):
        """Nothing but a config."""

        config = Plain

    found = FAMILIES["plain"].from_options({"input_nc": "1", "wide": "True", "slope": "0.5", "lr": "3"})
    assert found == Plain(1, 0.5, "a", True)
    with pytest.raises(OptionError, match="--slope is 'steep', expected a number"):
        FAMILIES["plain"].from_options({"slope": "steep"})


def test_a_family_that_cannot_be_is_refused():
    class Mutable(Family):
        config = dataclass(type("Loose", (), {"__annotations__": {"a": int}, "a": 1}))

    class Odd(Family):
        config = dataclass(frozen=True)(type("Odd", (), {"__annotations__": {"a": list}, "a": None}))

    class Other(Family):
        config = Plain

    for name, kind, match in (
        ("x", Mutable, "frozen dataclass"),
        ("x", Odd, "Odd.a must be one of"),
        ("x", Family, "needs a config"),
        ("two words", Other, "no name of a family"),
        ("unet_256", Other, "two families are named unet_256"),
    ):
        with pytest.raises(OptionError, match=match):
            family(name)(kind)
    family("x")(Other)
    family("x")(Other)  # a module may be imported again


def test_a_module_that_does_not_import_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import not_there_at_all\n")
    for where, said in (
        (tmp_path / "broken.py", "ModuleNotFoundError"),
        (tmp_path / "gone.py", "is not there"),
        ("not.there", "cannot be imported"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["inspect", "unet_128", "--coronet_family", str(where)])
        error = capsys.readouterr().err
        assert (
            left.value.code == 2 and said in error and "--coronet_family" in error and error.count("\n") == 1
        )


def test_installed_packages_bring_families_and_a_broken_one_does_not_stop_the_others(sketch_file, tmp_path):
    for name, where in (("sketch", "sketch_family"), ("broken", "not_there_at_all")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[coronet.families]\n{name} = {where}\n")
    code = "import sys; from coronet_plugin.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "inspect", "sketch", "--ngf", "5", "--size", "16"]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ran = subprocess.run(command, env=path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "sketch" in ran.stdout and "1 x 3 x 16 x 16" in ran.stdout
    assert "broken = not_there_at_all" in ran.stderr and "update or uninstall" in ran.stderr
