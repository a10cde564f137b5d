"""int8: what is chosen to stay in floats, what is lost, and each runtime's own quantizer where it is installed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_helpers import ARCHITECTURE, make_run, picture
from torch import nn

from coronet_plugin.cli import main
from coronet_plugin.errors import ExportError, OptionError
from coronet_plugin.export.pictures import Samples, noise, pictures_for
from coronet_plugin.export.pipeline import export_generator, prepare
from coronet_plugin.export.quantization import (
    EVERY_CPU,
    TOOLS,
    Quantization,
    fewest_in_floats,
    matched,
    quantize,
    split,
    tensors,
    usable_ranges,
)
from coronet_plugin.export.quantization.quality import Quality, likeness, quality, truths_of
from coronet_plugin.export.request import Request
from coronet_plugin.export.sensitivity import layers_in_order, rounded, sensitivities
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.fake_quantization import on_weight_grid, output_axis
from coronet_plugin.generators.stock import build_generator

EXAMPLE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def generator(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_generator(**ARCHITECTURE).eval()


def job(net: nn.Module) -> Quantization:
    return Quantization(net, EXAMPLE, layers_in_order(net, EXAMPLE), noise(2, 3, (32, 32)).values)


def found(ssim: float) -> Quality:
    return Quality(1, ssim, 30.0)


# -- choosing layers -----------------------------------------------------------
def test_layers_come_in_the_order_they_run():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.never = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(self.second(self.first(x)))

    assert list(layers_in_order(Backwards(), EXAMPLE)) == ["first", "second"]


def test_rounding_a_layer_leaves_no_trace():
    net = generator().requires_grad_(False)
    before, state = net(EXAMPLE), {k: v.clone() for k, v in net.state_dict().items()}
    with rounded(net.model[1]):
        assert not torch.equal(net(EXAMPLE), before)
    assert torch.equal(net(EXAMPLE), before)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


class WithOutlier(nn.Sequential):
    """Channel 0 between the first two layers is large, and nobody reads it: 256 steps up to it are too wide."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1), nn.Tanh()
        )
        with torch.no_grad():
            self[0].bias[0], self[1].weight[:, 0] = 1000.0, 0.0
            self[2].weight.mul_(5)
        self.requires_grad_(False)


def test_the_layers_beside_an_outlier_hurt_most():
    net = WithOutlier()
    found = sensitivities(net, layers_in_order(net, EXAMPLE), noise(2, 3, (32, 32)).values)
    assert list(found)[2] == "2" and min(found["0"], found["1"]) > 100 * found["2"] > 0
    again = sensitivities(net, {"1": net[1]}, noise(3, 3, (32, 32)).values, seconds=0.0)
    assert again["1"] > 0  # one picture at least


@pytest.mark.parametrize("needed", [0, 1, 2, 5, 11, 17])
def test_as_few_layers_as_needed_stay_in_floats(needed):
    net, tries = job(generator()), []
    order = list(sensitivities(net.generator, net.layers, net.pictures))

    def attempt(floats: frozenset[str]) -> Quality:
        tries.append(floats)
        return found(0.999 if floats >= set(order[:needed]) else 0.9)

    floats, loss, before = fewest_in_floats(net, 0.01, attempt)
    assert floats == set(order[:needed]) and loss.ssim == 0.999
    assert tries[-1] == floats  # its file is the one that stays
    assert before.ssim == (0.999 if needed == 0 else 0.9) and len(tries) <= 2 + np.ceil(np.log2(18))


def test_what_cannot_be_met_is_an_error():
    with pytest.raises(ExportError, match="loses 0.100 of SSIM.*--int8_max_drop"):
        fewest_in_floats(job(generator()), 0.01, lambda floats: found(0.9))


def test_layers_that_are_not_the_same_are_not_confused():
    layers = layers_in_order(generator(), EXAMPLE)
    shapes = {f"w{i}": tuple(layer.weight.shape) for i, layer in enumerate(layers.values())}
    assert list(matched(layers, shapes).values()) == list(layers)
    with pytest.raises(ExportError, match="cannot be told apart"):
        matched(layers, dict(list(shapes.items())[1:]))
    with pytest.raises(ExportError, match="cannot be told apart"):
        matched(layers, dict(reversed(list(shapes.items())[:-1])))


