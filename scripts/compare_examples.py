"""The examples by equal steps, data and seeds: dense, and compressed by several methods.

    pip install -e ".[examples,diffusion,onnx]"
    python scripts/compare_examples.py --output compared --seeds 0 1 2

Every run is a command of ``examples/``; its pictures are those of ``coronet sample`` and its figures those
of ``coronet evaluate --samples``, against the pictures it learned from. ``OUTPUT/records`` has a file for
every run, written as it comes; what is there is not done again. At the end, or with ``--table`` alone,
``examples.jsonl`` and ``examples.md`` are written from them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.evaluation.evaluate import evaluate_samples  # noqa: E402
from coronet_plugin.evaluation.features import load_extractor  # noqa: E402
from coronet_plugin.measure.timing import Stopwatch  # noqa: E402
from coronet_plugin.sampling.sample import draw, open_generator, sample  # noqa: E402
from coronet_plugin.user_code import import_module  # noqa: E402
from scripts import records  # noqa: E402


@dataclass(frozen=True)
class Task:
    """An example with its options; ``size`` in pixels, ``data`` as examples take it."""

    example: str
    options: str
    size: int = 32
    data: str = "emoji"


DCGAN = "--ngf 32 --ndf 16 --lr 0.0005 --steps 800"
VAE = "--width 32 --nz 64 --steps 800"
OF_DIFFUSERS = "--width 16 --nz 4 --steps 800 --batch_size 8"
FAMILIES = {
    "dcgan": Task("dcgan", DCGAN),
    "dcgan_64": Task("dcgan", DCGAN, size=64),
    "dcgan_digits": Task("dcgan", DCGAN, data="digits"),
    "vae": Task("vae", VAE),
    "vae_decoder": Task("vae", f"{VAE} --part decoder"),
    "vae_kl": Task("vae", f"{OF_DIFFUSERS} --net kl"),
    "vae_tiny": Task("vae", f"{OF_DIFFUSERS} --net tiny"),
    "diffusion": Task("diffusion", "--width 16 --batch_size 8 --steps 300 --save_every 50"),
    "diffusion_long": Task("diffusion", "--width 16 --batch_size 8 --steps 4000 --save_every 400"),
}
"""For some minutes on one core each."""
RIVALS = {"diffusion": ["diff_pruning"], "diffusion_long": ["diff_pruning"]}
DENSE, METHODS = ("dense", "1.0"), ["gates", "uniform"]
STEPS, TIMED = 50, 4
"""Of DDIM; pictures that are timed together."""


@dataclass(frozen=True)
class Job:
    """One run."""

    family: str
    method: str
    budget: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.family}_{self.method}_{self.budget}_{self.seed}"


def jobs(options: argparse.Namespace) -> list[Job]:
    """All runs, those of the first seed first."""
    found = []
    for seed in options.seeds:
        for family in options.families:
            rows = [DENSE]
            rows += [(m, b) for b in options.budgets for m in [*METHODS, *RIVALS.get(family, [])]]
            found += [Job(family, method, budget, seed) for method, budget in rows]
    return found


def train(job: Job, output: Path) -> dict[str, Any]:
    """The run's own record; trained now, or before."""
    record = output / "runs" / job.name / "record.json"
    if not record.is_file():
        task = FAMILIES[job.family]
        command = [sys.executable, str(ROOT / "examples" / f"{task.example}.py"), *task.options.split()]
        command += ["--size", str(task.size), "--data", task.data, "--seed", str(job.seed)]
        command += ["--method", job.method, "--budget", job.budget]
        command += ["--checkpoints_dir", str(output / "runs"), "--name", job.name]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return dict(json.loads(record.read_text(encoding="utf-8")))


def judge(job: Job, output: Path, real: Path, count: int) -> dict[str, Any]:
    """Figures of ``count`` samples, which stay in ``OUTPUT/samples``, and CPU time for one."""
    import_module(str(ROOT / "examples" / f"{FAMILIES[job.family].example}.py"))
    stored = open_generator(str(output / "runs" / job.name))
    folder = output / "samples" / job.name
    sample(stored, folder, count=count, seed=0, grid=True, steps=STEPS)
    watch = Stopwatch()
    timed = watch.wrap(lambda: draw(stored, TIMED, 0, TIMED, STEPS))
    for _ in range(3):
        timed()
    found = evaluate_samples(
        str(folder), str(real), extractor=load_extractor(), precision_recall=True, say=print
    )
    assert found.distance and found.floor and found.overlap and found.overlap_floor
    return {
        "ms_a_picture": watch.times(warmup=1).cpu.median_ms / TIMED,
        "distance": asdict(found.distance),
        "floor": asdict(found.floor),
        "overlap": asdict(found.overlap),
        "overlap_floor": asdict(found.overlap_floor),
    }


