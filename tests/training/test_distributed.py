"""Two processes (gloo, on the CPU) train one model: the same channels, the same moment, the same result."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import ROOT
from torch import distributed as dist

WORKER = """
import os, sys
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from coronet_plugin import Compression
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.methods.distillation import Distillation
from coronet_plugin.methods.similarity import Terms

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # in single precision rounding soon makes another training of it
out, form, norm = sys.argv[1:4]
several = "WORLD_SIZE" in os.environ
if several:
    dist.init_process_group("gloo")
rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)

def dense():
    return build_generator(3, 3, 8, "resnet_6blocks", norm, False)

torch.manual_seed(7)
generator = dense()
optimizer = torch.optim.SGD(generator.parameters(), lr=0.01, momentum=0.9)  # Adam makes much of rounding
torch.manual_seed(7 + 100 * rank)  # a process of its own has random numbers of its own
form, _, teacher = form.partition("+")
companions = [Distillation(teacher, Terms(features=1.0, output=1.0))] if teacher else []
compression = Compression(
    generator, torch.rand(1, 3, 32, 32), budget=0.3, search_steps=6, method=form, companions=companions,
    architecture=dict(netG="resnet_6blocks", input_nc=3, output_nc=3, ngf=8, norm=norm, use_dropout=False),
).attach(optimizer)
network = DistributedDataParallel(generator) if several else generator
data = torch.Generator().manual_seed(1)
masks = []
for step in range(12):
    batch = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=data) * 2 - 1, size=32)
    mine = batch[rank::world]
    loss = (network(mine) + mine).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if compression.step():
        masks.append(step)
        compression.slim()
        cut = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        if several:
            network = DistributedDataParallel(generator)
torch.save(
    {"slimmed_at": masks, "cut": cut, "loss": loss.item(), "kept": torch.from_numpy(compression.alive()), "weights": generator.state_dict()},
    f"{out}.{rank}of{world}",
)
if several:
    dist.destroy_process_group()
"""

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo"
)


def launch(script, *arguments, processes):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=0"]
        command[1:1] = [*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_gloo
@pytest.mark.parametrize("form", ["published", "folded", "implicit", "gated", "gates+SELF", "distill"])
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, form):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    launch(script, tmp_path / "out", form, "instance", processes=2)
    launch(script, tmp_path / "out", form, "instance", processes=1)
    first, second = (torch.load(tmp_path / f"out.{rank}of2") for rank in (0, 1))
    alone = torch.load(tmp_path / "out.0of1")
    assert first["slimmed_at"] == second["slimmed_at"] == alone["slimmed_at"] == [5]
    assert torch.equal(first["kept"], second["kept"])
    assert all(torch.equal(first["weights"][k], second["weights"][k]) for k in first["weights"])
    assert torch.equal(first["kept"], alone["kept"])
    for key, weight in alone["cut"].items():  # sums over a batch are taken in another order
        assert torch.allclose(first["cut"][key], weight, atol=1e-10), key
        assert torch.allclose(first["weights"][key], alone["weights"][key], atol=1e-6), key
    assert (first["loss"] + second["loss"]) / 2 == pytest.approx(alone["loss"], abs=1e-6)


HOST = '''
import sys
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from models import networks
from models.base_model import BaseModel

dist.init_process_group("gloo")
plain_setup = BaseModel.setup

def setup(self, opt):
    """As checkouts of August 2025 do: initialise again, load inline, wrap."""
    for name in self.model_names:
        net = networks.init_net(getattr(self, "net" + name), opt.init_type, opt.init_gain)
        if not self.isTrain or opt.continue_train:
            raise AssertionError("the plug-in loads, not the host")
        setattr(self, "net" + name, DistributedDataParallel(net))
    plain_setup(self, opt)

BaseModel.setup = setup
import train

class Silent:
    """The curves and pages of a process that is not the first."""

    def __init__(self, *args):
        pass

    def __getattr__(self, name):
        return lambda *args, **kwargs: None

if dist.get_rank():
    train.Visualizer = Silent
code = train.main(sys.argv[1:])
dist.barrier()
dist.destroy_process_group()
sys.exit(code)
'''


@needs_gloo
@pytest.mark.parametrize("base", ["pix2pix", "cycle_gan"])
def test_the_model_type_slims_inside_ddp_and_one_process_writes(tmp_path, base):
    from conftest import paired_folder, unpaired_folder

    from coronet_plugin import Spec, load_generator

    script = tmp_path / "host.py"
    script.write_text(HOST)
    folder = paired_folder(tmp_path, 4, 32) if base == "pix2pix" else unpaired_folder(tmp_path, (4, 4), 32)
    options = [
        "--dataroot",
        folder,
        "--name",
        "run",
        "--checkpoints_dir",
        tmp_path / "c",
        "--model",
        "coronet",
    ]
    options += [
        "--coronet_base",
        base,
        "--coronet_budget",
        0.3,
        "--netG",
        "resnet_6blocks",
        "--ngf",
        8,
        "--ndf",
        4,
    ]
    options += ["--load_size", 32, "--crop_size", 32, "--display_id", -1, "--num_threads", 0, "--no_html"]
    options += ["--coronet_search_epochs", 1, "--norm", "instance"]
    said = launch(script, *options, "--n_epochs", 2, "--n_epochs_decay", 0, processes=2)
    generators = ["G"] if base == "pix2pix" else ["G_A", "G_B"]
    assert all(said.count(f"coronet: net{name} is slim after 2 steps") == 1 for name in generators)
    for name in generators:
        weights = tmp_path / "c" / "run" / f"latest_net_{name}.pth"
        assert Spec.read(weights.with_suffix(".json")).phase == "compact"
        assert not any(key.startswith("module.") for key in torch.load(weights))
        load_generator(weights)
    said = launch(script, *options, "--n_epochs", 2, "--n_epochs_decay", 1, "--continue_train", processes=2)
    assert said.count("coronet: continuing with epoch 3") == 1
