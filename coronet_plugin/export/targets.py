"""The runtimes a generator can be exported for, as data, and how each is reached.

Every target names the module that converts for it and runs its files. That module, and with it the
runtime's library, is imported when it is used and not before.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from coronet_plugin.errors import ExportError, OptionError, describe
from coronet_plugin.export.ports import SINGLE, Ports
from coronet_plugin.export.silence import silenced
from coronet_plugin.versions import version_of

EAGER = "torch"
"""The name of eager PyTorch, beside those of the targets: the generator as a module, no export."""
ArrayModel = Callable[..., Any]
"""A generator, as a file in its runtime: (N, C, H, W) float32 in [-1, 1] to the same kind of array. With
several inputs it takes an array for each, in order; with several outputs it gives a tuple of arrays."""


@dataclass(frozen=True)
class Job:
    """A generator as a target's module converts it.

    ``generator``: on the CPU, in evaluation mode, prepared for the target; it returns a tensor or a tuple of
    tensors. ``example``: (1, C, H, W) float32 in [-1, 1], or a tuple of all its inputs. ``dtype``: ``fp32``
    or ``fp16``. ``dynamic``: batch, height and width are free, the latter two in multiples of ``multiple``.
    ``ports``: names of what goes in and comes out. ``bytes``: both are pictures (N, H, W, C) uint8.
    ``entries``: what the file says of itself, for tools that write it with the graph.
    """

    generator: nn.Module
    example: Tensor | tuple[Tensor, ...]
    dtype: str = "fp32"
    dynamic: bool = False
    multiple: int = 1
    ports: Ports = SINGLE
    bytes: bool = False
    entries: Mapping[str, str] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[int, int]:
        """Axes of a picture's height and width."""
        return (1, 2) if self.bytes else (2, 3)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All inputs of the example."""
        return self.example if isinstance(self.example, tuple) else (self.example,)


def in_a_row(outputs: Iterable[np.ndarray]) -> Any:
    """The result of an :data:`ArrayModel`: the only one of ``outputs``, or a tuple of all."""
    found = tuple(outputs)
    return found if len(found) > 1 else found[0]


def one_at_a_time(run: Callable[..., Sequence[np.ndarray]]) -> ArrayModel:
    """The model of a file that takes one picture, and what belongs to it, at a time."""

    def over_the_batch(*values: np.ndarray) -> Any:
        count = len(values[0])
        if count == 1:
            return in_a_row(run(*values))
        parts = [run(*(np.ascontiguousarray(v[i : i + 1]) for v in values)) for i in range(count)]
        return in_a_row(map(np.concatenate, zip(*parts)))

    return over_the_batch


@dataclass(frozen=True)
class Target:
    """A runtime. ``module`` has ``convert(job, path) -> facts`` and ``load(path, threads) -> ArrayModel``.

    ``purpose``: where its files run. ``suffixes``: of the files of one export, the one to load first.
    ``converts_with`` and ``runs_with``: distributions needed, by import name. ``extra``: what installs them.
    ``dtypes``: what it offers. ``fp16``: ``compute`` if the generator itself is made to calculate in fp16,
    ``storage`` if the runtime's own tool stores fp16 weights. ``dynamic``: whether batch, height and width
    can stay free. ``bytes``: whether it can take and give pictures as bytes. ``rewrite``: pieces of
    :mod:`~coronet_plugin.export.rewrite` it needs; ``faster`` and ``int8_faster``: those with which files of
    fixed size, and such in int8, take less time. ``int8_with``: what int8 needs besides, installed by
    ``int8_extra``, or by ``extra``.
    """

    name: str
    purpose: str
    module: str
    suffixes: tuple[str, ...]
    converts_with: Mapping[str, str]
    runs_with: Mapping[str, str]
    extra: str = ""
    dtypes: tuple[str, ...] = ("fp32", "fp16")
    fp16: str = "compute"
    dynamic: bool = False
    bytes: bool = False
    rewrite: tuple[str, ...] = ()
    faster: tuple[str, ...] = ()
    int8_faster: tuple[str, ...] = ()
    int8_with: Mapping[str, str] = field(default_factory=dict)
    int8_extra: str = ""

    @property
    def packages(self) -> dict[str, str]:
        """All distributions it needs, by import name."""
        return {**self.converts_with, **self.runs_with}

    @property
    def missing(self) -> list[str]:
        """Distributions that are not installed here."""
        return [package for name, package in self.packages.items() if not is_installed(name)]

    def versions(self) -> dict[str, str]:
        """Versions of the distributions that are installed here."""
        return {
            package: version_of(package) or "unknown version"
            for name, package in self.packages.items()
            if is_installed(name)
        }

    @property
    def missing_for_int8(self) -> list[str]:
        """Distributions that int8 needs besides, and that are not installed here."""
        return [package for name, package in self.int8_with.items() if not is_installed(name)]

    def require(self, dtype: str = "") -> None:
        """Raises OptionError, with what to install, when a package is missing, for ``dtype`` if given."""
        lacking = " and ".join(self.missing_for_int8)
        if dtype == "int8" and lacking:
            raise OptionError(
                f"--to {self.name} --dtype int8 needs {lacking}, not installed here: "
                f'pip install "coronet-plugin[{self.int8_extra or self.extra}]"'
            )
        if self.missing:
            raise OptionError(
                f"--to {self.name} needs {' and '.join(self.missing)}, not installed here: "
                f'pip install "coronet-plugin[{self.extra}]"'
            )

    def convert(self, job: Job, path: Path) -> dict[str, Any]:
        """Write ``job`` to ``path`` (its first file); gives facts for the record.

        Raises:
            OptionError: a package is missing.
            ExportError: the runtime's tool fails on this generator.
        """
        self.require()
        try:
            facts: dict[str, Any] = self._module().convert(job, path)
        except (OptionError, ExportError):
            raise
        except Exception as error:  # each tool has its own
            raise ExportError(
                f"{self.name} ({_versions_text(self)}) cannot convert this generator: {describe(error)}"
            ) from error
        return facts

    def load(self, path: Path, threads: int = 1) -> ArrayModel:
        """A function that runs the exported file ``path`` on ``threads`` CPU threads.

        Raises:
            OptionError: a package is missing, or this machine cannot run such files.
            ExportError: the runtime refuses the file.
        """
        self.require()
        try:
            loaded: ArrayModel = self._module().load(path, threads)
        except (OptionError, ExportError):
            raise
        except Exception as error:
            raise ExportError(
                f"{self.name} ({_versions_text(self)}) cannot load {path}: {describe(error)}"
            ) from error
        return loaded

    def annotate(self, path: Path, entries: Mapping[str, str]) -> bool:
        """Write ``entries`` into the file's own field for such things; False where its format has none."""
        if not hasattr(self._module(), "annotate"):
            return getattr(self._module(), "CONVERT_ANNOTATES", False)
        with silenced():
            self._module().annotate(path, entries)
        return True

    def why_not_run(self) -> str:
        """Why its files cannot be run on this machine, or nothing."""
        module = self._module()
        return str(module.why_not_run()) if hasattr(module, "why_not_run") else ""

    def with_rewrites(self, pieces: Sequence[str]) -> Target:
        """This target with ``pieces`` of :mod:`~coronet_plugin.export.rewrite` done before its own.

        Raises:
            OptionError: there is no such piece.
        """
        from coronet_plugin.export.rewrite import PIECES

        for piece in pieces:
            if piece not in PIECES:
                raise OptionError(f"rewrite {piece!r} is not known; choose from {', '.join(PIECES)}")
        return replace(self, rewrite=(*pieces, *(p for p in self.rewrite if p not in pieces)))

    def pieces(self, dtype: str, dynamic: bool) -> tuple[str, ...]:
        """All rewrites of a file."""
        faster = self.int8_faster * (dtype == "int8") + self.faster * (not dynamic)
        return tuple(dict.fromkeys((*self.rewrite, *faster)))

    def _module(self) -> Any:
        return importlib.import_module(f"coronet_plugin.export.{self.module}")


