"""Does training to a slim generator take less time than training the dense one for as many steps?

    python scripts/time_training.py --output training_time

Wall time of whole trainings of full-size generators (ngf 64) at 128x128 and budget 0.1, with searches as
long as each method's are: resnet_9blocks in CycleGAN and unet_128 in pix2pix, on the bundled emoji, dense
and compressed in turn for some rounds. Starting the program and finding the channels count too, so short
trainings look worse than long ones; the time of the steps alone is given beside. Writes
training_time.csv, .json, .png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import records  # noqa: E402

TASKS = {"cycle_gan": "resnet_9blocks", "pix2pix": "unet_128"}
FORMS = ("dense", "gates", "published")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("training_time"), help="(default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--forms", nargs="+", default=["dense", "gates"], choices=FORMS)
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="of a training (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="pixels (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--budget", default="0.1", help="(default: %(default)s)")
    parser.add_argument("--gpu", default="", metavar="ID", help="train on this GPU (default: the CPU)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in options.tasks:
        for number in range(options.rounds):
            found = {form: train(task, form, options) for form in options.forms}
            for form, (whole, steps) in found.items():
                row = {"task": task, "round": number, "form": form, "seconds": whole, "step_seconds": steps}
                row["ratio"] = whole / found["dense"][0]
                row["step_ratio"] = steps / found["dense"][1]
                rows.append(row)
                print(json.dumps(row), flush=True)
    records.write(rows, options.output, "training_time")
    print(markdown(rows))
    plot(rows, options.output / "training_time.png")
    return 0


def train(task: str, form: str, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a whole training, and of its steps but the first by its log."""
    folder = options.output.resolve() / "checkpoints"
    arguments = ["--dataroot", str(ROOT / "datasets" / "openmoji"), "--name", f"{task}_{form}"]
    arguments += ["--checkpoints_dir", str(folder), "--display_id", "-1", "--no_html", "--num_threads", "0"]
    arguments += ["--load_size", str(options.size), "--crop_size", str(options.size), "--netG", TASKS[task]]
    arguments += ["--max_dataset_size", str(options.steps // 2), "--n_epochs", "1", "--n_epochs_decay", "1"]
    arguments += ["--print_freq", "1", "--save_epoch_freq", "100", "--save_latest_freq", "100000"]
    if task == "cycle_gan":  # unpaired: the emoji pairs are taken apart
        arguments[1] = str(unpaired(options.output.resolve() / "data", options.steps // 2))
    else:
        arguments += ["--direction", "AtoB"]
    if form == "dense":
        arguments += ["--model", task]
    else:
        arguments += ["--model", "coronet", "--coronet_base", task, "--coronet_budget", options.budget]
        arguments += ["--coronet_method", form]
    arguments += ["--gpu_ids", options.gpu] if options.gpu else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stdout[-1000:] + done.stderr[-2000:])
    lines = (folder / f"{task}_{form}" / "loss_log.jsonl").read_text().splitlines()
    first, last = (json.loads(lines[place])["seconds"] for place in (0, -1))  # the first step allocates
    return seconds, last - first


def unpaired(folder: Path, count: int) -> Path:
    """Outlines in trainA, colours in trainB."""
    from PIL import Image

    for part in ("trainA", "trainB"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "datasets" / "openmoji" / "train").glob("*.png"))[:count]:
        with Image.open(path) as image:
            half = image.width // 2
            image.crop((0, 0, half, image.height)).save(folder / "trainA" / path.name)
            image.crop((half, 0, image.width, image.height)).save(folder / "trainB" / path.name)
    return folder


def markdown(rows: list[dict[str, Any]]) -> str:
    """Medians over rounds with the extremes."""
    digits = {"seconds": 1, "ratio": 2, "step_seconds": 1, "step_ratio": 2}
    lines = []
    for task, form in cases(rows):
        found = {key: records.values(rows, key, task=task, form=form) for key in digits}
        lines.append([task, form, *(records.median_cell(found[key], digits[key]) for key in digits)])
    return records.table(["task", "training", "seconds", "of dense", "steps alone, s", "of dense"], lines)


def cases(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Tasks and forms that were measured."""
    return list(itertools.product(records.distinct(rows, "task"), records.distinct(rows, "form")))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    with records.figure(path, size=(5, 3.5)) as (axis,):
        for place, (task, form) in enumerate(cases(rows), start=1):
            axis.bar(place, statistics.median(records.values(rows, "step_ratio", task=task, form=form)))
        axis.axhline(0.65, color="black", linewidth=1)
        labels = [f"{task}\n{form}" for task, form in cases(rows)]
        axis.set_xticks(range(1, 1 + len(labels)), labels, fontsize=8)
        axis.set_ylabel("time of the steps / dense")


if __name__ == "__main__":
    sys.exit(main())
