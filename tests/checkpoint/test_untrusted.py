"""Files from strangers: never executed, never built before they are checked, refused in one line."""

from __future__ import annotations

import json
import pickle
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, paired_folder, run_test, run_train, smooth_image
from PIL import Image

from coronet_plugin import CheckpointError, Compression, Spec, example_input, load_generator
from coronet_plugin.checkpoint.tensors import read_tensors
from coronet_plugin.checkpoint.upstream import read_state_dict
from coronet_plugin.errors import DataError, UserError
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.runs.run import find_run
from data.image_folder import open_image
from util.html import HTML
from util.visualizer import TrainingPage, save_images

ARCHITECTURE = dict(netG="resnet_6blocks", input_nc=3, output_nc=3, ngf=8, norm="batch", use_dropout=False)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    generator = build_generator(**ARCHITECTURE)
    example = example_input(generator, 16)
    compression = Compression(generator, example, search_steps=1, budget=0.5, architecture=ARCHITECTURE)
    compression.slim()
    path = tmp_path_factory.mktemp("run") / "latest_net_G.pth"
    compression.save(path, {"netG": "resnet_6blocks", "ngf": 8})
    return path


@pytest.fixture
def weights(original, tmp_path) -> Path:
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(original.read_bytes())
    path.with_suffix(".json").write_bytes(original.with_suffix(".json").read_bytes())
    return path


