"""coronet_plugin: compress image-translation GANs while they train.

CoroNetGAN (Kumar et al., 2024, arXiv 2403.08261) for generators trained with
pytorch-CycleGAN-and-pix2pix, its forks, or any other training loop.
"""

from __future__ import annotations

from coronet_plugin._version import __version__
from coronet_plugin.channels import ChannelPlan, ChannelSet, example_input, find_channels
from coronet_plugin.checkpoint import load_generator
from coronet_plugin.compression import Compression
from coronet_plugin.cost import Cost, cost_of
from coronet_plugin.errors import (
    BudgetError,
    CheckpointError,
    DataError,
    OptionError,
    PlanError,
    UserError,
)
from coronet_plugin.spec import Spec

__all__ = [
    "BudgetError",
    "ChannelPlan",
    "ChannelSet",
    "CheckpointError",
    "Compression",
    "Cost",
    "DataError",
    "OptionError",
    "PlanError",
    "Spec",
    "UserError",
    "__version__",
    "cost_of",
    "example_input",
    "find_channels",
    "load_generator",
]
