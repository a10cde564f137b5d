"""coronet_plugin: compress image-translation GANs while they train.

CoroNetGAN (Kumar et al., 2024, arXiv 2403.08261) for generators trained with
pytorch-CycleGAN-and-pix2pix, its forks, or any other training loop.
"""

from __future__ import annotations

from coronet_plugin._version import __version__
from coronet_plugin.channels.baking import bake_
from coronet_plugin.channels.cost import Cost
from coronet_plugin.channels.cut import masked, slim
from coronet_plugin.channels.find import cost_of, example_input, find_channels
from coronet_plugin.channels.plan import ChannelPlan, ChannelSet
from coronet_plugin.channels.proof import verify
from coronet_plugin.checkpoint.spec import Spec
from coronet_plugin.checkpoint.storage import load_generator
from coronet_plugin.compression import Compression
from coronet_plugin.errors import (
    BudgetError,
    CheckpointError,
    DataError,
    ExportError,
    OptionError,
    PlanError,
    UserError,
)

__all__ = [
    "BudgetError",
    "ChannelPlan",
    "ChannelSet",
    "CheckpointError",
    "Compression",
    "Cost",
    "DataError",
    "ExportError",
    "OptionError",
    "PlanError",
    "Spec",
    "UserError",
    "__version__",
    "bake_",
    "cost_of",
    "example_input",
    "find_channels",
    "load_generator",
    "masked",
    "slim",
    "verify",
]
