"""``coronet bench``: rounds in turn, ratios, profiles whose parts add up, files, and errors in one line."""

from __future__ import annotations

import csv
import json
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from run_helpers import ARCHITECTURE, make_run
from torch import nn

from coronet_plugin.benchmark.candidates import Candidate, prepare_all, target_of
from coronet_plugin.benchmark.entries import Entry, read_entries
from coronet_plugin.benchmark.report import as_text
from coronet_plugin.benchmark.result import Benchmark, best, rows
from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.find import cost_of
from coronet_plugin.cli import main
from coronet_plugin.errors import BudgetError, CheckpointError, OptionError
from coronet_plugin.export.rewrite import BlockedConv2d, SubpixelConvTranspose2d, rewritten
from coronet_plugin.export.targets import ArrayModel, Target
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.measure import machine
from coronet_plugin.measure.machine import instruction_set
from coronet_plugin.measure.profile import LayerTime, by_kind, layer_times, least_by_operation, losses
from coronet_plugin.measure.timing import Times, Timing


def timing(wall: float, cpu: float) -> Times:
    return Times(Timing.of([wall / 1e3] * 3), Timing.of([cpu / 1e3] * 3))


def entry(name: str, macs: int) -> Entry:
    return Entry(name, nn.Identity(), Cost(macs, macs, 1), (32, 32), 4, "test")


def test_speed_up_beside_the_reduction_of_macs():
    dense, slim = entry("dense", 1000), entry("slim", 100)
    one, two = (Candidate("dense", "onnx", "fp32", n) for n in (1, 2))
    slim_one, slim_two = (Candidate("slim", "onnx", "fp32", n) for n in (1, 2))
    alone = Candidate("slim", "ncnn", "fp32", 1)
    measured = Benchmark(
        (dense, slim),
        {one: timing(90, 40), slim_one: timing(90, 5), two: timing(24, 48), slim_two: timing(4, 8), alone: timing(1, 1)},
        {Candidate("dense", "ncnn", "fp32", 1): "out of memory"},
        {},
    )  # fmt: skip
    assert measured.speedup(slim_one) == pytest.approx(8)  # one thread: CPU time
    assert measured.speedup(slim_two) == pytest.approx(6)  # more: wall time
    assert measured.realised(slim_one) == pytest.approx(0.8) and measured.realised(one) is None
    assert measured.speedup(alone) is None  # the dense one did not run there
    assert best(measured, "slim") == alone
    text = as_text(measured)
    assert "failed: out of memory" in text and "slim: most comes out in onnx fp32, 1 thread: 80%" in text
    assert [row["note"] for row in rows(measured)].count("out of memory") == 1


@pytest.mark.parametrize("netG", ["resnet_6blocks", "unet_128"])
def test_the_macs_of_layers_sum_up_to_the_generators(netG):
    net = build_generator(3, 3, 4, netG, "instance").eval()
    example = torch.rand(1, 3, 128, 128)
    found = layer_times(net, example, repeats=1)
    assert sum(layer.macs for layer in found) == cost_of(net, example).macs
    assert {layer.name for layer in found} == {n for n, m in net.named_modules() if not list(m.children())}
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_that_runs_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(torch.relu(self.body(x)))

    (layer,) = layer_times(Twice(), torch.rand(1, 3, 8, 8), repeats=1)
    assert layer.macs == 2 * 9 * 64 and layer.ms > 0


def test_what_layers_lose_adds_up_to_what_is_lost():
    dense = [
        LayerTime("a", "Conv2d", 900, 9.0),
        LayerTime("b", "Conv2d", 100, 2.0),
        LayerTime("n", "ReLU", 0, 1.0),
    ]
    slim = [
        LayerTime("a", "Conv2d", 90, 1.0),
        LayerTime("b", "Conv2d", 10, 1.5),
        LayerTime("n", "ReLU", 0, 0.5),
    ]
    found = losses(dense, slim)
    assert [loss.name for loss in found] == ["b", "n", "a"]
    assert sum(loss.excess_ms for loss in found) == pytest.approx(3.0 - 12.0 / 10)
    assert found[0].macs_reduction == 10 and found[1].macs_reduction is None
    kinds = by_kind(found)
    assert kinds["Conv2d"] == pytest.approx({"dense_ms": 11, "slim_ms": 2.5, "excess_ms": 2.5 - 1.1})


def test_the_profile_of_onnxruntime_takes_the_least_of_every_node():
    def event(name: str, op: str, dur: int, cat: str = "Node") -> dict:
        return {"name": name, "cat": cat, "dur": dur, "args": {"op_name": op}}

    events = [
        event("c1_kernel_time", "Conv", 3000), event("c1_kernel_time", "Conv", 1000),
        event("c2_kernel_time", "Conv", 500), event("p_kernel_time", "Pad", 2000),
        event("c1_fence_before", "Conv", 9000), event("run", "", 9000, "Session"),
    ]  # fmt: skip
    assert least_by_operation(events) == {"Pad": 2.0, "Conv": 1.5}


