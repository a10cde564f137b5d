"""Training on several processes that torchrun started, each with its share of the data.

All build the same model; DistributedDataParallel averages gradients. The first one writes, shows and speaks.
Where torchrun may start them anew (``--max_restarts``), they go on from the last save. What the plug-in needs
to know of other processes is in :mod:`coronet_plugin.distributed`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from coronet_plugin.checkpoint.storage import save_tensors
from coronet_plugin.distributed import active, agreed, data_parallel, is_main, world_size
from coronet_plugin.errors import OptionError
from coronet_plugin.generators.stock import SYNCBATCH
from coronet_plugin.training import state as training_state
from coronet_plugin.training.place import Place
from util.util import seed_random_numbers

STATE = "latest_train_state.pth"
"""What a restart needs beyond the networks, of models that do not save it themselves."""
LEAVING = timedelta(seconds=60)
"""How long processes wait for the first one before they leave."""
POLL = 0.02
"""Seconds between two looks at what other processes wrote."""
_store: Any = None
"""What all processes can write to and read, also when one of them does not answer."""
_attempt = 0
"""How often torchrun has started all processes anew, as far as any machine knows."""


# -- processes --------------------------------------------------------------
def launched() -> bool:
    """True if torchrun (or whatever sets the same variables) started this process."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def with_others(work: Callable[[], int]) -> int:
    """Do ``work``, which gives an exit code, as one of the processes that torchrun started, if it did.

    Tensors on GPUs go by NCCL, others by gloo. What is printed is the first process's; the others
    leave after it, because torchrun ends all once one has left early.
    """
    if not launched() or active():
        return work()
    _begin()
    with contextlib.ExitStack() as stack:
        if not is_main():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        code = work()
    if code != 2:  # after an error, others may wait for this one
        with contextlib.suppress(RuntimeError):
            _store.set("left", "1") if is_main() else _store.wait(["left"], LEAVING)
        dist.destroy_process_group()
    return code


def _begin() -> None:
    from torch.distributed.rendezvous import rendezvous

    global _store, _attempt
    store, rank, world = next(rendezvous("env://"))
    _store = _own_part(store, rank, world)
    both = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if both else "gloo", store=_store, rank=rank, world_size=world
    )
    _attempt = largest(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)))


def _own_part(store: Any, rank: int, world: int) -> Any:
    """The part of torchrun's ``store`` that is of this attempt alone.

    It keeps what earlier attempts wrote, where they listened too, and machines may count attempts
    differently. So every process gives a new word, and the first one names the part with the words it
    has found, again and again until all have found theirs.
    """
    part = secrets.token_hex(8)
    if rank:
        store.set(f"coronet/word/{rank}", part)
        word = part
        named: dict[str, Any] = {"words": {}}
        while named["words"].get(str(rank)) != word:
            time.sleep(POLL)
            named = json.loads(store.get("coronet/named"))
        part = named["part"]
        store.add(f"coronet/{part}/heard", 1)
    others = range(1, world) if rank == 0 else range(0)
    while store.add(f"coronet/{part}/heard", 0) < len(others):
        found = {other: store.get(f"coronet/word/{other}").decode() for other in others}
        store.set("coronet/named", json.dumps({"part": part, "words": found}))
        time.sleep(POLL)
    return dist.PrefixStore(f"coronet/{part}", store)


def first_to_fail() -> bool:
    """True for the first process that asks: the one that says what went wrong."""
    try:
        return _store is None or _store.add("failed", 1) == 1
    except RuntimeError:  # torchrun itself is gone
        return True


def another_died(error: BaseException) -> bool:
    """True if ``error`` says that another process does not answer any more."""
    kind = getattr(dist, "DistError", ())
    return active() and (isinstance(error, kind) or "gloo" in str(error))


def largest(value: int) -> int:
    """The largest ``value`` of all processes, in every process."""
    if world_size() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def own_gpu(gpu_ids: str, wanted: list[int]) -> list[int]:
    """The GPU that is this process's among those of its machine, where ``--gpu_ids`` is not for the CPU.

    Raises:
        OptionError: GPUs were chosen by number, or there are fewer than processes.
    """
    if wanted not in ([], [0]):
        raise OptionError(
            f"--gpu_ids {gpu_ids}: torchrun gives every process one GPU; leave the option out and choose "
            "GPUs by CUDA_VISIBLE_DEVICES, or give -1 for the CPU"
        )
    if not wanted or not torch.cuda.is_available():
        return []
    mine, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if mine >= there:
        raise OptionError(
            f"torchrun started more processes than the {there} GPUs of this machine; lower --nproc_per_node, "
            "or train on the CPU with --gpu_ids -1"
        )
    torch.cuda.set_device(mine)
    return [mine]


