"""Generators of several inputs and outputs, and of other ranges than tanh's, in every target that is installed."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from coronet_plugin import ExportError, OptionError
from coronet_plugin.errors import describe
from coronet_plugin.export import pytorch, silence, verify
from coronet_plugin.export.normalisation import why_not_fp16
from coronet_plugin.export.pictures import noise, noise_like
from coronet_plugin.export.pipeline import export_generator
from coronet_plugin.export.ports import Flat, ports_of
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.quantization.quality import quality
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import TARGETS

SIZE = 24
Pair = namedtuple("Pair", "image mask")


@dataclass
class Record:
    image: torch.Tensor
    features: list


class Base(nn.Module):
    """A picture and a mask make a picture, an alpha of one channel and features of half the size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.InstanceNorm2d(8), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)
        self.image, self.alpha = nn.Conv2d(8, 3, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def run(self, x):
        features = self.first(x)
        y = torch.relu(self.up(features))
        return torch.tanh(self.image(y)), torch.sigmoid(self.alpha(y)), features


class TwoIn(Base):
    def forward(self, photo, mask):
        return self.run(torch.cat([photo, mask], 1))[0]


class TupleOut(Base):
    def forward(self, x):
        image, alpha, features = self.run(x)
        return image, [alpha, None], features


class DictOut(Base):
    def forward(
        self, photo, mask
    ):  # the keys in another order than the alphabet's, one as an input is called
        image, alpha, features = self.run(torch.cat([photo, mask], 1))
        return {"picture": image, "mask": alpha, "0 features": features}


class Labelled(Base):
    """With a vector beside the picture, as of a style or a class."""

    def __init__(self) -> None:
        super().__init__()
        self.style = nn.Linear(5, 1)

    def forward(self, photo, style):
        return self.run(torch.cat([photo, self.style(style)[:, :, None, None] * photo[:, :1]], 1))[:2]


PHOTO, MASK = torch.rand(1, 3, SIZE, SIZE) * 2 - 1, torch.rand(1, 1, SIZE, SIZE)
CASES = {
    "two inputs": (TwoIn, (PHOTO, MASK), ["photo", "mask"], ["output"]),
    "tuple": (TupleOut, torch.cat([PHOTO, MASK], 1), ["input"], ["output_0", "output_1_0", "output_2"]),
    "dictionary": (
        DictOut,
        (PHOTO, MASK),
        ["photo", "mask"],
        ["picture", "output_mask", "output_0_features"],
    ),
    "vector": (Labelled, (PHOTO, torch.rand(1, 5)), ["photo", "style"], ["output_0", "output_1"]),
}
SLOW = ("executorch", "litert")
RUNNABLE = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in TARGETS
    if name != "coreml"
]


def needs(target: str) -> None:
    for name in TARGETS[target].packages:
        pytest.importorskip(name)


def names_in(record, end: str) -> list[str]:
    ports = record.get(f"{end}s") or [record[end]]
    return [port["name"] for port in ports]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", RUNNABLE)
def test_every_output_is_named_and_compared(target, case, tmp_path):
    needs(target)
    if target == "pt2" and case != "two inputs" and not hasattr(torch.export, "Dim"):
        pytest.skip("torch.export of this version cannot follow a generator of several outputs")
    build, example, inputs, outputs = CASES[case]
    generator = build().eval()
    result = export_generator(generator, Request(TARGETS[target]), tmp_path, "G", example=example)
    assert result.accepted and list(result.differences) == outputs
    assert result.difference.max == max(found.max for found in result.differences.values())
    record = json.loads(result.files[-1].read_text())
    assert list(record["check"]["outputs"]) == outputs
    if target not in ("litert", "ncnn"):  # whose own names are these
        assert (names_in(record, "input"), names_in(record, "output")) == (inputs, outputs)
    values = noise_like([x.numpy() for x in (example if isinstance(example, tuple) else (example,))], 0, 0)
    expected = verify.outputs_of(as_array_model(Flat(generator)), values)
    found = verify.outputs_of(TARGETS[target].load(result.path), values)
    assert [x.shape for x in found] == [x.shape for x in expected]
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)  # fp32 of MNN has the fewest digits


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_core_ml_is_written_with_the_names(dtype, tmp_path):
    coremltools = pytest.importorskip("coremltools")
    build, example, inputs, outputs = CASES["dictionary"]
    result = export_generator(build(), Request(TARGETS["coreml"], dtype), tmp_path, "G", example=example)
    about = coremltools.models.MLModel(str(result.path), skip_model_load=True).get_spec().description
    assert [[p.name for p in ports] for ports in (about.input, about.output)] == [inputs, outputs]