def write_real(output: Path, task: Task) -> Path:
    """The pictures that a task learns from, as files."""
    folder = output / f"real_{task.data}_{task.size}"
    if not folder.is_dir():
        command = [sys.executable, str(ROOT / "examples" / "common.py"), "--data", task.data]
        command += ["--size", str(task.size), "--output", str(folder)]
        subprocess.run(command, check=True)
    return folder


# -- tables --------------------------------------------------------------------
OWN = {"vae": (("elbo", "ELBO, nats a value"), ("reconstruction_error", "error of reconstructions"))}
OWN["diffusion"] = (("noise_error", "error of the noise, held out"),)


def markdown(found: list[dict[str, Any]]) -> str:
    """A table for each family."""
    parts = []
    for family in records.distinct(found, "family"):
        rows = [record for record in found if record["family"] == family]
        own = OWN.get(FAMILIES[family].example, ())
        header = ["budget", "method", "seeds", "MACs, M", "MACs, %", "KID x 1000", "precision", "recall"]
        header += [*(title for _, title in own), "training, s", "ms a picture", "change at the cut"]
        lines = [_line(rows, own, budget, method) for budget, method in _kinds(rows)]
        parts.append(f"## {family}\n\n{records.table(header, lines)}\n\n{_floor(rows[0])}\n")
    return "\n".join(parts)


def _kinds(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["budget"], row["method"]) for row in rows))


def _line(rows: list[dict[str, Any]], own: Any, budget: str, method: str) -> list[str]:
    these = [row for row in rows if (row["budget"], row["method"]) == (budget, method)]

    def cell(values: list[float | None], digits: int) -> str:
        known = [value for value in values if value is not None]
        return records.mean_cell(known, digits) if known else ""

    macs = these[0]["macs"]
    cells = [
        budget,
        method,
        str(len(these)),
        f"{macs / 1e6:.2f}",
        f"{100 * macs / these[0]['macs_dense']:.1f}",
    ]
    cells.append(cell([1000 * row["distance"]["kid"] for row in these], 1))
    cells += [cell([row["overlap"][key] for row in these], 2) for key in ("precision", "recall")]
    cells += [cell([row[key] for row in these], 4) for key, _ in own]
    cells.append(cell([row["seconds"] for row in these], 0))
    cells.append(cell([row["ms_a_picture"] for row in these], 1))
    changes = [row["change_at_cut"] for row in these if row["change_at_cut"] is not None]
    return [*cells, f"{max(changes):.0e}" if changes else ""]


def _floor(record: dict[str, Any]) -> str:
    near, count, kid = record["overlap_floor"], record["distance"]["count"], 1000 * record["floor"]["kid"]
    return (
        f"Floor, real pictures against other real ones: KID {kid:.1f}, precision {near['precision']:.2f}, "
        f"recall {near['recall']:.2f}; {count} pictures a side everywhere."
    )


def write(output: Path, folder: Path) -> None:
    """Everything from the records there are."""
    order = [*FAMILIES], [DENSE[0], *METHODS, "diff_pruning"]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (output / "records").glob("*.json")]
    found.sort(
        key=lambda r: (
            order[0].index(r["family"]),
            -float(r["budget"]),
            order[1].index(r["method"]),
            r["seed"],
        )
    )
    (folder / "examples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    (folder / "examples.md").write_text(markdown(found))
    print(markdown(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("compared"), help="folder (default: %(default)s)")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--budgets", nargs="+", default=["0.25", "0.1"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=96, help="samples of each run (default: %(default)s)")
    parser.add_argument(
        "--table", type=Path, metavar="FOLDER", help="only write the tables, into this folder"
    )
    options = parser.parse_args()
    output = options.output.resolve()
    if options.table:
        write(output, options.table)
        return 0
    output.mkdir(parents=True, exist_ok=True)
    for job in jobs(options):
        path = output / "records" / f"{job.name}.json"
        if not path.is_file():
            trained = train(job, output)
            known = {key: trained[key] for key in trained if key not in ("family", "options", "onnx")}
            onnx = {"onnx_difference": trained["onnx"].get("max_difference")}
            judged = judge(job, output, write_real(output, FAMILIES[job.family]), options.count)
            records.keep(path, {**asdict(job), "options": trained["options"], **known, **onnx, **judged})
    write(output, output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
