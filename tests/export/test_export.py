"""``coronet export``: rewritten layers, norms as test.py uses them, fp16, and what the command does."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib import metadata

import numpy as np
import pytest
import torch
from conftest import smooth_image
from run_helpers import make_cycle_run, make_run
from torch import nn

from coronet_plugin import ExportError, OptionError
from coronet_plugin.cli import main
from coronet_plugin.export import targets as registry
from coronet_plugin.export import verify
from coronet_plugin.export.normalisation import in_fp16, normalised, reference, why_not_fp16
from coronet_plugin.export.pictures import NOISE, noise, pictures_for
from coronet_plugin.export.pipeline import export_generator
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.request import Request
from coronet_plugin.export.rewrite import PIECES, prove_equal, rewritten
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.generators.stock import build_generator

SIZES = {"resnet_9blocks": 32, "resnet_6blocks": 32, "unet_128": 128, "unet_256": 256}


def generator_of(netG: str, norm: str, dropout: bool = False, ngf: int = 4) -> nn.Module:
    """Small, with scales, shifts and statistics as if it had been trained."""
    torch.manual_seed(0)
    generator = build_generator(3, 3, ngf, netG, norm, dropout)
    for tensor in [*generator.parameters(), *generator.buffers()]:
        if tensor.ndim == 1:
            tensor.data += 0.5 * torch.rand(tensor.shape)
    return generator


def image(size: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def gap(first: nn.Module, second: nn.Module, x: torch.Tensor) -> float:
    """Largest difference in float64, in the modes the two are in."""
    return float((first.double()(x.double()) - second.double()(x.double())).abs().max())


# -- rewrite --------------------------------------------------------------------
@pytest.mark.parametrize("pieces", [*((piece,) for piece in PIECES), tuple(PIECES)])
@pytest.mark.parametrize("netG", SIZES)
def test_rewritten_generators_compute_the_same(netG, pieces):
    generator = generator_of(netG, "instance").eval()
    new = rewritten(generator, pieces, image(SIZES[netG]))
    assert gap(generator, new, image(SIZES[netG], 2)) < 1e-10  # equal up to the order of additions
    kinds = [type(module).__name__ for module in new.modules()]
    if netG.startswith("resnet"):
        gone = {"instance_norm": "InstanceNorm2d", "reflection_pad": "ReflectionPad2d"}
        assert not any(gone.get(piece) in kinds for piece in pieces)
    if not {"subpixel_convolution", "blocked_convolution"} & {*pieces}:  # whose kernels have zeros around
        assert sum(p.numel() for p in new.parameters()) == sum(p.numel() for p in generator.parameters())


@pytest.mark.parametrize(
    "padding,output_padding,stride", [(1, 1, 2), (2, 1, 3), ((2, 1), (0, 1), 2), (0, 0, 2)]
)
def test_a_transposed_convolution_loses_its_output_padding(padding, output_padding, stride):
    layer = nn.ConvTranspose2d(3, 5, 4, stride, padding, output_padding)
    new = rewritten(nn.Sequential(layer), ["transposed_convolution"], image(7))
    assert gap(nn.Sequential(layer), new, image(9, 2)) < 1e-12
    assert all(set(m.output_padding) == {0} for m in new.modules() if isinstance(m, nn.ConvTranspose2d))


def test_a_transposed_convolution_that_cannot_be_cropped_stays():
    layer = nn.ConvTranspose2d(3, 3, 3, 2, 0, 1)  # its last row and column are no part of the whole
    [new] = rewritten(nn.Sequential(layer), ["transposed_convolution"], image(8))
    assert isinstance(new, nn.ConvTranspose2d) and new.output_padding == (1, 1)


def test_uneven_reflection_affine_norm_and_a_layer_used_twice():
    norm = nn.InstanceNorm2d(3, affine=True)
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    double = nn.ConvTranspose2d(3, 3, 3, 2, 1, 1)
    net = nn.Sequential(
        nn.ReflectionPad2d((3, 0, 1, 2)), norm, nn.Sequential(double), norm, nn.Sequential(double)
    )
    new = rewritten(net, PIECES, image(9))
    assert gap(net, new, image(9, 2)) < 1e-10
    assert new[1] is new[3]


def test_instance_norm_with_running_statistics_is_left_alone():
    norm = nn.InstanceNorm2d(3, track_running_stats=True)
    norm.running_mean += 1
    net = nn.Sequential(norm).eval()
    assert gap(net, rewritten(net, ["instance_norm"], image(8)), image(8)) == 0


def test_a_rewrite_that_is_not_equal_is_refused(monkeypatch):
    monkeypatch.setitem(
        PIECES, "reflection_pad", (nn.ReflectionPad2d, lambda layer: nn.ReplicationPad2d(layer.padding))
    )
    with pytest.raises(ExportError, match="changed the output by"):
        rewritten(generator_of("resnet_6blocks", "instance").eval(), ["reflection_pad"], image(32))
    with pytest.raises(ExportError, match="changed the shape"):
        prove_equal(nn.Identity(), nn.ReflectionPad2d(1), image(8))
    with pytest.raises(
        OptionError, match="rewrite 'everything' is not known; choose from .*transposed_convolution"
    ):
        rewritten(nn.Identity(), ["everything"], image(8))


# -- norms ----------------------------------------------------------------------
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("netG", SIZES)
def test_batch_mode_is_what_test_py_shows_without_dropout(netG, dropout):
    generator = generator_of(netG, "batch", dropout)
    shown = reference(generator, "batch")
    assert shown.training  # the truth is the generator in train mode itself
    exported = normalised(generator, "batch")
    assert not any(module.training or isinstance(module, nn.BatchNorm2d) for module in exported.modules())
    assert gap(shown, exported, image(SIZES[netG])) < 1e-10  # equal for one picture


def test_running_mode_is_evaluation_mode_and_differs_from_batch_mode():
    generator = generator_of("unet_128", "batch", True)
    x = image(128)
    exported = normalised(generator, "running")
    assert gap(generator.eval(), exported, x) == 0
    assert gap(normalised(generator, "batch"), exported, x) > 1e-2
    with pytest.raises(OptionError, match="--norm_mode eval is not known; choose one of batch, running"):
        normalised(generator, "eval")


def test_preparing_leaves_the_generator_as_it_was():
    generator = generator_of("unet_128", "batch", True)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    for mode in ("batch", "running"):
        reference(generator, mode)(image(128))
        normalised(generator, mode)(image(128))
    assert all(module.training for module in generator.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


needs_fp16 = pytest.mark.skipif(bool(why_not_fp16()), reason=why_not_fp16())


def test_an_old_torch_says_that_it_has_no_fp16(monkeypatch):
    def forward(self, image):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(nn.ReflectionPad2d, "forward", forward)
    with pytest.raises(
        OptionError, match="torchscript --dtype fp16: .*not implemented for 'Half'.*update torch"
    ):
        Request(TARGETS["torchscript"], "fp16").check()
    Request(TARGETS["torchscript"], "fp32").check()


@needs_fp16
@torch.no_grad()
def test_instance_norm_does_not_overflow_in_fp16():
    """Squares beyond 65504 are infinite in fp16; values as large as this come out of wide layers."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    layer.weight.data *= 3000
    net = nn.Sequential(layer, nn.InstanceNorm2d(4), nn.Tanh()).eval()
    x = image(32)
    assert net[0](x).abs().max() > 2000
    elementary = rewritten(net, ["instance_norm"], x)
    wrong = elementary.half()(x.half())
    assert (
        not torch.isfinite(wrong).all() or (wrong.float() - net(x)).abs().max() > 0.1
    )  # what is to be avoided
    from coronet_plugin.export.rewrite import ElementaryInstanceNorm2d

    right = in_fp16(rewritten(net, ["instance_norm"], x), (ElementaryInstanceNorm2d,))(x)
    assert right.dtype == torch.float32
    assert (right - net(x)).abs().max() < 5e-3  # eleven bits of fp16, through one norm
    assert (in_fp16(net)(x) - net(x)).abs().max() < 5e-3


