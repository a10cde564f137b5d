"""Try the plug-in in checkouts of upstream and its forks: train, resume, test, export, uninstall.

    python scripts/try_checkouts.py 2024=/path/to/checkout cut=/path/to/another --output docs/checkouts.json

Each checkout is copied, and the copy used as its owner would: ``coronet install`` or the runner
(``--way``), then for every base model a training through the search and the cut, a continued
training and a test, on a few bundled pictures. At the end the checkout's own files must be what
they were. Needs an environment in which the checkouts themselves run (torchvision, scipy, ...).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "datasets" / "openmoji" / "train"
SIDE = 64

OWN_MODEL = '''
import os

import torch

from . import networks
from .base_model import BaseModel


class Halfway(torch.nn.Module):
    """A generator of one's own: gated, attentive, joined with the image."""

    def __init__(self, width=16):
        super().__init__()
        self.down = torch.nn.Sequential(
            torch.nn.Conv2d(3, width, 4, 2, 1),
            torch.nn.InstanceNorm2d(width),
            torch.nn.ReLU(),
        )
        self.gated = torch.nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up = torch.nn.Conv2d(width, 4 * width, 3, padding=1)
        self.shuffle = torch.nn.PixelShuffle(2)
        self.last = torch.nn.Conv2d(width + 3, 3, 3, padding=1)

    def forward(self, image):
        x = self.down(image)
        content, gate = self.gated(x).chunk(2, dim=1)
        x = x + content * torch.sigmoid(gate)
        return torch.tanh(self.last(torch.cat([image, self.shuffle(self.up(x))], 1)))


class OwnModel(BaseModel):
    def name(self):
        return "OwnModel"

    @staticmethod
    def modify_commandline_options(parser, is_train=True):
        paired = os.path.exists(os.path.join("data", "aligned_dataset.py"))
        parser.set_defaults(dataset_mode="aligned" if paired else "unaligned")
        return parser

    def _build(self, opt):
        self.loss_names, self.visual_names, self.model_names = ["L1"], ["real_A", "fake_B", "real_B"], ["G"]
        self.netG = Halfway().to(self.device)
        if self.isTrain:
            self.optimizer_G = torch.optim.Adam(self.netG.parameters(), lr=opt.lr)
            self.optimizers = [self.optimizer_G]

    if "initialize" in vars(BaseModel):
        def initialize(self, opt):
            BaseModel.initialize(self, opt)
            self._build(opt)
    else:
        def __init__(self, opt):
            BaseModel.__init__(self, opt)
            self._build(opt)

    def set_input(self, input):
        self.real_A, self.real_B = input["A"].to(self.device), input["B"].to(self.device)
        self.image_paths = input["A_paths"]

    def forward(self):
        self.fake_B = self.netG(self.real_A)

    def optimize_parameters(self):
        self.forward()
        self.optimizer_G.zero_grad()
        self.loss_L1 = (self.fake_B - self.real_B).abs().mean()
        self.loss_L1.backward()
        self.optimizer_G.step()