# -- pictures and loss -----------------------------------------------------------
def test_every_fourth_picture_is_held_out():
    values = np.arange(9, dtype=np.float32).reshape(9, 1, 1, 1)
    kept, held_out = split(Samples(values, "numbers", tuple((Path(str(i)), None) for i in range(9))))
    assert held_out.values.flatten().tolist() == [3, 7] and [str(p) for p, _ in held_out.truths] == ["3", "7"]
    assert kept.values.flatten().tolist() == [0, 1, 2, 4, 5, 6, 8]
    for count in (1, 2, 3):
        kept, held_out = split(Samples(values[:count], "numbers"))
        assert len(held_out.values) == 1 and len(kept.values) == max(1, count - 1)


def test_loss_is_told_against_fp32_and_truth():
    pictures = noise(2, 3, (32, 32)).values
    same = quality(lambda x: x, lambda x: x, pictures, pictures)
    assert same.drop == 0 and same.psnr is None and same.truth_ssim == 1
    worse = quality(lambda x: x * 0.9, lambda x: x, pictures, pictures)
    assert worse.drop > 0 and worse.psnr == pytest.approx(worse.truth_psnr)
    assert worse.truth_psnr_fp32 is None and "to the truth" in worse.in_words()
    one = np.full((1, 3, 16, 16), -1, np.float32)
    assert likeness(one, one + 2 / 255)[1] == pytest.approx(20 * np.log10(255), abs=1e-6)  # one grey level


def test_truth_of_paired_pictures(tmp_path):
    make_run(tmp_path, "run", budget=0.3)
    weights = tmp_path / "checkpoints" / "run" / "latest_net_G.pth"
    pictures = pictures_for(weights, "G", 3, (32, 32), results_dir=tmp_path / "results")
    assert [path.name for path, _ in pictures.truths] == [f"{stem}_real_B.png" for stem in "abc"]
    truths = truths_of(pictures, generator(), EXAMPLE)
    assert truths.shape == (3, 3, 32, 32) and np.abs(truths).max() <= 1
    assert truths_of(noise(2, 3, (32, 32)), generator(), EXAMPLE) is None
    (tmp_path / "results" / "run" / "test_latest" / "images" / "a_real_B.png").unlink()
    assert pictures_for(weights, "G", 3, (32, 32), results_dir=tmp_path / "results").truths == ()


# -- the runtimes ----------------------------------------------------------------
def int8(net: nn.Module, target: str, folder: Path, **settings: object):
    request = Request(TARGETS[target], "int8", (32, 32), multiple=4, quantization=settings)
    return export_generator(
        net, request, folder, "G", noise(2, 3, (32, 32)), Samples(noise(8, 3, (32, 32)).values, "test noise")
    )


NEEDED = {
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("nncf",),
    "executorch": ("executorch",),
    "litert": ("ai_edge_quantizer",),
}


@pytest.fixture(params=list(TOOLS))
def target(request):
    for module in NEEDED[request.param]:
        pytest.importorskip(module, exc_type=ImportError)
    if TARGETS[request.param].missing:
        pytest.skip(f"needs {TARGETS[request.param].missing}")
    return request.param


def test_int8_file_runs_is_smaller_and_near(target, tmp_path):
    net = generator()
    result = int8(net, target, tmp_path, max_drop=0.5)
    facts = result.record["quantization"]
    assert result.accepted and result.difference.ssim > 0.9
    assert result.difference.max > 0  # it really is rounded
    assert facts["calibration"] == {"pictures": 6, "from": "test noise"} and facts["loss"]["pictures"] == 2
    assert facts["layers"] == 18 and facts["left_in_float"] == []
    size = sum(path.stat().st_size for path in result.files if path.suffix != ".json")
    full = sum(p.numel() * 4 for p in net.parameters())
    assert size < 0.75 * full + 150_000  # the graph itself takes some 100 kB for so small a generator
    assert json.loads(result.files[-1].read_text())["quantization"] == facts


