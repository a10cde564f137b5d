"""Norms as ``test.py`` uses them, and norms that survive fp16.

Upstream tests in train mode: batch norm takes the statistics of the picture at hand, not the running
ones, and dropout stays random. An exported file is in evaluation mode, so batch norm has to become
something that computes the same there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from coronet_plugin.channels.cut import copy_with
from coronet_plugin.errors import OptionError

NORM_MODES = {
    "batch": "norms take the statistics of the picture, as test.py does",
    "running": "norms take the running statistics of training, as test.py --eval does",
}


def check_norm_mode(norm_mode: str) -> None:
    """Raises OptionError when there is no such mode."""
    if norm_mode not in NORM_MODES:
        raise OptionError(f"--norm_mode {norm_mode} is not known; choose one of {', '.join(NORM_MODES)}")


def replace_modules_(
    root: nn.Module,
    kind: type | tuple[type, ...],
    replace: Callable[..., nn.Module],
    done: dict[nn.Module, nn.Module] | None = None,
) -> nn.Module:
    """Put ``replace(module)`` in the place of every module of ``kind`` inside ``root``; gives the new root.

    A module that is used in several places stays one.
    """
    done = {} if done is None else done
    if root not in done and isinstance(root, kind):
        done[root] = replace(root)
    if root in done:
        return done[root]
    for name, child in list(root._modules.items()):  # named_children leaves out what it has named
        if child is not None:
            setattr(root, name, replace_modules_(child, kind, replace, done))
    return root


def reference(generator: nn.Module, norm_mode: str) -> nn.Module:
    """A copy that computes what ``test.py`` shows of one picture, without dropout.

    With ``running`` it is in evaluation mode; with ``batch`` in train mode but for dropout.
    """
    check_norm_mode(norm_mode)
    copied = copy_with(generator).train(norm_mode == "batch")
    for module in copied.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    return copied


def normalised(generator: nn.Module, norm_mode: str) -> nn.Module:
    """A copy in evaluation mode that computes the same as :func:`reference`, for one picture at a time.

    With ``batch``, batch norm and instance norm with running statistics become instance norm without, which
    has the same scale and shift: over one picture, batch statistics are the picture's statistics.
    """
    check_norm_mode(norm_mode)
    copied = copy_with(generator)
    if norm_mode == "batch":
        copied = replace_modules_(copied, (_BatchNorm, _InstanceNorm), _as_instance_norm)
    return copied.eval()


def _as_instance_norm(norm: nn.Module) -> nn.Module:
    assert isinstance(norm, (_BatchNorm, _InstanceNorm))
    new = nn.InstanceNorm2d(norm.num_features, eps=norm.eps, affine=norm.affine, track_running_stats=False)
    if norm.affine:
        new.weight, new.bias = norm.weight, norm.bias
    return new


# -- fp16 -----------------------------------------------------------------------
class _NormInFp32(nn.Module):
    """A norm in fp32 between fp16 layers.

    Sums over a picture, and squares beyond 255, leave fp16's range (65504).
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.float()).to(torch.float16)


class Fp16Generator(nn.Module):
    """Computes in fp16 but for its norms; takes and gives float32, (N, C, H, W). Whole numbers stay."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        output = self.generator(*(x.half() if x.is_floating_point() else x for x in inputs))
        return tuple(x.float() for x in output) if isinstance(output, tuple) else output.float()


def why_not_fp16() -> str:
    """Why this torch cannot calculate fp16 on the CPU, or nothing."""
    try:
        layers = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1))
        layers.half()(torch.zeros(1, 1, 2, 2, dtype=torch.float16))
    except RuntimeError as error:
        return f"torch {torch.__version__} cannot calculate fp16 on a CPU ({str(error).splitlines()[0]})"
    return ""


def in_fp16(generator: nn.Module, norms: tuple[type, ...] = (_BatchNorm, _InstanceNorm)) -> nn.Module:
    """A copy of ``generator`` that computes in fp16, except for modules of the types ``norms``."""
    halved = copy_with(generator).half()
    halved = replace_modules_(halved, norms, _NormInFp32)
    return Fp16Generator(halved).train(generator.training)
