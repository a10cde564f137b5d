"""Show the same few pictures while a run trains: what its generators make of them, beside a dense run's.

Added to the visuals of the base model, so that they go wherever the host shows those: visdom, its page, or
what else it has. Training is not touched by it: weights, buffers, random numbers and the model's own
tensors are as before, and what goes wrong costs one line.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import default_collate

from coronet_plugin.distributed import say
from coronet_plugin.errors import CheckpointError, DataError
from coronet_plugin.runs.run import find_run
from coronet_plugin.training import data_set, host

PHASES = ("test", "val", "train")


class Watch:
    """Fixed inputs by generator, ``(N, C, H, W)``, and what a dense run makes of them; both made once.

    ``count``: how many pictures. ``dense_run``: name of a trained run in the same folder of runs, or nothing.
    """

    def __init__(self, model: Any, names: Sequence[str], count: int, dense_run: str = "") -> None:
        self.inputs: dict[str, Tensor] = {}
        self.dense: dict[str, Tensor] = {}
        if count < 1:
            return
        with _guarded("pictures to watch"), undisturbed(model):
            self.inputs = inputs_of(model, names, _first_pictures(model.opt, count))
        with _guarded(f"outputs of {dense_run}"), undisturbed(model):
            if dense_run:
                self.dense = _outputs_of(dense_run, str(model.opt.checkpoints_dir), self.inputs)

    def added(self, model: Any, visuals: Mapping[str, Any]) -> Mapping[str, Any]:
        """``visuals`` and, for every fixed input: itself, the dense run's output, and that of now."""
        found = type(visuals)(visuals) if isinstance(visuals, dict) else dict(visuals)
        with _guarded("pictures to watch", self.inputs), undisturbed(model):
            for name, images in self.inputs.items():
                outputs = _translated(host.unwrap(getattr(model, "net" + name)), images)
                for i in range(len(images)):
                    found[f"fixed{i + 1}_input_{name}"] = images[i : i + 1]
                    if name in self.dense:
                        found[f"fixed{i + 1}_dense_{name}"] = _shown(model, images, self.dense[name], i)
                    found[f"fixed{i + 1}_now_{name}"] = _shown(model, images, outputs, i)
        return found


def _shown(model: Any, images: Tensor, outputs: Tensor, i: int) -> Any:
    """The ``i``-th output; colours alone, which the model ``colorization`` gives, with their lightness."""
    one = slice(i, i + 1)
    if outputs.shape[1] == 2 and hasattr(model, "lab2rgb"):
        return model.lab2rgb(images[one], outputs[one])
    return outputs[one]


@contextlib.contextmanager
def _guarded(what: str, forget: dict[str, Tensor] | None = None) -> Iterator[None]:
    """Hosts and data sets fail in many ways; a training does not fail over what it shows."""
    try:
        yield
    except Exception as error:
        if forget is not None:
            forget.clear()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(f"coronet: warning: no {what} ({reason}); training goes on without")


@contextlib.contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Compute without gradients; random numbers, buffers and modes are put back at the end."""
    networks = host.networks(model).values()
    buffers = [(buffer, buffer.clone()) for network in networks for buffer in network.buffers()]
    modes = [(module, module.training) for network in networks for module in network.modules()]
    devices = range(torch.cuda.device_count())
    with host.same_random_numbers(), torch.random.fork_rng(devices), torch.no_grad():
        try:
            yield
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)
            for module, mode in modes:
                module.training = mode


def _translated(generator: nn.Module, images: Tensor) -> Tensor:
    """As test.py translates, but without dropout: one picture at a time, norms by its own statistics."""
    generator.train()
    for module in generator.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    return torch.cat([generator(image[None]) for image in images])


def _first_pictures(opt: Any, count: int) -> dict[str, Any]:
    """The first ``count`` samples of the test data, else of other phases, whole and not mirrored.

    Raises DataError if there are none, and what the host raises for training pictures that it cannot use.
    """
    failure: Exception = DataError(f"{opt.dataroot} has no pictures for {', '.join(PHASES)}")
    changed = whole_pictures(opt)
    for changed.phase in PHASES:
        try:
            dataset = data_set.make(changed)
            samples = [dataset[i] for i in range(min(count, len(dataset)))]
            if samples:
                return dict(default_collate(samples))
        except Exception as error:  # each host says in its own way that there is no such folder
            failure = error
    raise failure


def whole_pictures(opt: Any) -> Any:
    """A copy of the host's options with which its data sets give pictures whole, not mirrored, in order."""
    changed = copy.copy(opt)
    for crop, load in (("crop_size", "load_size"), ("fineSize", "loadSize")):
        if hasattr(opt, crop):
            setattr(changed, load, getattr(opt, crop))
    changed.no_flip = changed.serial_batches = True
    return changed


def inputs_of(model: Any, names: Sequence[str], samples: dict[str, Any]) -> dict[str, Tensor]:
    """Give each generator's part of ``samples`` when the model translates them, else what comes first.

    CycleGAN's second generator is first given what the first one makes, which is another thing in every run.
    """
    found: dict[str, Tensor] = {}
    pictures = [value for value in samples.values() if isinstance(value, Tensor)]

    def note(name: str) -> Any:
        def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            if name not in found or any(torch.equal(given[0].cpu(), picture) for picture in pictures):
                found[name] = given[0].detach().clone()

        return look

    hooks = [host.unwrap(getattr(model, f"net{n}")).register_forward_pre_hook(note(n)) for n in names]
    shadow = copy.copy(model)  # the same networks; what it is shown stays with it
    try:
        shadow.set_input(samples)
        shadow.forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _outputs_of(name: str, checkpoints_dir: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the inputs by the generators of a trained run. Raises CheckpointError if it has others."""
    run = find_run(name, checkpoints_dir)
    lacking = [generator for generator in inputs if generator not in run.weights]
    if lacking:
        raise CheckpointError(f"it has no net{lacking[0]}")
    return {
        generator: _translated(run.load_generator(generator).to(images.device), images)
        for generator, images in inputs.items()
    }
