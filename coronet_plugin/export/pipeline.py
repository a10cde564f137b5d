"""Prepare a generator for a target, convert it, check the file, and put it in place with its record.

Files are made in a temporary folder beside the result. What computes the same gets its name; what does
not is kept aside as ``NAME.rejected``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coronet_plugin.channels.find import example_input
from coronet_plugin.errors import ExportError, OptionError, describe
from coronet_plugin.export.normalisation import in_fp16, normalised, reference
from coronet_plugin.export.pictures import Samples, noise
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.quantization import quantize
from coronet_plugin.export.request import Request
from coronet_plugin.export.rewrite import rewritten
from coronet_plugin.export.targets import ArrayModel, Job
from coronet_plugin.export.verify import TOLERANCES, Difference, Tolerance, difference
from coronet_plugin.measure.timing import Stopwatch
from coronet_plugin.versions import versions

FORMAT, VERSION = "coronet-export", 1
REJECTED = ".rejected"


@dataclass(frozen=True)
class Result:
    """The files of an export and their record.

    ``difference`` is None where the file cannot be run on this machine.
    """

    files: tuple[Path, ...]
    record: Mapping[str, Any]
    accepted: bool
    difference: Difference | None

    @property
    def path(self) -> Path:
        return self.files[0]


def prepare(generator: nn.Module, request: Request) -> tuple[nn.Module, Tensor]:
    """The generator for the target's tool, norms and layers as it needs them, on the CPU; and an example.

    For int8 it is the fp32 generator.
    """
    example = example_for(generator, request.size)
    prepared = normalised(generator, request.norm_mode).cpu().float()
    if request.target.rewrite:
        small = example_for(generator, smallest_size(request.multiple))
        prepared = rewritten(prepared, request.target.rewrite, small)
    if request.dtype == "fp16" and request.target.fp16 == "compute":
        prepared = in_fp16(prepared)
    for parameter in prepared.parameters():
        parameter.requires_grad_(False)
    return prepared.eval(), example


def load_converted(
    generator: nn.Module,
    request: Request,
    path: Path,
    threads: Sequence[int] = (1,),
    calibration: Samples | None = None,
) -> list[ArrayModel]:
    """Convert ``generator``, which is not changed, to ``path`` and load it for all ``threads``, unchecked.

    Raises:
        OptionError: the target cannot do what is asked, or a package is missing.
        ExportError: the target's tool fails, or refuses the file.
    """
    prepared, example = prepare(generator, request)
    convert(request, prepared, example, path, calibration)
    return [request.target.load(path, number) for number in threads]


def load_eager(generator: nn.Module, norm_mode: str, threads: int) -> ArrayModel:
    """``generator``, which is not changed, in eager PyTorch with its norms as an export has them."""
    return as_array_model(normalised(generator, norm_mode).cpu().float(), threads)


def example_for(generator: nn.Module, size: tuple[int, int]) -> Tensor:
    """A random image (1, C, H, W) of (H, W) ``size``, on the CPU."""
    return example_input(generator, max(size))[..., : size[0], : size[1]].float().cpu().contiguous()


def smallest_size(multiple: int) -> tuple[int, int]:
    """A size of at least 32 that a generator takes."""
    side = -(-32 // multiple) * multiple
    return side, side


def export_generator(
    generator: nn.Module,
    request: Request,
    folder: Path,
    name: str,
    pictures: Samples | None = None,
    calibration: Samples | None = None,
    tolerance: Tolerance | None = None,
) -> Result:
    """Write ``generator`` to ``folder`` as ``<name>_<dtype>`` and the target's suffixes, and check it.

    The generator is not changed. ``pictures``: what to compare on, by default noise. ``calibration``: for
    int8. ``tolerance``: by default that of the dtype. The record goes beside the first file, as its name and
    ``.json``.

    Raises:
        OptionError: the target cannot do what is asked, or a package is missing.
        ExportError: the target's tool fails, or the file does not run.
    """
    request.check()
    prepared, example = prepare(generator, request)
    if pictures is None:
        pictures = noise(2, example.shape[1], request.size)
    folder = _made(folder)
    names = [f"{name}_{request.dtype}{suffix}" for suffix in request.target.suffixes]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        path = Path(temporary) / names[0]
        facts = convert(request, prepared, example, path, calibration)
        measured, latency = _measure(generator, request, path, pictures)
        limit = tolerance or TOLERANCES[request.dtype]
        accepted = measured is None or measured.within(limit)
        made = [Path(temporary) / each for each in names]
        record = _record(request, example, facts, made, measured, limit, accepted, pictures)
        record["latency"] = latency
        files = _put_in_place(made, folder, "" if accepted else REJECTED, record)
    return Result(files, record, accepted, measured)


def convert(
    request: Request, prepared: nn.Module, example: Tensor, path: Path, calibration: Samples | None
) -> dict[str, Any]:
    """Run the target's tool; int8 goes through :mod:`coronet_plugin.export.quantization`."""
    if request.dtype != "int8":
        job = Job(prepared, example, request.dtype, request.dynamic, request.multiple)
        return request.target.convert(job, path)
    if calibration is None:
        raise OptionError("--dtype int8 needs pictures to calibrate with")
    return quantize(request, prepared, example, path, calibration)