# -- the model --------------------------------------------------------------
@contextlib.contextmanager
def alike(seed: int | None) -> Iterator[None]:
    """All processes draw the same random numbers inside, and each its own after; without ``seed`` any."""
    if seed is None and world_size() > 1:
        seed_random_numbers(agreed(random.getrandbits(32)))
    yield
    if not is_main():
        seed_random_numbers(random.getrandbits(32) + dist.get_rank())


def random_states() -> list[dict[str, Any]]:
    """Where every process is in its random numbers; nothing if there is only one, which models save."""
    states: list[Any] = [None] * world_size()
    if world_size() > 1:
        dist.all_gather_object(states, training_state.random_state())
    return [state for state in states if state is not None]


def set_random_state(states: Sequence[Mapping[str, Any]]) -> None:
    """Let this process go on where it was in :func:`random_states`, if there were as many processes."""
    if world_size() > 1 and len(states) == world_size():
        training_state.set_random_state(states[dist.get_rank()])


def synchronised(network: nn.Module, norm: str, gpu: bool) -> nn.Module:
    """``network``; with the ``norm`` that is so called, its batch norms share statistics between processes.

    Raises:
        OptionError: they cannot, because it is not on a ``gpu``.
    """
    if norm != SYNCBATCH or world_size() == 1:
        return network
    if not gpu:
        raise OptionError("--norm syncbatch: torch synchronises batch norm on GPUs alone; use --norm batch")
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return]


def wrap_(model: Any) -> None:
    """Let the processes train the networks of ``model`` together. In place; nothing in a single one.

    Buffers stay each process's own: batch norm changes them in every run, and a network may run twice
    before its gradients are taken.
    """
    if world_size() == 1:
        return
    for name in model.model_names:
        network = getattr(model, f"net{name}")
        if isinstance(network, DistributedDataParallel):
            continue
        if not any(parameter.requires_grad for parameter in network.parameters()):
            continue
        setattr(model, f"net{name}", data_parallel(network, sync_buffers=False))


# -- restarts ---------------------------------------------------------------
def restarted() -> bool:
    """True if torchrun started all processes anew, because one of them died."""
    return _attempt > 0


def go_on_(opt: argparse.Namespace) -> dict[str, Any] | None:
    """After a restart, have ``opt`` continue with what was saved since the training began, if anything was.

    Gives the state that a model which saves none itself left there (:func:`save_state`); in place.
    """
    folder = Path(opt.checkpoints_dir, opt.name)
    if not restarted() or not agreed(_saved_since_the_beginning(folder, opt.phase)):
        return None
    opt.continue_train, opt.epoch, opt.load_iter, opt.epoch_count = True, "latest", 0, 1
    print("torchrun started all processes anew; going on from the last save")
    if opt.model == "coronet":
        return None
    state = training_state.read(folder / STATE)
    opt.epoch_count = int(state["epochs_done"]) + 1
    return state


def _saved_since_the_beginning(folder: Path, phase: str) -> bool:
    """Whether a state is younger than the file of options, which a restart does not write again."""
    options, states = folder / f"{phase}_opt.txt", list(folder.glob("latest_*_state.pth"))
    return options.exists() and any(
        state.stat().st_mtime_ns >= options.stat().st_mtime_ns for state in states
    )


def save_state(model: Any, epochs_done: int, speed: Any) -> None:
    """If torchrun may restart the processes, write what that takes of a ``model`` beside its networks."""
    if is_main() and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        state = training_state.collect(model, Place(epochs_done), {})
        save_tensors({**state, "speed": speed.state_dict()}, Path(model.save_dir) / STATE)


def restore_(model: Any, state: Mapping[str, Any], speed: Any) -> None:
    """Put what :func:`save_state` wrote back into a ``model`` that was set up. In place."""
    with training_state.explain_misfit(Path(model.save_dir) / STATE):
        training_state.restore_(model, Place(), state)
        speed.load_state_dict(state["speed"])
