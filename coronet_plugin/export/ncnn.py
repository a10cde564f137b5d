"""ncnn's pair of a readable graph (.param) and weights (.bin), by pnnx."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coronet_plugin.export.ports import Port
from coronet_plugin.export.silence import failed, silenced
from coronet_plugin.export.targets import ArrayModel, Job, one_at_a_time

INPUT, OUTPUT = "in", "out"
"""Their names in files of pnnx, before their numbers."""


@torch.no_grad()
def convert(job: Job, path: Path) -> dict[str, Any]:
    """Write ``path`` (.ncnn.param) and the weights (.ncnn.bin) beside it."""
    import pnnx

    weights = path.with_suffix(".bin")
    with tempfile.TemporaryDirectory() as folder, silenced() as said:  # pnnx leaves six files
        made = Path(folder) / "generator.pt"
        pnnx.export(job.generator, str(made), job.inputs, check_trace=False, fp16=job.dtype == "fp16")
        for suffix, place in ((".ncnn.param", path), (".ncnn.bin", weights)):
            if not made.with_suffix(suffix).is_file():
                raise failed("pnnx", said)
            shutil.move(str(made.with_suffix(suffix)), str(place))
    return {
        "exporter": "pnnx",
        "inputs": [_entry(f"{INPUT}{i}", port) for i, port in enumerate(job.ports.inputs)],
        "outputs": [_entry(f"{OUTPUT}{i}", port) for i, port in enumerate(job.ports.outputs)],
    }


def _entry(name: str, port: Port) -> dict[str, Any]:
    """Without the batch, of which ncnn knows nothing."""
    entry = {"name": name, "shape": list(port.shape[1:])}
    return {**entry, "layout": "CHW"} if port.is_picture else entry


def load(path: Path, threads: int = 1) -> ArrayModel:
    """The pair as a function of arrays; one picture of the batch after another, calculating in fp32."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise OSError("the files cannot be read as a network")

    def one(*values: np.ndarray) -> list[np.ndarray]:
        given = [np.ascontiguousarray(v[0]) for v in values]  # live as long as the Mats that point into them
        found = []
        with net.create_extractor() as extractor:
            for i, value in enumerate(given):
                extractor.input(f"{INPUT}{i}", ncnn.Mat(value))
            for name in sorted(net.output_names(), key=lambda name: int(name[len(OUTPUT) :])):
                code, output = extractor.extract(name)
                if code:
                    raise RuntimeError(f"ncnn ended with code {code}")
                found.append(np.array(output)[None])
        return found

    return one_at_a_time(one)
