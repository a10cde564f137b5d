"""Everything a training run shows: console, logs, plot, page, live displays.

The sinks are in :mod:`util.console`, :mod:`util.logs` and :mod:`util.live`; here is
what scripts call, under upstream's names where upstream has them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from util.console import Console
from util.html import HTML
from util.live import LiveDisplays
from util.logs import JsonLog, LossPlot, TextLog, loss_text
from util.util import save_image, tensor2im


class Visualizer:
    """Shows a run that starts with epoch ``opt.epoch_count``; make it after ``model.setup``.

    ``resumed``: what :meth:`state_dict` was when the state of a continued run was saved, if that is known.
    """

    def __init__(self, opt: argparse.Namespace, resumed: Mapping[str, Any] | None = None) -> None:
        self.opt = opt
        self.folder = os.path.join(opt.checkpoints_dir, opt.name)
        os.makedirs(self.folder, exist_ok=True)
        first = 1
        if opt.continue_train:  # a run that goes on without saying where keeps its whole log
            first = opt.epoch_count if opt.epoch_count > 1 else sys.maxsize
        self._text = TextLog(os.path.join(self.folder, "loss_log.txt"))
        last_step = resumed["step"] if resumed else None
        self._json = JsonLog(os.path.join(self.folder, "loss_log.jsonl"), first, last_step)
        self._plot = LossPlot(os.path.join(self.folder, "loss_plot.png"))
        self._page = None
        if not opt.no_html:
            self._page = TrainingPage(self.folder, opt.name, opt.display_winsize, opt.continue_train)
        self._live = LiveDisplays(opt)
        self._console = Console()
        last = resumed or self._json.last
        self.step, self.images = int(last["step"]), int(last["images"])
        self._lr: float | None = resumed["lr"] if resumed else None
        self._epoch_started, self._images_before_epoch = time.time(), self.images
        self._seconds_before = float(self._json.last["seconds"])
        self._started = time.time()
        self._printed = (self._started, self.images)
        self.saved = bool(resumed and resumed["saved"])

    def state_dict(self) -> dict[str, Any]:
        """Where the logs are: steps and images in all, learning rate, whether the epoch has its pictures."""
        return {"step": self.step, "images": self.images, "lr": self._lr, "saved": self.saved}

    # -- what the training loop tells ------------------------------------
    def begin_epoch(self, epoch: int, images: int, seen: int = 0) -> None:
        """``images``: how many this epoch has; ``seen``: those seen before the run went on."""
        if not seen:
            self.reset()
        self._epoch_started = time.time()
        self._images_before_epoch = self.images - seen
        self._console.begin_epoch(
            f"epoch {epoch}/{self.opt.n_epochs + self.opt.n_epochs_decay}", images - seen
        )

    def advance(self, images: int, lr: float | None = None) -> None:
        """One optimizer step on so many images was made."""
        self.step += 1
        self.images += images
        self._lr = lr
        self._console.advance(images)

    def end_epoch(self, epoch: int, losses: Mapping[str, float]) -> None:
        """Log the epoch's last losses and redraw the plot."""
        self._console.end_epoch()
        if self._json.last["step"] != self.step:
            self._record(epoch, self.images - self._images_before_epoch, losses)
        self._plot.draw(self._json.records)
        total = self.opt.n_epochs + self.opt.n_epochs_decay
        print(f"end of epoch {epoch} / {total}, {time.time() - self._epoch_started:.0f} s", flush=True)

    def close(self) -> None:
        """Leave everything in its final form; also after an error."""
        self._console.end_epoch()
        self._plot.draw(self._json.records, force=True)
        if self._page is not None:
            self._page.write(refresh=0)

    def reset(self) -> None:
        """Let the next pictures be saved to the page, whatever ``save_result`` says."""
        self.saved = False

    # -- upstream's names ------------------------------------------------
    def display_current_results(self, visuals: Mapping[str, Tensor], epoch: int, save_result: bool) -> None:
        """Show images (N, C, H, W) in [-1, 1] live, and save the first ones to the page.

        Saved when ``save_result`` and the first time in every epoch.
        """
        pictures = {label: tensor2im(image) for label, image in visuals.items()}
        self._live.images(pictures, epoch)
        if self._page is not None and (save_result or not self.saved):
            self.saved = True
            for label, picture in pictures.items():
                self._page.add(epoch, label, picture)
            self._page.write(refresh=5)

    def plot_current_losses(self, epoch: int, counter_ratio: float, losses: Mapping[str, float]) -> None:
        """Append to the live curves; ``counter_ratio`` is the share of the epoch that is done."""
        self._live.losses(epoch - 1 + counter_ratio, losses)

    def print_current_losses(
        self, epoch: int, iters: int, losses: Mapping[str, float], t_comp: float, t_data: float
    ) -> None:
        """Show and log losses. ``iters``: images in this epoch; times are seconds per image."""
        head = f"(epoch: {epoch}, iters: {iters}, time: {t_comp:.3f}, data: {t_data:.3f})"
        line = f"{head} {loss_text(losses)}"
        self._text.write(line)
        self._console.losses(line, losses)
        self._record(epoch, iters, losses)

    def _record(self, epoch: int, iters: int, losses: Mapping[str, float]) -> None:
        now = time.time()
        since, images = self._printed
        self._printed = (now, self.images)
        self._json.write(
            {
                "epoch": epoch,
                "epoch_iter": iters,
                "step": self.step,
                "images": self.images,
                "seconds": round(self._seconds_before + now - self._started, 3),
                "images_per_s": round((self.images - images) / max(now - since, 1e-9), 3),
                "lr": self._lr,
                "losses": {name: float(value) for name, value in losses.items()},
            }
        )