def test_stock_names_with_budgets_and_multiples():
    dense, slim, rounded = read_entries(
        ["resnet_6blocks", "resnet_6blocks@0.1", "resnet_6blocks@0.1/8"], size=(64, 64)
    )
    assert slim.cost.macs <= 0.1 * dense.cost.macs and rounded.cost.macs <= 0.1 * dense.cost.macs
    widths = {m.out_channels for m in rounded.generator.modules() if isinstance(m, nn.Conv2d)} - {3}
    assert all(width % 8 == 0 for width in widths)
    assert "random weights" in slim.origin
    with pytest.raises(OptionError, match="multiples of 4"):
        read_entries(["resnet_6blocks"], size=(30, 32))
    with pytest.raises(OptionError, match="twice"):
        read_entries(["resnet_6blocks", "resnet_6blocks"], size=(32, 32))
    with pytest.raises(BudgetError):
        read_entries(["resnet_6blocks@much"], size=(32, 32))
    with pytest.raises(CheckpointError, match="no run"):
        read_entries(["resnet_7blocks"], size=(32, 32))


def test_unknown_runtimes_and_rewrites():
    assert target_of("onnx+subpixel_convolution").rewrite == ("subpixel_convolution",)
    assert target_of("litert+subpixel_convolution").rewrite[0] == "subpixel_convolution"
    for runtime in ("tensorrt", "onnx+magic"):
        with pytest.raises(OptionError, match="choose from"):
            target_of(runtime)


def test_every_candidate_computes_what_the_generator_does(tmp_path):
    net = build_generator(**ARCHITECTURE)
    one = Entry("a", net, Cost(1, 1, 1), (32, 32), 4, "")
    runtimes = ["torch", "torch+subpixel_convolution", "torchscript"]
    ready = prepare_all([one], runtimes, ["fp32", "int8"], [1, 2], "batch", tmp_path)
    assert not ready.failures and len(ready.models) == 6  # none of them has int8
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(x)).numpy()
    for candidate, run in ready.models.items():
        assert np.abs(run(x) - expected).max() < 1e-5, candidate  # float32 in another order
    torch.set_num_threads(1)


