"""Weights as safetensors: read wherever weights are, and refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from conftest import paired_folder, run_test, run_train
from run_helpers import make_run

from coronet_plugin import CheckpointError, load_generator
from coronet_plugin.checkpoint.storage import save_tensors
from coronet_plugin.checkpoint.upstream import read_state_dict
from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.runs.run import find_run

pytest.importorskip("safetensors")


def converted(weights: Path) -> Path:
    """The same weights in a file of the other kind, and no longer in the one they were in."""
    path = weights.with_suffix(".safetensors")
    save_tensors(torch.load(weights, weights_only=True), path)
    weights.unlink()
    return path


def test_the_same_tensors_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    state = {
        "a": shared,
        "tied": shared,
        "transposed": shared.t(),
        "half": shared.half(),
        "steps": torch.tensor(7),
    }
    save_tensors(state, tmp_path / "x.safetensors")
    again = read_state_dict(tmp_path / "x.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) and again[key].dtype == state[key].dtype for key in state)


@pytest.mark.parametrize("family", ["resnet_6blocks", "unet_128"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_file_of_others_is_read(tmp_path: Path, family: str, norm: str) -> None:
    """Written by the library itself, which sorts by names, without our spec, of a dense generator."""
    from safetensors.torch import save_file

    original = build_generator(3, 2, 4, family, norm)
    save_file(original.state_dict(), tmp_path / "theirs.safetensors")
    again = read_generator("theirs", tmp_path / "theirs.safetensors")
    assert again.family.name == family and (again.config.ngf, again.config.output_nc) == (4, 2)
    expected = original.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.generator.state_dict().items())


def test_a_run_may_hold_them(tmp_path: Path) -> None:
    make_run(tmp_path, "slim", budget=0.4)
    weights = tmp_path / "checkpoints/slim/latest_net_G.pth"
    before = load_generator(weights).state_dict()
    path = converted(weights)
    run = find_run("slim", tmp_path / "checkpoints", tmp_path / "results")
    assert run.weights == {"G": path} and "G" in run.specs
    after = run.load_generator("G").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    weights.write_bytes(b"where both are, the training's own is taken")
    again = find_run("slim", tmp_path / "checkpoints", tmp_path / "results")
    assert again.weights == {"G": weights}


def test_trained_and_tested_with(tmp_path: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    """A search begins with such weights (--coronet_init_from), and test.py takes them in a run."""
    root = paired_folder(tmp_path, 1, 32)
    assert run_train(*run("dense", root, "pix2pix")) == 0
    path = converted(tmp_path / "checkpoints/dense/latest_net_G.pth")
    slim = [*run("slim", root, "coronet"), "--coronet_base", "pix2pix", "--coronet_budget", "0.5"]
    capsys.readouterr()
    for source in (path, path.parent):
        assert run_train(*slim, "--coronet_init_from", source, "--overwrite") == 0
        said = capsys.readouterr().out
        assert f"netG begins with {path}" in said and "netD begins with" in said
    converted(tmp_path / "checkpoints/slim/latest_net_G.pth")
    assert run_test(*run("slim", root, "coronet", testing=True)) == 0
    assert list((tmp_path / "results/slim/test_latest/images").glob("*_fake_B.png"))


# -- what is refused -----------------------------------------------------------------
def refused(path: Path, match: str, kind: type[UserError] = CheckpointError) -> None:
    for read in (load_generator, lambda path: read_generator("G", path)):
        with pytest.raises(kind, match=match) as caught:
            read(path)
        assert "\n" not in str(caught.value) and str(path.name) in str(caught.value)


@pytest.fixture
def slim(tmp_path: Path) -> Path:
    make_run(tmp_path, "slim", budget=0.4, stems=())
    return converted(tmp_path / "checkpoints/slim/latest_net_G.pth")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_a_damaged_file(slim: Path, kept: float) -> None:
    data = slim.read_bytes()
    slim.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    refused(slim, "damaged or no .safetensors file")


def test_a_pickle_under_this_name_is_not_executed(slim: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, slim)
    refused(slim, "damaged or no .safetensors file")


def test_a_header_that_claims_more_than_is_there(slim: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    slim.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    refused(slim, "damaged or no .safetensors file")


def test_no_spec_beside_it(slim: Path) -> None:
    slim.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="no latest_net_G.json beside .*widths are not known"):
        load_generator(slim)
    with pytest.raises(CheckpointError, match="a slim generator needs its spec"):
        read_generator("G", slim)


def test_the_library_is_missing(slim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    refused(slim, r'needs safetensors: pip install "coronet-plugin\[safetensors\]"', OptionError)
    with pytest.raises(OptionError, match="needs safetensors"):
        save_tensors({"a": torch.zeros(1)}, slim.with_name("new.safetensors"))
    assert not slim.with_name("new.safetensors").exists()


def test_what_is_no_tensor_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="step is no tensor"):
        save_tensors({"a": torch.zeros(1), "step": 3}, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is not there.*other.safetensors"):
        read_state_dict(tmp_path / "x.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no \\*.safetensors; name the weight file"):
        load_generator(tmp_path / "empty")
