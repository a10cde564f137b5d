"""Data sets and batches that are smaller than people plan for: every picture counts once an epoch."""

from __future__ import annotations

import json
import math

import pytest
from conftest import paired_folder, run_train

from coronet_plugin import load_generator

OPTIONS = (
    "--netG resnet_6blocks --ngf 8 --ndf 4 --load_size 36 --crop_size 32 --display_id 0 --print_freq 1 --seed 1 "
    "--no_html --num_threads 0 --n_epochs 1 --n_epochs_decay 1 --norm batch"
).split()
CORONET = "--coronet_base pix2pix --coronet_budget 0.3".split()


@pytest.mark.parametrize("model", ["pix2pix", "coronet"])
@pytest.mark.parametrize(
    ("images", "batch", "steps"),
    [(4, 3, 2), (1, 1, 1), (1, 4, 1), (3, 8, 1)],
    ids=["a last small batch", "one picture", "one picture, a larger batch", "fewer than a batch"],
)
def test_small_data_trains_on_all_of_it(tmp_path, model, images, batch, steps):
    where = ["--dataroot", paired_folder(tmp_path, images, 36), "--name", "a", "--checkpoints_dir", tmp_path]
    extra = CORONET if model == "coronet" else []
    assert run_train(*where, "--model", model, *OPTIONS, "--batch_size", batch, *extra) == 0
    rows = [json.loads(line) for line in (tmp_path / "a" / "loss_log.jsonl").read_text().splitlines()]
    last = {row["epoch"]: row for row in rows}
    assert [(last[epoch]["images"], last[epoch]["step"]) for epoch in (1, 2)] == [
        (images, steps),
        (2 * images, 2 * steps),
    ]
    assert all(math.isfinite(value) for row in rows for value in row["losses"].values())
    if model == "coronet":
        assert last[2]["losses"]["macs_G"] <= 0.3
        load_generator(tmp_path / "a" / "latest_net_G.pth")
