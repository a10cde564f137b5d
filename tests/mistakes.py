"""Where mistakes are made: data sets good and bad, runs sound and damaged, and how things are called there."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from conftest import QUIET, TINY, paired_folder, run_test, run_train, smooth_image, unpaired_folder
from PIL import Image
from run_helpers import make_run

from coronet_plugin import Compression, UserError, cli, example_input
from coronet_plugin.generators.stock import build_generator


def make_world(root: Path) -> None:
    """Data sets good and bad, and runs: dense, slim, and damaged ones."""
    paired_folder(root, 2, 32)
    unpaired_folder(root, (2, 2), 32)
    (root / "file").write_text("no folder")
    (root / "empty").mkdir()
    (root / "no_images" / "train").mkdir(parents=True)
    bad_images(root)
    for name, budget in (("dense", None), ("slim", 0.4)):
        make_run(root, name, budget=budget, log=True)
    runs = root / "checkpoints"
    damaged_runs(runs)
    (root / "own.py").write_text("import torch\nnumber = 3\ndef broken():\n    return 1\n")
    (root / "syntax.py").write_text("def broken(:\n")


def bad_images(root: Path) -> None:
    good = Image.new("RGB", (64, 32))

    def folder(name: str) -> Path:
        path = root / name / "train"
        path.mkdir(parents=True)
        return path

    good.save(folder("corrupt") / "a.png")
    (root / "corrupt/train/a.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    (folder("zero_bytes") / "a.jpg").write_bytes(b"")
    smooth_image(0, 64, 32).save(folder("truncated") / "a.jpg")
    whole = (root / "truncated/train/a.jpg").read_bytes()
    (root / "truncated/train/a.jpg").write_bytes(whole[: len(whole) // 2])
    (folder("text") / "a.png").write_text("<html>not found</html>")
    Image.new("RGB", (1, 1)).save(folder("one_pixel") / "a.png")
    Image.new("RGB", (63, 32)).save(folder("odd") / "a.png")
    Image.fromarray(np.full((32, 64), 0.5, np.float32)).save(folder("float") / "a.tif")
    for number, size in enumerate(((64, 32), (80, 40))):
        Image.new("RGB", size).save(
            (folder("sizes") if not number else root / "sizes/train") / f"{number}.png"
        )


def damaged_runs(runs: Path) -> None:
    def copy(name: str) -> Path:
        shutil.copytree(runs / "slim", runs / name)
        return runs / name / "latest_net_G"

    for name, change in (
        ("newer", {"version": 99}),
        ("absurd", {"tensors": {"model.1.weight": [10**12]}}),
        ("other_architecture", {"architecture": {"class": "MyGenerator"}}),
    ):
        path = copy(name).with_suffix(".json")
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    copy("no_json").with_suffix(".json").write_text("{")
    path = copy("half_weights").with_suffix(".pth")
    path.write_bytes(path.read_bytes()[:1000])
    copy("no_weights").with_suffix(".pth").unlink()
    path = copy("discriminator").with_suffix(".pth")
    torch.save(torch.nn.Conv2d(6, 4, 4).state_dict(), path)
    torch.save([1, 2], copy("list").with_suffix(".pth"))
    (copy("no_options").parent / "train_opt.txt").unlink()
    for name, state in (("bad_state", {"a": 1}), ("list_state", [1])):
        torch.save(state, copy(name).parent / "latest_coronet_state.pth")
    (copy("cut_state").parent / "latest_coronet_state.pth").write_bytes(b"PK")


# -- how things are called ----------------------------------------------------
def train(world: Path, *extra: object) -> int:
    where = ["--dataroot", world / "paired", "--checkpoints_dir", world / "checkpoints", "--name", "new"]
    return run_train(*where, "--model", "pix2pix", *TINY, *QUIET, "--no_html", *extra)


def compress(world: Path, *extra: object) -> int:
    coronet = [
        "--model",
        "coronet",
        "--coronet_base",
        "pix2pix",
        "--coronet_budget",
        0.5,
        "--norm",
        "instance",
        "--ngf",
        8,
    ]
    return train(world, *coronet, *extra)


def translate(world: Path, *extra: object) -> int:
    where = ["--dataroot", world / "paired", "--checkpoints_dir", world / "checkpoints"]
    return run_test(
        *where, "--results_dir", world / "r", "--model", "coronet", "--coronet_base", "pix2pix", *extra
    )


def translate_dense(world: Path, *extra: object) -> int:
    dense = [
        "--model",
        "pix2pix",
        "--name",
        "dense",
        "--netG",
        "resnet_6blocks",
        "--norm",
        "instance",
        "--ngf",
        8,
    ]
    where = [
        "--dataroot",
        world / "paired",
        "--checkpoints_dir",
        world / "checkpoints",
        "--results_dir",
        world / "r",
    ]
    return run_test(*where, *dense, "--no_dropout", "--load_size", 32, "--crop_size", 32, *extra)


def coronet(world: Path, *words: object) -> int:
    return cli.main([str(word) for word in words])


def call(world: Path, function) -> int:
    """A call from Python: a UserError is what a script would show in one line."""
    try:
        function(world)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def net():
    return build_generator(3, 3, 8, "resnet_6blocks", "instance")


def compression(world: Path, **changed: object) -> Compression:
    generator = net()
    return Compression(
        generator, example_input(generator, 16), **{"search_steps": 5, "budget": 0.5, **changed}
    )


class Failing(torch.nn.Module):
    def forward(self, x):
        return torch.nn.Conv2d(7, 3, 1)(x)
