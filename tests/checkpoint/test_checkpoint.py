"""Weights and spec on disk, and what happens when they are damaged."""

from __future__ import annotations

import json

import pytest
import torch
from run_helpers import difference

from coronet_plugin import CheckpointError, Compression, Spec, example_input, load_generator
from coronet_plugin.checkpoint.storage import write_atomically
from coronet_plugin.generators.stock import build_generator

ARCHITECTURE = dict(netG="unet_128", input_nc=1, output_nc=3, ngf=8, norm="batch", use_dropout=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A compact U-Net with one input channel: the path of its weights and the generator."""
    torch.manual_seed(0)
    generator = build_generator(**ARCHITECTURE)
    compression = Compression(
        generator, example_input(generator, 128), search_steps=1, budget=0.4, architecture=ARCHITECTURE
    )
    compression.slim()
    path = tmp_path_factory.mktemp("run") / "latest_net_G.pth"
    compression.save(path, {"direction": "BtoA"})
    return path, generator, compression


@pytest.fixture
def copy_of(saved, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(saved[0].read_bytes())
    path.with_suffix(".json").write_text(saved[0].with_suffix(".json").read_text())
    return path


def test_the_weight_file_is_a_plain_state_dict(saved):
    state = torch.load(saved[0], weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    assert list(state) == list(build_generator(**ARCHITECTURE).state_dict())


def test_the_spec_says_what_is_left(saved):
    _, generator, compression = saved
    spec = json.loads(saved[0].with_suffix(".json").read_text())
    assert spec["format"] == "coronet-spec" and spec["phase"] == "compact"
    assert spec["architecture"] == ARCHITECTURE and spec["options"] == {"direction": "BtoA"}
    assert spec["dense"]["parameters"] == sum(p.numel() for p in build_generator(**ARCHITECTURE).parameters())
    assert spec["slim"]["parameters"] == sum(p.numel() for p in generator.parameters())
    assert spec["slim"]["macs"] <= spec["budget"]["target"] == int(0.4 * spec["dense"]["macs"])
    first = spec["sets"][0]
    assert first["name"] == "model.model.0" and first["channels"] == 8
    assert len(first["kept"]) == generator.state_dict()["model.model.0.weight"].shape[0]
    assert spec["sets"][-1]["pinned"] == "it is the generator's output"
    assert Spec.read(saved[0].with_suffix(".json")) == compression.spec({"direction": "BtoA"})


def test_the_rebuilt_generator_computes_the_same(saved):
    path, generator, _ = saved
    rebuilt = load_generator(path)
    x = example_input(generator, 128)
    assert difference(rebuilt, generator, (x,)) == 0
    # with its one_call equality also in train mode, as upstream tests
    torch.manual_seed(1)
    expected = generator(x)
    torch.manual_seed(1)
    torch.testing.assert_close(rebuilt(x), expected, rtol=0, atol=0)


def edit(path, **changes):
    spec = json.loads(path.with_suffix(".json").read_text())
    spec.update(changes)
    path.with_suffix(".json").write_text(json.dumps(spec))


def test_damage_is_named_in_one_line(copy_of):
    good = json.loads(copy_of.with_suffix(".json").read_text())
    cases = [
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "not a coronet spec"),
        ({"phase": "later"}, "phase 'later'"),
        ({"tensors": {**good["tensors"], "model.model.0.weight": [9999, 1, 4, 4]}}, "does not fit"),
        ({"tensors": {"model.model.0.weight": [5, 1, 4, 4]}}, "same tensors"),
        ({"architecture": {"class": "MyGenerator"}}, "build="),
        ({"architecture": {**ARCHITECTURE, "layers": 3}}, "unusable architecture"),
    ]
    for changes, message in cases:
        edit(copy_of, **{**good, **changes})
        with pytest.raises(CheckpointError, match=message) as caught:
            load_generator(copy_of)
        assert "\n" not in str(caught.value)


def test_missing_and_truncated_files(copy_of):
    whole = copy_of.read_bytes()
    copy_of.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="latest_net_G.pth"):
        load_generator(copy_of)
    copy_of.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="latest_net_G.json"):
        load_generator(copy_of)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_custom_generator_needs_its_builder(tmp_path):
    def build():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 3, 3, padding=1)
        )

    generator = build()
    compression = Compression(generator, torch.rand(1, 3, 8, 8), search_steps=1, budget=0.5)
    compression.slim()
    compression.save(tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="Sequential"):
        load_generator(tmp_path / "net.pth")
    rebuilt = load_generator(tmp_path / "net.pth", build=build)
    assert difference(rebuilt, generator, (torch.rand(1, 3, 8, 8),)) == 0