def _measure(
    generator: nn.Module, request: Request, path: Path, pictures: Samples
) -> tuple[Difference | None, dict[str, Any] | None]:
    """The difference to torch, and how long a picture took.

    The difference of a dynamic file is the larger of that, and that on noise of another size.
    """
    if request.target.why_not_run():
        return None, None
    watch, loaded = Stopwatch(), request.target.load(path)
    original = as_array_model(reference(generator, request.norm_mode).cpu().float())
    measured = difference(watch.wrap(loaded), original, pictures.values)
    latency = {**watch.times(warmup=1).wall.as_dict(), "threads": 1}
    if not request.dynamic:
        return measured, latency
    height, width = request.size
    other = noise(1, pictures.values.shape[1], (height + request.multiple, width + 2 * request.multiple))
    return measured.or_worse(difference(loaded, original, other.values)), latency


# -- files ------------------------------------------------------------------------
def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--output {folder} cannot be made: {error.strerror}") from error
    return folder


def _put_in_place(made: list[Path], folder: Path, ending: str, record: Mapping[str, Any]) -> tuple[Path, ...]:
    """Move all files into ``folder``, the first one last; then no name ever stands for half a file."""
    record_file = made[0].with_name(made[0].name + ".json")
    record_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    places = [folder / (path.name + ending) for path in made]
    record_place = folder / (made[0].name + ending + ".json")
    try:
        for path, place in [
            *zip(made[:0:-1], places[:0:-1]),
            (record_file, record_place),
            (made[0], places[0]),
        ]:
            if place.is_dir():  # a package of Core ML is a folder
                shutil.rmtree(place)
            os.replace(path, place)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written to: {describe(error)}") from error
    return (*places, record_place)


def size_in_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def _record(
    request: Request,
    example: Tensor,
    facts: Mapping[str, Any],
    made: list[Path],
    measured: Difference | None,
    limit: Tolerance,
    accepted: bool,
    pictures: Samples,
) -> dict[str, Any]:
    shape: list[int | str] = list(example.shape)
    if request.dynamic:
        shape = ["N", shape[1], f"multiple of {request.multiple}", f"multiple of {request.multiple}"]
    target = request.target
    check: dict[str, Any] = {
        "ran": measured is not None,
        "accepted": accepted,
        "pictures_from": pictures.source,
    }
    check["difference_to_torch"] = measured.as_dict() if measured else None
    check["tolerance"] = asdict(limit)
    if not measured:
        check["why_not_run"] = target.why_not_run()
    return {
        "format": FORMAT,
        "version": VERSION,
        "target": target.name,
        "dtype": request.dtype,
        "files": {path.name: size_in_bytes(path) for path in made},
        "input": {"name": "input", "layout": "NCHW", "shape": shape, "dtype": "float32", "range": [-1, 1]},
        "output": {"name": "output", "layout": "NCHW", "dtype": "float32", "range": [-1, 1]},
        "dynamic": request.dynamic,
        "norm_mode": request.norm_mode,
        "dropout": "off",
        "rewrite": list(target.rewrite),
        "check": check,
        "versions": {**versions(), **target.versions()},
        **facts,
        **request.about,
    }
