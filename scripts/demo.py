"""The whole idea in one command: train dense and compressed, test both, write one page.

Trains pix2pix to colour emoji outlines twice with the same data, seed and steps: once as it is (a budget of
1), once with a budget of a tenth of the multiply-adds. Either is shown by its averaged weights, whose colours
do not hang on the last steps. First a few steps are timed on this machine, and as many pictures are trained
on as take the ``--minutes`` asked for. Every command is printed before it runs, so that each can be tried by
hand. The last line of the output is the path of the page. Run it from anywhere, with the Python that has the
package and its extras: ``python scripts/demo.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DENSE, COMPRESSED = "demo_dense", "demo_coronet"
DENSE_BUDGET = "1.0"
EPOCHS = 2
AVERAGE = 0.999
"""Decay of the averaged weights that are tested: they remember a ninth of the steps, or a thousand."""
FEWEST = 20
"""Pictures an epoch that are worth a training."""
TRIAL = 20
"""Steps of each of the two epochs of a trial; the second tells what a step takes once all is warm."""
STEP_RATIO = 0.75
"""Seconds a step of the compressed training by those of the dense one, cautiously (docs/results.md)."""
PROGRAMS = 5
"""Programs that the demo starts, each of which takes a while to begin."""
# How long OpenMP threads spin before they sleep (GNU's library, which PyTorch has on Linux). Sleeping
# at once, as train.py asks for, halves the speed of networks this small on two free cores; its default,
# spinning for long, makes a machine with other work crawl.
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", **os.environ}


@dataclass(frozen=True)
class Part:
    """One timed step: ``command`` begins with a script, or ``-m`` and a module."""

    title: str
    command: tuple[str, ...]

    def shown(self) -> str:
        return shlex.join(("python", *self.command))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--output", default="demo", help="folder for all that is written (default: %(default)s)"
    )
    parser.add_argument(
        "--dataroot", default="datasets/openmoji", help="aligned pairs (default: %(default)s)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=6.0,
        help="how long all is to take on this machine, which is timed first (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=int, help=f"epochs of each training (default: {EPOCHS}, or what the minutes allow)"
    )
    parser.add_argument(
        "--images", type=int, help="training pictures per epoch (default: what the minutes allow)"
    )
    parser.add_argument("--size", type=int, default=96, help="pixels a side (default: %(default)s)")
    parser.add_argument(
        "--ngf", type=int, default=24, help="width of the dense generator (default: %(default)s)"
    )
    parser.add_argument("--budget", default="0.1", help="--coronet_budget (default: %(default)s)")
    parser.add_argument("--search_epochs", type=float, help="--coronet_search_epochs (default: the method's)")
    parser.add_argument("--method", default="coronet", help="--coronet_method (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of both trainings (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="a toy run of seconds that only shows that it works"
    )
    parser.add_argument(
        "--keep", action="store_true", help="do not repeat trainings that an earlier demo finished"
    )
    options = parser.parse_args(argv)
    if not options.minutes > 0:
        parser.error(f"--minutes must be above 0, not {options.minutes:g}")
    if options.quick:
        options.epochs, options.images, options.size, options.ngf = 2, 6, 32, 16
    options.timed = options.epochs is None and options.images is None
    options.epochs = options.epochs or EPOCHS
    return options


def training(options: argparse.Namespace) -> tuple[str, ...]:
    """Options that both trainings share."""
    half = options.epochs // 2
    shared = {
        "dataroot": options.dataroot,
        "checkpoints_dir": f"{options.output}/checkpoints",
        "model": "coronet",
        "coronet_base": "pix2pix",
        "coronet_average": AVERAGE,
        "direction": "AtoB",
        "netG": "resnet_6blocks",
        "ngf": options.ngf,
        "ndf": 16,
        "norm": "instance",
        "batch_size": 1,
        "load_size": options.size,
        "crop_size": options.size,
        "lr": 0.0005,
        "n_epochs": options.epochs - half,
        "n_epochs_decay": half,
        "save_epoch_freq": options.epochs,
        "print_freq": 2 if options.quick else 20,
        "display_id": -1,
        "num_threads": 0,
        "seed": options.seed,
    }
    if options.images:
        shared["max_dataset_size"] = options.images
    return (*flags(shared), "--no_dropout")


def testing(options: argparse.Namespace, name: str) -> tuple[str, ...]:
    """Options of test.py; a run knows its architecture from its spec."""
    shared = {
        "dataroot": options.dataroot,
        "name": name,
        "model": "coronet",
        "epoch": "latest_average",
        "checkpoints_dir": f"{options.output}/checkpoints",
        "results_dir": f"{options.output}/results",
        "load_size": options.size,
        "crop_size": options.size,
        "num_test": 6 if options.quick else 1000,
    }
    return flags(shared)


def flags(values: dict[str, object]) -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in (f"--{key}", str(value)))


def parts(options: argparse.Namespace) -> list[Part]:
    """Steps of the demo, in order."""
    shared = training(options)
    coronet = {
        "coronet_budget": options.budget,
        "coronet_method": options.method,
        **({} if options.search_epochs is None else {"coronet_search_epochs": f"{options.search_epochs:g}"}),
    }
    pictures = 6 if options.quick else 24
    dense_only, compressed = flags({"coronet_budget": DENSE_BUDGET}), flags(coronet)
    return [
        Part("train dense", ("train.py", "--name", DENSE, "--overwrite", *dense_only, *shared)),
        Part("train compressed", ("train.py", "--name", COMPRESSED, "--overwrite", *compressed, *shared)),
        Part("test dense", ("test.py", *testing(options, DENSE))),
        Part("test compressed", ("test.py", *testing(options, COMPRESSED))),
        Part(
            "compare",
            (
                *("-m", "coronet_plugin", "compare", DENSE, COMPRESSED),
                *flags(
                    {
                        "checkpoints_dir": f"{options.output}/checkpoints",
                        "results_dir": f"{options.output}/results",
                        "epoch": "latest_average",
                        "output": f"{options.output}/comparison",
                        "images": pictures,
                        "title": "Colouring emoji: pix2pix, dense and compressed while it trained",
                    }
                ),
                "--no_fid",  # which takes minutes
            ),
        ),
    ]


def fit_to_machine_(options: argparse.Namespace) -> None:
    """Time a few steps and set how many pictures, and epochs where they are fast, fit the minutes."""
    name, started = "demo_trial", time.perf_counter()
    trial = argparse.Namespace(**{**vars(options), "images": TRIAL, "epochs": 2})
    words = ("--name", name, "--overwrite", *flags({"coronet_budget": DENSE_BUDGET}), *training(trial))
    run(options, Part("time this machine", ("train.py", *words)))
    whole = time.perf_counter() - started
    log = ROOT / options.output / "checkpoints" / name / "loss_log.jsonl"
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    seconds = [row["seconds"] for row in rows if row["epoch_iter"] == TRIAL]
    step = (seconds[-1] - seconds[0]) / TRIAL
    beginning = max(0.0, whole - 2 * TRIAL * step)
    everything = len(list((ROOT / options.dataroot / "train").iterdir()))
    options.epochs, options.images = planned(60 * options.minutes, step, beginning, everything)
    steps = options.epochs * options.images
    expected = PROGRAMS * beginning + steps * step * (1 + STEP_RATIO)
    print(
        f"a step takes {1000 * step:.0f} ms here: {options.epochs} epochs of {options.images} pictures "
        f"each, about {expected / 60:.0f} min in all",
        flush=True,
    )


def planned(seconds: float, step: float, beginning: float, pictures: int) -> tuple[int, int]:
    """Epochs, and pictures of each, that fit ``seconds``: of a ``step``, and of a program's ``beginning``."""
    steps = max(0.0, seconds - PROGRAMS * beginning) / (step * (1 + STEP_RATIO))
    epochs = max(EPOCHS, math.ceil(steps / pictures))
    return epochs, max(min(FEWEST, pictures), int(steps / epochs))


