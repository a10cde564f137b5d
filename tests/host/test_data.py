"""Data sets: what samples hold, how images are prepared, what is refused."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, paired_folder, smooth_image, unpaired_folder
from PIL import Image

import data
from coronet_plugin.errors import DataError, OptionError
from data.base_dataset import get_params, get_transform, to_tensor
from util.util import tensor2im


def options(root, mode="aligned", **changed) -> argparse.Namespace:
    values = {
        "dataroot": str(root),
        "dataset_mode": mode,
        "phase": "train",
        "direction": "AtoB",
        "input_nc": 3,
        "output_nc": 3,
        "preprocess": "resize_and_crop",
        "load_size": 40,
        "crop_size": 32,
        "no_flip": False,
        "serial_batches": True,
        "batch_size": 1,
        "num_threads": 0,
        "gpu_ids": [],
        "max_dataset_size": float("inf"),
    }
    return argparse.Namespace(**{**values, **changed})


def test_pairs_are_split_and_transformed_alike(tmp_path):
    dataset = data.create_dataset(options(paired_folder(tmp_path))).dataset
    sample = dataset[1]
    assert sample["A"].shape == (3, 32, 32)
    assert torch.allclose(sample["A"], -sample["B"], atol=0.03)  # B is the negative; resizing rounds
    assert sample["A"].std() > 0.1
    assert sample["A_paths"] == sample["B_paths"] and sample["A_paths"].endswith("train/1.png")
    samples = torch.stack([dataset[1]["A"] for _ in range(8)])
    assert not torch.equal(samples[:-1], samples[1:])  # crops and flips differ


def test_no_crop_and_no_flip_is_the_image_itself(tmp_path):
    root = paired_folder(tmp_path, size=32)
    sample = data.create_dataset(options(root, load_size=32, no_flip=True)).dataset[0]
    assert np.array_equal(tensor2im(sample["A"][None]), np.array(smooth_image(0, 32, 32)))


@pytest.mark.parametrize(("direction", "channels"), [("AtoB", (1, 3)), ("BtoA", (3, 1))])
@pytest.mark.parametrize("mode", ["aligned", "unaligned"])
def test_gray_images_follow_the_direction(tmp_path, mode, direction, channels):
    root = (paired_folder if mode == "aligned" else unpaired_folder)(tmp_path)
    sample = data.create_dataset(options(root, mode, input_nc=1, direction=direction)).dataset[0]
    assert (sample["A"].shape[0], sample["B"].shape[0]) == channels


def test_unpaired_sets(tmp_path):
    root = unpaired_folder(tmp_path, images=(5, 3))
    serial = data.create_dataset(options(root, "unaligned")).dataset
    assert len(serial) == 5
    assert [serial[i]["B_paths"][-6:] for i in range(5)] == ["B0.png", "B1.png", "B2.png", "B0.png", "B1.png"]
    shuffled = data.create_dataset(options(root, "unaligned", serial_batches=False)).dataset
    assert {shuffled[0]["B_paths"][-6:] for _ in range(40)} == {"B0.png", "B1.png", "B2.png"}
    assert {shuffled[0]["A_paths"][-6:] for _ in range(5)} == {"A0.png"}


def test_single_images(tmp_path):
    root = unpaired_folder(tmp_path)
    dataset = data.create_dataset(options(root / "testA", "single", input_nc=1))
    batches = list(dataset)
    assert [batch["A_paths"][0][-6:] for batch in batches] == ["A0.png", "A1.png", "A2.png"]
    assert batches[0].keys() == {"A", "A_paths"} and batches[0]["A"].shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("preprocess", "size"),
    [
        ("resize_and_crop", (32, 32)),
        ("crop", (32, 32)),
        ("scale_width", (40, 80)),
        ("scale_width_and_crop", (32, 32)),
        ("none", (48, 100)),
    ],
)
def test_preprocess_modes(preprocess, size):
    opt = options("", preprocess=preprocess)
    image = smooth_image(0, 49, 99)
    assert get_transform(opt, convert=False)(image).size == size
    assert get_transform(opt, get_params(opt, image.size), convert=False)(image).size == size


def test_scaled_width_keeps_room_for_the_crop():
    opt = options("", preprocess="scale_width")
    assert get_transform(opt, convert=False)(smooth_image(0, 100, 30)).size == (40, 32)


def test_crops_reach_every_place_and_flips_are_half():
    opt = options("", load_size=34)
    random.seed(0)
    params = [get_params(opt, (500, 10)) for _ in range(400)]
    assert {p["crop_pos"] for p in params} == {(x, y) for x in range(3) for y in range(3)}
    assert 160 < sum(p["flip"] for p in params) < 240
    opt = options("", preprocess="scale_width_and_crop")
    tall = [get_params(opt, (20, 60))["crop_pos"] for _ in range(400)]
    assert {x for x, _ in tall} == set(range(9)) and max(y for _, y in tall) > 80


def test_crop_and_flip_are_what_params_say():
    image = smooth_image(0, 50, 40)
    opt = options("", preprocess="crop")
    region = image.crop((5, 3, 37, 35))
    plain = get_transform(opt, {"crop_pos": (5, 3), "flip": False}, convert=False)(image)
    flipped = get_transform(opt, {"crop_pos": (5, 3), "flip": True}, convert=False)(image)
    assert np.array_equal(plain, region)
    assert np.array_equal(flipped, np.array(region)[:, ::-1])


def test_tensors_cover_the_range_exactly():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gray = to_tensor(Image.fromarray(values))
    assert gray.shape == (1, 16, 16) and gray.min() == -1 and gray.max() == 1
    assert np.array_equal(tensor2im(gray[None])[..., 2], values)  # there and back without loss


def test_too_small_for_the_crop():
    transform = get_transform(options("", preprocess="crop"))
    assert transform(smooth_image(0, 20, 24)).shape == (3, 24, 20)  # as upstream: small images stay whole
    with pytest.raises(DataError, match="50x20 pixels.*--crop_size 32"):
        transform(smooth_image(0, 50, 20))
    with pytest.raises(OptionError, match="--preprocess zoom.*scale_width"):
        get_transform(options("", preprocess="zoom"))


@pytest.mark.parametrize(("limit", "sizes"), [(99, [2, 2, 1]), (3, [2, 1]), (4, [2, 2])])
@pytest.mark.parametrize("threads", [0, 2])
def test_loader_counts_images(tmp_path, limit, sizes, threads):
    root = paired_folder(tmp_path, images=5)
    opt = options(root, max_dataset_size=limit, batch_size=2, num_threads=threads)
    loader = data.create_dataset(opt)
    assert len(loader) == sum(sizes)
    assert [len(batch["A"]) for batch in loader] == sizes
    assert loader.load_data() is loader and loader.set_epoch(3) is None


def test_loader_stops_at_the_limit_of_a_data_set_that_does_not(tmp_path):
    loader = data.create_dataset(options(paired_folder(tmp_path, images=5)))
    loader.opt.max_dataset_size = 2
    assert len(loader) == 2 and len(list(loader)) == 2


def test_order_is_shuffled_unless_serial(tmp_path):
    root = paired_folder(tmp_path, images=8)
    orders = {
        serial: [b["A_paths"][0] for b in data.create_dataset(options(root, serial_batches=serial))]
        for serial in (True, False)
    }
    assert orders[True] == sorted(orders[True])
    assert sorted(orders[False]) == orders[True] != orders[False]


@pytest.mark.parametrize("threads", [0, 1])
def test_what_is_wrong_with_an_image_is_one_line(tmp_path, threads):
    root = tmp_path / "root"
    (root / "train").mkdir(parents=True)
    smooth_image(0, 63, 64).save(root / "train" / "square.png")
    with pytest.raises(DataError, match="square.png has 63x64 pixels.*unaligned") as caught:
        list(data.create_dataset(options(root, num_threads=threads)))
    assert "\n" not in str(caught.value)
    (root / "train" / "square.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="square.png cannot be read") as caught:
        list(data.create_dataset(options(root, num_threads=threads)))
    assert "\n" not in str(caught.value)


KEPT = """
import multiprocessing, os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}, {tests!r} + "/host"]
import data
from test_data import options
loader = data.create_dataset(options({images!r}, num_threads=1))
kept = iter(loader)
next(kept)
(worker,) = multiprocessing.active_children()
for number in (signal.SIGINT, signal.SIGTERM):  # as a terminal or a batch system sends them to all processes
    os.kill(worker.pid, number)