def refused(call, *args, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        call(*args)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


# -- weight files -------------------------------------------------------------
class Malicious:
    """Pickled, it makes a file when it is read carelessly."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "plain pickle"])
def test_a_malicious_pickle_is_not_executed(tmp_path, weights, legacy):
    proof = tmp_path / "executed"
    if legacy:
        weights.write_bytes(pickle.dumps({"a": Malicious(proof)}))
    else:
        torch.save({"model.1.weight": torch.zeros(1), "x": Malicious(proof)}, weights)
    for read in (load_generator, read_state_dict, read_tensors):
        refused(read, weights, match="nothing but tensors|damaged")
    (tmp_path / "latest_coronet_state.pth").write_bytes(weights.read_bytes())
    from coronet_plugin.training import state as training_state

    refused(training_state.read, tmp_path / "latest_coronet_state.pth", match="nothing but tensors|damaged")
    assert not proof.exists()


def test_the_line_says_what_a_file_asked_for(tmp_path, weights):
    torch.save({"x": Malicious(tmp_path / "executed")}, weights)
    said = "asks for .*nothing but tensors and plain values is accepted"
    if torch.__version__.startswith("2.1."):  # whose own error does not name it
        said = "it holds more than tensors and plain values"
    refused(load_generator, weights, match=said)


def test_no_code_of_the_package_reads_pickles_otherwise():
    """Every torch.load says weights_only; exported code asks an old torch whether it can."""
    sources = [
        p
        for folder in ("coronet_plugin", "models", "data", "util", "options", "scripts")
        for p in ROOT.joinpath(folder).rglob("*.py")
    ]
    for path in sources:
        text = path.read_text()
        assert "pickle.load" not in text and "allow_pickle=True" not in text, path
        for call in text.split("torch.load(")[1:]:
            safe = "weights_only=True" in call[:120] or "**safely" in call[:120]
            assert safe or "written by the process that called this one" in call[:120], path


def test_an_archive_that_unpacks_to_more_than_it_is(weights):
    with zipfile.ZipFile(weights) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(weights, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content if "data/" not in name else bytes(10_000_000))
    assert weights.stat().st_size < 2_000_000
    refused(load_generator, weights, match="unpacks to more than it is")


def test_a_tensor_that_claims_more_than_is_stored(weights):
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, weights)
    refused(read_state_dict, weights, match=r"claims a tensor of shape \(1000000, 1000000\)")


def test_values_nested_without_end(tmp_path):
    value: list = []
    for _ in range(150):
        value = [value]
    torch.save({"a": value}, tmp_path / "a.pth")
    refused(read_tensors, tmp_path / "a.pth", match="nests")


# -- specs --------------------------------------------------------------------
HUGE = 10**12


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s["architecture"].update(ngf=HUGE), "architecture.ngf"),
        (lambda s: (s["architecture"].update(ngf=100_000), s["options"].clear()), "would need more than"),
        (lambda s: s["architecture"].update(ngf=-1), "architecture.ngf"),
        (lambda s: s["architecture"].update(ngf=True), "architecture.ngf"),
        (lambda s: s["architecture"].update(ngf="8"), "architecture.ngf"),
        (lambda s: s["architecture"].update(ngf=8.5), "architecture.ngf"),
        (lambda s: s["architecture"].update(input_nc=10_000), "image channels"),
        (lambda s: s["architecture"].update(netG="../../evil"), "not known"),
        (lambda s: s["architecture"].update(netG=["a"]), "architecture.netG"),
        (lambda s: s["architecture"].update(norm="__import__('os')"), "not known"),
        (lambda s: s["architecture"].update(ngf=64), "options.ngf"),
        (lambda s: (s["architecture"].update(ngf=64), s["options"].clear()), None),  # dense is larger, file is not
        (lambda s: s.update(architecture=[1]), "architecture"),
        (lambda s: s.update(tensors={f"t{i}": [1] for i in range(100_001)}), "tensors"),
        (lambda s: s["tensors"].update({"model.1.weight": [HUGE, 3, 7, 7]}), "whole number"),
        (lambda s: s["tensors"].update({"model.1.weight": [2**20, 2**20]}), "values in all"),
        (lambda s: s["tensors"].update({"model.1.weight": [-1, 3, 7, 7]}), "whole number"),
        (lambda s: s["tensors"].update({"model.1.weight": [1] * 9}), "a list of 9"),
        (lambda s: s["tensors"].update({"model.1.weight": 7}), "expected a shape"),
        (lambda s: s["tensors"].update({"model.1.weight": [8, 3, 7, 6]}), "does not fit"),
        (lambda s: s["tensors"].update({"more": [4, 4]}), "more values than"),
        (lambda s: s["tensors"].pop("model.1.weight"), "same tensors"),
        (lambda s: s["widths"].update({"model.2": {"forward": 3}}), "which is none"),
        (lambda s: s["widths"].update({"model.2": {"eps": 3}}), "which is none"),
        (lambda s: s["widths"].update({"model.2": {"num_features": HUGE}}), "whole number"),
        (lambda s: s["widths"].update({"__class__.x": {"num_features": 3}}), "not there"),
        (lambda s: s["sets"][0].update(kept=[HUGE]), "channel numbers"),
        (lambda s: s["sets"][0].update(kept=[0, 0]), "each once"),
        (lambda s: s["sets"][0].update(kept=[]), "at least one"),
        (lambda s: s["sets"][0].update(kept="all"), "expected a list"),
        (lambda s: s["sets"][0].update(channels=HUGE), "channels"),
        (lambda s: s["sets"][0].update(pinned={"a": 1}), "must be text"),
        (lambda s: s.update(sets=[1]), "expected name, channels"),
        (lambda s: s["dense"].update(macs=-5), "dense.macs"),
        (lambda s: s.update(input_size=[[HUGE]]), "input_size"),
        (lambda s: s.update(surprise=1), "surprise"),
        (lambda s: s.pop("slim"), "slim"),
        (lambda s: s.update(phase=["search"]), "phase"),
        (lambda s: s.update(options={"ngf": {"a": 1}}), "plain value"),
        (lambda s: s.update(version="2"), "version '2'"),
        (lambda s: s.update(version=3), "version 3.*update"),
        (lambda s: s.update(format=None), "not a coronet spec"),
    ],
)  # fmt: skip
def test_a_spec_that_no_generator_has(weights, monkeypatch, change, match):
    spec = json.loads(weights.with_suffix(".json").read_text())
    change(spec)
    weights.with_suffix(".json").write_text(json.dumps(spec))
    if match is None:
        assert load_generator(weights)
    else:
        refused(load_generator, weights, match=match)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        "1" * 10_000,
        '{"format": "coronet-spec", "version": 2, "phase": NaN}',
        "\x00",
        "null",
        "[]",
        "",
    ],
)
def test_text_that_is_no_spec(weights, text):
    weights.with_suffix(".json").write_text(text)
    refused(load_generator, weights, match="not a spec|not a coronet spec")


def test_a_file_larger_than_any_spec_is_not_read(weights):
    with weights.with_suffix(".json").open("r+b") as file:
        file.truncate(2**30)
    refused(load_generator, weights, match="larger than")


def test_bytes_that_are_no_text(weights):
    weights.with_suffix(".json").write_bytes(b"\xff\xfe\xff")
    refused(load_generator, weights, match="not valid JSON")


def test_nothing_is_built_at_the_size_a_spec_claims(weights):
    """The dense generator of ngf 1024 has 2.9 G weights; the file's own few thousand are all that is made."""
    spec = json.loads(weights.with_suffix(".json").read_text())
    spec["architecture"]["ngf"], spec["options"] = 1024, {}
    weights.with_suffix(".json").write_text(json.dumps(spec))
    generator = load_generator(weights)
    assert sum(p.numel() for p in generator.parameters()) < 100_000


def test_specs_of_version_1_are_read(weights):
    spec = json.loads(weights.with_suffix(".json").read_text())
    spec["version"] = 1
    spec.pop("quantization", None)
    weights.with_suffix(".json").write_text(json.dumps(spec))
    assert load_generator(weights) and Spec.read(weights.with_suffix(".json")).quantization == {}


def test_the_weights_of_another_save_are_refused(weights):
    state = torch.load(weights)
    state["model.1.weight"] = state["model.1.weight"][:-1].clone()
    torch.save(state, weights)
    refused(load_generator, weights, match="not of the same save")


def test_only_what_a_spec_may_say_becomes_an_option(weights, tmp_path):
    """A spec's options are defaults of test.py: it cannot choose folders or other programs' names."""
    spec = json.loads(weights.with_suffix(".json").read_text())
    out = tmp_path / "out"
    spec["options"] |= {"coronet_base": "pix2pix", "results_dir": str(out), "dataset_mode": "single", "crop_size": 32, "load_size": 32}  # fmt: skip
    folder = tmp_path / "c" / "a"
    folder.mkdir(parents=True)
    (folder / "latest_net_G.json").write_text(json.dumps(spec))
    (folder / "latest_net_G.pth").write_bytes(weights.read_bytes())
    root = paired_folder(tmp_path, 1, 32)
    arguments = ["--dataroot", root, "--name", "a", "--model", "coronet", "--checkpoints_dir", tmp_path / "c"]
    arguments += [
        "--results_dir",
        tmp_path / "r",
        "--dataset_mode",
        "aligned",
        "--norm",
        "batch",
        "--no_dropout",
    ]
    assert run_test(*arguments) == 0
    assert (tmp_path / "r").exists() and not out.exists()
    spec["options"]["coronet_base"] = "os.path"
    (folder / "latest_net_G.json").write_text(json.dumps(spec))
    with pytest.raises(SystemExit) as left:
        run_test(*arguments)
    assert left.value.code == 2


# -- names and paths ----------------------------------------------------------
@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside", "..", "", "a\nb"])
def test_a_run_stays_in_its_folder(tmp_path, run, capsys, name):
    arguments = run(name, paired_folder(tmp_path, 1), "pix2pix")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as left:
        run_train(*arguments)
    line = capsys.readouterr().err.strip()
    assert left.value.code == 2 and "--name" in line and "\n" not in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_suffix_cannot_leave_the_folder(tmp_path, run):
    with pytest.raises(SystemExit):
        run_train(*run("a", paired_folder(tmp_path, 1), "pix2pix"), "--suffix", "/../../outside")


def test_run_names_of_subcommands_stay_in_the_folder(tmp_path):
    refused(find_run, "../x", tmp_path, match="outside")


@pytest.mark.parametrize("option", ["--model", "--dataset_mode"])
@pytest.mark.parametrize("name", ["os.path", "../x", "a b", "."])
def test_names_of_classes_are_no_paths(tmp_path, run, capsys, option, name):
    with pytest.raises(SystemExit) as left:
        run_train(*run("a", tmp_path, "pix2pix"), option, name)
    line = capsys.readouterr().err.strip()
    assert left.value.code == 2 and option in line and "\n" not in line


# -- images -------------------------------------------------------------------
def test_a_decompression_bomb(tmp_path, monkeypatch):
    Image.new("RGB", (1200, 1200)).save(tmp_path / "a.png")
    for limit in (500_000, 1_000_000):  # an error beyond twice the limit, a warning below
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refused(open_image, str(tmp_path / "a.png"), match=f"more than {limit} pixels")


def test_images_of_other_kinds_become_what_one_sees(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (4, 1))
    Image.fromarray(ramp).save(tmp_path / "gray16.png")
    assert np.array_equal(np.array(open_image(str(tmp_path / "gray16.png")))[0, :, 0], np.arange(256))
    colours = smooth_image(0, 32, 32)
    for name, image in (
        ("cmyk.jpg", colours.convert("CMYK")),
        ("palette.png", colours.quantize(64)),
        ("alpha.png", colours.convert("RGBA")),
    ):
        image.save(tmp_path / name)
        opened = np.array(open_image(str(tmp_path / name))).astype(int)
        assert np.abs(opened - np.array(colours)).mean() < 12, name  # of 255: JPEG, palette
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert np.array(open_image(str(tmp_path / "bits.png"))).min() == 255


def test_numbers_that_are_no_colours_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    refused(open_image, str(tmp_path / "float.tif"), match="no colours")


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "bmp", "ppm"])
def test_truncated_images(tmp_path, kind, kept):
    whole = tmp_path / f"whole.{kind}"
    smooth_image(0, 64, 64).save(whole)
    data = whole.read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    try:
        open_image(str(path))  # the last bytes of some formats are not needed
    except DataError as error:
        assert "\n" not in str(error) and "repair or remove" in str(error)