# -- sums that leave 16 bits -----------------------------------------------------
class Ends(nn.Sequential):
    """Weights and activations at the ends of their ranges, mostly of one sign: what saturates if anything does.

    The first layer hands every channel to many, so that the second adds up long rows, in whole numbers.
    """

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 32, 1, bias=False), nn.Conv2d(32, 3, 3, padding=1, bias=False))
        with torch.no_grad():
            self[0].weight.copy_(torch.eye(3).repeat(11, 1)[:32, :, None, None])
            self[1].weight.copy_(torch.from_numpy(mostly_one(self[1].weight.shape)))
        self.requires_grad_(False)

    def in_integers(self, pictures: np.ndarray) -> np.ndarray:
        """The output for ``pictures`` (N, 3, H, W) of whole numbers."""
        wide = np.pad(pictures.astype(np.int64)[:, [i % 3 for i in range(32)]], [(0, 0)] * 2 + [(1, 1)] * 2)
        windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))
        return np.einsum("nchwij,ocij->nohw", windows, self[1].weight.numpy().astype(np.int64))


def mostly_one(shape: tuple[int, ...]) -> np.ndarray:
    """1, and -1 in one place of ten."""
    return np.where(np.random.default_rng(0).random(shape) < 0.1, -1, 1).astype(np.float32)


def ends_in_int8(target: str, path: Path) -> dict[str, object]:
    """Write :class:`Ends` in int8 to ``path``."""
    request = Request(TARGETS[target], "int8", (16, 16), quantization={"max_drop": 0.999})
    pictures = Samples(mostly_one((4, 3, 16, 16)), "ends")
    return quantize(request, *prepare(Ends().eval(), request), path, pictures)["quantization"]


def test_int8_is_right_at_the_ends_of_the_ranges(target, tmp_path):
    path = tmp_path / f"ends{TARGETS[target].suffixes[0]}"
    assert ends_in_int8(target, path)["right_on"] == EVERY_CPU
    given, found = mostly_one((1, 3, 16, 16)), tmp_path / "found.npy"
    expected = Ends().in_integers(given)
    allowed = 0.04 * np.abs(expected).max()  # steps of 1/128, grids that end at 63/64; saturation takes half
    assert np.abs(TARGETS[target].load(path)(given) - expected).max() < allowed
    if target == "openvino":  # can be told to calculate as without VNNI, but not once it is loaded
        np.save(tmp_path / "given.npy", given)
        code = (
            "import sys, pathlib, numpy as np; from coronet_plugin.export.targets import TARGETS; _, path, x, y "
            "= sys.argv; np.save(y, TARGETS['openvino'].load(pathlib.Path(path))(np.load(x)))"
        )
        command = [sys.executable, "-c", code, str(path), str(tmp_path / "given.npy"), str(found)]
        subprocess.run(command, check=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"})
        assert np.abs(np.load(found) - expected).max() < allowed


@pytest.mark.parametrize("full_range", [False, True])
def test_pairs_of_products_fit_16_bits_unless_the_full_range_is_asked_for(full_range, tmp_path):
    onnx = pytest.importorskip("onnx", exc_type=ImportError)
    pytest.importorskip("onnxruntime")
    from coronet_plugin.export.quantization.onnx import begin

    net, facts = Ends().eval(), TOOLS["onnx"].weights(full_range)
    pictures = mostly_one((4, 3, 16, 16))
    layers = layers_in_order(net, torch.from_numpy(pictures[:1]))
    asked = Quantization(net, torch.from_numpy(pictures[:1]), layers, pictures, full_range=full_range)
    begin(asked, tmp_path)(tmp_path / "ends.onnx", frozenset())  # it is not run: what would come out, varies
    assert facts["weight_bits"] == (8 if full_range else 7) and (facts["right_on"] == EVERY_CPU) != full_range
    assert ("VNNI" in facts["right_on"]) == full_range
    graph = onnx.load(str(tmp_path / "ends.onnx")).graph
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    [weight] = [array for array in arrays if array.dtype == np.int8 and array.shape == (3, 32, 3, 3)]
    rows = weight.astype(np.int64).transpose(0, 2, 3, 1).reshape(3, -1)  # channels beside each other
    activations = np.where(mostly_one((rows.shape[1], 50)) > 0, 255, 1)
    exact = rows @ activations
    pairs = rows[:, ::2, None] * activations[::2] + rows[:, 1::2, None] * activations[1::2]
    as_without_vnni = np.clip(pairs, -(2**15), 2**15 - 1).sum(1)  # instruction VPMADDUBSW
    assert np.array_equal(as_without_vnni, exact) != full_range


def test_a_layer_that_hurts_stays_in_floats(target, tmp_path):
    result = int8(WithOutlier(), target, tmp_path, max_drop=0.02)
    facts = result.record["quantization"]
    assert facts["loss"]["ssim"] >= 0.98 > facts["loss_with_all_layers"]["ssim"]
    assert "1" in facts["left_in_float"] and "2" not in facts["left_in_float"]


def test_onnx_takes_the_ranges_of_training(tmp_path):
    onnx = pytest.importorskip("onnx", exc_type=ImportError)
    pytest.importorskip("onnxruntime")
    net = generator()
    for layer in layers_in_order(net, EXAMPLE).values():
        layer.weight.data = on_weight_grid(layer.weight.data, output_axis(layer))
    path = tmp_path / "G.onnx"
    request = Request(
        TARGETS["onnx"],
        "int8",
        (32, 32),
        quantization={"max_drop": 0.9, "ranges": {"model.1": {"input": [0.25, 9]}}},
    )
    quantize(request, *prepare(net, request), path, noise(4, 3, (32, 32)))
    graph = onnx.load(str(path)).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    grids = {node.input[0]: (values[node.input[1]], values[node.input[2]]) for node in graph.node
             if node.op_type == "QuantizeLinear" and node.input[1] in values}  # fmt: skip
    assert any(float(scale) == 0.25 and int(zero) == 9 for scale, zero in grids.values())
    weights = [value for name, value in values.items() if value.dtype == np.int8 and value.ndim == 4]
    assert len(weights) == 18
    first = next(iter(layers_in_order(net, EXAMPLE).values())).weight.data.numpy()
    steps = np.abs(first).max((1, 2, 3), keepdims=True) / 64
    assert np.array_equal(weights[0], np.rint(first / steps))  # the very steps of the training


def test_ranges_of_outputs_do_not_hold_where_batch_norm_is_folded():
    ranges = {"0": {"input": [0.1, 3], "output": [0.2, 4]}}
    assert usable_ranges(nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3)), ranges) == ranges
    folded = usable_ranges(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), ranges)
    assert folded == {"0": {"input": [0.1, 3]}}


