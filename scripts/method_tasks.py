"""Data sets, trainings and rows of the comparison of methods (scripts/compare_methods.py)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.evaluation.pictures import ENDINGS, spread  # noqa: E402

QUARTER = "--coronet_search_epochs {quarter}"
ANGLE = "--coronet_angle 0.01"  # times the factor of the learning rate
ROWS = {
    "dense": "dense",
    "dense, multipliers": "dense+implicit",
    "dense, angle": f"dense {ANGLE}",
    "uniform": "uniform",
    "uniform, multipliers": "uniform+implicit",
    "uniform, angle": f"uniform {ANGLE}",
    "magnitude": f"magnitude {QUARTER}",
    "magnitude, half": "magnitude",
    "magnitude, angle": f"magnitude {QUARTER} {ANGLE}",
    "random": f"random {QUARTER}",
    "gates": f"gates {QUARTER}",
    "gates, angle": f"gates {QUARTER} {ANGLE}",
    "gates, angle, biases as usual": f"gates {QUARTER} --coronet_angle 0.05",
    "gates, eighth": "gates --coronet_search_epochs {eighth}",
    "gates, half": "gates",
    "gates, half, linear": "gates --coronet_schedule linear",
    "published": f"published {QUARTER}",
    "published, half": "published",
    "implicit": f"implicit {QUARTER}",
    "implicit, half": "implicit",
    "gated": f"gated {QUARTER}",
    "gated, half": "gated",
    "gates, self-distilled": f"gates {QUARTER} --coronet_distill SELF",
    "gates, distilled": f"gates {QUARTER} --coronet_distill {{dense}}",
    "gates, half, self-distilled": "gates --coronet_distill SELF",
    "gates, half, distilled": "gates --coronet_distill {dense}",
    "distill": "distill",
    "slimming": f"slimming {QUARTER}",
    "slimming, half": "slimming",
    "taylor": f"taylor {QUARTER}",
    "taylor, half": "taylor",
    "GAN Compression": "gan_compression --coronet_teacher {dense} --coronet_search_generations 20 "
    "--coronet_search_population 40",  # published: 500 of 100, on a GPU
    "agent gates, inspired by MGGC, equations ours": "manifold --coronet_teacher {dense}",
}
"""Rows of the tables: methods as ``coronet sweep`` calls them, with options of ``train.py`` of their own.

``{dense}`` is the averaged weights of the row ``dense`` of the same rate and seed, whose training is done
first; its time counts. Searches last a quarter of the training, as they do unless a user says otherwise, in
the rows called so an eighth or half of it, and half in the last two."""
DENSE_BUDGET, TEACHER = "1.0", "{dense}"
PARTS = {"{quarter}": 1 / 4, "{eighth}": 1 / 8}
FACTORS = ("1", "2.5", "5")
HELD_OUT = "val_latest_average"
AVERAGED, RAW = "test_latest_average", "test_latest"
SAVE_EVERY, LAST = 100, 3
"""Steps between saves, and how many of them are kept."""


@dataclass(frozen=True)
class Task:
    """A training. ``train`` and ``held_out``: how many pictures, at most, of either side."""

    options: str
    size: int
    epochs: int
    train: int
    held_out: int
    paired: bool = True
    generator: str = "G"

    @property
    def steps(self) -> int:
        return self.epochs * self.train

    def words(self, data: Path, factor: str) -> list[str]:
        """Options of ``train.py``."""
        size, decay = str(self.size), self.epochs // 2
        words = [*self.options.split(), "--dataroot", str(data), "--load_size", size, "--crop_size", size]
        words += ["--n_epochs", str(self.epochs - decay), "--n_epochs_decay", str(decay)]
        words += ["--coronet_search_epochs", str(self.epochs / 2), "--coronet_average", "0.999"]
        words += ["--coronet_lr_factor", factor, "--coronet_watch", "0", "--num_threads", "0", "--no_html"]
        words += ["--display_id", "-1", "--display_freq", "1000000", "--print_freq", "100"]
        return [*words, "--save_epoch_freq", "1000", "--save_latest_freq", str(SAVE_EVERY), "--save_by_iter"]

    def looks(self, saves: int = LAST) -> list[str]:
        """Saves that runs at the best rate are judged by: averaged weights, and so many of the plain ones."""
        earlier = range(self.steps - SAVE_EVERY, self.steps - SAVE_EVERY * saves, -SAVE_EVERY)
        return [AVERAGED, *([RAW] if saves else []), *(f"test_iter_{number}" for number in earlier)]


UNET = "--model pix2pix --netG unet_128 --norm batch --ngf 16 --ndf 16"
RESNET = "--netG resnet_6blocks --norm instance --no_dropout"
TASKS = {
    "facades": Task(f"{UNET} --direction BtoA", 128, epochs=3, train=400, held_out=100),
    "openmoji": Task(
        f"--model pix2pix {RESNET} --ngf 24 --ndf 24 --lr 0.0005", 64, epochs=1, train=1000, held_out=100
    ),
    "horse2zebra": Task(
        f"--model cycle_gan {RESNET} --ngf 16 --ndf 16 --lambda_identity 0",
        *(64, 2, 500, 100),
        paired=False,
        generator="G_A",
    ),
    "edges2shoes": Task(UNET, 128, epochs=15, train=80, held_out=20),
}
LONG = ("facades", "openmoji", "horse2zebra")
TASKS |= {f"{name}_long": replace(TASKS[name], epochs=4 * TASKS[name].epochs) for name in LONG}
"""Those called long are the same trainings with four times the steps."""


@dataclass(frozen=True)
class Job:
    """One run and what it is judged by."""

    task: str
    row: str
    budget: str
    factor: str
    seed: int
    looks: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.task}_{self.row.replace(', ', '_')}_{self.budget}_f{self.factor}_s{self.seed}"


def prepared(name: str, source: Path, folder: Path) -> Path:
    """The data set as links: as many training and held-out pictures as the task takes, evenly spread."""
    task, made = TASKS[name], folder / name
    for side in ("",) if task.paired else ("A", "B"):
        train, val, test = (_pictures(source / f"{phase}{side}") for phase in ("train", "val", "test"))
        if not test:
            val, test = [], val
        if not val:
            out = set(spread(len(train), task.held_out))
            val = [train[i] for i in sorted(out)]
            train = [path for i, path in enumerate(train) if i not in out]
        for phase, paths, count in (
            ("train", train, task.train),
            ("val", val, task.held_out),
            ("test", test, 10**6),
        ):
            target = made / f"{phase}{side}"
            target.mkdir(parents=True, exist_ok=True)
            for index in spread(len(paths), count):
                link = target / paths[index].name
                if not link.exists():
                    link.symlink_to(paths[index])
    return made


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path.resolve() for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
