"""Trainings that several processes make together; started by torchrun with a folder, or called in one process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from training_helpers import small

from coronet_plugin import Compression
from coronet_plugin.distributed import is_main, world_size
from coronet_plugin.generators.stock import SYNCBATCH
from coronet_plugin.methods.distillation import Distillation
from coronet_plugin.methods.similarity import Terms

FORMS = ("published", "folded", "implicit", "gated", "gates+SELF", "distill")
HOST = "--netG resnet_6blocks --ngf 8 --ndf 4 --load_size 32 --crop_size 32 --display_id -1 --num_threads 0"
HOST += " --no_html --no_dropout --no_flip --seed 1 --n_epochs_decay 0 --print_freq 1"
SEARCH = "--model coronet --coronet_budget 0.3 --coronet_search_epochs 1 --coronet_watch 0 --n_epochs 2"
DENSE = "--model pix2pix --norm instance --serial_batches --max_dataset_size 4 --n_epochs 2"
RUNS = {
    "dense": DENSE,
    "accumulated": DENSE + " --accumulate 2 --norm batch --gan_mode wgangp --lr_policy plateau",
    "judged": SEARCH
    + " --coronet_base pix2pix --coronet_method manifold --coronet_networks G,D --coronet_budget 0.6",
    "small": SEARCH + " --pool_size 0 --coronet_base cycle_gan",
}


def search(form: str, wrap: Callable[[nn.Module], nn.Module] | None = None) -> dict[str, Any]:
    """Search, cut and training after it, by the processes there are; each has its part of every batch."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if world_size() > 1 else (0, 1)
    generator = small(7)
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.01, momentum=0.9)  # Adam makes much of rounding
    torch.manual_seed(7 + 100 * rank)  # a process of its own has random numbers of its own
    form, _, teacher = form.partition("+")
    companions = [Distillation(teacher, Terms(features=1.0, output=1.0))] if teacher else []
    compression = Compression(
        generator, torch.rand(1, 3, 32, 32), budget=0.3, search_steps=6, method=form, companions=companions,
        architecture=dict(
            netG="resnet_6blocks", input_nc=3, output_nc=3, ngf=8, norm="instance", use_dropout=False
        ),
    ).attach(optimizer)  # fmt: skip
    wrap = wrap or (DistributedDataParallel if world > 1 else lambda bare: bare)
    network = wrap(generator)
    data = torch.Generator().manual_seed(1)
    slimmed_at, cut = [], {}
    for step in range(9):
        batch = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=data) * 2 - 1, size=32)
        mine = batch[rank::world]
        loss = (network(mine) + mine).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if compression.step():
            slimmed_at.append(step)
            compression.slim()
            cut = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
            network = wrap(generator)
    return {
        "slimmed_at": slimmed_at,
        "cut": cut,
        "loss": loss.item(),
        "kept": torch.from_numpy(compression.alive()),
        "weights": generator.state_dict(),
    }


@contextmanager
def doubles() -> Iterator[None]:
    """Compute in double precision: in single precision rounding soon makes another training of it."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def host(folder: Path, name: str, *options: object) -> tuple[int, list[float]]:
    """Train in the bundled host on the data in ``folder``; the exit code, and a sum of each network's weights."""
    import train

    words = " ".join(map(str, options))
    data = folder / ("unpaired" if "cycle_gan" in words else "paired")
    fixed = ["--dataroot", data, "--checkpoints_dir", folder / "runs", "--name", name, *HOST.split()]
    models, create = [], train.create_model
    train.create_model = lambda opt: models.append(create(opt)) or models[-1]
    try:
        code = train.main([*map(str, fixed), *words.split()])
    finally:
        train.create_model = create
    networks = [getattr(model, f"net{name}") for model in models for name in model.model_names]
    return code, [sum(float(p.detach().double().sum()) for p in network.parameters()) for network in networks]


@contextmanager
def at_step(number: int, act: Any) -> Iterator[None]:
    """Inside, ``act()`` is called before the step with that number."""
    import train

    plain, steps = train.Training.step, [0]

    def step(self: Any, *args: Any) -> None:
        steps[0] += 1
        if steps[0] == number:
            act()
        plain(self, *args)

    train.Training.step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        train.Training.step = plain  # type: ignore[method-assign]


@contextmanager
def as_checkouts_of_august_2025() -> Iterator[None]:
    """Their ``setup``: initialise again, load inline, wrap; with torch's own settings."""
    from models import networks
    from models.base_model import BaseModel

    plain_setup = BaseModel.setup

    def setup(self: Any, opt: Any) -> None:
        for name in self.model_names:
            net = networks.init_net(getattr(self, "net" + name), opt.init_type, opt.init_gain)
            if not self.isTrain or opt.continue_train:
                raise AssertionError("the plug-in loads, not the host")
            setattr(self, "net" + name, DistributedDataParallel(net))
        plain_setup(self, opt)

    BaseModel.setup = setup  # type: ignore[method-assign]
    try:
        yield
    finally:
        BaseModel.setup = plain_setup  # type: ignore[method-assign]


def everything(folder: Path) -> int:
    """What the tests look at, in one go."""
    with doubles():
        for form in FORMS:
            torch.save(search(form), folder / f"{form}.{dist.get_rank()}")
    codes = {name: host(folder, name, options) for name, options in RUNS.items()}
    with as_checkouts_of_august_2025():
        codes["2025"] = host(folder, "2025", SEARCH, "--coronet_base pix2pix --norm instance")
    stop = (lambda: None) if is_main() else (lambda: os.kill(os.getpid(), signal.SIGTERM))
    with at_step(4, stop):
        codes["stopped"] = host(folder, "stopped", RUNS["small"])
    codes["continued"] = host(folder, "stopped", RUNS["small"], "--continue_train")
    codes["refused"] = host(folder, "refused", DENSE, f"--norm {SYNCBATCH}")
    (folder / f"codes.{dist.get_rank()}").write_text(repr(codes))
    return 0


class Stopped(Exception):
    """A dense run ends here, with whatever it saved."""


def restarts(folder: Path) -> int:
    """Two runs, of which the one is left and the other loses a process; the exit code."""
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    with contextlib.suppress(Stopped), at_step(4 if first else 0, _stop):
        host(folder, "dense", RUNS["dense"], "--save_latest_freq 2")
    with at_step(5 if first else 0, _die):
        return host(folder, "small", RUNS["small"], "--save_latest_freq 2")[0]


def _stop() -> None:
    raise Stopped


def _die() -> None:
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from util.distributed import with_others

    torch.set_num_threads(1)
    task = {"everything": everything, "restarts": restarts}[sys.argv[1]]
    sys.exit(with_others(lambda: task(Path(sys.argv[2]))))
