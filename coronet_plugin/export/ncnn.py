"""ncnn's pair of a readable graph (.param) and weights (.bin), by pnnx."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coronet_plugin.export.silence import failed, silenced
from coronet_plugin.export.targets import ArrayModel, Job

INPUT, OUTPUT = "in0", "out0"
"""Their names in files of pnnx."""


@torch.no_grad()
def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path`` (.ncnn.param) and the weights (.ncnn.bin) beside it."""
    import pnnx

    weights = path.with_suffix(".bin")
    with tempfile.TemporaryDirectory() as folder, silenced() as said:  # pnnx leaves six files
        made = Path(folder) / "generator.pt"
        pnnx.export(job.generator, str(made), (job.example,), check_trace=False, fp16=job.dtype == "fp16")
        for suffix, place in ((".ncnn.param", path), (".ncnn.bin", weights)):
            if not made.with_suffix(suffix).is_file():
                raise failed("pnnx", said)
            shutil.move(str(made.with_suffix(suffix)), str(place))
    return {"exporter": "pnnx", "input": _entry(INPUT, job), "output": _entry(OUTPUT, job, output=True)}


def _entry(name: str, job: Job, output: bool = False) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "layout": "CHW", "dtype": "float32", "range": [-1, 1]}
    return entry if output else {**entry, "shape": list(job.example.shape[1:])}


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The pair as a function of arrays; one picture of the batch after another, calculating in fp32."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise OSError("the files cannot be read as a network")

    def one(picture: np.ndarray) -> np.ndarray:
        given = np.ascontiguousarray(picture)  # has to live as long as the Mat that points into it
        with net.create_extractor() as extractor:
            extractor.input(INPUT, ncnn.Mat(given))
            code, output = extractor.extract(OUTPUT)
            if code:
                raise RuntimeError(f"ncnn ended with code {code}")
            return np.array(output)

    return lambda values: np.stack([one(picture) for picture in values])
