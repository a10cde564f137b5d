"""Train a model: ``python train.py --dataroot DIR --name RUN --model pix2pix``.

``python train.py --model MODEL --help`` lists the options. Networks, logs and the page
``web/index.html`` go to ``checkpoints/RUN``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

# Read when torch is loaded. Otherwise its threads wait for each other in busy loops, which on a
# machine that has other work makes small networks a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from coronet_plugin.distributed import is_main, world_size
from coronet_plugin.files import sweep, together
from coronet_plugin.interruption import Interrupted, Interruption
from coronet_plugin.training import numerics, provenance
from coronet_plugin.training.host import one_line_of_norms
from coronet_plugin.training.speed import speed_of
from data import Loader, create_dataset, loading_error
from models import create_model
from models.base_model import BaseModel
from options.train_options import TrainOptions
from util import distributed
from util.script import run
from util.util import seed_everything
from util.visualizer import Silent, Visualizer


def train(opt: argparse.Namespace) -> None:
    """Train for ``opt.n_epochs + opt.n_epochs_decay`` epochs, beginning with ``opt.epoch_count``.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; all steps made are saved.
    """
    if opt.seed is not None:
        seed_everything(opt.seed)
    if is_main():
        sweep(os.path.join(opt.checkpoints_dir, opt.name))
    state = distributed.go_on_(opt)
    with distributed.alike(opt.seed):
        dataset = create_dataset(opt)
        model = create_model(opt)
        model.check_sizes(dataset.sizes())
        model.setup(opt)
    if opt.model != "coronet":  # which does so itself, in every host
        provenance.begin(opt)
    training = Training(opt, dataset, model, state)
    try:
        with contextlib.closing(training.visualizer), training.stop:
            training.run()
    except RuntimeError as error:  # also while the visualizer is closed: a process died meanwhile
        raise loading_error(error) from error


class Training:
    """A run: its data, its model, what is shown of it, and where it is.

    A model that saves all that training takes gives back where it was when it is continued; ``state`` is
    that of another model, after a restart.
    """

    def __init__(
        self,
        opt: argparse.Namespace,
        dataset: Loader,
        model: BaseModel,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.opt, self.dataset, self.model = opt, dataset, model
        self.stop = Interruption()
        self.speed = None if opt.model == "coronet" else speed_of(model, opt)
        if state is not None and self.speed is not None:
            distributed.restore_(model, state, self.speed)
        self.began = time.time()
        self.total = int(model.progress.get("total", 0))
        self.seen = 0
        """Images in all, and in this epoch, of all processes."""
        self.epochs_done = opt.epoch_count - 1
        self.visualizer = Visualizer(opt, model.progress.get("shown")) if is_main() else Silent()

    def run(self) -> None:
        """All epochs that are left; ``model.setup`` may have moved the first."""
        opt, model = self.opt, self.model
        first, last = opt.epoch_count, opt.n_epochs + opt.n_epochs_decay
        if first > last:
            print(f"nothing to train: epoch {first} is next, and the schedule ends with {last}")
        distributed.set_random_state(model.progress.get("random", []))
        if model.progress.get("epoch") == first and self.dataset.load_state_dict(model.progress["data"]):
            self.seen = int(model.progress["seen"])
            for name, value in model.progress["losses"].items():  # of the last step, should it end the epoch
                setattr(model, f"loss_{name}", value)
        for epoch in range(first, last + 1):
            self.visualizer.begin_epoch(epoch, len(self.dataset), self.seen)
            self.epoch(epoch)
            self.visualizer.end_epoch(epoch, model.get_current_losses())
            model.update_learning_rate()
            self.epochs_done = epoch
            if epoch % opt.save_epoch_freq == 0:
                print(f"saving the networks of epoch {epoch}")
                with together():  # or a run that is continued from the one would lack the other
                    self.save("latest")
                    model.save_networks(epoch)
            elif epoch == last:
                self.save("latest")

    def epoch(self, epoch: int) -> None:
        """One pass over the data, or what is left of it."""
        waiting_since = time.time()
        for batch in self.dataset:
            started = time.time()
            images = min(self.opt.batch_size * world_size(), len(self.dataset) - self.seen)
            self.seen += images
            self.total += images
            self.step(batch, images)
            t_comp, t_data = (time.time() - started) / images, (started - waiting_since) / images
            self.show(epoch, images, t_comp, t_data)
            if self.due(self.opt.save_latest_freq, images):
                self.save(f"iter_{self.total}" if self.opt.save_by_iter else "latest", epoch)
            number = distributed.largest(self.stop.requested or 0)
            if number:
                self.leave(epoch, number)
            waiting_since = time.time()
        self.seen = 0

    def step(self, batch: dict[str, Any], images: int) -> None:
        """Train on a batch."""
        with one_line_of_norms(training=True):
            self.model.set_input(batch)
            with self.speed.step() if self.speed is not None else contextlib.nullcontext():
                self.model.optimize_parameters()
        if self.opt.model != "coronet" and numerics.due(self.model, self.visualizer.step):
            self.model.check_losses()
        optimizers = self.model.optimizers
        self.visualizer.advance(images, optimizers[0].param_groups[0]["lr"] if optimizers else None)

    def show(self, epoch: int, images: int, t_comp: float, t_data: float) -> None:
        """Images and losses of the step just made, as often as asked; times are seconds per image."""
        opt, model = self.opt, self.model
        if self.due(opt.display_freq, images):
            model.compute_visuals()
            page = self.due(opt.update_html_freq, images)
            self.visualizer.display_current_results(model.get_current_visuals(), epoch, page)
        if self.due(opt.print_freq, images):
            losses = model.get_current_losses()
            self.visualizer.print_current_losses(epoch, self.seen, losses, t_comp, t_data)
            self.visualizer.plot_current_losses(epoch, self.seen / len(self.dataset), losses)

    def due(self, frequency: int, images: int) -> bool:
        """True if the last ``images`` passed a multiple of ``frequency``."""
        return self.total // frequency > (self.total - images) // frequency

    def save(self, name: str, epoch: int | None = None) -> None:
        """Save the networks as ``name``; ``epoch`` if that is in the middle of one."""
        progress = {"total": self.total, "shown": self.visualizer.state_dict()}
        progress["random"] = distributed.random_states()
        if epoch is not None:
            progress |= {"epoch": epoch, "seen": self.seen, "data": self.dataset.state_dict()}
            progress["losses"] = dict(self.model.get_current_losses())
        self.model.progress = progress
        if self.speed is not None and name == "latest":
            with together():
                self.model.save_networks(name)
                distributed.save_state(self.model, self.epochs_done, self.speed)
        else:
            self.model.save_networks(name)
        if self.opt.model != "coronet":
            provenance.note(self.opt, time.time() - self.began)

    def leave(self, epoch: int, number: int) -> None:
        """Save and raise Interrupted, because signal ``number`` came to this process or another one."""
        self.save("latest", epoch)
        where = "" if self.opt.model == "coronet" else f" --epoch_count {epoch}"
        raise Interrupted(
            f"stopped in epoch {epoch} after {self.visualizer.step} steps, and saved; to go on, give the "
            f"same command with --continue_train{where}",
            128 + number,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line (or ``argv``) says; returns the exit code."""
    return distributed.with_others(lambda: run("train.py", train, TrainOptions().parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
