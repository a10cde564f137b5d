"""Memory and open files of a long training, step by step.

    python scripts/watch_memory.py --output docs/results

Trains a tiny CycleGAN with the plug-in for 2,000 steps: search, cut, image pool, loading processes that start
anew every epoch, saves, pages and logs. Writes memory.csv, memory.json and memory.png. Exit code 1 if memory
or the number of open files grows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from PIL import Image

from coronet_plugin.measure.memory import resident_bytes

EVERY = 10
"""Steps between two measurements."""
GROWTH = 2.0
"""MB by which the median of the last quarter may exceed that of the third quarter, 500 steps before."""
IMAGES = 100


@dataclass(frozen=True)
class Sample:
    """After ``step`` steps: resident memory of the process in MB, its open files, its child processes.

    Memory that is free already is given back to the system first, so that what is left is in use.
    """

    step: int
    resident_mb: float
    open_files: int
    children: int

    @classmethod
    def now(cls, step: int) -> Sample:
        resident = resident_bytes() / 1e6
        me = f"/proc/{os.getpid()}"
        children = sum(len((task / "children").read_text().split()) for task in Path(me, "task").iterdir())
        return cls(step, round(resident, 3), len(os.listdir(f"{me}/fd")), children)


def watch(steps: int, threads: int, folder: Path) -> list[Sample]:
    """Train for ``steps`` steps of one image and measure between them."""
    import train

    for side in "AB":
        (folder / "data" / f"train{side}").mkdir(parents=True)
        for number in range(IMAGES):
            color = (number * 2, 255 - number * 2, 100 if side == "A" else 200)
            Image.new("RGB", (36, 36), color).save(folder / "data" / f"train{side}" / f"{number}.png")
    samples: list[Sample] = []
    step_of = train.Training.step

    def step_and_measure(self: train.Training, *given: object) -> None:
        step_of(self, *given)
        if self.visualizer.step % EVERY == 0:
            samples.append(Sample.now(self.visualizer.step))

    train.Training.step = step_and_measure  # type: ignore[method-assign]
    try:
        code = train.main(arguments(folder, steps // IMAGES, threads))
    finally:
        train.Training.step = step_of  # type: ignore[method-assign]
    if code:
        sys.exit(code)
    return samples


def arguments(folder: Path, epochs: int, threads: int) -> list[str]:
    """The search takes the first half; every sink is used often."""
    where = f"--dataroot {folder / 'data'} --checkpoints_dir {folder} --name watched --num_threads {threads}"
    networks = (
        "--netG resnet_6blocks --norm instance --ngf 8 --ndf 4 --load_size 36 --crop_size 32 --gpu_ids -1"
    )
    plugin = (
        f"--model coronet --coronet_base cycle_gan --coronet_budget 0.3 --coronet_search_epochs {epochs / 2}"
    )
    length = f"--n_epochs {epochs} --n_epochs_decay 0 --pool_size 10 --display_id 0 --seed 1"
    often = (
        "--print_freq 20 --display_freq 50 --update_html_freq 50 --save_latest_freq 100 --save_epoch_freq 10"
    )
    return " ".join((where, networks, plugin, length, often)).split()


def growth(samples: Sequence[Sample]) -> tuple[float, int]:
    """MB and files by which the last quarter's medians exceed the third quarter's, after the cut."""
    quarter = len(samples) // 4
    before, after = samples[2 * quarter : 3 * quarter], samples[3 * quarter :]
    mb = statistics.median(s.resident_mb for s in after) - statistics.median(s.resident_mb for s in before)
    files = max(s.open_files for s in after) - max(s.open_files for s in before)
    return round(mb, 3), files


def draw(samples: Sequence[Sample], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True)
    steps = [sample.step for sample in samples]
    top.plot(steps, [sample.resident_mb for sample in samples], linewidth=1)
    top.set_ylabel("resident memory, MB")
    top.set_ylim(0, 1.2 * max(sample.resident_mb for sample in samples))
    bottom.plot(steps, [sample.open_files for sample in samples], linewidth=1)
    bottom.set_ylabel("open files")
    bottom.set_ylim(0, 1.2 * max(sample.open_files for sample in samples))
    bottom.set_xlabel("step; the search ends in the middle")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="a multiple of 100 (default: %(default)s)")
    parser.add_argument("--num_threads", type=int, default=2, help="loading processes (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record and the figure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watch_memory_") as folder:
        samples = watch(options.steps, options.num_threads, Path(folder))
    mb, files = growth(samples)
    facts = {
        "steps": samples[-1].step,
        "resident_mb_first": samples[0].resident_mb,
        "resident_mb_most": max(sample.resident_mb for sample in samples),
        "resident_mb_last": samples[-1].resident_mb,
        "growth_mb": mb,
        "growth_files": files,
        "allowed_mb": GROWTH,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "memory.json").write_text(json.dumps(facts, indent=1) + "\n")
    rows = [asdict(sample) for sample in samples]
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (options.output / "memory.csv").write_text("\n".join(lines) + "\n")
    draw(samples, options.output / "memory.png")
    print(json.dumps(facts))
    sys.exit(int(mb > GROWTH or files > 0))


if __name__ == "__main__":
    main()