print(len(list(kept)), flush=True)
kept = iter(loader)
next(kept)
raise SystemExit(3)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_loading_processes_leave_signals_to_the_main_process_and_end_with_it(tmp_path):
    images = str(paired_folder(tmp_path, images=30))
    program = KEPT.format(root=str(ROOT), tests=str(ROOT / "tests"), images=images)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and done.stdout.endswith("29\n"), done.stdout + done.stderr


def test_truncated_image(tmp_path):
    root = paired_folder(tmp_path, images=1)
    file = root / "train" / "0.png"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DataError, match="0.png cannot be read"):
        list(data.create_dataset(options(root)))


def test_images_of_different_sizes_in_a_batch(tmp_path):
    (tmp_path / "a").mkdir()
    for width in (32, 48):
        smooth_image(0, width, 32).save(tmp_path / "a" / f"{width}.png")
    with pytest.raises(DataError, match="--batch_size 1"):
        list(data.create_dataset(options(tmp_path / "a", "single", preprocess="none", batch_size=2)))


def test_missing_folders_name_what_is_there(tmp_path):
    paired, unpaired = paired_folder(tmp_path), unpaired_folder(tmp_path)
    with pytest.raises(DataError, match="unpaired.train .*--dataset_mode unaligned"):
        data.create_dataset(options(unpaired))
    with pytest.raises(DataError, match="paired.trainA .*--dataset_mode aligned"):
        data.create_dataset(options(paired, "unaligned"))
    with pytest.raises(DataError, match="val .*test, train.*--phase"):
        data.create_dataset(options(paired, phase="val"))
    with pytest.raises(DataError, match="nowhere"):
        data.create_dataset(options(tmp_path / "nowhere"))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="train has no images"):
        data.create_dataset(options(tmp_path / "empty"))


def test_a_data_set_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "counting_up_dataset.py").write_text(
        "import torch\n"
        "from data.base_dataset import BaseDataset\n"
        "class CountingUpDataset(BaseDataset):\n"
        "    def __len__(self): return 3\n"
        "    def __getitem__(self, index): return {'A': torch.tensor([index])}\n"
    )
    (tmp_path / "hollow_dataset.py").write_text("import os\n")
    (tmp_path / "needy_dataset.py").write_text("import a_package_nobody_has\n")
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(tmp_path)])
    assert [int(b["A"]) for b in data.create_dataset(options("", "counting_up"))] == [0, 1, 2]
    with pytest.raises(OptionError, match="hollow_dataset.py has no subclass.*hollowdataset"):
        data.find_dataset_using_name("hollow")
    with pytest.raises(OptionError, match="nope is not known; there are aligned, colorization, counting_up"):
        data.find_dataset_using_name("nope")
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):  # not hidden as an unknown name
        data.find_dataset_using_name("needy")