def is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it
        return False


def _versions_text(target: Target) -> str:
    return ", ".join(f"{package} {version}" for package, version in target.versions().items())


TORCH = {"torch": "torch"}
ALL_DTYPES = ("fp32", "fp16", "int8")
EDGE_REWRITE = ("transposed_convolution", "instance_norm", "reflection_pad")

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "onnx",
            "ONNX Runtime on servers and desktops (C++, C#, Python), Android, iOS, and in browsers",
            "onnx",
            (".onnx",),
            {"onnx": "onnx"},
            {"onnxruntime": "onnxruntime"},
            extra="onnx",
            dtypes=ALL_DTYPES,
            dynamic=True,
            bytes=True,
            faster=("blocked_convolution",),
            int8_faster=("subpixel_convolution",),
        ),
        Target(
            "litert",
            "LiteRT (TensorFlow Lite): Android, with CPU, GPU and NPU delegates; iOS, Linux boards",
            "litert",
            (".tflite",),
            {"litert_torch": "litert-torch"},
            {"ai_edge_litert": "ai-edge-litert"},
            extra="litert",
            dtypes=ALL_DTYPES,
            int8_with={"ai_edge_quantizer": "ai-edge-quantizer"},
            bytes=True,
            fp16="storage",
            rewrite=EDGE_REWRITE,
        ),
        Target(
            "executorch",
            "ExecuTorch with XNNPACK: PyTorch's own way to Android, iOS and Linux boards",
            "executorch",
            (".pte",),
            {"executorch": "executorch"},
            {},
            extra="executorch",
            dtypes=ALL_DTYPES,
            int8_with={"torchao": "torchao"},
            rewrite=EDGE_REWRITE,
        ),
        Target(
            "coreml",
            "Core ML: iOS and macOS, with GPU and Neural Engine",
            "coreml",
            (".mlpackage",),
            {"coremltools": "coremltools"},
            {},
            extra="coreml",
            fp16="storage",
            bytes=True,
        ),
        Target(
            "ncnn",
            "ncnn: small C++ runtime for Android, iOS and Linux boards, CPU and Vulkan",
            "ncnn",
            (".ncnn.param", ".ncnn.bin"),
            {"pnnx": "pnnx"},
            {"ncnn": "ncnn"},
            extra="ncnn",
            fp16="storage",
        ),
        Target(
            "openvino",
            "OpenVINO: Intel CPUs, GPUs and NPUs on desktops and edge boxes",
            "openvino",
            (".xml", ".bin"),
            {"openvino": "openvino"},
            {},
            extra="openvino",
            dtypes=ALL_DTYPES,
            int8_with={"nncf": "nncf"},
            int8_extra="quantization",
            fp16="storage",
            dynamic=True,
            bytes=True,
        ),
        Target(
            "mnn",
            "MNN: small C++ runtime for Android, iOS and desktops",
            "mnn",
            (".mnn",),
            {"MNN": "MNN", "onnx": "onnx"},
            {},
            extra="mnn",
            fp16="storage",
        ),
        Target(
            "torchscript",
            "LibTorch: C++ and Python programs that have PyTorch already",
            "pytorch",
            (".pt",),
            TORCH,
            {},
            dynamic=True,
            bytes=True,
        ),
        Target(
            "pt2",
            "torch.export archive: Python programs with PyTorch, and input for its compilers",
            "pytorch",
            (".pt2",),
            TORCH,
            {},
            dynamic=True,
            bytes=True,
        ),
    )
}
"""By the name that ``--to`` takes."""


def target_named(name: str) -> Target:
    """Raises OptionError when there is no such target."""
    if name not in TARGETS:
        raise OptionError(f"--to {name} is not known; choose one of {', '.join(TARGETS)}")
    return TARGETS[name]