# -- pages --------------------------------------------------------------------
EVIL = '<script>alert("x")</script>&"\''


def test_pages_escape_names(tmp_path):
    page = HTML(str(tmp_path), f"run {EVIL}")
    page.add_header(EVIL)
    page.add_images([EVIL], [EVIL], [EVIL])
    image = torch.zeros(1, 3, 8, 8)
    save_images(page, {"fake_B<script>": image}, ["folder/<script>alert(1)<script>.png"])
    page.save()
    training = TrainingPage(str(tmp_path / "run"), EVIL, 64)
    training.add(1, "<script>label", np.zeros((8, 8, 3), np.uint8))
    training.write(refresh=0)
    for path in (tmp_path / "index.html", tmp_path / "run" / "web" / "index.html"):
        text = path.read_text()
        assert "script" in text and "<script" not in text and 'alert("x")' not in text


# -- the network --------------------------------------------------------------
def test_training_and_testing_reach_nothing_but_this_machine(tmp_path, run, monkeypatch):
    """With visdom on, as by default: its server is looked for on the loopback address alone."""
    asked = []

    def connect(self, address):
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    root = paired_folder(tmp_path, 1, 32)
    assert run_train(*run("p", root, "pix2pix"), "--display_id", 1) == 0
    assert run_test(*run("p", root, "pix2pix", testing=True), "--num_test", 1) == 0
    assert all(address[0] in ("127.0.0.1", "::1", "localhost") for address in asked)


def test_the_display_server_is_on_this_machine_by_default():
    from options.parser import Parser
    from options.train_options import TrainOptions

    assert TrainOptions().initialize(Parser([])).get_default("display_server") == "http://localhost"


def test_a_damaged_file_is_a_checkpoint_error(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "a.pth")


def test_a_name_with_a_line_break_is_said_in_one_line(weights):
    spec = weights.with_suffix(".json")
    entries = json.loads(spec.read_text())
    entries["widths"] = {"model\n.1": {"num_features": -1}}
    spec.write_text(json.dumps(entries))
    with pytest.raises(CheckpointError) as caught:
        Spec.read(spec)
    assert "widths.model .1.num_features" in str(caught.value) and "\n" not in str(caught.value)