# -- files of torch ---------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["fp32", pytest.param("fp16", marks=needs_fp16)])
@pytest.mark.parametrize("target", ["torchscript", "pt2"])
def test_torchs_own_files_compute_the_same(target, dtype, tmp_path):
    generator = generator_of("resnet_6blocks", "batch", True)
    result = export_generator(generator, Request(TARGETS[target], dtype, (32, 48), multiple=4), tmp_path, "G")
    assert result.accepted and [path.name for path in result.files] == [
        f"G_{dtype}{TARGETS[target].suffixes[0]}",
        f"{result.path.name}.json",
    ]
    values = noise(2, 3, (32, 48)).values[1:]
    expected = as_array_model(reference(generator, "batch"))(values)
    found = TARGETS[target].load(result.path)(values)
    # fp32: the same additions; fp16: 2^-11 a rounding, through some 20 layers
    np.testing.assert_allclose(found, expected, atol={"fp32": 1e-5, "fp16": 3e-2}[dtype])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in result.files)


@pytest.mark.parametrize(("netG", "multiple"), [("resnet_6blocks", 4), ("unet_128", 128)])
@pytest.mark.parametrize("target", ["torchscript", "pt2"])
def test_dynamic_files_take_other_sizes_and_batches(target, netG, multiple, tmp_path):
    if target == "pt2" and not hasattr(torch.export, "Dim"):
        pytest.skip("torch.export of this version has no free dimensions")
    settings = getattr(torch.fx.experimental, "_config", None)
    if target == "pt2" and netG == "unet_128" and not hasattr(settings, "backed_size_oblivious"):
        pytest.skip("torch.export of this version takes a bottleneck of one pixel for always one")
    generator = generator_of(netG, "instance")
    request = Request(TARGETS[target], size=(multiple * 2, multiple), dynamic=True, multiple=multiple)
    if netG == "resnet_6blocks":
        request = dataclasses.replace(request, size=(32, 32))
    result = export_generator(generator, request, tmp_path, "G")
    assert result.accepted
    x = noise(2, 3, (multiple * (1 if multiple > 4 else 10), multiple * (2 if multiple > 4 else 11))).values
    expected = as_array_model(generator.eval())(x)
    np.testing.assert_allclose(TARGETS[target].load(result.path)(x), expected, atol=1e-5)
    assert result.record["input"]["shape"] == ["N", 3, f"multiple of {multiple}", f"multiple of {multiple}"]


