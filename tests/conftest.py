"""Small data sets and ways to run the host's scripts in this process, by arguments for small networks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # busy waiting makes small networks crawl

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
FACTS = Path(__file__).parent / "facts"
sys.path.insert(0, str(ROOT))  # the host's packages are not installed
torch.set_num_threads(1)
torch.backends.cudnn.allow_tf32 = False  # tests compare to rounding

TINY = "--ngf 4 --ndf 4 --netG resnet_6blocks --load_size 40 --crop_size 32 --num_threads 0".split()
QUIET = "--display_id 0 --n_epochs 1 --n_epochs_decay 1 --print_freq 2".split()

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))
"""To parametrise a test by, that where there is a GPU runs on that, too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def gpu_ids(device: str) -> list[str]:
    """Options of the host's scripts for ``cpu`` or ``cuda``."""
    return ["--gpu_ids", "0" if device == "cuda" else "-1"]


def smooth_image(seed: int, width: int, height: int) -> Image.Image:
    """Random smooth colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def paired_folder(tmp_path: Path, images: int = 3, size: int = 64) -> Path:
    """A data root with ``train`` and ``test``: A on the left, its negative B on the right."""
    root = tmp_path / "paired"
    for phase in ("train", "test"):
        (root / phase).mkdir(parents=True)
        for i in range(images):
            a = smooth_image(i, size, size)
            pair = Image.new("RGB", (2 * size, size))
            pair.paste(a, (0, 0))
            pair.paste(Image.eval(a, lambda value: 255 - value), (size, 0))
            pair.save(root / phase / f"{i}.png")
    return root


def unpaired_folder(tmp_path: Path, images: tuple[int, int] = (3, 2), size: int = 64) -> Path:
    """A data root with ``trainA``, ``trainB``, ``testA`` and ``testB``."""
    root = tmp_path / "unpaired"
    for phase in ("train", "test"):
        for side, count in zip("AB", images):
            folder = root / f"{phase}{side}"
            folder.mkdir(parents=True)
            for i in range(count):
                smooth_image(100 * ord(side) + i, size, size).save(folder / f"{side}{i}.png")
    return root


def run_train(*args: object) -> int:
    """``train.py`` with these arguments, in this process."""
    import train

    return train.main([str(arg) for arg in args])


def run_test(*args: object) -> int:
    """``test.py`` with these arguments, in this process."""
    import importlib.util

    # Python has a package of the name ``test``.
    spec = importlib.util.spec_from_file_location("host_test_script", ROOT / "test.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main([str(arg) for arg in args])


@pytest.fixture
def run(tmp_path):
    """Arguments of a run by name, in folders of its own."""

    def arguments(name: str, root, model: str, testing: bool = False) -> list[str]:
        fixed = ["--name", name, "--dataroot", str(root), "--model", model]
        fixed += ["--checkpoints_dir", str(tmp_path / "checkpoints"), *TINY]
        return fixed + (["--results_dir", str(tmp_path / "results")] if testing else QUIET)

    return arguments


@pytest.fixture(autouse=True)
def _torch_state():
    """Undo what ``--seed`` switches on for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
