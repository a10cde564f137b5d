"""Cost of a training step of the search against the plain one: time and peak memory, whole step.

    python scripts/time_search.py --output search_cost

CycleGAN with resnet_9blocks and pix2pix with unet_256 at 256x256, batch 1, discriminators included, on
random pictures. Every measurement is a process of its own; the variants take turns for some rounds, and
ratios are those of one round. Where others use the machine too, go by the processors' time. Memory is the
largest resident size of the process. Writes search_cost.csv, search_cost.json and search_cost.png.
Smaller by ``--threads``, ``--size``, ``--ngf``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import records  # noqa: E402

MODELS = {"cycle_gan": "resnet_9blocks", "pix2pix": "unet_256"}
VARIANTS = ("plain", "none", "implicit", "gated", "folded", "published")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("search_cost"), help="(default: %(default)s)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed in a process (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="pixels (default: %(default)s)")
    parser.add_argument("--ngf", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options)))
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in options.models:
        for number in range(options.rounds):
            found = {variant: in_a_process(model, variant, options) for variant in options.variants}
            for variant, record in found.items():
                rows.append({"model": model, "round": number, "variant": variant, **record})
                rows[-1]["time_ratio"] = record["seconds"] / found["plain"]["seconds"]
                rows[-1]["cpu_ratio"] = record["cpu_seconds"] / found["plain"]["cpu_seconds"]
                rows[-1]["memory_ratio"] = record["peak_mib"] / found["plain"]["peak_mib"]
                print(json.dumps(rows[-1]), flush=True)
    records.write(rows, options.output, "search_cost")
    print(markdown(rows))
    plot(rows, options.output / "search_cost.png")
    return 0


def in_a_process(model: str, variant: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", model, variant, "--steps", str(options.steps)]
    command += ["--threads", str(options.threads), "--size", str(options.size), "--ngf", str(options.ngf)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(model: str, variant: str, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, by the clock and on processors, and peak memory in MiB, of this process."""
    import torch

    torch.set_num_threads(options.threads)
    trained = host_model(model, variant, options)
    pictures = [torch.rand(1, 3, options.size, options.size) * 2 - 1 for _ in range(2)]
    batch = {"A": pictures[0], "B": pictures[1], "A_paths": [""], "B_paths": [""]}
    seconds, cpu_seconds = [], []
    for step in range(1 + options.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        trained.set_input(batch)
        trained.optimize_parameters()
        if step:  # the first one allocates
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    medians = {"seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu_seconds)}
    return {**medians, "peak_mib": peak}


def host_model(model: str, variant: str, options: argparse.Namespace, extra: Sequence[str] = ()) -> Any:
    """The bundled host's model, as train.py makes it; ``extra`` options come last, and so win."""
    import numpy as np
    from PIL import Image

    from models import create_model
    from options.train_options import TrainOptions

    folder = Path(tempfile.mkdtemp())
    for part in ("train", "trainA", "trainB"):
        (folder / part).mkdir()
        for number in range(2):
            shape = (options.size, options.size * (2 if part == "train" else 1), 3)
            Image.fromarray(np.zeros(shape, np.uint8)).save(folder / part / f"{number}.png")
    arguments = [
        "--dataroot",
        str(folder),
        "--name",
        "x",
        "--checkpoints_dir",
        str(folder),
        "--display_id",
        "-1",
    ]
    arguments += ["--load_size", str(options.size), "--crop_size", str(options.size), "--netG", MODELS[model]]
    arguments += ["--ngf", str(options.ngf), "--ndf", str(options.ngf), "--model"]
    arguments += [model] if variant == "plain" else ["coronet", "--coronet_base", model]
    arguments += [] if variant == "plain" else ["--coronet_hypernetwork", variant]
    opt = TrainOptions().parse([*arguments, *extra])
    made = create_model(opt)
    made.setup(opt)
    return made


def markdown(rows: list[dict[str, Any]]) -> str:
    """Medians over rounds with the extremes."""
    digits = {"seconds": 2, "time_ratio": 2, "cpu_ratio": 2, "peak_mib": 0, "memory_ratio": 2}
    lines = []
    for model in records.distinct(rows, "model"):
        for variant in records.distinct(rows, "variant"):
            found = {key: records.values(rows, key, model=model, variant=variant) for key in digits}
            lines.append([model, variant, *(records.median_cell(found[key], digits[key]) for key in digits)])
    header = ["model", "search", "step, s", "time / plain", "CPU time / plain", "peak, MiB", "memory / plain"]
    return records.table(header, lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    models = records.distinct(rows, "model")
    with records.figure(path, 2, (9, 3.5)) as axes:
        variants = records.distinct(rows, "variant")
        width = 0.8 / len(variants)
        for axis, key in zip(axes, ("time_ratio", "memory_ratio")):
            for index, variant in enumerate(variants):
                found = [records.values(rows, key, model=model, variant=variant) for model in models]
                places = [x + width * index for x in range(len(models))]
                axis.bar(places, [statistics.median(values) for values in found], width, label=variant)
            axis.set_xticks([x + 0.4 - width / 2 for x in range(len(models))], models)
            axis.set_ylabel(key.replace("_ratio", " / plain"))
        axes[0].legend()


if __name__ == "__main__":
    sys.exit(main())
