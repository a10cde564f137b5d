"""One NVIDIA GPU in eight minutes: tests, steps, losses, latency, and a comparison on facades.

    scripts/gpu_check.sh --data datasets/facades --output gpu_check

Needs one GPU, a torch with CUDA and no network. Five parts run one after the other, each in a process of its
own with a share of the time; one that does not fit is stopped, or skipped, and said. After every part
``gpu_check.json`` and ``gpu_check.md`` are written into ``--output``, and what a part measured is kept as it
comes: the same command goes on with what is missing. ``--device cpu --dry`` runs the same code at toy size in
a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LIMIT = 470.0
"""Seconds for all, which leaves some of eight minutes for an end."""
PATIENCE = 5.0
"""How many times as long a dry run may take, whose machine may be slow and have other work."""
GRACE = 5.0
"""Seconds a part has to end by itself once it is told to."""
NAME = "gpu_check"
DONE, BEGUN = "done", "begun"


@dataclass(frozen=True)
class Part:
    """``share``: seconds it may take; ``least``: with less it is not begun."""

    name: str
    title: str
    share: float
    least: float


PARTS = (
    Part("tests", "Tests that need a GPU", 75, 15),
    Part("steps", "Time and memory of a step", 120, 15),
    Part("curves", "Losses on the CPU and on the GPU", 30, 15),
    Part("latency", "Latency of dense and slim", 40, 15),
    Part("facades", "Dense, uniform and default compared", 240, 60),
)


@dataclass(frozen=True)
class Check:
    """Where and how it is done. ``data``: pairs in ``train`` and ``test``; ``dry``: at toy size."""

    output: Path
    data: Path
    direction: str
    device: str = "cuda"
    dry: bool = False

    def lines(self, part: str) -> Path:
        """The file with what ``part`` measured, a line for every row."""
        return self.output / "parts" / f"{part}.jsonl"

    def rows(self, part: str) -> list[dict[str, Any]]:
        """All that ``part`` measured so far; of what was repeated the last."""
        path = self.lines(part)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return list({row["key"]: row for row in map(_row, lines) if row}.values())


def _row(line: str) -> dict[str, Any]:
    """Nothing of a line that a killed process left half written."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing; 0 if all parts are done, 1 if not, 2 if it cannot be begun."""
    options = parse(argv)
    check, why = check_of(options)
    if why:
        return refuse(why)
    check.output.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + (options.seconds or LIMIT * (PATIENCE if check.dry else 1))
    state, why = begun(check)
    if why:
        return refuse(why)
    for part in PARTS:
        if options.only and part.name not in options.only:
            continue
        known = state["parts"].get(part.name, {})
        if known.get("status") != DONE:
            state["parts"][part.name] = {"status": BEGUN}
            write(check, state)
            state["parts"][part.name] = run(check, part, until - time.monotonic())
        write(check, state)
        print(f"{part.name}: {state['parts'][part.name]['status']}", flush=True)
    shutil.rmtree(scratch(check), ignore_errors=True)
    print(check.output / f"{NAME}.md")
    wanted = options.only or [part.name for part in PARTS]
    return 0 if all(state["parts"][name]["status"] == DONE for name in wanted) else 1


def refuse(why: str) -> int:
    print(f"{NAME}: {why}", file=sys.stderr)
    return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(NAME), help="folder (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="facades, BtoA (default: datasets/openmoji, AtoB)"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="(default: %(default)s)")
    parser.add_argument("--dry", action="store_true", help="at toy size, to see that it works to its end")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--seconds", type=float, help=f"for all (default: {LIMIT:.0f}; dry, five times that)")
    return parser.parse_args(argv)


