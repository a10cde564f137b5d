"""train.py with multipliers of the implicit hypernetwork that no option offers: what in them matters?

    python scripts/train_with_rates.py --spread lognormal --per layer -- --dataroot ... --model coronet \\
        --coronet_method implicit --coronet_rate 1

Behind the two dashes come options of train.py, ``--coronet_rate`` and ``--coronet_rate_after`` among them.
The generators' specs say what a run was made with.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from coronet_plugin.methods.implicit import SHARED_BY, SPREADS, Rates  # noqa: E402
from coronet_plugin.training.options import TrainingOptions  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--spread", default=Rates.spread, choices=SPREADS, help="(default: %(default)s)")
    parser.add_argument("--per", default=Rates.per, choices=SHARED_BY, help="(default: %(default)s)")
    parser.add_argument(
        "--redraw", type=int, default=0, metavar="STEPS", help="draw anew so often (default: never)"
    )
    parser.add_argument("--discount", action="store_true", help="divide importance by the rate")
    parser.add_argument("--rate_seed", dest="seed", type=int, help="(default: from --seed)")
    parser.add_argument("train", nargs=argparse.REMAINDER, metavar="-- OPTIONS", help="options of train.py")
    settings = vars(parser.parse_args())
    rest = [word for word in settings.pop("train") if word != "--"]
    given = TrainingOptions.of

    def with_rates(opt: argparse.Namespace) -> TrainingOptions:
        options = given(opt)
        return replace(options, config=replace(options.config, **settings))

    TrainingOptions.of = with_rates  # type: ignore[assignment, method-assign]
    return train.main(rest)


if __name__ == "__main__":
    sys.exit(main())