def test_no_time_is_told_of_what_computes_something_else(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", exc_type=ImportError)
    pytest.importorskip("onnxruntime")
    load = Target.load

    def saturated(self: Target, path: Path, threads: int = 1) -> ArrayModel:
        run = load(self, path, threads)
        return (lambda x: np.minimum(run(x), -0.5)) if "int8" in path.name else run

    arguments = ["bench", "resnet_6blocks@0.05", "--size", "32", "--runtimes", "onnx"]
    arguments += ["--dtypes", "fp32,int8", "--repeats", "1", "--warmup", "1", "--no_profile"]
    arguments += ["--output", str(tmp_path / "out")]
    assert main(arguments) == 0 and "wrong" not in capsys.readouterr().out
    monkeypatch.setattr(Target, "load", saturated)
    assert main(arguments) == 0
    data = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    fp32, int8 = data["rows"]
    assert fp32["wall_ms"] > 0 and int8["wall_ms"] is None and int8["timing"] is None
    here = data["circumstances"]["machine"]["instruction_set"]
    assert f"its output is wrong on this CPU ({here}), so it is not timed" in int8["note"]


def test_what_the_cpu_can_do_is_named(monkeypatch, tmp_path):
    abilities = {"avx2": True, "avx512_f": False, "avx_vnni": True, "architecture": "x86_64"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert instruction_set() == f"{platform.machine()}: AVX2, AVX-VNNI"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert instruction_set() == f"{platform.machine()}: not known"
    (tmp_path / "cpuinfo").write_text("processor: 0\nflags: fpu avx2 avx512f avx512_vnni\n")
    assert instruction_set() == f"{platform.machine()}: AVX2, AVX-512, AVX-512 VNNI"


def test_command(tmp_path, capsys):
    make_run(tmp_path, "dense")
    make_run(tmp_path, "slim", budget=0.3)
    output = tmp_path / "out"
    arguments = ["bench", "dense", "slim", "--checkpoints_dir", str(tmp_path / "checkpoints")]
    arguments += [
        "--runtimes",
        "torch,torchscript",
        "--repeats",
        "2",
        "--warmup",
        "1",
        "--output",
        str(output),
    ]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "realised" in said and "slim: fastest in" in said and "Conv2d" in said
    data = json.loads((output / "benchmark.json").read_text())
    assert [g["name"] for g in data["generators"]] == ["dense", "slim"]
    assert data["circumstances"]["versions"]["torch"] == metadata.version("torch")
    layers = data["profiles"]["slim"]["layers"]
    assert {layer["kind"] for layer in layers} >= {"Conv2d", "ConvTranspose2d", "InstanceNorm2d"}
    with open(output / "benchmark.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4
    for row in table:
        if row["generator"] == "slim":
            part = float(row["speedup"]) / float(row["macs_reduction"])
            assert float(row["realised"]) == pytest.approx(part)
    assert (output / "benchmark.svg").read_text().lstrip().startswith("<?xml")


def test_command_errors(tmp_path, capsys):
    assert main(["bench", "nothing", "--checkpoints_dir", str(tmp_path)]) == 2
    assert (
        main(["bench", "resnet_6blocks@0.1", "--size", "32", "--runtimes", "cuda", "--output", str(tmp_path)])
        == 2
    )
    assert (
        main(["bench", "resnet_6blocks@0.1", "--size", "32", "--runtimes", "torch", "--dtypes", "int8"]) == 2
    )
    said = capsys.readouterr().err.splitlines()
    assert (
        "no run 'nothing'" in said[0] and "--runtimes cuda" in said[1] and "nothing can be timed" in said[2]
    )


SHAPES = [(k, s, p, o) for k in (2, 3, 4, 5) for s in (2, 3) for p in (0, 1, 2) for o in (0, 1) if k >= s > o]


@pytest.mark.parametrize(("kernel", "stride", "padding", "more"), SHAPES)
def test_subpixel_convolutions_are_the_transposed_ones(kernel, stride, padding, more):
    layer = nn.ConvTranspose2d(3, 2, kernel, stride, padding, more)
    x = torch.rand(2, 3, 6, 8)
    new = rewritten(layer, ["subpixel_convolution"], x)  # which proves it in float64
    assert isinstance(new, (SubpixelConvTranspose2d, nn.ConvTranspose2d))
    assert torch.allclose(new(x), layer(x), atol=1e-5)  # another order of additions


def test_subpixel_convolutions_of_the_stock_generators_have_two_by_two_kernels():
    for kernel, more in ((3, 1), (4, 0)):
        layer = nn.ConvTranspose2d(4, 5, kernel, 2, 1, more)
        new = rewritten(layer, ["subpixel_convolution"], torch.rand(1, 4, 8, 8))
        assert isinstance(new, SubpixelConvTranspose2d)
        assert new.convolution.kernel_size == (2, 2) and new.convolution.out_channels == 20
    uneven = nn.ConvTranspose2d(4, 5, (4, 3), 2, 1, (0, 1))
    assert isinstance(
        rewritten(uneven, ["subpixel_convolution"], torch.rand(1, 4, 8, 6)), SubpixelConvTranspose2d
    )


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("side", [16, 17, 19])
def test_blocked_convolutions_are_the_plain_ones(padding, side):
    layer = nn.Conv2d(5, 3, 7, padding=padding)
    x = torch.rand(2, 5, side, side + 2)
    new = rewritten(layer, ["blocked_convolution"], x)  # which proves it in float64
    assert isinstance(new, BlockedConv2d) and new.convolution.out_channels == 48
    assert torch.allclose(new(x), layer(x), atol=1e-5)


def test_convolutions_that_would_not_gain_are_not_blocked():
    for layer in (
        nn.Conv2d(4, 3, 3, padding=1),  # four times the multiply-adds
        nn.Conv2d(4, 8, 7),
        nn.Conv2d(4, 4, 7, groups=2),
        nn.Conv2d(4, 3, 7, stride=2),
        nn.Conv2d(4, 3, 7, padding=3, padding_mode="reflect"),
    ):
        assert type(rewritten(layer, ["blocked_convolution"], torch.rand(1, 4, 16, 16))) is nn.Conv2d


def test_onnx_files_are_rewritten_to_be_faster_unless_their_size_is_free():
    onnx = target_of("onnx")
    assert onnx.pieces("fp32", dynamic=False) == ("blocked_convolution",)
    assert onnx.pieces("fp32", dynamic=True) == ()
    assert onnx.pieces("int8", dynamic=False) == ("subpixel_convolution", "blocked_convolution")
    assert target_of("litert").pieces("int8", dynamic=False) == target_of("litert").rewrite


def test_other_transposed_convolutions_stay_as_they_are():
    for layer in (
        nn.ConvTranspose2d(4, 4, 3, 2, groups=2),
        nn.ConvTranspose2d(4, 4, 3, 2, dilation=2),
        nn.ConvTranspose2d(4, 4, 3, 1),
        nn.ConvTranspose2d(4, 4, 4, (2, 1)),
    ):
        assert isinstance(
            rewritten(layer, ["subpixel_convolution"], torch.rand(1, 4, 8, 8)), nn.ConvTranspose2d
        )
