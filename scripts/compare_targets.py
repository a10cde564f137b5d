"""Which target of ``coronet export`` for whom: small generators in every runtime that is installed here.

    python scripts/compare_targets.py --output docs/results

times the packed emoji model of zoo/openmoji and slim generators of both families (a tenth of the
multiply-adds, channels in multiples of 8, random weights) in fp32 and int8, all in turn, on one thread, and
writes targets.json and targets.md. Run it in every environment: what others have measured stays in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.benchmark.candidates import ALL_LAYERS, CALIBRATION_PICTURES, target_of  # noqa: E402
from coronet_plugin.benchmark.entries import Entry, read_entries  # noqa: E402
from coronet_plugin.errors import UserError  # noqa: E402
from coronet_plugin.export.pictures import noise  # noqa: E402
from coronet_plugin.export.pipeline import example_for, load_converted, load_eager  # noqa: E402
from coronet_plugin.export.request import Request  # noqa: E402
from coronet_plugin.export.targets import EAGER, TARGETS  # noqa: E402
from coronet_plugin.measure.machine import processor  # noqa: E402
from coronet_plugin.measure.timing import pinned, time_in_turn, torch_threads  # noqa: E402
from scripts.records import table  # noqa: E402

MODELS = {
    "emoji": str(ROOT / "zoo" / "openmoji" / "G.safetensors"),
    "resnet_9blocks": "resnet_9blocks@0.1/8",
    "unet_256": "unet_256@0.1/8",
}
FOR_WHOM = {
    EAGER: "who has PyTorch anyway and wants no file",
    "onnx": "servers, desktops, browsers; begin here",
    "openvino": "Intel and AMD CPUs, also small ones; the quickest int8 on x86",
    "ncnn": "ARM boards and phones in C++; the smallest library",
    "mnn": "ARM phones in C++; fp32 and fp16",
    "litert": "Android apps in Kotlin or Java; int8",
    "executorch": "Android and iOS apps whose authors know PyTorch; int8",
    "torchscript": "C++ programs that have LibTorch",
    "coreml": "iPhones and Macs (not timed: runs there alone)",
}
"""In a few words; times are what is measured here."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "results", help="(default: %(default)s)"
    )
    parser.add_argument("--targets", nargs="+", default=list(FOR_WHOM), choices=FOR_WHOM)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "int8"], choices=["fp32", "int8"])
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    options = parser.parse_args()
    entries = dict(zip(MODELS, (read_entries([name])[0] for name in MODELS.values())))
    known = options.output / "targets.json"
    rows = {key(row): row for row in json.loads(known.read_text())} if known.is_file() else {}
    for model, entry in entries.items():
        for row in measure(model, entry, options.targets, options.dtypes, options.rounds):
            rows[key(row)] = row
            print(json.dumps(row), flush=True)
        known.write_text(json.dumps(sorted(rows.values(), key=key), indent=1) + "\n")
    text = markdown(list(rows.values()))
    (options.output / "targets.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["target"], row["dtype"]


def measure(
    model: str, entry: Entry, targets: list[str], dtypes: list[str], rounds: int
) -> list[dict[str, Any]]:
    """A row for every target and dtype that can be had here."""
    example = example_for(entry.generator, entry.size).numpy()
    calls, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder, pinned(1), torch_threads(1):
        for name in targets:
            for dtype in dtypes if name != EAGER else ["fp32"]:
                place = Path(folder, f"{name}_{dtype}")
                place.mkdir()
                try:
                    calls[name, dtype] = partial(call(entry, name, dtype, place), example)
                except UserError as error:
                    print(f"{model}, {name} {dtype}: {error}", file=sys.stderr)
                    continue
                sizes[name, dtype] = (
                    sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
                )
        times = time_in_turn(calls, rounds)
    return [
        {
            "model": model,
            "target": name,
            "dtype": dtype,
            "mb": sizes[name, dtype],
            "cpu_ms": found.cpu.median_ms,
            "cpu_min_ms": found.cpu.min_ms,
            "cpu": processor(),
            "versions": TARGETS[name].versions() if name != EAGER else {"torch": torch.__version__},
        }
        for (name, dtype), found in times.items()
    ]


def call(entry: Entry, name: str, dtype: str, folder: Path) -> Any:
    """A model of ``entry``; its files are in ``folder``. Raises UserError where it cannot be had here."""
    if name == EAGER:
        return load_eager(entry.generator, "batch", 1)
    target = target_of(name)
    request = Request(target, dtype, entry.size, multiple=entry.multiple, quantization=ALL_LAYERS)
    request.check()
    if why := target.why_not_run():
        raise UserError(why)
    path = folder / f"G{target.suffixes[0]}"
    calibration = noise(CALIBRATION_PICTURES, 3, entry.size)
    return load_converted(entry.generator, request, path, [1], calibration)[0]


ABOUT = """\
# Which target for whom

`python scripts/compare_targets.py`: the packed emoji model of zoo/openmoji (128x128) and slim generators of
256x256 at a tenth of the multiply-adds, channels in multiples of 8. CPU ms of one picture on one thread,
medians, all of one environment in turn, on a machine that others used as well; int8 calculates every
convolution in 8 bits. MB: of the emoji model's file. An x86 server's CPU is no phone's: between runtimes for
phones, believe your phone (`coronet bench --table_kit`). Where nothing stands the runtime was not there;
[exports.md](exports.md) has LiteRT, ExecuTorch and OpenVINO's int8, of like generators on a quiet core.

"""


def markdown(rows: list[dict[str, Any]]) -> str:
    """A line for each target."""
    found = {key(row): row for row in rows}
    lines = []
    for name, whom in FOR_WHOM.items():
        cells = [name, whom]
        for dtype in ("fp32", "int8"):
            mine = [found.get((model, name, dtype)) for model in MODELS]
            cells.append(f"{mine[0]['mb']:.2f}" if mine[0] and name != EAGER else "")
            cells += [f"{row['cpu_ms']:.1f}" if row else "" for row in mine]
        lines.append(cells)
    names = [f"{model}, {dtype}" for dtype in ("fp32", "int8") for model in ("MB", *MODELS)]
    return ABOUT + table(["target", "for whom", *names], lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
