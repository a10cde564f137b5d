"""Step times, memory, loss curves and latencies of scripts/gpu_check.py, on a GPU or at toy size."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from coronet_plugin.measure import memory  # noqa: E402
from coronet_plugin.measure.onnx import open_session  # noqa: E402
from coronet_plugin.measure.timing import inference, time_in_turn  # noqa: E402
from coronet_plugin.training import speed  # noqa: E402
from scripts.gpu_check import Check  # noqa: E402
from scripts.time_search import host_model  # noqa: E402

BUDGET = "0.1"
PROVIDERS = {"cuda": ("CUDAExecutionProvider", "TensorrtExecutionProvider"), "cpu": ("CPUExecutionProvider",)}
SPEEDS = {"fp32": [], "bf16": ["--amp", "bf16"], "bf16, compiled": ["--amp", "bf16", "--compile"]}
METHODS = {"plain": "plain", "default": "gates", "published": "published", "exact cut": "gated"}
"""Ways to train: as the base does, the default, the published hypernetwork, one whose cut is exact."""


@dataclass(frozen=True)
class Scale:
    """How large everything is. ``nets``: generator and side in pixels of either model."""

    nets: dict[str, tuple[str, int]] = field(
        default_factory=lambda: {"pix2pix": ("unet_256", 256), "cycle_gan": ("resnet_9blocks", 256)}
    )
    ngf: int = 64
    batches: tuple[int, ...] = (1, 8)
    methods: tuple[str, ...] = tuple(METHODS)
    repeats: int = 3
    block: float = 0.4
    """Seconds that are timed at a time."""
    most: int = 20
    """Steps that are timed at a time, at most."""
    curves: tuple[tuple[str, str], ...] = (
        ("pix2pix", "plain"),
        ("pix2pix", "default"),
        ("cycle_gan", "plain"),
        ("cycle_gan", "default"),
    )
    curve: int = 40
    """Steps of which losses are compared."""
    facades: tuple[str, ...] = tuple("--netG unet_256 --norm batch --load_size 286 --crop_size 256".split())
    workers: int = 4
    test_pictures: int = 10**6
    training: float = 180.0
    """Seconds of the trainings of the comparison."""
    backend: str = "inductor"


TOY = Scale(
    nets={"pix2pix": ("resnet_6blocks", 32), "cycle_gan": ("resnet_6blocks", 32)},
    ngf=16,  # narrower ones cannot be brought to the budget
    batches=(1,),
    methods=("plain", "default"),
    repeats=1,
    block=0.0,
    most=1,
    curves=(("pix2pix", "default"),),
    curve=4,
    facades=tuple("--netG resnet_6blocks --norm instance --load_size 36 --crop_size 32".split()),
    workers=0,
    test_pictures=2,
    training=0.0,
    backend="eager",
)


@dataclass(frozen=True)
class Bench:
    """A part at work. ``until``: when its time is up, by the monotonic clock."""

    check: Check
    scale: Scale
    until: float

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        return self.check.device == "cuda"

    def wait(self) -> None:
        """Until the device did all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Cell:
    """``measure`` gives the figures of the row ``key``; with fewer than ``least`` seconds it is not begun."""

    key: str
    measure: Callable[[], dict[str, Any]]
    least: float = 0.0


# -- steps ---------------------------------------------------------------------
def steps(bench: Bench) -> Iterator[Cell]:
    """Whatever is quick comes first, and what has to be compiled last."""
    for precision in SPEEDS:
        compiled = "compiled" in precision
        for batch in bench.scale.batches:
            for model in bench.scale.nets:
                for method in bench.scale.methods:
                    if bench.check.dry and precision != "fp32" and (model, method) != ("pix2pix", "plain"):
                        continue
                    measure = partial(time_step, bench, model, method, batch, precision)
                    yield Cell(step_key(model, method, batch, precision), measure, 20 * compiled)


def step_key(model: str, method: str, batch: int = 1, precision: str = "fp32") -> str:
    return f"{model}, {method}, batch {batch}, {precision}"


