"""Test a model: ``python test.py --dataroot DIR --name RUN --model pix2pix``.

``python test.py --model MODEL --help`` lists the options. Images and the page
``index.html`` go to ``results/RUN/<phase>_<epoch>`` when all are made; a test that fails leaves nothing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in train.py

from coronet_plugin.files import appearing_in
from coronet_plugin.pictures.padding import pad_inputs_
from coronet_plugin.runs import tested
from coronet_plugin.training.host import one_line_of_norms, unwrap
from coronet_plugin.training.speed import speed_of
from data import create_dataset
from models import create_model
from options.test_options import TestOptions
from util.html import HTML
from util.script import run
from util.util import seed_everything
from util.visualizer import save_images


def test(opt: argparse.Namespace) -> None:
    """Translate up to ``opt.num_test`` images and write the page."""
    if opt.seed is not None:
        seed_everything(opt.seed)
    dataset = create_dataset(opt)
    model = create_model(opt)
    model.check_sizes(dataset.sizes())
    model.setup(opt)
    if opt.model != "coronet":  # which does so itself, in every host
        speed_of(model, opt)
    for name in model.model_names:
        if name.startswith("G"):
            pad_inputs_(unwrap(getattr(model, f"net{name}")), opt.pad_to_multiple)
    if opt.eval:
        model.eval()
    name = f"{opt.phase}_{opt.epoch}" + (f"_iter{opt.load_iter}" if opt.load_iter > 0 else "")
    folder = Path(opt.results_dir, opt.name, name)
    title = f"Experiment = {opt.name}, Phase = {opt.phase}, Epoch = {opt.epoch}"
    with appearing_in(folder) as new:
        page, pictures = HTML(str(new), title), []
        for number, batch in enumerate(itertools.islice(dataset, opt.num_test)):
            with one_line_of_norms(training=False):
                model.set_input(batch)
                model.test()
            paths = model.get_image_paths()
            pictures += paths
            if number % 5 == 0:
                print(f"processing image {number + 1}: {paths[0]}")
            save_images(page, model.get_current_visuals(), paths, opt.aspect_ratio, opt.display_winsize)
        page.save()
        tested.write(new, opt, pictures)
    print(f"results are in {folder / 'index.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Test as the command line (or ``argv``) says; returns the exit code."""
    opt = TestOptions().parse(argv)
    # One image at a time, in order and as it is, so that every one has its row on the page.
    opt.num_threads, opt.batch_size = 0, 1
    opt.serial_batches = opt.no_flip = True
    opt.display_id = -1
    return run("test.py", test, opt)


if __name__ == "__main__":
    sys.exit(main())
