"""Does a search from a trained dense generator beat one from scratch? pix2pix on the bundled emoji.

    python scripts/compare_starts.py --output starts --seeds 0 1 2

Trains a dense generator, then compresses to a tenth of its multiply-adds: from scratch, and from the
dense weights (``--coronet_init_from``), each for the same numbers of epochs, half of each for the
search. Prints SSIM and L1 on the test pictures, mean and spread over seeds, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.evaluation.paired import paired_metrics  # noqa: E402
from scripts import records  # noqa: E402

SIDE = 64
SHARED = ["--dataroot", str(ROOT / "datasets" / "openmoji"), "--direction", "AtoB", "--norm", "instance"]
SHARED += ["--netG", "resnet_6blocks", "--ngf", "24", "--ndf", "16", "--no_dropout", "--lr", "0.0005"]
SHARED += ["--load_size", str(SIDE), "--crop_size", str(SIDE), "--display_id", "-1", "--num_threads", "0"]
SHARED += ["--print_freq", "100", "--no_html", "--save_epoch_freq", "100"]


def train_and_test(folder: Path, name: str, epochs: int, seed: int, model: list[str]) -> dict[str, float]:
    """Train and test one run; its SSIM and L1 (pixel values in [0, 1])."""
    where = ["--name", name, "--checkpoints_dir", str(folder / "checkpoints")]
    schedule = [
        "--n_epochs",
        str(epochs - epochs // 2),
        "--n_epochs_decay",
        str(epochs // 2),
        "--seed",
        str(seed),
    ]
    results = ["--results_dir", str(folder / "results"), "--num_test", "1000"]
    commands = [["train.py", *where, *SHARED, *schedule, *model], ["test.py", *where, *SHARED[:10], *results]]
    commands[1] += ["--model", model[1], "--load_size", str(SIDE), "--crop_size", str(SIDE)]
    if model[1] == "pix2pix":
        commands[1] += ["--netG", "resnet_6blocks", "--ngf", "24", "--no_dropout"]
    if (folder / "results" / name).exists():  # done by an earlier call
        commands = []
    for command in commands:
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = paired_metrics(folder / "results" / name / "test_latest" / "images")
    return {"ssim": found.ssim, "l1": found.l1}


def one_seed(
    folder: Path, seed: int, dense_epochs: int, epochs: list[int], forms: list[str]
) -> dict[str, dict[str, float]]:
    """All runs of one seed by what they are."""
    dense = f"dense_{seed}"
    found = {
        f"dense, {dense_epochs} epochs": train_and_test(
            folder, dense, dense_epochs, seed, ["--model", "pix2pix"]
        )
    }
    coronet = ["--model", "coronet", "--coronet_base", "pix2pix", "--coronet_budget", "0.1"]
    start = ["--coronet_init_from", str(folder / "checkpoints" / dense)]
    for form in forms:
        for count in epochs:
            search = [*coronet, "--coronet_hypernetwork", form, "--coronet_search_epochs", str(count / 2)]
            for kind, more in (("from scratch", []), ("from the dense weights", start)):
                name = f"{form}_{count}_{kind.split()[-1]}_{seed}"
                key = f"{form}, {kind}, {count} epochs"
                found[key] = train_and_test(folder, name, count, seed, [*search, *more])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("starts"), help="folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--dense_epochs", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--forms", nargs="+", default=["none", "published", "folded"], help="(default: all)")
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in options.seeds:
        runs.append(one_seed(folder, seed, options.dense_epochs, options.epochs, options.forms))
        (folder / "starts.json").write_text(
            json.dumps(dict(zip(map(str, options.seeds), runs)), indent=1) + "\n"
        )
    for key in runs[0]:
        values = {metric: [run[key][metric] for run in runs] for metric in ("ssim", "l1")}
        print(f"{key:48} " + "  ".join(f"{m} {records.mean_cell(v, 4)}" for m, v in values.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
