"""The ``--coronet_*`` options of the model type, read once into a :class:`Settings`."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coronet_plugin import host
from coronet_plugin.budget import KINDS
from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.files import settle
from coronet_plugin.goal import SCHEDULES, STEADY
from coronet_plugin.latency import RUNTIMES
from coronet_plugin.numerics import ON_NAN, STOP
from coronet_plugin.search import CORONET, FORMS, IMPLICIT, METHODS, NONE, form_named
from coronet_plugin.search.implicit import AFTERWARDS, DROP, Rates
from coronet_plugin.spec import Spec

REMEMBERED = (
    *("netG", "ngf", "norm", "no_dropout", "input_nc", "output_nc", "direction", "dataset_mode"),
    *("crop_size", "load_size", "preprocess"),
    *("which_model_netG", "which_direction", "fineSize", "loadSize", "resize_or_crop"),  # until 2019
    *("normG", "no_antialias", "no_antialias_up"),  # CUT
)
"""Host options kept in the spec, so that testing needs no option of the training again."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every ``--coronet_*`` option; each help text gives unit, default and effect."""
    group = parser.add_argument_group("coronet: compress the generators while they train")
    group.add_argument(
        "--coronet_base",
        default="cycle_gan",
        help="model type to compress, as --model takes it (default: %(default)s); "
        "when testing, the default is the one the run was trained with",
    )
    group.add_argument(
        "--coronet_networks",
        default="",
        help="comma-separated networks to compress, such as G_A (default: all whose name begins with G)",
    )
    group.add_argument(
        "--coronet_budget",
        default="0.1",
        help="what each generator may cost in the end: a fraction of the dense generator (0.1), a count "
        "(2.6G, 350k), or a time (20ms), at --crop_size (default: %(default)s); 1.0 trains the base model "
        "itself, bit for bit",
    )
    group.add_argument(
        "--coronet_budget_kind",
        default="macs",
        choices=KINDS,
        help="what the budget is about: true multiply-adds, parameters, or the time of one image on "
        "one thread of this machine's CPU, measured once per layer (default: %(default)s)",
    )
    group.add_argument(
        "--coronet_latency_runtime",
        default="torch",
        choices=sorted(RUNTIMES),
        help="what the time is measured in: PyTorch or ONNX Runtime (default: %(default)s)",
    )
    group.add_argument(
        "--coronet_shared_budget",
        action="store_true",
        help="one budget for what all generators cost together, for which their channels compete "
        "(default: one each)",
    )
    group.add_argument(
        "--coronet_round_to",
        type=int,
        default=1,
        metavar="CHANNELS",
        help="make every width a multiple of so many channels, within the budget (default: %(default)s)",
    )
    group.add_argument(
        "--coronet_widths_from",
        default="",
        metavar="SPEC",
        help="end with the widths of another run instead of a budget: its latest_net_G.json, or its folder "
        "(default: none)",
    )
    group.add_argument(
        "--coronet_search_epochs",
        type=float,
        default=None,
        help="epochs until the budget is met, may be fractional; forms with a lossless cut remove channels "
        "on the way, the others at the end (default: half of all epochs)",
    )
    group.add_argument(
        "--coronet_schedule",
        default=None,
        choices=[*SCHEDULES, STEADY],
        help="how the cost falls during the search: 'cubic' (fast at first), 'linear' or 'exponential' (by "
        "equal factors); 'steady' shrinks generated weights' latents by equal amounts, however it falls "
        "(default: cubic, steady for published and folded)",
    )
    group.add_argument(
        "--coronet_method",
        default=CORONET,
        choices=METHODS,
        help="'coronet', or what to compare it with at the same budget: 'uniform' (narrow from the first "
        "step), 'random' (chance decides which channels go), 'magnitude' (L1 norms, one cut at the search's "
        "end; needs torch-pruning) (default: %(default)s)",
    )
    group.add_argument(
        "--coronet_hypernetwork",
        default=NONE,
        type=form_named,
        choices=FORMS,
        help="form of the hypernetwork: 'none' (no cost, no loss at the cut), 'implicit' (the same, and "
        "every connection's steps are multiplied by a number of its own, as the published form's are; goes "
        "with every --coronet_method, and with --coronet_budget 1.0), 'gated' (the published map behind "
        "gates that close without a loss), 'published' (three layers, about 11 numbers per weight) or "
        "'folded' (the published map multiplied out, about 2 per weight) "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--coronet_rate",
        type=float,
        default=None,
        metavar="FACTOR",
        help="mean of the multipliers of the implicit hypernetwork: 1 keeps the learning rate and only "
        "spreads it over the connections (default: what the published map gives, about 5)",
    )
    group.add_argument(
        "--coronet_rate_after",
        default=DROP,
        choices=AFTERWARDS,
        help="what becomes of those multipliers after --coronet_search_epochs: 'drop' to one at once, "
        "'keep', or 'fade' to one over as many epochs again (default: %(default)s)",
    )
    group.add_argument(
        "--coronet_init_from",
        default="",
        metavar="PATH",
        help="weights of a trained dense run to begin with instead of random ones: a file such as "
        "checkpoints/RUN/latest_net_G.pth or the run's folder; other networks' files beside it are taken "
        "too (default: none)",
    )
    group.add_argument(
        "--coronet_qat",
        type=float,
        default=0.0,
        metavar="EPOCHS",
        help="train the small generators for int8 in the last so many epochs, may be fractional: weights and "
        "activations of convolutions are rounded as an int8 file rounds them (default: 0, not at all)",
    )
    group.add_argument(
        "--coronet_embedding",
        type=int,
        default=8,
        help="embedding size of the hypernetworks published, gated and implicit (default: %(default)s)",
    )
    group.add_argument(
        "--coronet_watch",
        type=int,
        default=2,
        metavar="PICTURES",
        help="show what becomes of so many fixed pictures, the first of the test data, wherever the host "
        "shows its images while training; 0 for none (default: %(default)s)",
    )
    group.add_argument(
        "--coronet_compare_to",
        default="",
        metavar="RUN",
        help="name of a trained dense run in --checkpoints_dir whose outputs of the same pictures are shown "
        "beside them (default: none)",
    )
    group.add_argument(
        "--coronet_on_nan",
        default=STOP,
        choices=ON_NAN,
        help="what to do when a loss or a weight is no finite number: 'stop', or 'rollback' to the last save "
        "and go on with other batches, at most three times in a row; what was saved is kept either way "
        "(default: %(default)s)",
    )


