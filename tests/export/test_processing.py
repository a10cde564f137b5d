"""Pictures as an app has them: what a file says of bytes, and files that take and give bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from run_helpers import make_run

from coronet_plugin import ExportError, OptionError
from coronet_plugin.cli import main
from coronet_plugin.export.normalisation import why_not_fp16
from coronet_plugin.export.pipeline import export_generator
from coronet_plugin.export.processing import PREFIX
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import TARGETS
from coronet_plugin.generators.stock import build_generator
from util.util import tensor2im

SIZE = 32


def small(norm: str = "instance", channels: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_generator(channels, channels, 4, "resnet_6blocks", norm, False).eval()


def require(target: str) -> None:
    if TARGETS[target].missing:
        pytest.skip(f"{target} is not installed here")


def bytes_of(size: int = SIZE, channels: int = 3, count: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def by_hand(generator: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """What the host makes of a picture: to floats, through the generator, to bytes as it saves them."""
    x = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.no_grad():
        y = generator((x - 0.5) / 0.5)
    return np.stack([tensor2im(one[None]) for one in y])


@pytest.mark.parametrize(
    "target", [name for name, each in TARGETS.items() if each.bytes and name != "coreml"]
)
@pytest.mark.parametrize(
    "dtype", ["fp32", pytest.param("fp16", marks=pytest.mark.skipif(bool(why_not_fp16()), reason=why_not_fp16()))]
)
def test_bytes_in_and_out_are_those_of_the_host(target, dtype, tmp_path):
    """One level at most, where rounding falls the other way; with fp16, on average less than a level."""
    require(target)
    generator = small()
    request = Request(TARGETS[target], dtype, size=(SIZE, SIZE), embed_preprocessing=True)
    result = export_generator(generator, request, tmp_path, "G")
    assert result.accepted
    pixels = bytes_of()
    found = TARGETS[target].load(result.path)(pixels)
    assert found.dtype == np.uint8 and found.shape == pixels.shape
    gap = np.abs(found.astype(int) - by_hand(generator, pixels))
    assert gap.max() <= (1 if dtype == "fp32" else 6) and gap.mean() < (0.01 if dtype == "fp32" else 1)
    for end in ("input", "output"):
        port = result.record[end]
        assert (port["layout"], port["dtype"], port["range"]) == ("NHWC", "uint8", [0, 255])


def test_a_dynamic_file_takes_bytes_of_any_size(tmp_path):
    require("onnx")
    generator = small()
    request = Request(TARGETS["onnx"], size=(SIZE, SIZE), dynamic=True, multiple=4, embed_preprocessing=True)
    result = export_generator(generator, request, tmp_path, "G")
    assert result.accepted and result.record["input"]["shape"] == ["N", "multiple of 4", "multiple of 4", 3]
    pixels = bytes_of(48)
    assert (
        np.abs(TARGETS["onnx"].load(result.path)(pixels).astype(int) - by_hand(generator, pixels)).max() <= 1
    )


@pytest.mark.parametrize("target", sorted(TARGETS.keys() - {"ncnn"}))
@pytest.mark.parametrize("embed", [False, True], ids=["floats", "bytes"])
def test_a_file_says_what_to_do_with_pictures(target, embed, tmp_path):
    """In the format's own field; with what is said, bytes become those of the host."""
    require(target)
    if embed and not TARGETS[target].bytes:
        pytest.skip(f"{target} takes no bytes")
    request = Request(TARGETS[target], size=(SIZE, SIZE), multiple=4, embed_preprocessing=embed)
    generator = small()
    result = export_generator(generator, request, tmp_path, "G")
    said = {name: json.loads(text) for name, text in read_entries(target, result.path).items()}
    assert said == {
        f"{PREFIX}{end}": result.record["processing"][f"{PREFIX}{end}"] for end in ("input", "output")
    }
    assert result.record["described_in_file"] is True
    came, goes = said[f"{PREFIX}input"], said[f"{PREFIX}output"]
    assert came["color"] == goes["color"] == "RGB" and came["size"] == [SIZE, SIZE]
    if not embed and target != "coreml":
        pixels = bytes_of()
        assert came["layout"] == "NCHW"
        x = (
            pixels.transpose(0, 3, 1, 2) * np.float32(came["from_byte"]["scale"])
            + came["from_byte"]["offset"]
        )
        y = TARGETS[target].load(result.path)(x.astype(np.float32))
        levels = np.clip(
            np.rint(y * goes["to_byte"]["scale"] + goes["to_byte"]["offset"]), *goes["to_byte"]["clip"]
        )
        assert np.abs(levels.transpose(0, 2, 3, 1) - by_hand(generator, pixels)).max() <= 1


