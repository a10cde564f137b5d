"""Logs, plot, page, console and live displays; also the pool and the pages of util."""

from __future__ import annotations

import argparse
import io
import json
import random
import socket
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from util.console import Console, short
from util.html import HTML
from util.image_pool import ImagePool
from util.logs import JsonLog, LossPlot, _curves
from util.util import save_image, tensor2im
from util.visualizer import Visualizer, save_images

LOSSES = {"G_GAN": 1.5, "G_L1": 20.0, "macs_G": 0.43, "width_G": 0.7}


@pytest.fixture
def options(tmp_path):
    def made(**changed) -> argparse.Namespace:
        values = {
            "checkpoints_dir": str(tmp_path),
            "name": "run",
            "epoch_count": 1,
            "n_epochs": 2,
            "n_epochs_decay": 1,
            "continue_train": False,
            "no_html": False,
            "display_winsize": 64,
            "display_id": -1,
            "display_server": "http://localhost",
            "display_port": 9,
            "display_env": "main",
            "display_ncols": 4,
            "use_wandb": False,
            "wandb_project_name": "p",
        }
        return argparse.Namespace(**{**values, **changed})

    return made


def epoch(visualizer: Visualizer, number: int, steps: int = 3, print_every: int = 2) -> None:
    """An epoch of ``steps`` batches of 4 images."""
    visualizer.begin_epoch(number, steps * 4)
    for step in range(1, steps + 1):
        visualizer.advance(4, lr=0.1)
        if step % print_every == 0:
            visualizer.print_current_losses(number, step * 4, LOSSES, 0.25, 0.125)
            visualizer.plot_current_losses(number, step / steps, LOSSES)
    visualizer.end_epoch(number, LOSSES)


def records(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "run" / "loss_log.jsonl").read_text().splitlines()]


def test_logs(options, tmp_path, capsys):
    visualizer = Visualizer(options())
    for number in (1, 2):
        epoch(visualizer, number)
    visualizer.close()
    written = records(tmp_path)
    # One line a print and one at the end of each epoch.
    assert [(r["epoch"], r["epoch_iter"], r["step"], r["images"]) for r in written] == [
        (1, 8, 2, 8),
        (1, 12, 3, 12),
        (2, 8, 5, 20),
        (2, 12, 6, 24),
    ]
    assert written[0].keys() == {
        *("epoch", "epoch_iter", "step", "images", "seconds", "images_per_s", "lr", "losses"),
    }
    assert written[0]["losses"] == LOSSES and written[0]["lr"] == 0.1
    assert 0 <= written[0]["seconds"] <= written[-1]["seconds"]
    line = "(epoch: 1, iters: 8, time: 0.250, data: 0.125) "
    line += "G_GAN: 1.500 G_L1: 20.000 macs_G: 0.430 width_G: 0.700"
    text = (tmp_path / "run" / "loss_log.txt").read_text().splitlines()
    assert text[0].startswith("================ Training Loss (") and text[1] == line
    assert line in capsys.readouterr().out.splitlines()  # no terminal: a plain line


def test_a_print_at_the_end_of_an_epoch_is_not_logged_twice(options, tmp_path):
    epoch(Visualizer(options()), 1, steps=4)
    assert [r["step"] for r in records(tmp_path)] == [2, 4]


def test_a_new_run_starts_a_new_json_log_and_a_continued_one_goes_on(options, tmp_path):
    for _ in range(2):
        first = Visualizer(options())
        epoch(first, 1)
        epoch(first, 2)
    assert len(records(tmp_path)) == 4
    seconds = records(tmp_path)[1]["seconds"]
    resumed = Visualizer(options(continue_train=True, epoch_count=2))
    assert (resumed.step, resumed.images) == (3, 12)
    epoch(resumed, 2)
    assert [(r["epoch"], r["step"]) for r in records(tmp_path)] == [(1, 2), (1, 3), (2, 5), (2, 6)]
    assert records(tmp_path)[-1]["seconds"] >= seconds
    again = Visualizer(options(continue_train=True))  # says nothing about where it was
    assert again.step == 6