@dataclass(frozen=True)
class Settings:
    """What the user asked of the model type."""

    base: str
    networks: str
    budget: str
    kind: str
    runtime: str
    shared_budget: bool
    round_to: int
    widths_from: str
    search_epochs: float
    schedule: str
    method: str
    hypernetwork: str
    rates: Rates
    embedding: int
    init_from: str
    on_nan: str
    qat_epochs: float

    @property
    def goal(self) -> str:
        """What the generators are to cost, in words."""
        if self.widths_from:
            return f"widths of {self.widths_from}"
        return f"{'shared ' * self.shared_budget}budget {self.budget} ({self.kind})"

    @classmethod
    def of(cls, opt: Any) -> Settings:
        """Read and check the options.

        Raises:
            OptionError: a value is out of range, or the search would outlast the training.
        """
        epochs = host.total_epochs(opt)
        search = opt.coronet_search_epochs
        search = epochs / 2 if search is None else search
        if opt.isTrain and not 0 < search <= epochs:
            raise OptionError(
                f"--coronet_search_epochs {search:g} must be above 0 and at most the {epochs} epochs of the "
                "training, or the generator never gets small"
            )
        if opt.coronet_shared_budget and opt.coronet_widths_from:
            raise OptionError("--coronet_widths_from leaves no budget to share; drop --coronet_shared_budget")
        if opt.isTrain and not 0 <= opt.coronet_qat <= epochs - search:
            raise OptionError(
                f"--coronet_qat {opt.coronet_qat:g} must be at least 0 and at most {epochs - search:g}, what "
                "is left of the training after the search: only small generators are trained for int8"
            )
        rated = opt.coronet_rate is not None or opt.coronet_rate_after != DROP
        if rated and opt.coronet_hypernetwork != IMPLICIT:
            raise OptionError(
                f"--coronet_rate and --coronet_rate_after are of --coronet_hypernetwork {IMPLICIT}, not of "
                f"{opt.coronet_hypernetwork}; choose that, or leave them out"
            )
        if opt.coronet_embedding < 1:
            raise OptionError(f"--coronet_embedding must be at least 1, not {opt.coronet_embedding}")
        return cls(
            base=opt.coronet_base,
            networks=opt.coronet_networks,
            budget=opt.coronet_budget,
            kind=opt.coronet_budget_kind,
            runtime=opt.coronet_latency_runtime,
            shared_budget=opt.coronet_shared_budget,
            round_to=opt.coronet_round_to,
            widths_from=opt.coronet_widths_from,
            search_epochs=search,
            schedule=opt.coronet_schedule or "",
            method=opt.coronet_method,
            hypernetwork=opt.coronet_hypernetwork,
            rates=Rates(mean=opt.coronet_rate, after=opt.coronet_rate_after),
            embedding=opt.coronet_embedding,
            init_from=opt.coronet_init_from,
            on_nan=opt.coronet_on_nan,
            qat_epochs=opt.coronet_qat,
        )


def remember(opt: Any) -> dict[str, Any]:
    """The host options a spec keeps."""
    kept = {name: getattr(opt, name) for name in REMEMBERED if hasattr(opt, name)}
    return {"coronet_base": opt.coronet_base, **kept}


def recall(parser: argparse.ArgumentParser) -> Spec | None:
    """The spec of the run that is about to be tested, if there is one."""
    known, _ = parser.parse_known_args()
    iteration = int(host.option(known, "load_iter", default=0))
    epoch = f"iter_{iteration}" if iteration else host.option(known, "epoch", "which_epoch", default="latest")
    folder = Path(os.path.join(known.checkpoints_dir, known.name))
    if folder.is_dir():
        settle(folder)
    for path in sorted(folder.glob(f"{epoch}_net_G*.json")):
        try:
            return Spec.read(path)
        except UserError:  # said clearly when the weights are loaded
            return None
    return None
