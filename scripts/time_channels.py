"""Seconds that find_channels takes, with its proof, for full-size generators at 256x256: median of three.

python scripts/time_channels.py
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coronet_plugin import example_input, find_channels  # noqa: E402
from coronet_plugin.generators.stock import build_generator  # noqa: E402

for name in ("resnet_9blocks", "unet_256"):
    generator = build_generator(3, 3, 64, name, "instance", False)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        find_channels(generator, example_input(generator, 256))
        seconds.append(time.perf_counter() - started)
    shown = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(f"{name:16} {statistics.median(seconds):.2f} s ({shown})")