def command_file(options: argparse.Namespace, part: Part) -> Path | None:
    """Where a training's command is written down once it is finished, for the page and for ``--keep``."""
    if part.command[0] != "train.py":
        return None
    name = part.command[part.command.index("--name") + 1]
    return ROOT / options.output / "checkpoints" / name / "command.txt"


def is_kept(options: argparse.Namespace, part: Part) -> bool:
    """True if ``--keep`` was given and an earlier demo finished the very same training."""
    record = command_file(options, part)
    return bool(
        options.keep and record and record.is_file() and record.read_text("utf-8").strip() == part.shown()
    )


def run(options: argparse.Namespace, part: Part) -> float:
    """Run one part and give its seconds. Exits with the part's code if it fails."""
    if is_kept(options, part):
        print(f"\n=== {part.title}: kept from an earlier demo", flush=True)
        return 0.0
    record = command_file(options, part)
    print(f"\n=== {part.title}\n$ {part.shown()}", flush=True)
    if record:
        record.unlink(missing_ok=True)
    start = time.perf_counter()
    code = subprocess.run([sys.executable, *part.command], cwd=ROOT, env=ENVIRONMENT, check=False).returncode
    seconds = time.perf_counter() - start
    if code:
        print(f"demo: '{part.title}' failed with exit code {code}; its message is above", file=sys.stderr)
        sys.exit(code)
    if record:
        record.write_text(part.shown() + "\n", encoding="utf-8")
    print(f"=== {part.title}: {seconds:.0f} s", flush=True)
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    options, started = parse(argv), time.perf_counter()
    folder = ROOT / options.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    if options.timed:
        fit_to_machine_(options)
    todo = parts(options)
    times = [run(options, part) for part in todo]
    report(zip(todo, times), time.perf_counter() - started)
    print((folder / "comparison" / "index.html").resolve(), flush=True)


def report(timed: Iterable[tuple[Part, float]], total: float) -> None:
    print("\n=== times")
    for part, seconds in timed:
        print(f"{part.title:<18}{seconds:6.0f} s")
    print(f"{'all':<18}{total:6.0f} s\n\nOpen this page in a browser:")


if __name__ == "__main__":
    main()