# -- pictures ---------------------------------------------------------------------
def test_pictures_come_from_the_folder_else_the_run_else_its_data_else_noise(tmp_path):
    make_run(tmp_path, "paired")
    weights = tmp_path / "checkpoints" / "paired" / "latest_net_G.pth"
    mine = tmp_path / "mine"
    mine.mkdir()
    smooth_image(3, 40, 30).save(mine / "a.png")
    sources = []
    for images, results in (
        (mine, tmp_path / "results"),
        (None, tmp_path / "results"),
        (None, tmp_path / "none"),
    ):
        found = pictures_for(weights, "G", 3, (32, 48), images=images, results_dir=results)
        assert found.values.dtype == np.float32 and found.values.shape[1:] == (3, 32, 48)
        assert found.values.min() >= -1 and found.values.max() <= 1
        sources.append((len(found.values), found.source))
    assert sources == [(1, "pictures of mine"), (3, "test pictures of the run paired"), (8, NOISE)]


@pytest.mark.parametrize(("direction", "side"), [("AtoB", 0), ("BtoA", 1)])
def test_the_half_of_a_pair_that_the_generator_takes_is_read(direction, side, tmp_path):
    root = tmp_path / "data" / "train"
    root.mkdir(parents=True)
    halves = [np.full((8, 8, 3), value, dtype=np.uint8) for value in (0, 255)]
    from PIL import Image

    Image.fromarray(np.concatenate(halves, 1)).save(root / "1.png")
    make_run(tmp_path, "r", stems=())
    folder = tmp_path / "checkpoints" / "r"
    text = (folder / "train_opt.txt").read_text().replace("direction: AtoB", f"direction: {direction}")
    (folder / "train_opt.txt").write_text(text + f"\n    dataroot: {tmp_path / 'data'}\n")
    found = pictures_for(
        folder / "latest_net_G.pth", "G", 3, (8, 8), phase="train", results_dir=tmp_path / "no"
    )
    assert found.source == "train pictures of data"
    assert np.all(found.values == (-1, 1)[side])


# -- the command ------------------------------------------------------------------
def run_export(root, *arguments: object) -> int:
    folders = [
        "--checkpoints_dir",
        root / "checkpoints",
        "--results_dir",
        root / "results",
        "--output",
        root / "out",
    ]
    return main(["export", *map(str, arguments), *map(str, folders)])


def test_export_of_a_slim_run(tmp_path, capsys):
    make_run(tmp_path, "small", budget=0.5)
    assert run_export(tmp_path, "small", "--to", "torchscript") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "out" / name) for name in ("G_fp32.pt", "G_fp32.pt.json")]
    assert "difference to torch on 3 test pictures of the run small: at most" in err
    assert "as test.py does; dropout is off" in err
    assert "ms a picture here on one thread, the median of 2" in err  # of three, the first warms up
    record = json.loads((tmp_path / "out" / "G_fp32.pt.json").read_text())
    assert record["input"] == {
        "name": "input",
        "layout": "NCHW",
        "shape": [1, 3, 32, 32],
        "dtype": "float32",
        "range": [-1, 1],
    }
    assert record["latency"]["median_ms"] > 0 and record["latency"]["calls"] == 2
    assert record["norm_mode"] == "batch" and record["dropout"] == "off" and record["dtype"] == "fp32"
    assert record["files"] == {"G_fp32.pt": (tmp_path / "out" / "G_fp32.pt").stat().st_size}
    assert record["versions"]["torch"] == metadata.version("torch")
    assert record["check"]["difference_to_torch"]["max"] < 1e-5 and record["check"]["accepted"]
    assert record["check"]["instruction_set"].startswith(f"{platform.machine()}: ")
    assert record["cost"]["macs"] < record["cost_dense"]["macs"] and record["network"] == "G"


