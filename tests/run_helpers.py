"""Runs on disk as train.py and test.py leave them, made in milliseconds; how far two generators differ."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from coronet_plugin.channels.find import example_input
from coronet_plugin.compression import Compression
from coronet_plugin.generators.stock import build_generator

SIZE = 32
ARCHITECTURE = {
    "netG": "resnet_6blocks",
    "input_nc": 3,
    "output_nc": 3,
    "ngf": 8,
    "norm": "instance",
    "use_dropout": False,
}


def option_line(key: str, value: object, default: object = None) -> str:
    """A line of the option file in upstream's format; ``default`` only if it was changed."""
    note = "" if default is None else f"\t[default: {default}]"
    return f"{key:>25}: {value!s:<30}{note}\n"


def write_options(folder: Path, name: str, model: str = "pix2pix", dataset_mode: str = "aligned") -> None:
    lines = [
        "----------------- Options ---------------\n",
        option_line("crop_size", SIZE, 256),
        option_line("dataset_mode", dataset_mode),
        option_line("direction", "AtoB"),
        option_line("input_nc", 3),
        option_line("isTrain", True, "None"),
        option_line("model", model, "cycle_gan"),
        option_line("name", name, "experiment_name"),
        option_line("netG", "resnet_6blocks", "unet_256"),
        option_line("ngf", 8, 64),
        option_line("no_dropout", True, False),
        option_line("norm", "instance", "batch"),
        option_line("output_nc", 3),
        "----------------- End -------------------\n",
    ]
    (folder / "train_opt.txt").write_text("".join(lines), encoding="utf-8")


def write_log(folder: Path, losses: dict[str, float], prints: int = 5) -> None:
    entries = [
        {"epoch": 1, "epoch_iter": 10 * i, "step": 10 * i, "images": 10 * i, "seconds": 2.5 * i, "lr": 0.0002}
        | {"losses": {name: value / i for name, value in losses.items()}}
        for i in range(1, prints + 1)
    ]
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "loss_log.jsonl").write_text(text, encoding="utf-8")


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def write_results(folder: Path, stems: list[str], visuals: tuple[str, ...], seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(stems):
        for visual in visuals:
            key = seed if visual.startswith("fake") else 0
            Image.fromarray(picture(100 * key + number)).save(folder / f"{stem}_{visual}.png")


def make_run(
    root: Path,
    name: str,
    *,
    budget: float | None = None,
    stems: tuple[str, ...] = ("a", "b", "c"),
    seed: int = 1,
    log: bool = True,
) -> None:
    """A pix2pix run under ``root``: dense, or slimmed to ``budget``. No results without ``stems``."""
    folder = root / "checkpoints" / name
    folder.mkdir(parents=True)
    write_options(folder, name, "pix2pix" if budget is None else "coronet")
    torch.manual_seed(seed)
    net = build_generator(**ARCHITECTURE)
    losses = {"G_GAN": 1.0, "G_L1": 20.0, "D_real": 0.5}
    if budget is None:
        torch.save(net.state_dict(), folder / "latest_net_G.pth")
    else:
        example = example_input(net, SIZE)
        compression = Compression(net, example, budget=budget, search_steps=30, architecture=ARCHITECTURE)
        compression.attach(torch.optim.Adam(net.parameters()))
        compression.slim()
        compression.save(folder / "latest_net_G.pth")
        losses |= {"macs_G": 1.0, "width_G": 1.0}
    torch.save(torch.nn.Linear(1, 1).state_dict(), folder / "latest_net_D.pth")
    if log:
        write_log(folder, losses)
    if stems:
        images = root / "results" / name / "test_latest" / "images"
        write_results(images, list(stems), ("real_A", "fake_B", "real_B"), seed)


def make_cycle_run(root: Path, name: str) -> None:
    """A dense, unpaired CycleGAN run under ``root``."""
    folder = root / "checkpoints" / name
    folder.mkdir(parents=True)
    write_options(folder, name, "cycle_gan", "unaligned")
    for generator in ("G_A", "G_B"):
        torch.save(build_generator(**ARCHITECTURE).state_dict(), folder / f"latest_net_{generator}.pth")
    images = root / "results" / name / "test_latest" / "images"
    write_results(images, ["x", "y"], ("real_A", "fake_B", "real_B", "fake_A"))


@torch.no_grad()
def difference(first: nn.Module, second: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Largest absolute difference of two generators' outputs in eval mode, 0 for equal."""
    outputs = []
    for generator in (first, second):
        training = {module: module.training for module in generator.modules()}
        generator.eval()
        try:
            outputs.append(generator(*inputs))
        finally:
            for module, flag in training.items():
                module.training = flag
    return float((outputs[0].double() - outputs[1].double()).abs().max())


@contextlib.contextmanager
def stopping_before(epoch: int) -> Iterator[None]:
    """Training in the bundled host inside must come to epoch number ``epoch``, and is stopped as that begins."""
    import train

    class Stopped(Exception):
        pass

    begin = train.Visualizer.begin_epoch

    def begin_or_stop(self, number, *args):
        if number == epoch:
            raise Stopped
        begin(self, number, *args)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(train.Visualizer, "begin_epoch", begin_or_stop)
        yield


def assert_same_weights(first: Path, second: Path, names: Iterable[str]) -> None:
    """The weight files ``names`` of two runs have the same tensors, bit for bit."""
    for name in names:
        ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (first, second))
        assert ours.keys() == theirs.keys(), name
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
