"""Is it chance which channels survive? What the initial values foretell, and whether two searches agree.

    python scripts/who_survives.py --output survivors

Trains pix2pix on the bundled emoji until the cut, for every form and seed twice: from the same initial
networks, with the pictures in another order. Two figures, means over channel sets:

* AUC: how well the initial value of a unit tells whether it survives; 0.5 is chance, 1 certainty.
  The initial value is ``|z|`` for the published and folded forms, the L1 norm of the filters that make
  the channels without a hypernetwork, where latents all begin at one.
* Agreement: of the units that the first search keeps, the fraction that the second keeps too, less what
  chance would give, over what it leaves to gain; 0 is chance, 1 the same survivors.

Writes survivors.csv and survivors.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.channels.plan import ChannelPlan  # noqa: E402
from coronet_plugin.compression import Compression  # noqa: E402
from data import create_dataset  # noqa: E402
from models import create_model  # noqa: E402
from options.train_options import TrainOptions  # noqa: E402
from scripts import records  # noqa: E402

FORMS = ("none", "random", "published", "folded")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("survivors"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--steps", type=int, default=500, help="until the cut (default: %(default)s)")
    parser.add_argument("--budget", default="0.25", help="(default: %(default)s)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for form in options.forms:
        for seed in options.seeds:
            (first, plan, before), (second, _, _) = (search(form, seed, order, options) for order in (0, 1))
            row = {"form": form, "seed": seed, "auc": auc(plan, before, first)}
            rows.append({**row, "agreement": agreement(plan, first, second)})
            print(json.dumps(rows[-1]), flush=True)
    records.write(rows, options.output, "survivors")
    print(markdown(rows))
    return 0


def search(
    form: str, seed: int, order: int, options: argparse.Namespace
) -> tuple[np.ndarray, ChannelPlan, np.ndarray]:
    """Living units at the cut, the plan, and the initial values."""
    kind = ["--coronet_method", "random"] if form == "random" else ["--coronet_hypernetwork", form]
    arguments = ["--dataroot", str(ROOT / "datasets" / "openmoji"), "--name", "x", "--direction", "AtoB"]
    arguments += ["--checkpoints_dir", tempfile.mkdtemp(), "--display_id", "-1", "--num_threads", "0"]
    arguments += [
        "--netG",
        "resnet_6blocks",
        "--norm",
        "instance",
        "--ngf",
        "24",
        "--ndf",
        "16",
        "--no_dropout",
    ]
    arguments += ["--lr", "0.0005", "--load_size", "64", "--crop_size", "64", "--seed", str(seed)]
    arguments += [
        "--model",
        "coronet",
        "--coronet_base",
        "pix2pix",
        "--coronet_budget",
        options.budget,
        *kind,
    ]
    arguments += ["--coronet_search_epochs", str(options.steps / 1000), "--max_dataset_size", "1000"]
    sys.argv = ["train.py", *arguments]
    opt = TrainOptions().parse()
    torch.manual_seed(seed)
    dataset, model = create_dataset(opt), create_model(opt)
    model.setup(opt)
    compression: Compression = model.compressions["G"]
    before = initial(compression)
    if form == "random":
        torch.manual_seed(1000 * order + seed)
        compression.method._lots.uniform_()  # chance itself, as what the others are held against
    torch.manual_seed(1000 * order + seed)
    while compression.phase == "search":
        for batch in dataset:
            model.set_input(batch)
            model.optimize_parameters()
            if compression.phase != "search":
                break
    return compression.alive(), compression.plan, before


def initial(compression: Compression) -> np.ndarray:
    """Initial values of the units: ``|z|``, or L1 norms of filters."""
    if hasattr(compression.method, "hypernetwork"):
        return compression.method.score()
    parameters = dict(compression.generator.named_parameters())
    norms = np.zeros(compression.plan.units + 1)
    for name, call in compression.plan.kernels().items():
        others = [axis for axis in range(4) if axis != call.axis_out]
        filters = parameters[name].detach().abs().sum(others).numpy()
        units = compression.plan.slices.get(name, {}).get(call.axis_out)
        if units is not None:
            np.add.at(norms, units, filters / filters.mean())
    return norms[:-1]


def auc(plan: ChannelPlan, value: np.ndarray, alive: np.ndarray) -> float:
    """Probability that a survivor's value is the greater one, mean over sets that lost some."""
    found = []
    for s in plan.prunable:
        kept, lost = value[s.slice][alive[s.slice]], value[s.slice][~alive[s.slice]]
        if len(kept) and len(lost):
            pairs = np.sign(kept[:, None] - lost[None])
            found.append((1 + pairs.mean()) / 2)
    return float(np.mean(found))


def agreement(plan: ChannelPlan, first: np.ndarray, second: np.ndarray) -> float:
    """Overlap beyond chance (Cohen's kappa of what is kept), mean over sets that lost some."""
    found: list[Any] = []
    for s in plan.prunable:
        a, b = first[s.slice], second[s.slice]
        chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        if chance < 1:
            found.append(((a == b).mean() - chance) / (1 - chance))
    return float(np.mean(found))


def markdown(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds."""
    lines = []
    for form in records.distinct(rows, "form"):
        found = [records.values(rows, key, form=form) for key in ("auc", "agreement")]
        lines.append([form, *(records.mean_cell(values, 3) for values in found)])
    return records.table(["form", "AUC of the initial value", "agreement of two searches"], lines)


if __name__ == "__main__":
    sys.exit(main())
