"""Train a model: ``python train.py --dataroot DIR --name RUN --model pix2pix``.

``python train.py --model MODEL --help`` lists the options. Networks, logs and the page
``web/index.html`` go to ``checkpoints/RUN``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

# Read when torch is loaded. Otherwise its threads wait for each other in busy loops, which on a
# machine that has other work makes small networks a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from data import Loader, create_dataset
from models import create_model
from models.base_model import BaseModel
from options.train_options import TrainOptions
from util.script import run
from util.util import seed_everything
from util.visualizer import Visualizer


def train(opt: argparse.Namespace) -> None:
    """Train for ``opt.n_epochs + opt.n_epochs_decay`` epochs, beginning with ``opt.epoch_count``."""
    if opt.seed is not None:
        seed_everything(opt.seed)
    dataset = create_dataset(opt)
    model = create_model(opt)
    model.setup(opt)
    visualizer = Visualizer(opt)
    first, last = opt.epoch_count, opt.n_epochs + opt.n_epochs_decay  # setup may have moved the first
    if first > last:
        print(f"nothing to train: epoch {first} is next, and the schedule ends with {last}")
    total_images = 0
    try:
        for epoch in range(first, last + 1):
            visualizer.begin_epoch(epoch, len(dataset))
            total_images = train_epoch(epoch, total_images, dataset, model, visualizer)
            visualizer.end_epoch(epoch, model.get_current_losses())
            model.update_learning_rate()
            if epoch % opt.save_epoch_freq == 0:
                print(f"saving the networks of epoch {epoch}")
                model.save_networks("latest")
                model.save_networks(epoch)
            elif epoch == last:
                model.save_networks("latest")
    finally:
        visualizer.close()


def train_epoch(epoch: int, total: int, dataset: Loader, model: BaseModel, visualizer: Visualizer) -> int:
    """One pass over the data; returns ``total``, the number of images seen, brought up to date."""
    opt = dataset.opt
    seen = 0
    waiting_since = time.time()
    for batch in dataset:
        started = time.time()
        images = min(opt.batch_size, len(dataset) - seen)
        seen += images
        total += images
        model.set_input(batch)
        model.optimize_parameters()
        visualizer.advance(images, model.optimizers[0].param_groups[0]["lr"] if model.optimizers else None)

        def due(frequency: int, total: int = total, images: int = images) -> bool:
            return total // frequency > (total - images) // frequency

        if due(opt.display_freq):
            model.compute_visuals()
            visuals = model.get_current_visuals()
            visualizer.display_current_results(visuals, epoch, due(opt.update_html_freq))
        if due(opt.print_freq):
            losses = model.get_current_losses()
            t_comp, t_data = (time.time() - started) / images, (started - waiting_since) / images
            visualizer.print_current_losses(epoch, seen, losses, t_comp, t_data)
            visualizer.plot_current_losses(epoch, seen / len(dataset), losses)
        if due(opt.save_latest_freq):
            model.save_networks(f"iter_{total}" if opt.save_by_iter else "latest")
        waiting_since = time.time()
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line (or ``argv``) says; returns the exit code."""
    return run("train.py", train, TrainOptions().parse(argv))


if __name__ == "__main__":
    sys.exit(main())