@pytest.mark.parametrize("case", ["dictionary", "vector"])
@pytest.mark.parametrize("target", ["onnx", "openvino", "torchscript", "pt2"])
def test_dynamic_files_of_several(target, case, tmp_path):
    needs(target)
    if target == "pt2" and not hasattr(torch.export, "Dim"):
        pytest.skip("torch.export of this version has no free dimensions")
    build, example, *_ = CASES[case]
    generator = build().eval()
    request = Request(TARGETS[target], dynamic=True, multiple=2)
    result = export_generator(generator, request, tmp_path, "G", example=example)
    assert result.accepted
    values = noise_like([np.concatenate([x.numpy()] * 2) for x in example], 6, 10)
    expected = verify.outputs_of(as_array_model(Flat(generator)), values)
    for ours, theirs in zip(verify.outputs_of(TARGETS[target].load(result.path), values), expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    shapes = {port["name"]: port["shape"] for port in result.record["inputs"]}
    assert shapes["photo"] == ["N", 3, "multiple of 2", "multiple of 2"]
    assert shapes.get("style", ["N", 5]) == ["N", 5]


@pytest.mark.skipif(bool(why_not_fp16()), reason=why_not_fp16())
@pytest.mark.parametrize("target", ["torchscript", "onnx", "openvino", "mnn", "ncnn"])
def test_fp16_of_several(target, tmp_path):
    needs(target)
    build, example, *_ = CASES["dictionary"]
    assert export_generator(
        build(), Request(TARGETS[target], "fp16"), tmp_path, "G", example=example
    ).accepted


def test_one_wrong_output_of_several_is_enough(tmp_path, monkeypatch):
    load = pytorch.load

    def wrong(path, threads=1):
        run = load(path, threads)
        return lambda *values: (lambda image, alpha, features: (image, 1 - alpha, features))(*run(*values))

    monkeypatch.setattr("coronet_plugin.export.pytorch.load", wrong)
    result = export_generator(
        TupleOut(), Request(TARGETS["torchscript"]), tmp_path, "G", example=CASES["tuple"][1]
    )
    tolerance = verify.TOLERANCES["fp32"]
    assert not result.accepted and result.path.name.endswith(".rejected")
    assert [found.within(tolerance) for found in result.differences.values()] == [True, False, True]


def test_containers_of_all_kinds_are_named():
    x = torch.zeros(1, 3, 4, 4)
    kinds = {
        "image mask": Pair(x, x),
        "image features_0 features_1": Record(x, [x, x]),
        "output_a_b a_b": {"a": {"b": x}, "a_b": x},
        "output_0 output_1_x": (x, {"x": x, "n": 3}, None, 7),
        "output": {"alone": x},
    }
    for names, value in kinds.items():
        net = nn.Identity()
        net.forward = lambda image, value=value: value
        assert sorted(ports_of(net, (x,)).output_names) == sorted(names.split()), names


class Returning(nn.Module):
    def __init__(self, value) -> None:
        super().__init__()
        self.layer, self.value = nn.Conv2d(3, 3, 1), value

    def forward(self, x):
        return self.value


class Halves(Base):
    def forward(self, photo, mask):
        return self.run(torch.cat([photo, nn.functional.interpolate(mask, scale_factor=2)], 1))[0]


@pytest.mark.parametrize(
    ("build", "example", "asked", "message"),
    [
        (TwoIn, None, {}, r"TwoIn does not run on \(1, 4, 256, 256\): .*'mask'.*pass example="),
        (lambda: Returning(7), None, {}, "returns int without a tensor"),
        (
            DictOut,
            (PHOTO, MASK),
            {"dtype": "int8"},
            "from one picture to one, and this goes from photo, mask to picture, ",
        ),
        (DictOut, (PHOTO, MASK[..., :12, :12]), {}, "does not run on"),
        (
            Halves,
            (PHOTO, MASK[..., :12, :12]),
            {"dynamic": True},
            "one height and width, and these are photo .*24.*12",
        ),
    ],
)
def test_what_cannot_be_is_one_line(build, example, asked, message, tmp_path, monkeypatch):
    monkeypatch.setattr("coronet_plugin.export.targets.Target.require", lambda *_: None)
    with pytest.raises((ExportError, OptionError), match=message) as caught:
        export_generator(build(), Request(TARGETS["onnx"], **asked), tmp_path, "G", example=example)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_tools_speak_in_one_line_without_colours():
    assert describe(RuntimeError("\x1b[96m[verbose]\x1b[0m no\n\x1b[31mgo\x1b[0m")) == "[verbose] no go"
    assert silence.last_of("first\n\x1b[1;31merror: \x07no\x1b[0m\n\n") == "error: \\x07no"


# -- other ranges --------------------------------------------------------------------
class Scaled(Base):
    """A picture from ``low`` to ``high``, or as it comes."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x):
        y = self.run(x)[0]
        return (y + 1) * ((self.high - self.low) / 2) + self.low


RANGES = [(0, 255), (0, 1), (0, 1e-3), (-1e6, 1e6), (100, 355)]


@pytest.mark.skipif(bool(why_not_fp16()), reason=why_not_fp16())
@pytest.mark.parametrize("limits", RANGES)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_differences_are_parts_of_the_outputs_range(dtype, limits, tmp_path):
    generator = Scaled(*limits)
    if dtype == "fp16" and limits == (-1e6, 1e6):
        pytest.skip("fp16 ends at 65504")
    result = export_generator(generator, Request(TARGETS["torchscript"], dtype, (32, 32)), tmp_path, "G")
    assert result.accepted, result.difference
    low, high = result.record["output"]["range"]
    assert limits[0] <= low < high <= limits[1] and high - low > (limits[1] - limits[0]) / 20
    assert result.difference.max < (0.1 if dtype == "fp16" else 1e-3)


@pytest.mark.parametrize("limits", RANGES)
def test_a_wrong_file_is_rejected_in_any_range(limits, tmp_path, monkeypatch):
    load = pytorch.load
    off = 0.02 * (limits[1] - limits[0])
    monkeypatch.setattr(
        "coronet_plugin.export.pytorch.load",
        lambda path, threads=1: lambda x: load(path)(x) + np.float32(off),
    )
    result = export_generator(Scaled(*limits), Request(TARGETS["torchscript"], size=(32, 32)), tmp_path, "G")
    assert not result.accepted


def test_the_range_is_that_of_the_last_function_or_what_is_seen():
    x = noise(1, 3, (16, 16)).values / 4
    tanh, sigmoid = nn.Sequential(nn.Tanh()), nn.Sequential(nn.Sigmoid())
    functional = nn.Identity()
    functional.forward = lambda x: x.tanh_()
    assert verify.bounds_of(tanh, (x,)) == verify.bounds_of(functional, (x.copy(),)) == [(-1, 1)]
    assert verify.bounds_of(sigmoid, (x,)) == [(0, 1)]
    assert verify.bounds_of(nn.Sequential(nn.Tanh(), nn.ReLU()), (x,)) == [None]
    assert verify.range_of([x], (-1, 1)) == (-1, 1)
    assert verify.range_of([x, 255 * x], (-1, 1)) == verify.range_of([x, 255 * x])  # changed in place since
    assert verify.range_of([np.full(4, 5.0)]) == (0, 10) and verify.range_of([np.zeros(4)]) == (-1, 1)


def test_int8_is_judged_in_the_outputs_range():
    """As pixels from -1 to 1, pictures from 0 to 255 are all white, and anything is as good as they are."""
    pictures = noise(2, 3, (32, 32)).values

    def at(scale: float, shift: float):
        return lambda x: (x + 1) * 127.5 * scale + shift

    same, worse = (quality(at(*how), at(1, 0), pictures, pictures, None) for how in ((1, 0), (0.5, 60)))
    assert same.ssim == 1 and same.truth_ssim > 0.99 and worse.drop > 0.1


@pytest.mark.parametrize("dynamic", [False, True])
def test_several_by_the_former_exporter_to_onnx(dynamic, tmp_path, monkeypatch):
    needs("onnx")
    monkeypatch.setattr("coronet_plugin.export.onnx.can_use_dynamo", lambda: False)
    build, example, _, outputs = CASES["dictionary"]
    request = Request(TARGETS["onnx"], dynamic=dynamic, multiple=2)
    result = export_generator(build(), request, tmp_path, "G", example=example)
    assert result.accepted and list(result.differences) == outputs