'''


@dataclass
class Trial:
    """A trial of one base model in one checkout: seconds by step, or why a step failed."""

    checkout: str
    base: str
    way: str
    steps: dict[str, str] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    files_unchanged: bool = False

    @property
    def passed(self) -> bool:
        return self.files_unchanged and all(not said.startswith("failed") for said in self.steps.values())


def make_data(folder: Path) -> tuple[Path, Path]:
    """A paired and an unpaired data set of six bundled pictures."""
    paired, unpaired = folder / "paired", folder / "unpaired"
    for number, file in enumerate(sorted(PICTURES.glob("*.*"))[:6]):
        pair = Image.open(file).convert("RGB").resize((2 * SIDE, SIDE))
        for phase in ("train", "test"):
            (paired / phase).mkdir(parents=True, exist_ok=True)
            pair.save(paired / phase / f"{number}.jpg")
            for side, left in (("A", 0), ("B", SIDE)):
                (unpaired / (phase + side)).mkdir(parents=True, exist_ok=True)
                pair.crop((left, 0, left + SIDE, SIDE)).save(unpaired / (phase + side) / f"{number}.jpg")
    return paired, unpaired


def options_of(checkout: Path) -> dict[str, list[str]]:
    """Command-line options by the names of this checkout's era, for small and short runs."""
    text = "".join(path.read_text(errors="replace") for path in (checkout / "options").glob("*.py"))

    def known(*names: str) -> str:
        return next((f"--{name}" for name in names if f"'--{name}'" in text or f'"--{name}"' in text), "")

    common = [known("netG", "which_model_netG"), "resnet_6blocks", "--ngf", "16", "--ndf", "8"]
    common += [
        known("epoch", "which_epoch"),
        "latest",
        known("load_size", "loadSize"),
        str(SIDE),
        known("crop_size", "fineSize"),
        str(SIDE),
    ]
    if known("gpu_ids"):
        common += ["--gpu_ids", "-1"]
    train = [
        known("n_epochs", "niter"),
        "2",
        known("n_epochs_decay", "niter_decay"),
        "1",
        "--print_freq",
        "1",
    ]
    train += ["--save_epoch_freq", "1", "--display_freq", "4", known("num_threads", "nThreads"), "0"]
    if known("display_id"):
        train += ["--display_id", "-1"]
    epochs = known("n_epochs_decay", "niter_decay")
    return {"common": common, "train": train, "longer": [epochs, "2", "--epoch_count", "4"]}


def digest(checkout: Path) -> dict[str, str]:
    """Hash of every file of a checkout that is not made by running it."""
    files = [path for path in sorted(checkout.rglob("*.py")) if "checkpoints" not in path.parts]
    return {str(p.relative_to(checkout)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run(command: list[str], folder: Path, log: Path) -> str:
    """Run and log a command; the seconds it took, or ``failed: last line``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    started = time.time()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    with log.open("a") as file:
        shown = " ".join("python" if word == sys.executable else word for word in command)
        file.write(f"$ {shown}\n{done.stdout}\n[exit code {done.returncode}]\n\n")
    if done.returncode:
        lines = [line for line in done.stdout.strip().splitlines() if line.strip()]
        return f"failed: {lines[-1] if lines else done.returncode}"
    return f"{time.time() - started:.0f} s"


def try_base(checkout: Path, label: str, base: str, way: str, data: tuple[Path, Path], log: Path) -> Trial:
    """Train through the cut, go on, test, and export one base model."""
    trial = Trial(label, base, way)
    era = options_of(checkout)
    python = [sys.executable] if way == "shim" else [sys.executable, "-m", "coronet_plugin"]
    paired = base in ("pix2pix", "own") and (checkout / "data" / "aligned_dataset.py").exists()
    folder = data[0] if paired else data[1]
    model = ["--model", "coronet", "--coronet_base", base, "--name", base, "--dataroot", str(folder)]
    budget = ["--coronet_budget", "0.1" if base == "cut" else "0.3", "--coronet_search_epochs", "1.5"]
    if base == "cut":
        budget += ["--num_patches", "32"]
        era["common"][era["common"].index("--ngf") + 1] = "32"  # of which a tenth is left
    training = [*python, "train.py", *model, *era["common"], *era["train"], *budget]
    trial.steps["train"] = run(training, checkout, log)
    if not trial.steps["train"].startswith("failed"):
        trial.steps["resume"] = run([*training, "--continue_train", *era["longer"]], checkout, log)
        trial.steps["test"] = run([*python, "test.py", *model, *era["common"]], checkout, log)
        check_results(checkout, base, trial)
    if base != "own" and not any(said.startswith("failed") for said in trial.steps.values()):
        coronet = [sys.executable, "-m", "coronet_plugin"]
        written = [*coronet, "export-upstream", base, "--output", f"exported_{base}"]
        trial.steps["export"] = run(written, checkout, log)
        trial.steps["onnx"] = run([*coronet, "export", base, "--to", "onnx"], checkout, log)
    return trial


def check_results(checkout: Path, base: str, trial: Trial) -> None:
    """The generators are small, and the test made its page."""
    specs = sorted((checkout / "checkpoints" / base).glob("latest_net_*.json"))
    for path in specs:
        spec = json.loads(path.read_text())
        if spec["phase"] == "compact":
            trial.kept[path.stem[len("latest_net_") :]] = round(
                spec["slim"]["macs"] / spec["dense"]["macs"], 4
            )
    wanted = 2 if base == "cycle_gan" else 1
    pages = list((checkout / "results" / base).rglob("index.html"))
    images = list((checkout / "results" / base).rglob("*fake_B*"))
    if len(trial.kept) != wanted:
        trial.steps["train"] = f"failed: {len(trial.kept)} of {wanted} generators are small"
    if not pages or not images:
        trial.steps["test"] = "failed: no page or no pictures"


def try_checkout(label: str, source: Path, bases: list[str], way: str, logs: Path) -> list[Trial]:
    """All bases in a copy of one checkout."""
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{label}.{way}.log"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        checkout = Path(temporary) / "checkout"
        shutil.copytree(source, checkout, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        before = digest(checkout)
        (checkout / "models" / "own_model.py").write_text(OWN_MODEL)
        coronet = [sys.executable, "-m", "coronet_plugin"]
        run([*coronet, "doctor", str(checkout)], checkout, log)
        if way == "shim":
            run([*coronet, "install", str(checkout)], checkout, log)
        data = make_data(Path(temporary))
        trials = [try_base(checkout, label, base, way, data, log) for base in bases]
        if way == "shim":
            run([*coronet, "uninstall", str(checkout)], checkout, log)
        (checkout / "models" / "own_model.py").unlink()
        after = digest(checkout)
        for trial in trials:
            trial.files_unchanged = {name: after.get(name) for name in before} == before
    return trials


def bases_of(checkout: Path, asked: list[str]) -> list[str]:
    """The asked base models that this checkout has; CUT's own cycle_gan does not run without the plug-in."""
    has = {base: (checkout / "models" / f"{base}_model.py").exists() for base in asked}
    has["cycle_gan"] = has.get("cycle_gan", False) and not has.get("cut", False)
    return [base for base in asked if base == "own" or has[base]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkouts", nargs="+", metavar="LABEL=PATH", help="checkouts to copy and try")
    parser.add_argument(
        "--bases", default="pix2pix,cycle_gan,cut,own", help="base models (default: %(default)s)"
    )
    parser.add_argument("--way", default="runner", choices=["runner", "shim"], help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--logs", type=Path, default=Path("checkouts_logs"), help="folder of the transcripts")
    options = parser.parse_args()
    trials: list[Trial] = []
    for checkout in options.checkouts:
        label, _, path = checkout.partition("=")
        bases = bases_of(Path(path), options.bases.split(","))
        for trial in try_checkout(label, Path(path), bases, options.way, options.logs.resolve()):
            outcome = "passed" if trial.passed else "FAILED"
            print(f"{label:18} {trial.base:10} {outcome} {trial.steps} {trial.kept}", flush=True)
            trials.append(trial)
    if options.output:
        facts = {"python": platform.python_version(), "trials": [asdict(trial) for trial in trials]}
        options.output.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if all(trial.passed for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
