"""Prepare a generator for a target, convert it, check the file, and put it in place with its record.

Files are made in a temporary folder beside the result. What computes the same gets its name; what does
not is kept aside as ``NAME.rejected``.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.channels.find import example_input
from coronet_plugin.errors import ExportError, OptionError, describe
from coronet_plugin.export import processing
from coronet_plugin.export.normalisation import in_fp16, normalised, reference
from coronet_plugin.export.pictures import NOISE, Samples, noise, noise_like
from coronet_plugin.export.ports import SINGLE, Flat, Ports, ports_of
from coronet_plugin.export.pytorch import as_array_model
from coronet_plugin.export.quantization import quantize
from coronet_plugin.export.record import record_of
from coronet_plugin.export.request import Request
from coronet_plugin.export.rewrite import rewritten
from coronet_plugin.export.targets import ArrayModel, Job
from coronet_plugin.export.verify import (
    TOLERANCES,
    Difference,
    Range,
    Sample,
    Tolerance,
    bounds_of,
    differences,
    outputs_of,
    range_of,
)
from coronet_plugin.measure.machine import instruction_set
from coronet_plugin.measure.timing import Stopwatch

REJECTED = ".rejected"


@dataclass(frozen=True)
class Result:
    """The files of an export and their record.

    ``differences``: of every output, by its name; empty where the file cannot be run on this machine.
    """

    files: tuple[Path, ...]
    record: Mapping[str, Any]
    accepted: bool
    differences: Mapping[str, Difference]

    @property
    def path(self) -> Path:
        return self.files[0]

    @property
    def difference(self) -> Difference | None:
        """The worst of all outputs; None where the file cannot be run on this machine."""
        found = list(self.differences.values())
        return functools.reduce(Difference.or_worse, found) if found else None


def prepare(generator: nn.Module, request: Request) -> tuple[nn.Module, Tensor]:
    """The generator for the target's tool, norms and layers as it needs them, on the CPU; and an example.

    For int8 it is the fp32 generator.
    """
    small = example_for(generator, smallest_size(request.multiple))
    return prepared_for(generator, request, (small,)), example_for(generator, request.size)


def prepared_for(generator: nn.Module, request: Request, inputs: tuple[Tensor, ...]) -> nn.Module:
    """:func:`prepare` without the example; ``inputs``: what to prove rewrites on, the smaller the quicker."""
    prepared = normalised(generator, request.norm_mode).cpu().float()
    pieces = request.target.pieces(request.dtype, request.dynamic)
    if pieces:
        prepared = rewritten(prepared, pieces, inputs)
    if request.dtype == "fp16" and request.target.fp16 == "compute":
        prepared = in_fp16(prepared)
    for parameter in prepared.parameters():
        parameter.requires_grad_(False)
    return prepared.eval()


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
    example: Tensor | tuple[Tensor, ...] | None = None,
) -> Result:
    """Write ``generator`` to ``folder`` as ``<name>_<dtype>`` and the target's suffixes, and check it.

    The generator is not changed. It may return several tensors, in tuples, lists and dictionaries.
    ``pictures``: what to compare on, by default noise. ``calibration``: for int8. ``tolerance``: by default
    that of the dtype, in units of which the output's range has two. ``example``: its input, or a tuple of all
    its inputs for one picture, if it takes something else than one picture of the request's size; then it is
    compared on these and on noise of their shapes. The record goes beside the first file, as its name and
    ``.json``.

    Raises:
        OptionError: the target cannot do what is asked, or a package is missing.
        ExportError: the generator does not run, the target's tool fails, or the file does not run.
    """
    request.check()
    net = reference(generator, request.norm_mode).cpu().float()
    inputs = _inputs(generator, request, example)
    ports = ports_of(net, inputs)
    _check_ports(request, ports)
    if not ports.plain:
        generator, net = Flat(generator), Flat(net)
    small = inputs if example is not None else (example_for(net, smallest_size(request.multiple)),)
    prepared = prepared_for(generator, request, small)
    samples, source = _samples(request, inputs, pictures, given=example is not None)
    if request.embed_preprocessing:
        output = processing.limits_of(request)
        prepared, net = processing.FromBytes(prepared, output).eval(), processing.InLevels(net, output)
        inputs, ports = (processing.to_bytes(inputs[0]),), processing.in_bytes(ports)
    folder = _made(folder)
    names = [f"{name}_{request.dtype}{suffix}" for suffix in request.target.suffixes]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        path = Path(temporary) / names[0]
        facts = convert(request, prepared, inputs, path, calibration, ports)
        described = processing.entries(request, ports)
        facts["described_in_file"] = request.target.annotate(path, described)
        limits, measured, latency = _measure(net, request, path, samples)
        limit = tolerance or TOLERANCES[request.dtype]
        accepted = all(difference.within(limit) for difference in measured)
        made = [Path(temporary) / each for each in names]
        found = dict(zip(ports.output_names, measured))
        record = record_of(request, ports, samples, limits, facts, made, found)
        checked = {"accepted": accepted, "pictures_from": source, "tolerance": asdict(limit)}
        record["check"].update(checked, instruction_set=instruction_set())
        record.update(latency=latency, processing={k: json.loads(v) for k, v in described.items()})
        files = _put_in_place(made, folder, "" if accepted else REJECTED, record)
    return Result(files, record, accepted, found)


def _inputs(
    generator: nn.Module, request: Request, example: Tensor | tuple[Tensor, ...] | None
) -> tuple[Tensor, ...]:
    """Give the generator's inputs for one picture, on the CPU."""
    if example is None:
        return (example_for(generator, request.size),)
    given = [x.detach().cpu() for x in tensors_in(example)]
    return tuple((x.float() if x.is_floating_point() else x).contiguous() for x in given)