def read_entries(target: str, path) -> dict[str, str]:
    """What the file itself says, by the format's own library."""
    if target == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    if target == "openvino":
        import openvino

        model = openvino.Core().read_model(str(path))
        return {PREFIX + end: model.get_rt_info(["coronet", end]).astype(str) for end in ("input", "output")}
    if target == "coreml":
        import coremltools

        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        return {key: v for key, v in model.user_defined_metadata.items() if key.startswith(PREFIX)}
    names = {f"{PREFIX}input": "", f"{PREFIX}output": ""}
    if target == "litert":
        from ai_edge_litert.tools import flatbuffer_utils

        model = flatbuffer_utils.read_model(str(path))
        texts = {entry.name.decode(): model.buffers[entry.buffer].data for entry in model.metadata}
        return {name: bytes(texts[name]).decode() for name in names}
    if target == "executorch":
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        return {name: program.load_method(name).execute([])[0] for name in names}
    if target == "mnn":
        from coronet_plugin.export.mnn import PROGRAM

        dump = path.with_suffix(".dump")  # Interpreter::bizCode is in C++ alone
        words = ["-f", "MNN", "--modelFile", path, "--JsonFile", dump]
        subprocess.run([sys.executable, "-c", PROGRAM, *map(str, words)], check=True, capture_output=True)
        said = json.loads(json.loads(dump.read_text())["bizCode"])
        return {name: json.dumps(entry) for name, entry in said.items()}
    if target == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer torch advertises torch.export
            torch.jit.load(str(path), _extra_files=names)
    else:
        torch.export.load(path, extra_files=names)
    return {name: text if isinstance(text, str) else text.decode() for name, text in names.items()}


def test_a_file_whose_format_has_no_field_leaves_it_to_the_record(tmp_path):
    """A line of ncnn's text that is no layer makes the file unreadable."""
    require("ncnn")
    result = export_generator(small(), Request(TARGETS["ncnn"], size=(SIZE, SIZE)), tmp_path, "G")
    assert result.record["described_in_file"] is False and f"{PREFIX}input" in result.record["processing"]
    first, *rest = result.path.read_text().splitlines(keepends=True)
    for place in (0, 1):
        lines = [*rest[:place], "# a comment\n", *rest[place:]]
        result.path.write_text("".join([first, *lines]))
        with pytest.raises(ExportError):
            TARGETS["ncnn"].load(result.path)


@pytest.mark.parametrize(
    ("target", "dtype", "message"),
    [
        ("ncnn", "fp32", "not possible for ncnn; leave it out, or choose of onnx"),
        ("onnx", "int8", "take fp32 or fp16"),
    ],
)
def test_where_bytes_cannot_be_it_is_said(target, dtype, message):
    with pytest.raises(OptionError, match=message):
        Request(TARGETS[target], dtype, size=(SIZE, SIZE), embed_preprocessing=True).check()


def test_the_command(tmp_path, capsys):
    require("onnx")
    make_run(tmp_path, "slim", budget=0.5)
    run = tmp_path / "checkpoints" / "slim"
    words = ["--to", "onnx", "--size", str(SIZE), "--embed_preprocessing", "--output", str(tmp_path / "out")]
    assert main(["export", str(run), *words]) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "G_fp32.onnx.json").read_text())
    assert record["input"]["dtype"] == "uint8" and record["check"]["accepted"]