def test_a_log_cut_off_in_a_line_can_be_continued(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"epoch": 1, "step": 1, "images": 1, "seconds": 1, "losses": {}}\n{"epoch": 1, "st')
    assert len(JsonLog(str(path), 2).records) == 1
    assert path.read_text().count("\n") == 1


def test_plot_has_a_panel_for_fractions(options, tmp_path):
    visualizer = Visualizer(options())
    epoch(visualizer, 1)
    visualizer.close()
    plain, budget = _curves(records(tmp_path))
    assert plain.keys() == {"G_GAN", "G_L1"} and budget["macs_G"] == ([2, 3], [0.43, 0.43])
    both = Image.open(tmp_path / "run" / "loss_plot.png")
    without = [{"step": 1, "losses": {"a": 1.0}}]
    LossPlot(str(tmp_path / "one.png")).draw(without)
    one = Image.open(tmp_path / "one.png")
    assert both.width == one.width and both.height == 2 * one.height


def test_plot_is_drawn_seldom_and_on_demand(tmp_path):
    path = tmp_path / "plot.png"
    plot = LossPlot(str(path))
    plot.draw([], force=True)
    assert not path.exists()
    record = [{"step": 1, "losses": {"a": 1.0}}]
    plot.draw(record)
    path.unlink()
    plot.draw(record)
    assert not path.exists()
    plot.draw(record, force=True)
    assert path.exists()


def test_without_matplotlib_there_is_one_note(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    plot = LossPlot(str(tmp_path / "plot.png"))
    for _ in range(3):
        plot.draw([{"step": 1, "losses": {"a": 1.0}}], force=True)
    assert capsys.readouterr().out.count("matplotlib") == 1


def visuals(value: float) -> dict[str, torch.Tensor]:
    return {"real_A": torch.full((2, 3, 8, 8), value), "fake_B": torch.full((2, 1, 8, 8), -value)}


def test_page_while_training(options, tmp_path):
    visualizer = Visualizer(options())
    images = tmp_path / "run" / "web" / "images"
    visualizer.begin_epoch(1, 4)
    visualizer.display_current_results(visuals(1.0), 1, False)  # the first of an epoch is always saved
    visualizer.display_current_results(visuals(0.0), 1, False)
    assert np.array(Image.open(images / "epoch001_real_A.png")).min() == 255
    assert np.array(Image.open(images / "epoch001_fake_B.png")).max() == 0
    visualizer.display_current_results(visuals(-1.0), 1, True)
    assert np.array(Image.open(images / "epoch001_real_A.png")).max() == 0
    visualizer.begin_epoch(2, 4)
    visualizer.display_current_results(visuals(1.0), 2, False)
    page = (tmp_path / "run" / "web" / "index.html").read_text()
    assert page.index("epoch [2]") < page.index("epoch [1]")
    assert page.count("images/epoch001_real_A.png") == 2 and "refresh" in page
    visualizer.close()
    assert "refresh" not in (tmp_path / "run" / "web" / "index.html").read_text()
    Visualizer(options(continue_train=True, epoch_count=3)).close()
    page = (tmp_path / "run" / "web" / "index.html").read_text()
    assert "epoch [2]" in page and page.index("epoch001_real_A") < page.index("epoch001_fake_B")


def test_no_page_when_it_is_not_wanted(options, tmp_path):
    visualizer = Visualizer(options(no_html=True))
    visualizer.display_current_results(visuals(1.0), 1, True)
    visualizer.close()
    assert not (tmp_path / "run" / "web").exists()


# -- console ----------------------------------------------------------------
class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    console = Console()
    console.begin_epoch("epoch 1/3", 8)
    console.losses("a plain line", LOSSES)
    console.advance(8)
    console._bar.refresh()
    console.end_epoch()
    text = terminal.getvalue()
    assert "epoch 1/3" in text and "img/s" in text and "MACs G 43.0%" in text and "8/8" in text
    assert "a plain line" not in text


def test_the_short_form_keeps_the_budget_and_the_first_losses():
    many = {**{f"loss{i}": float(i) for i in range(9)}, **LOSSES}
    assert short(many) == "MACs G 43.0%, loss0 0, loss1 1, loss2 2, loss3 3, loss4 4"


# -- live displays ----------------------------------------------------------
class FakeVisdom:
    made: list[FakeVisdom] = []
    broken = False

    def __init__(self, **settings):
        self.settings, self.calls = settings, []
        FakeVisdom.made.append(self)

    def check_connection(self):
        return True

    def images(self, stack, **rest):
        self.calls.append(("images", np.shape(stack), rest))

    def line(self, **rest):
        if self.broken:
            raise ConnectionError("gone\nwith a traceback")
        self.calls.append(("line", rest))


@pytest.fixture
def server():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
def visdom(monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", types.SimpleNamespace(Visdom=FakeVisdom))
    monkeypatch.setattr(FakeVisdom, "made", [])
    monkeypatch.setattr(FakeVisdom, "broken", False)
    return FakeVisdom


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("installed", [False, True])
def test_without_visdom_or_its_server_there_is_one_warning(options, monkeypatch, capsys, visdom, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "visdom", None)
    visualizer = Visualizer(options(display_id=1, display_port=free_port()))
    epoch(visualizer, 1)
    visualizer.display_current_results(visuals(1.0), 1, False)
    said = capsys.readouterr()
    assert (said.out + said.err).count("visdom") == 1 and visdom.made == []
    assert "training goes on" in said.out


def test_visdom_is_not_asked_when_it_is_off(options, capsys, visdom, server):
    Visualizer(options(display_id=0, display_port=server))
    assert "visdom" not in capsys.readouterr().out and visdom.made == []


def test_visdom_gets_images_and_curves(options, capsys, visdom, server):
    visualizer = Visualizer(options(display_id=3, display_port=server, display_env="mine"))
    epoch(visualizer, 1, steps=4)
    visualizer.display_current_results(visuals(1.0), 1, False)
    (client,) = visdom.made
    assert client.settings["port"] == server and client.settings["env"] == "mine"
    (_, first), (_, second), (_, shape, pictures) = client.calls
    assert first["win"] == 3 and first["opts"]["legend"] == list(LOSSES)
    assert second["Y"].tolist() == [list(LOSSES.values())] * 2 and second["X"][:, 0].tolist() == [0.5, 1.0]
    assert shape == (2, 3, 8, 8) and pictures["win"] == 4 and pictures["nrow"] == 4
    assert "warning" not in capsys.readouterr().out


def test_visdom_that_fails_later_is_switched_off_with_one_line(options, capsys, visdom, server):
    visdom.broken = True
    epoch(Visualizer(options(display_id=1, display_port=server)), 1, steps=6)
    said = capsys.readouterr().out
    assert said.count("warning") == 1 and "gone" in said and "traceback" not in said


def test_wandb_missing_is_one_warning(options, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    epoch(Visualizer(options(use_wandb=True)), 1)
    assert capsys.readouterr().out.count("wandb") == 1


# -- images and pages -------------------------------------------------------
def test_saved_results(tmp_path):
    page = HTML(str(tmp_path / "results"), "a title")
    save_images(page, visuals(1.0), ["/some/where/cat #1.b.jpg"], width=99)
    page.save()
    assert sorted(f.name for f in (tmp_path / "results" / "images").iterdir()) == [
        "cat #1.b_fake_B.png",
        "cat #1.b_real_A.png",
    ]
    text = (tmp_path / "results" / "index.html").read_text()
    assert "a title" in text and "images/cat%20%231.b_fake_B.png" in text and "width:99px" in text
    assert page.get_image_dir() == str(tmp_path / "results" / "images")


@pytest.mark.parametrize(("ratio", "size"), [(1.0, (8, 6)), (2.0, (16, 6)), (0.5, (8, 12))])
def test_aspect_ratio(tmp_path, ratio, size):
    save_image(np.zeros((6, 8, 3), np.uint8), str(tmp_path / "a.png"), ratio)
    assert Image.open(tmp_path / "a.png").size == size


def test_tensor2im_takes_the_first_image_and_stays_in_range():
    batch = torch.stack([torch.full((3, 2, 2), 3.0), torch.zeros(3, 2, 2)])
    assert (tensor2im(batch) == 255).all()
    assert tensor2im(torch.zeros(1, 1, 2, 4)).shape == (2, 4, 3)
    array = np.zeros((1, 1, 3))
    assert tensor2im(array) is array


def test_image_pool():
    image = torch.arange(3.0).reshape(3, 1, 1, 1).requires_grad_()
    assert torch.equal(ImagePool(0).query(image), image) and not ImagePool(0).query(image).requires_grad
    pool = ImagePool(2)
    random.seed(0)
    first = pool.query(image)
    assert torch.equal(first[:2], image[:2]) and not first.requires_grad
    assert pool.num_imgs == 2 and len(pool.images) == 2 and pool.images[0].shape == (1, 1, 1, 1)
    new, returned = 0, []
    for value in range(10, 410):
        out = pool.query(torch.full((1, 1, 1, 1), float(value))).item()
        new += out == value
        returned.append(out)
    assert 160 < new < 240  # half are given back at once
    assert len(set(returned)) == len(returned)  # an earlier one leaves the pool when it is returned
