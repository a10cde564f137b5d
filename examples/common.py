"""Parts that the examples share: options, pictures, and a training that can be interrupted at any time.

Run as a script it writes the pictures that the examples learn from, for ``coronet evaluate --samples``::

    python examples/common.py --data emoji --size 32 --output real_emoji_32
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.channels.facts import tensors_in  # noqa: E402
from coronet_plugin.channels.proof import relative_difference  # noqa: E402
from coronet_plugin.checkpoint.storage import save_tensors  # noqa: E402
from coronet_plugin.checkpoint.tensors import read_tensors  # noqa: E402
from coronet_plugin.compression import Compression  # noqa: E402
from coronet_plugin.errors import CheckpointError, DataError, UserError, describe  # noqa: E402
from coronet_plugin.export.pipeline import export_generator  # noqa: E402
from coronet_plugin.export.request import Request  # noqa: E402
from coronet_plugin.export.targets import target_named  # noqa: E402
from coronet_plugin.files import settle, together, write_text  # noqa: E402
from coronet_plugin.generators import Family  # noqa: E402
from coronet_plugin.methods.registry import all_names  # noqa: E402
from coronet_plugin.pictures.files import pictures_below  # noqa: E402

DENSE = "dense"
WEIGHTS, STATE, RECORD = "latest_net_G.pth", "state.pth", "record.json"
FREE = ("checkpoints_dir", "save_every", "no_export")
"""Options that a continued run may have otherwise than before."""


# -- options -------------------------------------------------------------------
def options_of(about: str, name: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options of every example; ``defaults``: of this one, by name."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    add = parser.add_argument
    add("--name", default=name, help="of the run, a folder in --checkpoints_dir (default: %(default)s)")
    add("--checkpoints_dir", type=Path, default=Path("checkpoints"), help="default: %(default)s")
    add("--data", default="emoji", help="emoji, digits (scikit-learn's), or a folder (default: %(default)s)")
    add("--size", type=int, default=32, help="pixels, a power of two (default: %(default)s)")
    add("--method", default="gates", choices=[DENSE, *all_names()], help="default: %(default)s")
    add("--budget", type=float, default=0.25, help="fraction of the MACs that is left (default: %(default)s)")
    add("--steps", type=int, default=2000, help="of the optimizer (default: %(default)s)")
    add("--search_steps", type=int, help="of these, until the budget is met (default: half)")
    add("--batch_size", type=int, default=32, help="default: %(default)s")
    add("--lr", type=float, default=2e-4, help="learning rate (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--save_every", type=int, default=200, help="steps between saves (default: %(default)s)")
    add("--no_export", action="store_true", help="write no ONNX file at the end")
    parser.set_defaults(**defaults)
    return parser


# -- pictures --------------------------------------------------------------------
def pictures(data: str, size: int, held_out: bool = False) -> Tensor:
    """The pictures to learn from, or those ``held_out``: (N, 3, size, size) in [-1, 1].

    ``data``: ``emoji``, the coloured halves of datasets/openmoji; ``digits``, scikit-learn's; or a folder, of
    which every tenth picture is held out.

    Raises:
        DataError: there are none.
    """
    if data == "digits":
        return _part(_digits(size), held_out)
    if data == "emoji":
        folder = ROOT / "datasets" / "openmoji" / ("test" if held_out else "train")
        return _read(sorted(folder.glob("*.png")), size, right_half=True)
    if not Path(data).is_dir():
        raise DataError(f"--data {data} is no folder; give one, or emoji, or digits")
    return _part(_read(sorted(map(Path, pictures_below(Path(data)))), size), held_out)


def _read(paths: Sequence[Path], size: int, right_half: bool = False) -> Tensor:
    if not paths:
        raise DataError("there are no pictures in the folder of --data")
    found = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        if right_half:
            image = image.crop((image.width // 2, 0, image.width, image.height))
        found.append(np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _digits(size: int) -> Tensor:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError('--data digits needs scikit-learn: pip install "coronet-plugin[examples]"') from error
    gray = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    return F.interpolate(gray, size=(size, size), mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def _part(found: Tensor, held_out: bool) -> Tensor:
    tenth = torch.arange(len(found)) % 10 == 9
    return found[tenth == held_out]


# -- a training --------------------------------------------------------------------
class Training:
    """One generator compressed while it trains, in a folder from which it goes on after any interruption.

    ``family``, ``config``: of the generator, for the spec. ``inputs``: an example of what it takes.
    ``also``: everything else that learns, by name: networks and their optimizers. All randomness of a step
    follows from its number and the seed.

    Raises:
        CheckpointError: the folder has a run of other options.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        family: Family,
        config: Any,
        generator: nn.Module,
        inputs: tuple[Tensor, ...],
        optimizer: torch.optim.Optimizer,
        also: Mapping[str, Any],
        held_out: Sequence[Any] = (),
    ) -> None:
        self.options, self.family, self.inputs, self.also = options, family, inputs, dict(also)
        self.folder = Path(options.checkpoints_dir) / options.name
        self.optimizer, self.steps, self.seconds = optimizer, 0, 0.0
        self.change: float | None = None
        dense = options.method == DENSE
        self.compression = Compression(
            generator,
            inputs,
            budget=1.0 if dense else options.budget,
            method="uniform" if dense else options.method,  # nothing is narrowed where all may stay
            search_steps=options.search_steps or max(1, options.steps // 2),
            architecture=family.architecture(config),
        )
        self.compression.method.held_out = held_out
        self.compression.attach(optimizer)
        self.folder.mkdir(parents=True, exist_ok=True)
        settle(self.folder)
        if (self.folder / STATE).is_file():
            self._continue()
        else:
            write_text(self.folder / "train_opt.txt", self._as_text())
        self._since = time.perf_counter() - self.seconds

    @property
    def generator(self) -> nn.Module:
        return self.compression.generator

    def batches(self, data: Tensor) -> Iterator[Tensor]:
        """A batch of ``data`` for every step that is left."""
        while self.steps < self.options.steps:
            torch.manual_seed(self.options.seed * 1_000_003 + self.steps)
            yield data[torch.randint(len(data), (self.options.batch_size,))]

    def step(self, **losses: Tensor) -> None:
        """After the optimizer's step: the search's, the cut when it is due, and every so often a save."""
        if self.compression.step():
            before = self._output()
            self.compression.slim()
            self.change = relative_difference(self._output(), before)
            print(f"cut to {self._left()}; the output changed by {self.change:.1e} of its largest value")
        self.steps += 1
        if self.steps % self.options.save_every == 0 and self.steps < self.options.steps:
            self._save(losses)

    def finish(self, **figures: float) -> dict[str, Any]:
        """Save, write and check an ONNX file, and keep what was measured in ``record.json``."""
        self._save({})
        onnx = {} if self.options.no_export else self._export()
        cost, dense = self.compression.cost(), self.compression.dense
        options = {
            k: str(v) if isinstance(v, Path) else v for k, v in vars(self.options).items() if k not in FREE
        }
        record = {
            "family": self.family.name,
            "options": options,
            "macs": cost.macs,
            "macs_dense": dense.macs,
            "parameters": cost.parameters,
            "parameters_dense": dense.parameters,
            "change_at_cut": self.change,
            "seconds": self.seconds,
            "onnx": onnx,
            **figures,
        }
        write_text(self.folder / RECORD, json.dumps(record, indent=1) + "\n")
        print(f"{self.folder}: {self._left()}, trained in {self.seconds:.0f} s")
        return record

    def _left(self) -> str:
        return f"{100 * self.compression.remaining:.1f}% of the MACs"

    @torch.no_grad()
    def _output(self) -> list[Tensor]:
        was = self.generator.training
        found = list(tensors_in(self.generator.eval()(*self.inputs)))
        self.generator.train(was)
        return found

    def _export(self) -> dict[str, Any]:
        size = (self.options.size, self.options.size)
        request = Request(target_named("onnx"), size=size, norm_mode="running")
        made = export_generator(self.generator, request, self.folder, "generator", example=self.inputs)
        if not made.accepted or made.difference is None:
            raise UserError(f"{made.path} does not compute what the generator does: {made.difference}")
        print(f"{made.path}: differs from torch by {made.difference.max:.1e}")
        return {"file": made.path.name, "max_difference": made.difference.max}

    # -- what a continuation needs
    def _save(self, losses: Mapping[str, Tensor]) -> None:
        self.seconds = time.perf_counter() - self._since
        state = {
            "options": self._fixed(),
            "steps": self.steps,
            "seconds": self.seconds,
            "change": self.change,
            "compression": self.compression.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "also": {name: each.state_dict() for name, each in self.also.items()},
        }
        with together():
            self.compression.save(self.folder / WEIGHTS)
            save_tensors(state, self.folder / STATE)
        if losses:
            plain = {name: loss.item() for name, loss in losses.items()}
            print(f"{self.steps}: " + ", ".join(f"{name} {loss:.4f}" for name, loss in plain.items()))
            line = {"step": self.steps, "epoch": 1, "seconds": self.seconds, "losses": plain}
            with (self.folder / "loss_log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")

    def _continue(self) -> None:
        state = read_tensors(self.folder / STATE)
        if state["options"] != self._fixed():
            before, now = state["options"], self._fixed()
            other = ", ".join(f"--{key}" for key in now if now[key] != before.get(key))
            raise CheckpointError(
                f"{self.folder} has a run of other options ({other}); choose another --name"
            )
        self.steps, self.seconds, self.change = state["steps"], state["seconds"], state["change"]
        self.compression.load_state_dict(state["compression"])
        self.generator.load_state_dict(read_tensors(self.folder / WEIGHTS))
        self.optimizer.load_state_dict(state["optimizer"])
        for name, each in self.also.items():
            each.load_state_dict(state["also"][name])
        print(f"{self.folder}: goes on after step {self.steps}")

    def _fixed(self) -> dict[str, str]:
        return {k: str(v) for k, v in sorted(vars(self.options).items()) if k not in FREE}

    def _as_text(self) -> str:
        script = Path(sys.modules[type(self.family).__module__].__file__ or "").name
        named = {"netG": self.family.name, "crop_size": self.options.size}
        named["coronet_family"] = f"examples/{script}"  # for whoever samples it; nothing imports it by itself
        return "".join(f"{key:>25}: {value}\n" for key, value in {**self._fixed(), **named}.items())


def doublings(size: int, smallest: int = 4) -> int:
    """How often ``smallest`` is doubled to ``size``. Raises DataError if that is no whole number, or none."""
    found = round(math.log2(max(size, 1) / smallest))
    if found < 1 or smallest * 2**found != size:
        raise DataError(f"--size {size}: expected {2 * smallest}, {4 * smallest}, {8 * smallest}, ...")
    return found


def run(main: Any) -> int:
    """Call ``main``; an error that the user can mend is one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return 2
    return 0


def write_pictures() -> None:
    """Write the pictures of ``--data`` as PNG files."""
    parser = argparse.ArgumentParser(description="Write the pictures that the examples learn from.")
    parser.add_argument("--data", default="emoji", help="emoji, digits, or a folder (default: %(default)s)")
    parser.add_argument("--size", type=int, default=32, help="pixels (default: %(default)s)")
    parser.add_argument("--held_out", action="store_true", help="those that are not learned from")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = pictures(options.data, options.size, options.held_out)
    levels = ((found + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for number, picture in enumerate(levels):
        Image.fromarray(picture).save(options.output / f"{number:05d}.png")


if __name__ == "__main__":
    sys.exit(run(write_pictures))