def time_step(bench: Bench, model: str, method: str, batch: int, precision: str) -> dict[str, Any]:
    """Seconds of a whole step at the dense size, the median of repeats, and bytes at the highest point."""
    trained, step = stepper(bench, model, method, batch, SPEEDS[precision])
    for _ in range(3):  # the first allocate, choose kernels and compile
        began = time.perf_counter()
        step()
        bench.wait()
    one = time.perf_counter() - began
    count = max(1, min(bench.scale.most, int(bench.scale.block / one)))
    forget_peak(bench)
    found = []
    for _ in range(bench.scale.repeats):
        began = time.perf_counter()
        for _ in range(count):
            step()
        bench.wait()
        found.append((time.perf_counter() - began) / count)
    row = {"model": model, "method": method, "batch": batch, "precision": precision}
    return {
        **row,
        "seconds": statistics.median(found),
        "least": min(found),
        "most": max(found),
        **peak(bench),
    }


def stepper(
    bench: Bench, model: str, method: str, batch: int, extra: Sequence[str], **more: Any
) -> tuple[Any, Callable[[], None]]:
    """A host's model and a function that makes a step with it, as train.py does."""
    trained = made(bench, model, method, extra, **more)
    given = batch_of(bench.scale.nets[model][1], batch, 0, bench.on_gpu)
    around = contextlib.nullcontext if method != "plain" else speed.speed_of(trained, trained.opt).step

    def step() -> None:
        trained.set_input(given)
        with around():
            trained.optimize_parameters()

    return trained, step


def made(bench: Bench, model: str, method: str, extra: Sequence[str] = (), device: str = "") -> Any:
    """A model of the bundled host, whose search hardly moves in the few steps made here."""
    net, side = bench.scale.nets[model]
    ids = "0" if (device or bench.check.device) == "cuda" else "-1"
    words = ["--netG", net, "--n_epochs", "1000000", "--n_epochs_decay", "0", "--gpu_ids", ids, *extra]
    speed.BACKEND = bench.scale.backend
    options = argparse.Namespace(size=side, ngf=bench.scale.ngf)
    return host_model(model, METHODS[method], options, words)


def batch_of(side: int, count: int, seed: int, pinned: bool = False) -> dict[str, Any]:
    """Smooth pictures (count, 3, side, side) of either side, the same for a seed."""
    noise = torch.Generator().manual_seed(seed)
    sides = {}
    for name in "AB":
        x = nn.functional.interpolate(torch.rand(count, 3, 8, 8, generator=noise) * 2 - 1, size=side)
        sides[name] = x.pin_memory() if pinned else x
    return {**sides, "A_paths": [""] * count, "B_paths": [""] * count}


