"""Upstream's ``--model test``, one generator on pictures without partners, for slim runs as well.

A slim generator has a spec beside its weights. By it the options of the run become defaults, and the host's
generator is made as small before it is loaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from coronet_plugin.checkpoint.spec import Spec, spec_path
from coronet_plugin.checkpoint.storage import load_into
from coronet_plugin.errors import OptionError
from coronet_plugin.training import host
from coronet_plugin.training.options import for_testing, recall, saved_specs

SINGLE = "single"
"""The data set of pictures without partners."""
_NOT_OF_ONE = ("direction", "dataset_mode")
"""Options of a training that say nothing of a generator alone: it takes pictures as they come."""


class SlimTesting:
    """Mixed in front of a host's model type ``test``."""

    isTrain: bool
    save_dir: str

    def setup(self, opt: Any, *args: Any, **kwargs: Any) -> Any:
        """As the host does it; but a generator with a spec beside its weights is loaded here."""
        epoch = host.epoch_name(opt)
        files = {name: Path(self.save_dir, f"{epoch}_net_{name}.pth") for name in host.networks(self)}  # type: ignore[arg-type]
        if self.isTrain or not any(spec_path(file).is_file() for file in files.values()):
            return super().setup(opt, *args, **kwargs)  # type: ignore[misc]
        with host.without_loading(self, opt):
            result = super().setup(opt, *args, **kwargs)  # type: ignore[misc]
        for name, network in host.networks(self).items():  # type: ignore[arg-type]
            host.forget_statistics_(network)
            load_into(network, files[name], Spec.read(spec_path(files[name])))
            millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
            print(f"loading the model from {files[name]}, which is slim: {millions:.3f} M parameters")
        return result


def test_model(base: type) -> type:
    """The host's model type ``test``, for slim runs as well."""
    if issubclass(base, SlimTesting):
        return base

    def modify_commandline_options(parser: argparse.ArgumentParser, is_train: bool = True) -> Any:
        parser = base.modify_commandline_options(parser, is_train)  # type: ignore[attr-defined]
        recall_one(parser)
        return parser

    members = {
        "modify_commandline_options": staticmethod(modify_commandline_options),
        "__doc__": base.__doc__,
    }
    return type("TestModel", (SlimTesting, base), members)


def recall_one(parser: argparse.ArgumentParser) -> None:
    """Let the options of the generator ``--model_suffix`` names be defaults, if it has a spec."""
    known, _ = parser.parse_known_args()
    spec = recall(parser, f"G{known.model_suffix}")
    if spec is None:
        return
    kept = {key: value for key, value in for_testing(spec).items() if key not in _NOT_OF_ONE}
    # G_B of a CycleGAN goes from the one to the other
    kept |= {key: spec.architecture[key] for key in ("input_nc", "output_nc") if key in spec.architecture}
    parser.set_defaults(**kept)


def take_singles(parser: argparse.ArgumentParser, spec: Spec) -> bool:
    """Whether pictures without partners are tested of a run that was trained otherwise; then by ``test``.

    Raises OptionError if another base is asked for.
    """
    known, _ = parser.parse_known_args()
    if known.dataset_mode != SINGLE or spec.options.get("dataset_mode") == SINGLE:
        return False
    parser.set_defaults(coronet_base=host.TEST)
    base = parser.parse_known_args()[0].coronet_base
    if base != host.TEST:
        raise OptionError(
            f"--dataset_mode {SINGLE} gives pictures without partners, which --coronet_base {base} cannot "
            "take; leave --coronet_base out"
        )
    return True


def name_the_first(parser: argparse.ArgumentParser) -> None:
    """Let the run's first generator be tested where none is named: of a CycleGAN ``G_A``."""
    names = list(saved_specs(parser))
    if "G" not in names:
        parser.set_defaults(model_suffix=names[0][len("G") :])