def check_of(options: argparse.Namespace) -> tuple[Check, str]:
    """What is asked for, and the line on why it cannot be done here, if so."""
    data = options.data or ROOT / "datasets" / "openmoji"
    direction = "BtoA" if options.data else "AtoB"
    check = Check(options.output.resolve(), data.resolve(), direction, options.device, options.dry)
    missing = [phase for phase in ("train", "test") if not (data / phase).is_dir()]
    if missing:
        return check, f"{data} has no folder {missing[0]}; give --data FOLDER with train and test of pairs"
    try:
        import torch
    except ImportError:
        return check, f"{sys.executable} has no torch; name another Python by PYTHON=..."
    if check.device == "cpu" and not check.dry:
        return check, "--device cpu is for --dry; add it, or leave --device out on a machine with a GPU"
    if check.device == "cuda" and not torch.cuda.is_available():
        kind = "finds no GPU" if torch.version.cuda else "is built without CUDA"
        return check, f"torch {torch.__version__} {kind}; --device cpu --dry runs the same at toy size"
    return check, ""


# -- state ---------------------------------------------------------------------
def begun(check: Check) -> tuple[dict[str, Any], str]:
    """What an earlier call left in the same folder; and why it cannot be gone on with here, if so."""
    about = {**circumstances(check.device), "data": check.data.name, "dry": check.dry}
    try:
        state = dict(json.loads((check.output / f"{NAME}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {"about": about, "parts": {}}, ""
    other = [key for key in about if state["about"].get(key) != about[key]]
    why = f"{check.output} has figures of another {', '.join(other)}; give another --output" if other else ""
    return state, why


def circumstances(device: str) -> dict[str, Any]:
    """Card, driver, software and commit, as plain data."""
    import torch

    from coronet_plugin.measure.machine import describe_machine
    from coronet_plugin.training.provenance import commit_of, software

    card: dict[str, Any] = {}
    if device == "cuda":
        found = torch.cuda.get_device_properties(0)
        card = {
            "card": found.name,
            "capability": f"{found.major}.{found.minor}",
            "memory_gib": round(found.total_memory / 2**30, 1),
            "driver": driver(),
        }
    tf32 = {"tf32": torch.backends.cudnn.allow_tf32} if card else {}
    return {**card, **tf32, **software(), "commit": commit_of(ROOT), "machine": describe_machine()}


def driver() -> str:
    """Version of NVIDIA's driver, as its own tool says it."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not known"
    return done.stdout.splitlines()[0].strip() if done.stdout else "not known"


def write(check: Check, state: dict[str, Any]) -> None:
    """The one JSON and the one table, with all that is measured so far."""
    from coronet_plugin.files import write_text
    from scripts.gpu_table import markdown

    for part in PARTS:
        if part.name in state["parts"]:
            state["parts"][part.name]["rows"] = check.rows(part.name)
    write_text(check.output / f"{NAME}.json", json.dumps(state, indent=1) + "\n")
    write_text(check.output / f"{NAME}.md", markdown(state, {part.name: part.title for part in PARTS}))


# -- one part ------------------------------------------------------------------
def run(check: Check, part: Part, left: float) -> dict[str, Any]:
    """Run a part in a process of its own; how that went, and the seconds it took."""
    from coronet_plugin.sweep.programs import last_line

    if left < part.least:
        return {"status": f"skipped: {max(left, 0):.0f} s were left, and it takes at least {part.least:.0f}"}
    began, seconds = time.monotonic(), min(part.share * (PATIENCE if check.dry else 1), left)
    for folder in (check.lines(part.name).parent, scratch(check)):
        folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(ROOT / "scripts" / "gpu_parts.py"), part.name, "--output", str(check.output)]
    words += ["--data", str(check.data), "--direction", check.direction, "--device", check.device]
    words += ["--seconds", f"{seconds - GRACE:.1f}", *(["--dry"] if check.dry else [])]
    log = check.output / "parts" / f"{part.name}.log"
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(
            words, cwd=ROOT, env=environment(check), stdout=file, stderr=file, start_new_session=True
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(child)
    status = DONE if code == 0 else f"stopped after {seconds:.0f} s" if code is None else last_line(log)
    return {"status": status, "seconds": round(time.monotonic() - began, 1)}


def environment(check: Check) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch(check)), "MPLBACKEND": "Agg"}


def scratch(check: Check) -> Path:
    return check.output / "scratch"


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, if any of them is left."""
    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        try:
            os.killpg(child.pid, number)
            child.wait(wait)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


if __name__ == "__main__":
    sys.exit(main())
