"""Do unequal widths pay? ``gates`` against the methods of scripts/train_with_widths.py at equal MACs.

    python scripts/study_widths.py --data facades=PATH --output widths --seeds 0 1

Trains one task of scripts/compare_methods.py at a budget of 0.1, by its protocol. ``OUTPUT/records`` gets a
file for every run, as it comes; ``widths.jsonl`` and ``widths.md`` are made of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import records as records_of  # noqa: E402
from scripts.method_tasks import TASKS, prepared  # noqa: E402
from scripts.study_multipliers import judged, task_words  # noqa: E402

VARIANTS = ("gates", "gates_taylor", "gates_probed")
COLUMNS = (("kid", 1000, 1), ("ssim", 1, 3), ("l1", 1, 3))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, metavar="NAME=PATH", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("--output", type=Path, default=Path("widths"), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--factor", default="1", help="of the generators' learning rate (default: 1)")
    options = parser.parse_args()
    task, path = options.data.split("=", 1)
    output = options.output.resolve()
    data = prepared(task, Path(path).resolve(), output / "data")
    torch.set_num_threads(1)
    for seed in options.seeds:
        for variant in VARIANTS:
            kept = output / "records" / f"{task}_{variant}_f{options.factor}_s{seed}.json"
            if not kept.exists():
                words = [*task_words(task, data, options.factor, seed), "--coronet_method", variant]
                _, figures = judged(kept.stem, ["scripts/train_with_widths.py"], words, task, data, output)
                known = {"task": task, "variant": variant, "seed": seed, "factor": options.factor}
                records_of.keep(kept, {**known, **figures})
    records_of.write_study(
        output, "widths", VARIANTS, ["task", "method", "seeds", "KID x 1000", "SSIM", "L1"], COLUMNS
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