def test_int8_is_not_offered_everywhere():
    for name, each in TARGETS.items():
        assert ("int8" in each.dtypes) == (name in TOOLS)
    with pytest.raises(OptionError, match="--dtype int8 is not offered for torchscript"):
        Request(TARGETS["torchscript"], "int8").check()
    with pytest.raises(OptionError, match="between 0 and 1"):
        request = Request(TARGETS["onnx"], "int8", (32, 32), quantization={"max_drop": 2})
        quantize(request, generator(), EXAMPLE, Path("x"), noise(2, 3, (32, 32)))


def test_a_missing_quantizer_is_named(monkeypatch, tmp_path):
    from coronet_plugin.export import targets

    monkeypatch.setattr(targets, "is_installed", lambda name: name != "nncf")
    with pytest.raises(OptionError, match=r"needs nncf.*coronet-plugin\[quantization\]"):
        Request(TARGETS["openvino"], "int8", (32, 32)).check()
    Request(TARGETS["openvino"], "fp32", (32, 32)).check()
    monkeypatch.setattr(targets, "is_installed", lambda name: name != "ai_edge_quantizer")
    with pytest.raises(OptionError, match=r"needs ai-edge-quantizer.*coronet-plugin\[litert\]"):
        Request(TARGETS["litert"], "int8", (32, 32)).check()


def test_command_tells_the_loss(tmp_path, capsys):
    pytest.importorskip("onnx", exc_type=ImportError)
    pytest.importorskip("onnxruntime")
    make_run(tmp_path, "run", budget=0.3)
    folder = tmp_path / "calibration"
    folder.mkdir()
    for number in range(8):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    arguments = ["export", "run", "--to", "onnx", "--dtype", "int8", "--int8_max_drop", "0.3"]
    arguments += ["--calibration", str(folder), "--checkpoints_dir", str(tmp_path / "checkpoints")]
    arguments += ["--results_dir", str(tmp_path / "results"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "int8, calibrated with 6 pictures of calibration; layers left in floats: none (of 18)" in said
    assert "int8 on 2 others: to fp32 SSIM" in said
    assert "int8 weights of 7 bits: right on every CPU" in said
    assert f"(calculated on {platform.machine()}: " in said
    assert len(tensors(noise(3, 3, (8, 8)).values)) == 3
    main([*arguments, "--int8_full_range", "--int8_max_drop", "0.9"])  # right or not, by the CPU
    assert "int8 weights of 8 bits: right on x86 CPUs with AVX-512 VNNI" in capsys.readouterr().err
