"""ResNets of CUT: recognised by their tensors, equal to a formula of their own, small, exported."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import smooth_image
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from coronet_plugin import Compression, OptionError
from coronet_plugin.checkpoint.upstream import recognise_generator
from coronet_plugin.cli import main
from coronet_plugin.generators.blurred import CutConfig
from coronet_plugin.generators.registry import Family, family_named
from coronet_plugin.runs.opener import read_generator

CONFIGS = [
    (norm, dropout, down, up)
    for norm in ("instance", "batch", "none")
    for dropout in (False, True)
    for down, up in ((False, False), (True, False), (False, True))
]


def family() -> Family:
    return family_named("cut_resnet_4blocks")


def blur_down(x: Tensor) -> Tensor:
    """Each channel by itself: a blur at every place, of which every second stays."""
    taps = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(taps, taps)[None, None]
    each = [F.conv2d(F.pad(one[:, None], (1, 1, 1, 1), "reflect"), kernel) for one in x.unbind(1)]
    return torch.cat(each, 1)[..., ::2, ::2]


def blur_up(x: Tensor) -> Tensor:
    """Each channel by itself: every pixel but the border spread out by zeros, then blurred."""
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = torch.outer(taps, taps)[None, None]
    bordered = F.pad(x, (1, 1, 1, 1), "replicate")
    n, channels, height, width = bordered.shape
    spread = torch.zeros(n, channels, 2 * height, 2 * width)
    spread[..., ::2, ::2] = bordered
    each = [F.conv2d(F.pad(one[:, None], (2, 2, 2, 2)), kernel) for one in spread.unbind(1)]
    return torch.cat(each, 1)[..., 2:-3, 2:-3][..., : 2 * height - 4, : 2 * width - 4]


def formula(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """The generator with instance norm by its tensors, without a module."""

    def layer(name: str, x: Tensor, pad: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)

    def reflected(x: Tensor, by: int) -> Tensor:
        return F.pad(x, (by,) * 4, "reflect")

    x = F.relu(F.instance_norm(layer("model.1", reflected(x, 3))))
    for place in (4, 8):
        x = blur_down(F.relu(F.instance_norm(layer(f"model.{place}", x, 1))))
    for block in range(12, 12 + blocks):
        inside = F.instance_norm(layer(f"model.{block}.conv_block.1", reflected(x, 1)))
        x = x + F.instance_norm(layer(f"model.{block}.conv_block.5", reflected(F.relu(inside), 1)))
    for place in (13 + blocks, 17 + blocks):
        x = F.relu(F.instance_norm(layer(f"model.{place}", blur_up(x), 1)))
    return torch.tanh(layer(f"model.{21 + blocks}", reflected(x, 3)))


@pytest.mark.parametrize("sides", [(32, 32), (37, 42)])
def test_it_computes_what_the_formula_does(sides):
    torch.manual_seed(0)
    net = family().build(CutConfig(3, 2, 4, "instance", False))
    x = torch.rand(2, 3, *sides) * 2 - 1
    with torch.no_grad():
        found, wanted = net(x), formula(net.state_dict(), x, 4)
    assert found.shape == wanted.shape == (2, 2, *(-(-side // 4) * 4 for side in sides))
    assert torch.allclose(found, wanted, atol=1e-5)  # sums of float32 in another order
    assert found.std() > 0.01


@pytest.mark.parametrize("norm,dropout,down,up", CONFIGS)
def test_tensors_say_the_config(norm, dropout, down, up):
    config = CutConfig(1, 2, 6, norm, dropout, down, up)
    for blocks in (4, 6, 9):
        with torch.device("meta"):
            state = family_named(f"cut_resnet_{blocks}blocks").build(config).state_dict()
        found = recognise_generator({f"module.{key}": value for key, value in state.items()}, {})
        assert found is not None and (found[0].name, found[1]) == (f"cut_resnet_{blocks}blocks", config)


def test_without_a_blur_it_is_upstreams():
    state = family().build(CutConfig(3, 3, 4, "instance", False, True, True)).state_dict()
    assert recognise_generator(state, {}) is None  # upstream has none of 4 blocks
    state = family_named("cut_resnet_6blocks").build(CutConfig(3, 3, 4, "batch", False, True, True)).state_dict()
    assert recognise_generator(state, {})[0].name == "resnet_6blocks"


def test_a_file_of_cut_is_inspected_and_of_no_other_class(tmp_path, capsys):
    net = family_named("cut_resnet_9blocks").build(CutConfig(3, 3, 4, "instance", False))
    path = tmp_path / "latest_net_G.pth"
    torch.save(net.state_dict(), path)
    assert main(["inspect", str(path), "--size", "32"]) == 0
    shown = capsys.readouterr().out
    assert "cut_resnet_9blocks" in shown and "instance norm, no dropout, blurred down and up" in shown


def test_small_ones_go_where_the_others_go(tmp_path, capsys, monkeypatch):
    """Searched, cut, saved, read by the spec alone, translated, exported: the same numbers everywhere."""
    monkeypatch.chdir(tmp_path)
    config = CutConfig(3, 3, 8, "instance", False)
    torch.manual_seed(0)
    net = family().build(config)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    compression = Compression(
        net, x, budget=0.3, search_steps=3, architecture=family().architecture(config)
    )
    compression.slim()
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "latest_net_G.pth"
    compression.save(path)
    spec = json.loads(path.with_suffix(".json").read_text())
    assert spec["slim"]["macs"] <= 0.3 * spec["dense"]["macs"]
    stored = read_generator("G", path)
    assert [m.filt.shape[0] for m in net.modules() if hasattr(m, "filt")] == [
        m.filt.shape[0] for m in stored.generator.modules() if hasattr(m, "filt")
    ]
    smooth_image(0, 32, 32).save(tmp_path / "a.png")
    pixels = torch.from_numpy(np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).copy())
    image = (pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        wanted = net.eval()(image)
        assert torch.equal(stored.generator.eval()(image), wanted)
    assert main(["translate", str(path), "a.png", "--output", "out"]) == 0
    shown = np.asarray(Image.open(next((tmp_path / "out").rglob("a*.png")))).astype(float)
    levels = ((wanted[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).clip(0, 255)
    assert np.abs(levels - shown).max() <= 1
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    assert main(["export", str(path), "--to", "onnx", "--output", "exported"]) == 0, capsys.readouterr().err
    [file] = (tmp_path / "exported").rglob("*.onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert np.abs(found - wanted.numpy()).max() < 1e-4


def test_widths_that_nobody_has_are_refused():
    with pytest.raises(OptionError, match="ngf"):
        CutConfig(3, 3, 10**6, "instance", False)
