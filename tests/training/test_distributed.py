"""Two processes (gloo, on the CPU) train one model: the same channels, the same moment, the same result.

They are started once and make all trainings; see ``tests/distributed_worker.py``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import torch
from conftest import ROOT, paired_folder, run_train, unpaired_folder
from distributed_worker import FORMS, HOST, RUNS, SEARCH, at_step, doubles, host, search
from run_helpers import assert_same_weights, difference
from torch import distributed as dist
from torch import nn
from training_helpers import small, started, train

from coronet_plugin import Spec, load_generator
from coronet_plugin.training.host import architecture as architecture_of
from data.share import Share
from models import networks
from models.base_model import BaseModel
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util import distributed

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo"
)


def data(folder):
    paired_folder(folder, 5, 32)
    unpaired_folder(folder, (5, 4), 32)
    return folder


def launch(folder, task, *settings):
    """What two processes print that do ``task`` of the worker in ``folder``: (stdout, stderr)."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    torchrun += ["--rdzv-endpoint=localhost:0", *settings]
    script = [str(ROOT / "tests" / "distributed_worker.py"), task, str(folder)]
    done = subprocess.run(
        [sys.executable, *torchrun, *script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of all trainings, and what was printed."""
    folder = data(tmp_path_factory.mktemp("processes"))
    said = launch(folder, "everything")
    codes = [ast.literal_eval((folder / f"codes.{rank}").read_text()) for rank in (0, 1)]
    assert codes[0] == codes[1]
    return folder, *said, codes[0]


@functools.cache
def by_one_process(form):
    with doubles():
        return search(form)


# -- the package -------------------------------------------------------------
@pytest.mark.parametrize("form", FORMS)
def test_two_processes_equal_one_with_the_doubled_batch(trained, form):
    first, second = (torch.load(trained[0] / f"{form}.{rank}") for rank in (0, 1))
    alone = by_one_process(form)
    assert first["slimmed_at"] == second["slimmed_at"] == alone["slimmed_at"] == [5]
    assert torch.equal(first["kept"], second["kept"])
    assert all(torch.equal(first["weights"][k], second["weights"][k]) for k in first["weights"])
    assert torch.equal(first["kept"], alone["kept"])
    for key, weight in alone["cut"].items():  # sums over a batch are taken in another order
        assert torch.allclose(first["cut"][key], weight, atol=1e-10), key
        assert torch.allclose(first["weights"][key], alone["weights"][key], atol=1e-6), key
    assert (first["loss"] + second["loss"]) / 2 == pytest.approx(alone["loss"], abs=1e-6)


# -- the bundled host --------------------------------------------------------
def steps(folder, run):
    lines = (folder / "runs" / run / "loss_log.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_dense_run_equals_that_of_one_process_with_the_doubled_batch(trained):
    folder, codes = trained[0], trained[-1]
    assert codes["dense"][0] == 0 and host(folder, "alone", RUNS["dense"], "--batch_size 2")[0] == 0
    assert steps(folder, "dense") == steps(folder, "alone") == [1, 2, 3, 4]
    for file in ("latest_net_G.pth", "latest_net_D.pth"):
        ours, alone = (torch.load(folder / "runs" / run / file) for run in ("dense", "alone"))
        assert ours.keys() == alone.keys()
        # instance norm takes biases away, so that their gradients are rounding alone, of which Adam makes steps
        kernels = [key for key in alone if key.endswith("weight")]
        assert max(float((ours[key] - alone[key]).abs().max()) for key in kernels) < 1e-5


def test_all_processes_have_the_same_weights_whatever_is_switched_on(trained):
    """Otherwise the sums in :func:`trained` differ; here, that there are such runs and that they trained."""
    folder, codes = trained[0], trained[-1]
    assert {name: code for name, (code, _) in codes.items()} == {
        **dict.fromkeys([*RUNS, "2025", "continued"], 0),
        "stopped": 143,
        "refused": 2,
    }
    assert steps(folder, "accumulated") == [1, 2, 3, 4]
    assert codes["accumulated"][1] != codes["dense"][1]


@pytest.mark.parametrize("run", ["2025", "small"])
def test_the_model_type_slims_inside_ddp_and_one_process_writes(trained, run):
    folder, out = trained[0], trained[1]
    for name in ["G"] if run == "2025" else ["G_A", "G_B"]:
        weights = folder / "runs" / run / f"latest_net_{name}.pth"
        assert Spec.read(weights.with_suffix(".json")).phase == "compact"
        assert not any(key.startswith("module.") for key in torch.load(weights))
        load_generator(weights)
    assert steps(folder, run) == [1, 2, 3, 4, 5, 6]
    assert out.count("coronet: netG_A is slim after 3 steps") == 2  # small and stopped
    assert out.count("dataset [") == len(trained[-1])


def test_a_signal_to_one_process_stops_all_at_one_step_and_the_run_goes_on_exactly(trained):
    folder, out, errors, _ = trained
    assert errors.count("train.py: stopped in epoch 2 after 4 steps, and saved") == 1
    assert out.count("coronet: continuing with epoch 2") == 1
    assert steps(folder, "stopped") == steps(folder, "small")
    names = [path.name for path in (folder / "runs" / "small").glob("latest_net_*.pth")]
    assert len(names) == 4
    assert_same_weights(folder / "runs" / "small", folder / "runs" / "stopped", names)


def test_what_a_cpu_cannot_do_is_said_once(trained):
    folder, _, errors, _ = trained
    assert errors.count("train.py: error: --norm syncbatch") == 1
    assert not list((folder / "runs" / "refused").glob("*.pth"))


def test_after_a_death_all_start_anew_and_the_runs_end_as_if_nothing_had_been(trained, tmp_path):
    out, _ = launch(data(tmp_path), "restarts", "--max_restarts=1")
    assert out.count("going on from the last save") == 2
    for run in ("dense", "small"):
        uninterrupted, ours = (folder / "runs" / run for folder in (trained[0], tmp_path))
        assert steps(tmp_path, run) == steps(trained[0], run)
        names = [path.name for path in uninterrupted.glob("latest_net_*.pth")]
        assert_same_weights(uninterrupted, ours, names)


# -- in this process ---------------------------------------------------------
@pytest.mark.parametrize(("images", "processes"), [(5, 2), (4, 2), (2, 5)])
def test_shares_have_one_length_and_all_pictures(monkeypatch, images, processes):
    monkeypatch.setattr("data.share.world_size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        share = Share(images, shuffled=True)
        share.seed_(3)
        shares.append(list(share))
        assert len(shares[-1]) == len(share) == -(-images // processes)
    assert {i for share in shares for i in share} == set(range(images))


def test_every_attempt_has_a_part_of_the_store_to_itself():
    """Whatever earlier ones left there, and in whichever order processes come."""
    store = dist.HashStore()
    for delays in [(0.0, 0.0, 0.0), (0.0, 0.1, 0.2), (0.2, 0.0, 0.1)]:

        def meet(rank, delays=delays):
            time.sleep(delays[rank])
            return distributed._own_part(store, rank, 3)

        with ThreadPoolExecutor(3) as threads:
            parts = list(threads.map(meet, range(3)))
        assert [part.add("seen", 1) for part in parts] == [1, 2, 3]


@pytest.mark.parametrize("options", ["--gpu_ids 0,1", "--gpu_ids 1"])
def test_under_torchrun_gpus_are_not_chosen_by_number(monkeypatch, tmp_path, capsys, options):
    for name, value in dict(RANK=0, WORLD_SIZE=2, LOCAL_RANK=0, MASTER_ADDR="here", MASTER_PORT=1).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(SystemExit) as left:
        TrainOptions().parse(["--dataroot", str(tmp_path), *options.split()])
    assert left.value.code == 2
    assert f"{options}: torchrun gives every process one GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        TestOptions().parse(["--dataroot", str(tmp_path)])
    assert "test.py tests in one process" in capsys.readouterr().err


class OnTwoDevices(nn.DataParallel):
    """Runs replicas that torch makes, of which each gets half of the batch, on this one device."""

    def forward(self, x):
        def copies(tensors, devices, detach=False):
            return [
                [tensor.detach() if detach else tensor.view_as(tensor) for tensor in tensors] for _ in devices
            ]

        module = importlib.import_module("torch.nn.parallel.replicate")  # its package has a function so called
        with mock.patch.object(module, "_broadcast_coalesced_reshape", copies):
            replicas = module.replicate(self.module, [0, 1])
        assert all(type(replica) is type(self.module) is not self.module for replica in replicas)
        return torch.cat([replica(part) for replica, part in zip(replicas, x.chunk(2))])


@pytest.mark.parametrize("form", ["gates", "published", "gated", "implicit"])
def test_replicas_of_data_parallel_search_like_the_bare_generator(form):
    with doubles():
        ours = search(form, OnTwoDevices)
    alone = by_one_process(form)
    assert ours["slimmed_at"] == alone["slimmed_at"] and torch.equal(ours["kept"], alone["kept"])
    for key, weight in alone["weights"].items():  # sums over a batch are taken in another order
        assert torch.allclose(ours["weights"][key], weight, atol=1e-6), key


def test_what_takes_part_in_runs_is_refused_on_several_gpus(monkeypatch, tmp_path, capsys):
    """They would be copies of the generator that run at once, and share the hooks."""
    init, init_net = BaseModel.__init__, networks.init_net

    def on_two_gpus(self, opt):
        init(self, opt)
        self.gpu_ids = [0, 1]

    monkeypatch.setattr(BaseModel, "__init__", on_two_gpus)
    monkeypatch.setattr(
        networks, "init_net", lambda net, kind, gain, _: nn.DataParallel(init_net(net, kind, gain))
    )
    options = ["--dataroot", data(tmp_path) / "paired", "--checkpoints_dir", tmp_path, *HOST.split()]
    options += [*SEARCH.split(), "--coronet_base", "pix2pix", "--name", "a"]
    assert run_train(*options, "--coronet_method", "gan_compression") == 2
    assert "in which gan_compression and distillation take part; give one" in capsys.readouterr().err
    assert run_train(*options, "--overwrite", "--max_dataset_size", 1, "--n_epochs", 1) == 0


def test_synchronised_batch_norm_is_searched_cut_and_read_as_batch_norm(monkeypatch, tmp_path):
    """In a single process it computes as batch norm does."""
    plain, synchronised = small(norm="batch"), small(norm="syncbatch")
    with monkeypatch.context() as patched:
        patched.setattr(distributed, "world_size", lambda: 2)
        synchronised = distributed.synchronised(synchronised, "syncbatch", gpu=True)
    options = Namespace(
        netG="resnet_6blocks", input_nc=3, output_nc=3, ngf=8, norm="syncbatch", no_dropout=True
    )
    architecture = architecture_of(synchronised, options)
    found = []
    for generator in (plain, synchronised):
        compression, optimizer = started(generator, search_steps=6, architecture=architecture)
        train(compression, optimizer, 8)
        found.append(compression)
    ours, theirs = (compression.generator.state_dict() for compression in found)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert found[0].cost() == found[1].cost() and found[1].remaining <= 0.3
    norms = [m for m in synchronised.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms and all(norm.num_features == len(norm.weight) for norm in norms)
    found[1].save(tmp_path / "latest_net_G.pth")
    loaded = load_generator(tmp_path / "latest_net_G.pth")
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in loaded.modules())
    assert difference(loaded, plain, (torch.rand(1, 3, 32, 32),)) == 0


def test_data_parallel_models_equal_bare_ones_bit_for_bit(monkeypatch, tmp_path):
    """On a CPU the wrapper calls the network itself; names, files, counters and the cut are the same code."""
    data(tmp_path)
    options = SEARCH + " --coronet_base pix2pix --norm batch --max_dataset_size 3"
    assert host(tmp_path, "bare", options)[0] == 0
    plain, wrapped = networks.init_net, []

    def init_net(*args, **kwargs):
        wrapped.append(nn.DataParallel(plain(*args, **kwargs)))
        return wrapped[-1]

    monkeypatch.setattr(networks, "init_net", init_net)
    with at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert host(tmp_path, "wrapped", options)[0] == 143
    assert host(tmp_path, "wrapped", options, "--continue_train")[0] == 0
    assert len(wrapped) == 4
    assert steps(tmp_path, "bare") == steps(tmp_path, "wrapped")
    names = [path.name for path in (tmp_path / "runs" / "bare").glob("latest_net_*.pth")]
    assert_same_weights(tmp_path / "runs" / "bare", tmp_path / "runs" / "wrapped", names)
