"""Optional live displays: visdom and Weights & Biases.

Neither may disturb training: what is missing or does not answer costs one line, and a
display that fails later is switched off with one line.
"""

from __future__ import annotations

import argparse
import logging
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np

CONNECT_SECONDS = 1.0


class VisdomDisplay:
    """Images and loss curves in two visdom windows."""

    def __init__(self, client: Any, opt: argparse.Namespace) -> None:
        self.client = client
        self.window = opt.display_id
        self.columns = opt.display_ncols
        self.name = opt.name
        self.x: list[float] = []
        self.y: list[list[float]] = []
        self.legend: list[str] = []

    @classmethod
    def connect(cls, opt: argparse.Namespace) -> VisdomDisplay:
        """Raises ImportError without the package, OSError when no server answers."""
        import visdom

        host = urlsplit(opt.display_server).hostname or opt.display_server
        # Asking first keeps visdom from printing a traceback and from waiting long.
        socket.create_connection((host, opt.display_port), timeout=CONNECT_SECONDS).close()
        logging.getLogger("visdom").setLevel(logging.CRITICAL)
        client = visdom.Visdom(
            server=opt.display_server,
            port=opt.display_port,
            env=opt.display_env,
            raise_exceptions=True,
            use_incoming_socket=False,
        )
        if not client.check_connection():
            raise ConnectionError("the server does not answer")
        return cls(client, opt)

    def images(self, pictures: Mapping[str, np.ndarray], epoch: int) -> None:
        """Show pictures (H, W, 3 or 4) of one size side by side, without transparency."""
        stack = np.stack([picture[..., :3].transpose(2, 0, 1) for picture in pictures.values()])
        title = f"{self.name}, epoch {epoch}: {', '.join(pictures)}"
        self.client.images(stack, nrow=self.columns, win=self.window + 1, opts={"title": title})

    def losses(self, epoch: float, losses: Mapping[str, float]) -> None:
        """Append a point to every curve; ``epoch`` is fractional."""
        if list(losses) != self.legend:  # a model may add losses while it trains
            self.x, self.y, self.legend = [], [], list(losses)
        self.x.append(epoch)
        self.y.append(list(losses.values()))
        y = np.array(self.y)
        options = {
            "title": f"{self.name} loss over time",
            "legend": self.legend,
            "xlabel": "epoch",
            "ylabel": "loss",
        }
        x = np.array(self.x)
        if y.shape[1] == 1:  # visdom wants one curve without a second axis
            y = y[:, 0]
        else:
            x = np.stack([x] * y.shape[1], 1)
        self.client.line(X=x, Y=y, opts=options, win=self.window)


class WandbDisplay:
    """Images and losses of a Weights & Biases run."""

    def __init__(self, wandb: Any, opt: argparse.Namespace) -> None:
        self.wandb = wandb
        config = {key: str(value) for key, value in vars(opt).items()}
        self.run = wandb.init(project=opt.wandb_project_name, name=opt.name, config=config)

    @classmethod
    def connect(cls, opt: argparse.Namespace) -> WandbDisplay:
        """Raises ImportError without the package."""
        import wandb

        return cls(wandb, opt)

    def images(self, pictures: Mapping[str, np.ndarray], epoch: int) -> None:
        self.run.log({name: self.wandb.Image(picture) for name, picture in pictures.items()})

    def losses(self, epoch: float, losses: Mapping[str, float]) -> None:
        self.run.log({"epoch": epoch, **losses})


class LiveDisplays:
    """The displays that were asked for and work; the others have cost a line each."""

    def __init__(self, opt: argparse.Namespace) -> None:
        self.displays: list[Any] = []
        if getattr(opt, "display_id", 0) > 0:
            address = f"{opt.display_server}:{opt.display_port}"
            self._connect("visdom", VisdomDisplay, opt, f"at {address}; --display_id 0 stops asking")
        if getattr(opt, "use_wandb", False):
            self._connect("wandb", WandbDisplay, opt, "; install the package and log in, or drop --use_wandb")

    def images(self, pictures: Mapping[str, np.ndarray], epoch: int) -> None:
        self._each("images", pictures, epoch)

    def losses(self, epoch: float, losses: Mapping[str, float]) -> None:
        self._each("losses", epoch, losses)

    def _connect(self, name: str, kind: Any, opt: argparse.Namespace, advice: str) -> None:
        try:
            self.displays.append(kind.connect(opt))
        except ImportError:
            print(f"warning: no {name} display, the package is not installed; training goes on without it")
        except Exception as error:  # third-party code and networks fail in many ways
            print(f"warning: no {name} display ({_reason(error)}) {advice}; training goes on without it")

    def _each(self, method: str, *args: Any) -> None:
        for display in list(self.displays):
            try:
                getattr(display, method)(*args)
            except Exception as error:  # as above
                self.displays.remove(display)
                name = type(display).__name__
                print(f"warning: {name} failed ({_reason(error)}) and is off; training goes on without it")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
