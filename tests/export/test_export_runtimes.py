"""Files of ``coronet export`` in the runtimes they are for; each where it is installed."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from coronet_plugin.export import onnx as onnx_files
from coronet_plugin.export.normalisation import reference, why_not_fp16
from coronet_plugin.export.pictures import noise
from coronet_plugin.export.pipeline import export_generator
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.measure.onnx import has_dynamo_exporter

# Rounding of fp32 and fp16 through 20 layers, in units of tanh's output; MNN's fp32 has the fewest digits.
CLOSE = {"fp32": 2e-3, "fp16": 3e-2}
SLOW = ("executorch", "litert")
OTHERS = [name for name in TARGETS if name not in ("torchscript", "pt2", "onnx", "coreml")]


def generator_of(netG: str = "resnet_6blocks", norm: str = "instance", dropout: bool = False):
    torch.manual_seed(0)
    return build_generator(3, 3, 4, netG, norm, dropout)


def check(target: str, generator, request: Request, folder) -> dict:
    """Export, and compare on a picture that the export itself has not seen; gives the record."""
    result = export_generator(generator, request, folder, "G")
    assert result.accepted, result.difference
    values = noise(3, 3, request.size).values[2:]
    expected = as_array_model(reference(generator, request.norm_mode))(values)
    found = TARGETS[target].load(result.path)(values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=CLOSE[request.dtype])
    assert set(TARGETS[target].versions()) <= set(result.record["versions"])
    return dict(result.record)


QUICK = {("fp32", False, True), ("fp32", True, False), ("fp16", False, False)}
"""(dtype, dynamic, dynamo): of every choice both values."""
ONNX_CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in itertools.product(("fp32", "fp16"), (False, True), (False, True))
]


@pytest.mark.parametrize(("dtype", "dynamic", "dynamo"), ONNX_CASES)
def test_onnx(dtype, dynamic, dynamo, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    if dtype == "fp16" and why_not_fp16():
        pytest.skip(why_not_fp16())
    if dynamo:
        pytest.importorskip("onnxscript")
        if not has_dynamo_exporter():
            pytest.skip("this torch has the former exporter alone")
    else:
        monkeypatch.setattr(onnx_files, "can_use_dynamo", lambda: False)
    request = Request(TARGETS["onnx"], dtype, (32, 32), dynamic, multiple=4)
    record = check("onnx", generator_of("resnet_6blocks", "batch", True), request, tmp_path)
    assert record["exporter"] == f"torch.onnx, {'dynamo' if dynamo else 'legacy'}"
    if dynamic:
        run = TARGETS["onnx"].load(tmp_path / f"G_{dtype}.onnx")
        assert run(noise(2, 3, (40, 64)).values).shape == (2, 3, 40, 64)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / f"G_{dtype}.onnx"))
    assert [x.name for x in (*session.get_inputs(), *session.get_outputs())] == ["input", "output"]
    assert session.get_inputs()[0].type == "tensor(float)"
    written = (tmp_path / f"G_{dtype}.onnx").read_bytes()
    for place in (Path(torch.__file__).parent, Path(onnx_files.__file__).parents[2]):
        assert str(place).encode() not in written  # files are passed on: they name no folders of this machine


def test_onnx_of_a_unet_in_both_norm_modes(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_files, "can_use_dynamo", lambda: False)  # the quicker one
    generator = generator_of("unet_128", "batch", True)
    for norm_mode in ("batch", "running"):
        check(
            "onnx", generator, Request(TARGETS["onnx"], "fp32", (128, 128), False, norm_mode, 128), tmp_path
        )


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=pytest.mark.slow) if t in SLOW else t for t in OTHERS]
)
def test_other_runtimes(target, dtype, tmp_path):
    for name in TARGETS[target].packages:
        pytest.importorskip(name)
    record = check(target, generator_of(), Request(TARGETS[target], dtype, (32, 32), multiple=4), tmp_path)
    if target == "executorch" and dtype == "fp32":
        assert (record["delegate_calls"], record["plain_calls"]) == (1, 0)  # what the rewrite is for


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_core_ml_is_written_and_says_where_it_was_not_run(dtype, tmp_path):
    pytest.importorskip("coremltools")
    result = export_generator(
        generator_of(), Request(TARGETS["coreml"], dtype, (32, 32), multiple=4), tmp_path, "G"
    )
    assert result.path.is_dir() and result.accepted
    if result.difference is None:
        assert result.record["check"]["why_not_run"] == "Core ML runs on macOS and iOS alone"
        assert result.record["check"]["ran"] is False
    again = export_generator(
        generator_of(), Request(TARGETS["coreml"], dtype, (32, 32), multiple=4), tmp_path, "G"
    )
    assert again.path.is_dir()  # a folder is replaced, too


@pytest.mark.parametrize("dynamic", [True, False])
def test_openvino_dynamic(dynamic, tmp_path):
    pytest.importorskip("openvino")
    check(
        "openvino",
        generator_of(),
        Request(TARGETS["openvino"], "fp32", (32, 32), dynamic, multiple=4),
        tmp_path,
    )
    if dynamic:
        assert TARGETS["openvino"].load(tmp_path / "G_fp32.xml")(noise(2, 3, (40, 64)).values).shape == (
            2,
            3,
            40,
            64,
        )