def forget_peak(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    elif memory.FORGET_PEAK.exists():
        memory.FORGET_PEAK.write_text("5")


def peak(bench: Bench) -> dict[str, Any]:
    """Bytes that torch held on the GPU at its highest point; on a CPU, that the process did."""
    return {"peak_bytes": torch.cuda.max_memory_allocated() if bench.on_gpu else memory.peak_of_process()}


# -- curves --------------------------------------------------------------------
def curves(bench: Bench) -> Iterator[Cell]:
    for model, method in bench.scale.curves:
        yield Cell(f"{model}, {method}", partial(compare_curves, bench, model, method), 5)


def compare_curves(bench: Bench, model: str, method: str) -> dict[str, Any]:
    """Losses of the same steps from the same weights on the CPU and on the device, and how far they part."""
    torch.backends.cudnn.allow_tf32 = False
    extra = ["--no_dropout", "--ngf", "16", "--ndf", "16"] + ["--pool_size", "0"] * (model == "cycle_gan")
    torch.manual_seed(0)
    first = made(bench, model, method, extra, device="cpu")
    second = made(bench, model, method, extra)
    for name in first.model_names:
        theirs = getattr(second, f"net{name}")
        theirs.load_state_dict(getattr(first, f"net{name}").state_dict())
    for compression in getattr(second, "compressions", {}).values():
        compression.adopt_weights_()
    found = {"cpu": losses(bench, first, model), bench.check.device + " again" * (not bench.on_gpu): []}
    other = next(reversed(found))
    found[other] = losses(bench, second, model)
    apart = differences(found["cpu"], found[other])
    ends = {f"after {number}": max(apart[:number]) for number in (1, 10, len(apart)) if number <= len(apart)}
    return {"model": model, "method": method, "apart": ends, "losses": found}


def losses(bench: Bench, trained: Any, model: str) -> list[dict[str, float]]:
    """Of every step."""
    found = []
    for number in range(bench.scale.curve):
        trained.set_input(batch_of(bench.scale.nets[model][1], 1, number))
        trained.optimize_parameters()
        found.append({name: float(value) for name, value in trained.get_current_losses().items()})
    return found


def differences(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> list[float]:
    """The largest of a step's losses' differences, each by the mean of that loss over the steps."""
    means = {name: statistics.mean(abs(step[name]) for step in ours) or 1.0 for name in ours[0]}
    return [max(abs(a[n] - b[n]) / means[n] for n in means) for a, b in zip(ours, theirs)]


# -- latency -------------------------------------------------------------------
def latency(bench: Bench) -> Iterator[Cell]:
    """In torch, and in those of ONNX Runtime's providers that are here."""
    for net in dict.fromkeys(net for net, _ in bench.scale.nets.values()):
        for runtime in ("torch", *PROVIDERS[bench.check.device]):
            slow = 20 if runtime == "TensorrtExecutionProvider" else 0
            yield Cell(f"{net}, {runtime}", partial(time_generators, bench, net, runtime), slow)


def time_generators(bench: Bench, net: str, runtime: str) -> dict[str, Any]:
    """Milliseconds of dense and slim, batch 1, pictures and outputs on the device."""
    side = dict(bench.scale.nets.values())[net]
    row = {"net": net, "side": side, "runtime": runtime}
    if runtime != "torch" and (why := lacks(runtime)):
        return {**row, "missing": why}
    calls = {name: call(bench, generator, runtime, side) for name, generator in pair(bench, net).items()}
    times = time_in_turn(calls, rounds=2 if bench.check.dry else 30, warmup=1 if bench.check.dry else 5)
    return {**row, **{name: each.wall.as_dict() for name, each in times.items()}}


def lacks(provider: str) -> str:
    """Why ``provider`` cannot be had here; nothing if it can."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    here = onnxruntime.get_available_providers()
    return "" if provider in here else f"onnxruntime {onnxruntime.__version__} has {', '.join(here)}"


def pair(bench: Bench, net: str) -> dict[str, nn.Module]:
    """A dense generator and one of uniform width at the budget; weights do not change how long they take."""
    from coronet_plugin.benchmark.entries import narrow_
    from coronet_plugin.generators.stock import build_generator

    norm = "batch" if net.startswith("unet") else "instance"
    about = {"input_nc": 3, "output_nc": 3, "ngf": bench.scale.ngf, "netG": net, "norm": norm}
    found = {name: build_generator(3, 3, bench.scale.ngf, net, norm) for name in ("dense", "slim")}
    narrow_(found["slim"], BUDGET, 1, {**about, "use_dropout": False})
    return found


def call(bench: Bench, generator: nn.Module, runtime: str, side: int) -> Callable[[], Any]:
    """One inference, which has ended when it returns."""
    if runtime == "torch":
        moved, x = generator.to(bench.check.device), torch.rand(1, 3, side, side, device=bench.check.device)

        def run() -> None:
            with inference(moved):
                moved(x)
            bench.wait()

        return run
    return bound(exported(bench, generator, side), runtime, side, bench.check.device)


def exported(bench: Bench, generator: nn.Module, side: int) -> bytes:
    """The file that ``coronet export`` would write, unchecked."""
    from coronet_plugin.export.pipeline import convert, prepare
    from coronet_plugin.export.request import Request
    from coronet_plugin.export.targets import target_named

    request = Request(target_named("onnx"), size=(side, side))
    path = bench.check.output / "scratch" / "generator.onnx"
    convert(request, *prepare(generator, request), path, None)
    return path.read_bytes()


def bound(model: bytes, provider: str, side: int, device: str) -> Callable[[], Any]:
    """A run of ``model`` between pictures that lie on the device."""
    import numpy as np
    import onnxruntime

    providers = tuple(dict.fromkeys((provider, "CPUExecutionProvider")))
    session = open_session(model, torch.get_num_threads(), providers=providers)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} could not be begun; is its CUDA or TensorRT that of this machine?")
    binding, pixels = session.io_binding(), np.zeros((1, 3, side, side), np.float32)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(pixels, device, 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    binding.bind_output(session.get_outputs()[0].name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run
