"""A frozen generator whose outputs and features are looked at, and what its student must share with it."""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from coronet_plugin.channels.cut import copy_with, on_device
from coronet_plugin.channels.facts import tensors_in
from coronet_plugin.errors import OptionError, describe
from coronet_plugin.settings import setting


class Teacher:
    """A frozen generator: ``teacher(inputs)`` gives its output and the features of ``taps`` by name.

    It is run as :func:`look_at` says. The ``module`` is kept, and not trained any more.

    Raises:
        OptionError: it lacks one of the taps.
    """

    def __init__(self, module: nn.Module, taps: Sequence[str]) -> None:
        self.module = module.requires_grad_(False)
        self.taps = tuple(taps)
        self.fingerprint = _fingerprint(module)
        """A number that differs between teachers."""
        for name in self.taps:
            try:
                module.get_submodule(name)
            except AttributeError as error:
                raise OptionError(
                    f"the teacher {type(module).__name__} has no layer {name!r} to compare; give one of the "
                    "student's architecture"
                ) from error

    def __call__(self, inputs: tuple[Any, ...]) -> tuple[Any, dict[str, Tensor]]:
        first = next(tensors_in(inputs))
        if next(self.module.parameters()).device != first.device:
            self.module.to(first.device)
        return look_at(self.module, inputs, self.taps)

    def tensors(self) -> dict[str, Tensor]:
        """Its state, on the CPU."""
        return {name: tensor.detach().cpu() for name, tensor in self.module.state_dict().items()}


@torch.no_grad()
def look_at(module: nn.Module, inputs: tuple[Any, ...], taps: Sequence[str]) -> tuple[Any, dict[str, Tensor]]:
    """The output of ``module`` and the features of ``taps``, without gradients.

    Norms go by the statistics of the batch, as in training; whatever else a mode changes (dropout) is off.
    Random state, buffers and modes are left as they are.
    """
    modes = [(each, each.training, getattr(each, "track_running_stats", None)) for each in module.modules()]
    devices = [x.device for x in tensors_in(inputs) if x.is_cuda][:1]
    try:
        for each in module.eval().modules():
            if isinstance(each, _NormBase):
                each.training, each.track_running_stats = True, False
        with torch.random.fork_rng(devices), features_of(module, taps) as features:
            return module(*inputs), features
    finally:
        for each, training, tracking in modes:
            each.training = training
            if isinstance(each, _NormBase):
                each.track_running_stats = bool(tracking)


@contextlib.contextmanager
def features_of(module: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While this lasts, what ``taps`` put out when ``module`` runs is kept in the dictionary this gives."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: found.update({name: output})

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in taps]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def matching_widths(
    teacher: nn.Module, taps: Sequence[str], generator: nn.Module, inputs: tuple[Any, ...]
) -> dict[str, int]:
    """Channels of the teacher's features by tap, for a ``generator`` that is run on ``inputs``.

    Raises:
        OptionError: a teacher that is not run on the same, or that gives other shapes.
    """
    kind = type(teacher).__name__
    given = on_device(inputs, "cpu")
    student = Teacher(copy_with(generator).cpu(), taps)
    judged = Teacher(copy_with(teacher).cpu(), taps)
    try:
        output, features = judged(given)
    except Exception as error:
        raise OptionError(
            f"the teacher {kind} does not run on what the generator takes ({describe(error)}); give one of "
            "its architecture and direction"
        ) from error
    expected, mine = student(given)
    for what, theirs, own in (
        *zip(itertools.repeat("output"), tensors_in(output), tensors_in(expected)),
        *((f"features of {name}", features.get(name), mine.get(name)) for name in taps),
    ):
        found, wanted = _shape(theirs), _shape(own)
        same = found == wanted if what == "output" else found[2:] == wanted[2:] and len(found) == 4
        if not same:
            raise OptionError(
                f"the teacher {kind} gives {what} of shape {found} where the generator gives {wanted}; give "
                "one of its architecture and direction, and taps that are feature maps (N, C, H, W)"
            )
    return {name: features[name].shape[1] for name in taps}


def _fingerprint(module: nn.Module) -> int:
    number = 0
    for tensor in module.state_dict().values():
        number = zlib.crc32(tensor.detach().float().cpu().contiguous().numpy().tobytes(), number)
    return number


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def check_alike(teacher: nn.Module, generator: nn.Module, why: str) -> None:
    """Raises OptionError for a teacher whose weights the generator cannot have; ``why`` it should."""
    shapes = [{k: x.shape for k, x in net.state_dict().items()} for net in (teacher, generator)]
    if shapes[0] != shapes[1]:
        raise OptionError(
            f"{why} the teacher's weights, and the teacher is of another architecture or width than the "
            "generator; give one like it"
        )


def teacher_setting() -> Any:
    """The setting ``teacher`` of all methods that have it."""
    return setting(
        "",
        "name of a trained dense run to learn from; its discriminators are begun with, too (default: none, "
        "the dense generator is trained first, in the same run)",
        metavar="RUN",
    )


def teacher_part_setting() -> Any:
    """The setting ``teacher_part`` of all methods that have it."""
    return setting(1.0, "share of the training for a teacher, where none is given")
