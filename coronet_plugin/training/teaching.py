"""``--coronet_distill SELF|RUN`` and what goes with it: who teaches a host's generators, and how.

The mechanism is :mod:`coronet_plugin.methods.distillation`; here is what a host's options say, and how a run
becomes a teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.methods.distillation import SELF, Distillation
from coronet_plugin.methods.similarity import Terms
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.runs.options import read_options
from coronet_plugin.runs.run import find_weights
from coronet_plugin.settings import setting
from coronet_plugin.training import data_set, host

PAIRED, UNPAIRED = Terms(features=1.0), Terms(features=0.01, output=10.0)
"""GAN Compression's weights; of pairs the outputs are compared by the host, with the truth."""


@dataclass(frozen=True)
class Teaching:
    """Options of distillation, as the user gave them: every field is one."""

    distill: str = setting(
        "",
        "let generators also learn from a teacher, with any method: SELF for the dense generator as it was "
        "when the search began to narrow it, or a trained dense run, by its name in --checkpoints_dir or "
        "its folder (default: none)",
        metavar="SELF|RUN",
    )
    distill_weight: float | None = setting(
        None,
        "weight of the mean squared difference of features at each tap, after a learned 1x1 convolution "
        "(default: as in GAN Compression 1 with pairs, 0.01 without)",
        type=float,
        metavar="WEIGHT",
    )
    distill_output: float | None = setting(
        None,
        "weight of the mean absolute difference of the outputs (default: as in GAN Compression 10 without "
        "pairs, 0 with pairs, where the model compares with the truth)",
        type=float,
        metavar="WEIGHT",
    )
    distill_channels: float = setting(
        0.0,
        "weight of the mean squared difference of every channel's mean at each tap, as in OMGD, such as 50 "
        "(default: 0, none)",
        metavar="WEIGHT",
    )
    distill_ssim: float = setting(
        0.0,
        "weight of one less the structural similarity of the outputs, as in OMGD, such as 10 (default: 0, "
        "none)",
        metavar="WEIGHT",
    )
    distill_tv: float = setting(
        0.0,
        "weight of the total variation of the output, as in OMGD, such as 0.00001 (default: 0, none)",
        metavar="WEIGHT",
    )
    distill_taps: str = setting(
        "",
        "names of layers whose outputs are compared, separated by commas, such as model.9,model.18 "
        "(default: the family's, else four places of the widest-used stream of features)",
        metavar="LAYERS",
    )

    def __post_init__(self) -> None:
        if not self.distill:
            given = [name for name, value in vars(self).items() if value]
            if given:
                raise OptionError(f"--coronet_{given[0]} is for a teacher; name one with --coronet_distill")
        self.terms(paired=True)

    def terms(self, paired: bool) -> Terms:
        """Weights of the loss. Raises OptionError for one that is negative."""
        usual = PAIRED if paired else UNPAIRED
        weight, output = self.distill_weight, self.distill_output
        return Terms(
            features=usual.features if weight is None else weight,
            channels=self.distill_channels,
            output=usual.output if output is None else output,
            ssim=self.distill_ssim,
            tv=self.distill_tv,
        )

    def folder(self, opt: Any) -> Path | None:
        """The folder of the run that teaches; None if none does, or the generator itself."""
        if self.distill in ("", SELF):
            return None
        return folder_of(self.distill, opt)

    def companion(self, name: str, network: nn.Module, opt: Any) -> Distillation:
        """The teacher's part in the training of ``network``, the generator ``name`` of a host.

        Raises:
            OptionError: the run is of another architecture or direction.
            CheckpointError: there is no such run.
        """
        taps = tuple(tap.strip() for tap in self.distill_taps.split(",") if tap.strip())
        teacher = SELF if self.distill == SELF else teacher_of(self.distill, name, network, opt)
        return Distillation(teacher, self.terms(data_set.is_paired(opt)), taps)


def folder_of(run: str, opt: Any) -> Path:
    """The folder of a trained ``run``. Raises CheckpointError if there is none."""
    return next(iter(find_weights(run, opt.checkpoints_dir).values())).parent


def teacher_of(
    run: str, name: str, network: nn.Module, opt: Any, named: str = "distill", alike: bool = True
) -> nn.Module:
    """The generator ``name`` of the trained ``run``, for ``network`` to learn from.

    ``named``: the option that names it; ``alike``: it has to be of the same architecture.

    Raises:
        OptionError: it is of another architecture or direction, or the run has no such generator.
        CheckpointError: there is no such run.
    """
    try:
        path = find_weights(run, opt.checkpoints_dir, network=name)[name]
        found = read_generator(name, path)
    except UserError as error:
        raise type(error)(f"--coronet_{named} {run}: {str(error).replace('--network', 'net')}") from error
    theirs, mine = found.architecture, host.architecture(network, opt)
    kind = mine.get("netG", mine.get("class"))
    if alike and theirs["netG"] != kind:
        raise OptionError(
            f"--coronet_{named} {run}: the teacher is a {theirs['netG']}, the generator a {kind}; give a run "
            "of the same --netG"
        )
    options = read_options(path.parent)
    for option in ("direction", "which_direction"):
        direction = str(host.option(opt, option, default=""))
        if direction and options.text(option, direction) != direction:
            raise OptionError(
                f"--coronet_{named} {run}: the teacher translates {options.text(option, '')}, the generator "
                f"{direction}; give a run of the same --{option}"
            )
    return found.generator