def test_all_generators_or_one_by_name(tmp_path, capsys):
    make_cycle_run(tmp_path, "cycle")
    assert run_export(tmp_path, "cycle", "--to", "torchscript", "--network", "G_B") == 0
    assert "2 test pictures of the run cycle" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").glob("*.pt")} == {"G_B_fp32.pt"}
    assert run_export(tmp_path, "cycle", "--to", "torchscript", "--norm_mode", "running") == 0
    assert "as test.py --eval does" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").glob("*.pt")} == {"G_A_fp32.pt", "G_B_fp32.pt"}


@needs_fp16
def test_a_file_that_computes_something_else_is_kept_aside(tmp_path, capsys, monkeypatch):
    make_run(tmp_path, "dense")
    monkeypatch.setitem(verify.TOLERANCES, "fp16", verify.Tolerance(max=1e-9, mean=1e-9, ssim=1.0))
    assert run_export(tmp_path, "dense", "--to", "torchscript", "--dtype", "fp16") == 3
    assert (
        "G_fp16.pt.rejected does not compute the same: accepted are at most 1e-09" in capsys.readouterr().err
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "G_fp16.pt.rejected",
        "G_fp16.pt.rejected.json",
    ]
    record = json.loads((tmp_path / "out" / "G_fp16.pt.rejected.json").read_text())
    assert record["check"]["accepted"] is False and record["check"]["difference_to_torch"]["max"] > 1e-9


def test_not_a_number_is_rejected():
    values = np.zeros((1, 3, 16, 16), dtype=np.float32)
    found = verify.difference(lambda x: x * np.float32("nan"), lambda x: x, values)
    assert not found.within(verify.TOLERANCES["int8"])
    with pytest.raises(ExportError, match=r"gives the shape \(1, 3, 8, 16\), torch \(1, 3, 16, 16\)"):
        verify.difference(lambda x: x[:, :, :8], lambda x: x, values)
    with pytest.raises(ExportError, match="does not run: division by zero"):
        verify.difference(lambda x: 1 / 0, lambda x: x, values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "tensorrt"], "--to tensorrt is not known; choose one of onnx, litert"),
        (
            ["--to", "torchscript", "--dtype", "fp8"],
            "--dtype fp8 is not offered for torchscript; choose one of fp32, fp16",
        ),
        (["--to", "ncnn", "--dynamic"], "--dynamic is not possible for ncnn; leave it out and set --size"),
        (
            ["--to", "torchscript", "--size", "30"],
            "--size 30x30 does not fit this generator; height and width must be multiples of 4",
        ),
        (["--to", "torchscript", "--norm_mode", "x"], "--norm_mode x is not known"),
        (["--to", "torchscript", "--network", "G_A"], "--network G_A: dense has G"),
        (["--to", "torchscript", "--images", "nowhere"], "no picture in nowhere"),
        ([], "give a run or a weight file, and --to TARGET"),
    ],
)
def test_errors_in_one_line(arguments, message, tmp_path, capsys):
    make_run(tmp_path, "dense", stems=())
    assert run_export(tmp_path, "dense", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


def test_a_unet_says_what_sizes_it_takes(tmp_path, capsys):
    torch.save(generator_of("unet_128", "batch", True).state_dict(), tmp_path / "latest_net_G.pth")
    assert (
        run_export(tmp_path, tmp_path / "latest_net_G.pth", "--to", "torchscript", "--size", "128x200") == 2
    )
    assert "height and width must be multiples of 128" in capsys.readouterr().err


def test_a_missing_package_is_answered_with_the_extra(tmp_path, capsys, monkeypatch):
    make_run(tmp_path, "any", stems=())
    monkeypatch.setattr(registry, "is_installed", lambda name: name == "torch")
    for name, target in TARGETS.items():
        if target.extra:
            assert run_export(tmp_path, "any", "--to", name) == 2
            assert (
                f'not installed here: pip install "coronet-plugin[{target.extra}]"' in capsys.readouterr().err
            )
    assert main(["export", "--list"]) == 0
    listing = capsys.readouterr().out
    assert f"installed here: yes: torch {metadata.version('torch')}" in listing
    assert listing.count("installed here: no: pip install") == sum(bool(t.extra) for t in TARGETS.values())
    assert all(f"{target.name:<12} {target.purpose}" in listing for target in TARGETS.values())


def test_every_extra_named_is_one_that_can_be_installed():
    from conftest import ROOT

    extras = (ROOT / "setup.py").read_text()
    assert all(f'"{target.extra}": ' in extras for target in TARGETS.values() if target.extra)
