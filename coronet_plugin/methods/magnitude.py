"""The baseline of size: plain training, then one cut by the L1 norm of coupled weights.

Li et al., ICLR 2017, arXiv 1608.08710; grouped and scored by Torch-Pruning (Fang et al., CVPR 2023,
arXiv 2301.12900).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from torch import nn

from coronet_plugin.channels.cut import copy_with, on_device
from coronet_plugin.channels.plan import ChannelPlan
from coronet_plugin.errors import OptionError, describe
from coronet_plugin.methods.base import Method, Task
from coronet_plugin.methods.registry import method


@method("magnitude", "L1 norms, one cut at the search's end; needs torch-pruning")
class Magnitude(Method):
    """Plain training and one cut by magnitude.

    Raises:
        OptionError: as :func:`magnitude` does, when it is made.
    """

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self.score()  # what cannot be scored is refused now, not after hours of training

    def score(self) -> np.ndarray:
        return magnitude(self.generator, self.plan, self.inputs)


def magnitude(generator: nn.Module, plan: ChannelPlan, example: tuple[Any, ...]) -> np.ndarray:
    """L1 norm of all weights of every unit, in units of the mean over its group: ``(units,)``.

    ``example``: inputs of the generator, on any device. The generator is left as it was.

    Raises:
        OptionError: Torch-Pruning is not installed, or cannot group this generator's channels.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise OptionError(
            "--coronet_method magnitude needs Torch-Pruning: pip install 'coronet-plugin[magnitude]'"
        ) from error
    try:
        return _magnitude(torch_pruning, generator, plan, example)
    except Exception as error:
        raise OptionError(
            f"torch-pruning cannot group the channels of {type(generator).__name__}: {describe(error)}; "
            "choose another --coronet_method"
        ) from error


def _magnitude(
    torch_pruning: ModuleType, generator: nn.Module, plan: ChannelPlan, example: tuple[Any, ...]
) -> np.ndarray:
    copied = copy_with(generator).eval().requires_grad_()  # a graph is followed, that of frozen layers too
    inputs = on_device(example, next(copied.parameters()).device)  # a host may have moved the generator
    graph = torch_pruning.DependencyGraph().build_dependency(copied, example_inputs=inputs)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1, normalizer="mean")
    score = np.zeros(plan.units + 1)  # the last entry gathers what is pinned
    for channel_set in plan.prunable:
        layer = copied.get_submodule(channel_set.producers[0])
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        group = graph.get_pruning_group(layer, prune, idxs=list(range(graph.get_out_channels(layer))))
        np.add.at(score, plan.units_of(channel_set), importance(group).double().cpu().numpy())
    return score[:-1]
