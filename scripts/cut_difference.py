"""How much the cut changes the output: largest absolute difference, outputs lie in [-1, 1].

    python scripts/cut_difference.py --output cut

Training on the bundled emoji (L1 loss) until the cut to a quarter of the MACs, all at once, for both
families and every norm, three seeds; the same pictures before and after, as training sees them (batch
statistics). Writes cut.csv, cut.json and cut.png.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin import Compression  # noqa: E402
from coronet_plugin.generators.stock import build_generator  # noqa: E402
from scripts import records  # noqa: E402

CASES = [
    (netG, norm, 64 if netG.startswith("resnet") else 128)
    for netG in ("resnet_6blocks", "unet_128")
    for norm in ("instance", "batch")
]
FORMS = ("none", "folded", "published")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("cut"), help="folder (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="until the cut (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for netG, norm, size in CASES:
        for form in options.forms:
            for seed in options.seeds:
                largest, before, after = cut(netG, norm, size, form, seed, options.steps)
                rows.append({"netG": netG, "norm": norm, "form": form, "seed": seed, "difference": largest})
                rows[-1] |= {"l1_before": before, "l1_after": after}
                print(json.dumps(rows[-1]), flush=True)
    records.write(rows, options.output, "cut")
    print(markdown(rows))
    plot(rows, options.output / "cut.png")
    return 0


def pictures(split: str, size: int, count: int) -> torch.Tensor:
    """(count, 2, 3, size, size) in [-1, 1]: outlines and colours."""
    found = []
    for path in sorted((ROOT / "datasets" / "openmoji" / split).glob("*.png"))[:count]:
        with Image.open(path) as image:
            whole = np.asarray(image.convert("RGB").resize((2 * size, size), Image.Resampling.BICUBIC))
        pair = torch.from_numpy(whole.copy()).permute(2, 0, 1).float() / 127.5 - 1
        found.append(torch.stack([pair[..., :size], pair[..., size:]]))
    return torch.stack(found)


def cut(netG: str, norm: str, size: int, form: str, seed: int, steps: int) -> tuple[float, float, float]:
    """Largest difference of the outputs at the cut, and L1 (0 to 1) before and after."""
    torch.manual_seed(seed)
    generator = build_generator(3, 3, 16, netG, norm, False)
    for module in generator.modules():  # as the host initialises them
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            torch.nn.init.normal_(module.weight, 0, 0.02)
    optimizer = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    data = pictures("train", size, 200)
    compression = Compression(
        generator, data[:1, 0], budget=0.25, search_steps=steps, method=form, gradual=False
    ).attach(optimizer)
    while not compression.finished:
        pair = data[torch.randint(len(data), (2,))]
        optimizer.zero_grad()
        (generator(pair[:, 0]) - pair[:, 1]).abs().mean().backward()
        optimizer.step()
        compression.step()
    test = pictures("test", size, 16)
    with torch.no_grad():
        before = generator(test[:, 0])
        compression.slim()
        after = generator(test[:, 0])
    losses = [float((output - test[:, 1]).abs().mean() / 2) for output in (before, after)]
    return float((after - before).abs().max()), losses[0], losses[1]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The largest change and the mean losses, over the seeds."""
    lines = []
    for netG, norm, _ in CASES:
        for form in records.distinct(rows, "form"):
            of = functools.partial(records.values, rows, netG=netG, norm=norm, form=form)
            means = [f"{np.mean(of(key)):.4f}" for key in ("l1_before", "l1_after")]
            lines.append([netG, norm, form, f"{max(of('difference')):.2g}", *means])
    header = ["generator", "norm", "form", "largest difference", "L1 before", "L1 after"]
    return records.table(header, lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    with records.figure(path) as (axis,):
        for index, form in enumerate(FORMS):
            for place, (netG, norm, _) in enumerate(CASES):
                found = records.values(rows, "difference", netG=netG, norm=norm, form=form)
                x, label = place + 0.15 * (index - 1), form if place == 0 else None
                axis.plot([x] * len(found), found, "o", color=f"C{index}", label=label)
        axis.axhline(1e-5, color="black", linewidth=1)
        axis.set_yscale("log")
        axis.set_xticks(range(len(CASES)), [f"{netG}\n{norm}" for netG, norm, _ in CASES], fontsize=8)
        axis.set_ylabel("largest change at the cut")
        axis.legend()


if __name__ == "__main__":
    sys.exit(main())
