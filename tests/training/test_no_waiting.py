"""A step waits for no accelerator: nothing is read back from the device but in rounds.

Tensors on the device ``meta`` stand for an accelerator's. They have no values, so that whatever reads one is
found out, while shapes are computed as ever; in rounds random numbers are read instead. Where there is a GPU,
CUDA itself says the same of it.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
import torch
from conftest import TINY, gpu_ids, paired_folder, unpaired_folder
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from coronet_plugin import Compression
from coronet_plugin.methods import teacher
from coronet_plugin.methods.base import Method
from coronet_plugin.methods.gates import Gates
from coronet_plugin.methods.taylor import Taylor
from coronet_plugin.training import numerics
from coronet_plugin.training.collapse import CollapseWatch
from coronet_plugin.training.qat import Range

aten = torch.ops.aten
STEPS = 12
ROUNDS = (
    (Gates, "score"),  # some fifty times in a search
    (Taylor, "score"),  # once
    (numerics, "bad_loss"),  # every ten steps
    (CollapseWatch, "_look"),  # every 25 runs of a generator
    (teacher, "_fingerprint"),  # once
)
needs_swapping = pytest.mark.skipif(not hasattr(torch.utils, "swap_tensors"), reason="torch before 2.3")


class Accelerator(TorchDispatchMode):
    """Fails on every value that is read from the device, but for those in a round, which it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.round = ""
        self.reads: Counter[str] = Counter()
        self.sent: Counter[torch.Size] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor) and x.is_meta]
        if func is aten._local_scalar_dense.default and there:
            return self.read(func, 0.5)
        if func is aten._to_copy.default and kwargs.get("device") is not None:
            if args[0].is_meta and torch.device(kwargs["device"]).type == "cpu":
                return self.read(func, torch.rand(args[0].shape).to(kwargs.get("dtype") or args[0].dtype))
            self.sent[args[0].shape] += not args[0].is_meta
        if func is aten.copy_.default and args[1].is_meta and not args[0].is_meta:
            return self.read(func, args[0])
        return func(*args, **kwargs)

    def read(self, func, instead):
        assert self.round, f"{func} reads from the device in a step"
        self.reads[self.round] += 1
        return instead

    def allow(self, patched: pytest.MonkeyPatch, owner, name: str) -> None:
        """Let ``name`` of ``owner`` be a round."""
        act = getattr(owner, name)

        def acting(*args, **kwargs):
            before, self.round = self.round, name
            try:
                return act(*args, **kwargs)
            finally:
                self.round = before

        patched.setattr(owner, name, acting)


def move_(network: nn.Module) -> None:
    """To the device; parameters stay the objects that optimizers know."""
    for module in network.modules():
        for place in (module._parameters, module._buffers):
            for name, tensor in place.items():
                if isinstance(tensor, nn.Parameter):
                    torch.utils.swap_tensors(
                        tensor, nn.Parameter(tensor.detach().to("meta"), tensor.requires_grad)
                    )
                elif tensor is not None:
                    place[name] = tensor.to("meta")


@contextlib.contextmanager
def accelerated(monkeypatch):
    with Accelerator() as accelerator:
        for owner, name in ROUNDS:
            accelerator.allow(monkeypatch, owner, name)
        yield accelerator


def model_there(base: str, folder, tmp_path, *options, device="cpu"):
    from models import create_model
    from options.train_options import TrainOptions

    words = ["--dataroot", folder, "--name", "run", "--checkpoints_dir", tmp_path / "c", "--model", "coronet"]
    words += ["--coronet_base", base, "--coronet_budget", 0.5, "--coronet_watch", 0, "--display_id", -1]
    words += [
        "--n_epochs",
        STEPS // 2,
        "--max_dataset_size",
        2,
        "--n_epochs_decay",
        0,
        *TINY,
        "--ngf",
        8,
        *gpu_ids(device),
        *options,
    ]
    opt = TrainOptions().parse([str(word) for word in words])
    model = create_model(opt)
    model.setup(opt)
    return model


def model_of(base: str, folder, tmp_path, *options):
    model = model_there(base, folder, tmp_path, *options)
    for name in model.model_names:
        move_(getattr(model, "net" + name))
    for compression in model.compressions.values():
        compression.refresh_()
    model.criterionGAN.to("meta")
    model.device = torch.device("meta")
    return model