class Silent:
    """In place of the visualizer of a process that is not the first: shows nothing, and counts steps."""

    def __init__(self) -> None:
        self.step = 0

    def advance(self, images: int, lr: float | None = None) -> None:
        """One optimizer step was made."""
        self.step += 1

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


class TrainingPage:
    """``web/index.html``: the pictures of every epoch, newest first; those of before too if ``continued``."""

    def __init__(self, folder: str, name: str, width: int, continued: bool = False) -> None:
        self.web_dir = os.path.join(folder, "web")
        self.img_dir = os.path.join(self.web_dir, "images")
        self.name = name
        self.width = width
        self._labels: dict[int, list[str]] = {}
        os.makedirs(self.img_dir, exist_ok=True)
        if continued:
            self._find_earlier()

    def _find_earlier(self) -> None:
        files = sorted(os.scandir(self.img_dir), key=lambda file: file.stat().st_mtime_ns)
        for match in (re.fullmatch(r"epoch(\d+)_(.+)\.png", file.name) for file in files):
            if match:
                self._labels.setdefault(int(match[1]), []).append(match[2])

    def add(self, epoch: int, label: str, picture: np.ndarray) -> None:
        """Save ``picture`` (H, W, 3) in place of the epoch's earlier one of that label."""
        save_image(picture, os.path.join(self.img_dir, self._file(epoch, label)))
        labels = self._labels.setdefault(epoch, [])
        if label not in labels:
            labels.append(label)

    def write(self, refresh: int) -> None:
        """Write the page; it reloads itself every ``refresh`` seconds, if any."""
        page = HTML(self.web_dir, f"Experiment name = {self.name}", refresh=refresh)
        for epoch in sorted(self._labels, reverse=True):
            page.add_header(f"epoch [{epoch}]")
            files = [self._file(epoch, label) for label in self._labels[epoch]]
            page.add_images(files, self._labels[epoch], files, width=self.width)
        page.save()

    @staticmethod
    def _file(epoch: int, label: str) -> str:
        return f"epoch{epoch:03d}_{label}.png"


def save_images(
    webpage: HTML,
    visuals: Mapping[str, Tensor],
    image_path: Sequence[str],
    aspect_ratio: float = 1.0,
    width: int = 256,
) -> None:
    """Save visuals (1, C, H, W) as ``images/<stem>_<label>.png`` and add them to ``webpage`` as a row.

    The stem is that of ``image_path[0]``.
    """
    stem = os.path.splitext(os.path.basename(image_path[0]))[0]
    webpage.add_header(stem)
    files = [f"{stem}_{label}.png" for label in visuals]
    for file, image in zip(files, visuals.values()):
        save_image(tensor2im(image), os.path.join(webpage.get_image_dir(), file), aspect_ratio)
    webpage.add_images(files, list(visuals), files, width=width)