def _check_ports(request: Request, ports: Ports) -> None:
    """Raises OptionError where several inputs and outputs, or their sizes, do not go with what is asked."""
    several = len(ports.inputs) + len(ports.outputs) > 2
    if several and request.dtype == "int8":
        names = f"{', '.join(ports.input_names)} to {', '.join(ports.output_names)}"
        raise OptionError(
            f"--dtype int8 is for generators from one picture to one, and this goes from {names}; "
            "take fp16 or fp32"
        )
    if several and request.embed_preprocessing:
        raise OptionError("--embed_preprocessing is for generators from one picture to one; leave it out")
    sizes = {port.shape[2:] for port in ports.inputs if port.is_picture}
    if request.dynamic and len(sizes) != 1:
        shapes = ", ".join(f"{port.name} {port.shape}" for port in ports.inputs)
        raise OptionError(f"--dynamic is for inputs of one height and width, and these are {shapes}")


def _samples(
    request: Request, inputs: tuple[Tensor, ...], pictures: Samples | None, given: bool
) -> tuple[list[Sample], str]:
    """Give samples to compare on, picture by picture, and where they are from; ``given``: an example was."""
    if given and pictures is None:
        example = tuple(x.numpy() for x in inputs)
        return [example, noise_like(example)], f"the example and {NOISE}"
    if len(inputs) > 1:
        raise OptionError(f"pictures are for generators of one input, and this takes {len(inputs)}")
    pictures = pictures or noise(2, inputs[0].shape[1], request.size)
    return [(picture[None],) for picture in pictures.values], pictures.source


def convert(
    request: Request,
    prepared: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    path: Path,
    calibration: Samples | None,
    ports: Ports = SINGLE,
) -> dict[str, Any]:
    """Run the target's tool; int8 goes through :mod:`coronet_plugin.export.quantization`."""
    entries = processing.entries(request, ports)
    options = request.dynamic, request.multiple, ports, request.embed_preprocessing, entries
    job = Job(prepared, example, request.dtype, *options)
    if request.dtype != "int8":
        return request.target.convert(job, path)
    if calibration is None:
        raise OptionError("--dtype int8 needs pictures to calibrate with")
    return quantize(request, prepared, job.inputs[0], path, calibration, entries)


def _measure(
    net: nn.Module, request: Request, path: Path, samples: list[Sample]
) -> tuple[list[Range], list[Difference], dict[str, Any] | None]:
    """The outputs' ranges, how far each is from ``net``'s, and how long a picture took.

    The difference of a dynamic file is the larger of that, and that on noise of another size. There are no
    differences where the file cannot be run on this machine.
    """
    original = as_array_model(net)
    expected = [outputs_of(original, each) for each in samples]
    bounds = [net.limits] if isinstance(net, processing.InLevels) else bounds_of(net, samples[0])
    limits = [range_of(values, bound) for values, bound in zip(zip(*expected), bounds)]
    if request.target.why_not_run():
        return limits, [], None
    watch, loaded = Stopwatch(), request.target.load(path)
    if isinstance(net, processing.InLevels):
        loaded = processing.on_floats(loaded, net.limits)
    measured = differences(watch.wrap(loaded), samples, expected, limits)
    latency = {**watch.times(warmup=1).wall.as_dict(), "threads": 1}
    if request.dynamic:
        other = noise_like(samples[0], request.multiple, 2 * request.multiple)
        again = differences(loaded, [other], [outputs_of(original, other)], limits)
        measured = [one.or_worse(another) for one, another in zip(measured, again)]
    return limits, measured, latency


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