CASES = {
    "pix2pix, default, averaged": ("pix2pix", "--coronet_average", 0.9),
    "pix2pix, taught by itself": ("pix2pix", "--coronet_distill", "SELF"),
    "cycle_gan, implicit": ("cycle_gan", "--coronet_method", "implicit"),
    "pix2pix, gated": ("pix2pix", "--coronet_method", "gated"),
    "pix2pix, cut at the end": ("pix2pix", "--coronet_method", "taylor", "--coronet_taylor_batches", 4),
}


@needs_swapping
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_steps_read_nothing_from_the_device_outside_rounds(case, tmp_path, monkeypatch, capsys):
    base, *options = case
    folder = (paired_folder if base == "pix2pix" else unpaired_folder)(tmp_path)
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: contextlib.nullcontext()
    )  # of "meta" there is none
    batch = {"A": torch.rand(1, 3, 32, 32), "B": torch.rand(1, 3, 32, 32), "A_paths": [""], "B_paths": [""]}
    with accelerated(monkeypatch) as accelerator:
        model = model_of(base, folder, tmp_path, *options)
        for compression in model.compressions.values():
            compression.gradual = "gated" not in options  # its map cannot be made smaller without values
        for _ in range(STEPS):
            model.set_input(batch)
            model.optimize_parameters()
    assert "is slim after" in capsys.readouterr().out
    assert accelerator.reads["bad_loss"] == STEPS // 10  # once for all losses, every ten steps


def may_wait(patched: pytest.MonkeyPatch, owner, name: str) -> None:
    """Let CUDA be waited for while ``name`` of ``owner`` runs."""
    act = getattr(owner, name)

    def acting(*args, **kwargs):
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return act(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    patched.setattr(owner, name, acting)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [(), ("--amp", "bf16", "--fused", "--channels_last")], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_steps_on_a_gpu_wait_for_it_in_rounds_alone(case, options, tmp_path, monkeypatch, capsys):
    base, *own = case
    folder = (paired_folder if base == "pix2pix" else unpaired_folder)(tmp_path)
    model = model_there(base, folder, tmp_path, *own, *options, device="cuda")
    for owner, name in (*ROUNDS, (Compression, "remove_"), (Compression, "slim")):
        may_wait(monkeypatch, owner, name)
    pictures = {side: torch.rand(1, 3, 32, 32).pin_memory() for side in "AB"}
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(STEPS):
            model.set_input({**pictures, "A_paths": [""], "B_paths": [""]})
            model.optimize_parameters()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert "is slim after" in capsys.readouterr().out


@needs_swapping
def test_the_accelerator_of_these_tests_is_found_out(monkeypatch):
    weight = torch.zeros(3, device="meta")
    with accelerated(monkeypatch):
        copying = torch.zeros(3).copy_
        for read in (
            lambda: weight.sum().item(),
            lambda: bool(weight.any()),
            weight.cpu,
            weight.tolist,
            lambda: copying(weight),
        ):
            with pytest.raises(AssertionError, match="reads from the device"):
                read()
        with pytest.raises((AssertionError, NotImplementedError)):
            weight[weight > 0]


def test_gates_move_by_one_small_copy_and_indices_stay_on_the_device(monkeypatch):
    from training_helpers import small

    generator = small()
    compression = Compression(generator, torch.zeros(1, 3, 32, 32), search_steps=20, budget=0.3)
    method = compression.method
    assert isinstance(method, Method) and isinstance(method, Gates)
    move_(generator)
    with accelerated(monkeypatch) as accelerator:
        method._shrinkage[:3] = 0.1
        method.after_step(1)  # no round yet
        assert accelerator.sent == {
            (compression.plan.units + 1,): 1,
            (sum(len(u) for *_, u in method._readers),): 1,
        }
        method.after_step(1)
        assert accelerator.sent[compression.plan.units + 1,] == 2 and len(accelerator.sent) == 2


def test_frozen_ranges_of_int8_are_not_asked_whether_they_saw_anything(monkeypatch):
    seen = Range(torch.device("cpu"))
    assert torch.equal(seen(torch.ones(2), False), torch.ones(2))  # nothing yet: as it is
    seen(torch.tensor([0.0, 2.0], requires_grad=True), True)
    seen.frozen = True
    monkeypatch.setattr(torch, "isfinite", lambda _: pytest.fail("read"))
    x = torch.rand(2, requires_grad=True)
    assert not torch.equal(seen(x, True), x)
