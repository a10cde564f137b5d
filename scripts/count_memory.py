"""GPU memory that a training step takes, computed without a GPU.

    python scripts/count_memory.py --sizes 256 512 --batches 1 8

The bundled host makes two whole steps, discriminators and Adam included, with tensors that have shapes and no
values (torch's fake tensors), and every block of memory is counted from when it is made until it is given
back. The highest point of the second step is what ``torch.cuda.max_memory_allocated`` would say, but for the
workspaces of cuDNN; beside it comes what CUDA itself needs, some hundred MiB, and CycleGAN's pools of 50
pictures a side. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_flatten  # noqa: E402

from coronet_plugin.training import speed  # noqa: E402
from scripts import records  # noqa: E402
from scripts.time_search import MODELS, host_model  # noqa: E402

FOUND_AT = {"pix2pix": 256, "cycle_gan": 64}
"""Sizes of pictures, in pixels, that channels are found with."""
BLOCK = 512
"""CUDA's allocator gives memory in multiples of so many bytes."""
MIB = 2**20
TRAININGS = {"plain": "plain", "default": "gates"}
PRECISIONS: dict[str, list[str]] = {"fp32": [], "bf16": ["--amp", "bf16"]}


class Counted(TorchDispatchMode):
    """Counts bytes of all tensors that are made, and until when; ``peak``: the most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # Adam's count, or whether anything is to do
            return 1.0 if args[0].dtype.is_floating_point else False
        found = func(*args, **(kwargs or {}))
        for each in tree_flatten(found)[0]:
            if isinstance(each, Tensor):
                self.count(each)
        return found

    def count(self, tensor: Tensor) -> None:
        """Count the memory of ``tensor``, unless another tensor lies in the same."""
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size = -(-storage.nbytes() // BLOCK) * BLOCK
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size


class Counting:
    """A host's model whose steps can be counted. ``pretend``: without values, so that no step takes time."""

    def __init__(
        self, model: str, training: str, precision: str, ngf: int = 64, pretend: bool = True
    ) -> None:
        options = argparse.Namespace(size=FOUND_AT[model], ngf=ngf)
        words = ["--n_epochs", "1000000", "--n_epochs_decay", "0", "--gpu_ids", "-1", *PRECISIONS[precision]]
        words += ["--pool_size", "0"] * (model == "cycle_gan")
        with contextlib.redirect_stdout(io.StringIO()):
            self.made = host_model(model, TRAININGS[training], options, words)
        plain = training == "plain"
        self.around = speed.speed_of(self.made, self.made.opt).step if plain else contextlib.nullcontext
        self.counted = Counted()
        self.mode: Any = FakeTensorMode(allow_non_fake_inputs=True) if pretend else contextlib.nullcontext()
        _pretend_(self.made, self.mode.from_tensor if pretend else Tensor.clone, self.counted)

    def peak_bytes(self, side: int, batch: int) -> int:
        """The most memory of a step, of pictures (batch, 3, side, side)."""
        with self.mode, self.counted:
            pictures = {name: torch.zeros(batch, 3, side, side) for name in "AB"}
            for _ in range(2):  # the first one makes the optimizers' states
                self.counted.peak = self.counted.live
                self.made.set_input({**pictures, "A_paths": [""] * batch, "B_paths": [""] * batch})
                with self.around():
                    self.made.optimize_parameters()
        return self.counted.peak


def _pretend_(made: Any, fake: Callable[[Tensor], Tensor], counted: Counted) -> None:
    """Take the values of all tensors of a host's model, in its optimizers too."""
    known: dict[int, Tensor] = {}
    for module in (each for name in made.model_names for each in getattr(made, f"net{name}").modules()):
        for place in (module._parameters, module._buffers):
            for name, tensor in place.items():
                if tensor is not None:
                    other = fake(tensor.detach())
                    if isinstance(tensor, nn.Parameter):
                        other = nn.Parameter(other, tensor.requires_grad)
                    known[id(tensor)] = place[name] = other
                    counted.count(other)
    for group in (group for optimizer in made.optimizers for group in optimizer.param_groups):
        group["params"] = [known[id(parameter)] for parameter in group["params"]]
        group["foreach"] = True  # as on a GPU by default, which takes a copy of all weights for a moment
    for compression in getattr(made, "compressions", {}).values():
        compression.method._parameters.update(compression.generator.named_parameters())
        compression.step = lambda **_: False  # decides on the host, by values


def rows(sides: Sequence[int], batches: Sequence[int], model: str) -> Iterator[list[str]]:
    """Of one model, a line for every size and batch."""
    places = [(side, batch) for side in sides for batch in batches]
    columns = []
    for precision in PRECISIONS:
        for training in TRAININGS:
            counting = Counting(model, training, precision)
            columns.append([f"{counting.peak_bytes(*place) / MIB:,.0f}" for place in places])
    for (side, batch), *cells in zip(places, *columns):
        yield [model, MODELS[model], str(side), str(batch), *cells]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], metavar="PIXELS")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    header = [f"{precision}, {training}" for precision in PRECISIONS for training in TRAININGS]
    found = [line for model in options.models for line in rows(options.sizes, options.batches, model)]
    print(
        records.table(["model", "generator", "pixels", "batch", *(f"{name}, MiB" for name in header)], found)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
