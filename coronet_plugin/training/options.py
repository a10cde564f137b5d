"""The ``--coronet_*`` options of the model type, read once into a :class:`TrainingOptions`.

What concerns one method alone is a setting of that method (:mod:`coronet_plugin.methods`).
"""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coronet_plugin.budget.budget import KINDS, LATENCY, Budget
from coronet_plugin.budget.goal import SCHEDULES, STEADY
from coronet_plugin.budget.latency_meter import RUNTIMES
from coronet_plugin.channels.find import EXACT, SETS
from coronet_plugin.checkpoint.spec import Spec
from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.files import settle
from coronet_plugin.generators.extension import add_family_option
from coronet_plugin.methods import registry
from coronet_plugin.methods.gan_compression import CYCLE_GAN, PIX2PIX
from coronet_plugin.settings import PREFIX, add_options, setting, settings_of, values_of
from coronet_plugin.training import data_set, host
from coronet_plugin.training.numerics import ON_NAN, STOP
from coronet_plugin.training.speed import SpeedOptions
from coronet_plugin.training.teaching import Teaching

REMEMBERED = (
    *("netG", "ngf", "norm", "no_dropout", "input_nc", "output_nc", "direction", "dataset_mode"),
    *("crop_size", "load_size", "preprocess", "bit_depth"),
    *("which_model_netG", "which_direction", "fineSize", "loadSize", "resize_or_crop"),  # until 2019
    *("normG", "no_antialias", "no_antialias_up"),  # CUT
)
"""Host options kept in the spec, so that testing needs no option of the training again."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the model type: every field is one, ``config`` the method's own ones."""

    base: str = setting(
        "cycle_gan",
        "model type to compress, as --model takes it (default: %(default)s); "
        "when testing, the default is the one the run was trained with",
    )
    networks: str = setting(
        "",
        "comma-separated networks to compress, such as G_A, or G,D with the method 'manifold', which prunes "
        "discriminators too (default: all whose name begins with G)",
    )
    budget: str = setting(
        "0.1",
        "what each generator may cost in the end: a fraction of the dense generator (0.1, at most 1), a "
        "count (2.6G, 350k, or a whole number from 1000), or a time (20ms), at --crop_size (default: "
        "%(default)s); 1.0 trains the base model itself, bit for bit",
    )
    budget_kind: str = setting(
        "macs",
        "what the budget is about: true multiply-adds, parameters, or the time of one image on "
        "one thread of this machine's CPU, for which whole candidates are timed (default: %(default)s)",
        choices=KINDS,
    )
    latency_runtime: str = setting(
        "torch",
        "what the time is measured in: PyTorch, ONNX Runtime or another runtime that is installed here "
        "(default: %(default)s)",
        choices=RUNTIMES,
    )
    latency_table: str = setting(
        "",
        "times from the device the generators are for, instead of this machine's: a file that 'coronet bench "
        "--table' or the script of 'coronet bench --table_kit' wrote there (default: none)",
        metavar="FILE",
    )
    shared_budget: bool = setting(
        False,
        "one budget for what all generators cost together, for which their channels compete "
        "(default: one each)",
    )
    round_to: int | None = setting(
        None,
        "make every width a multiple of so many channels, within the budget (default: 1; with a latency "
        "budget 8, which suits the runtimes, and less in narrow layers)",
        type=int,
        metavar="CHANNELS",
    )
    widths_from: str = setting(
        "",
        "end with the widths of another run instead of a budget: its latest_net_G.json, or its folder "
        "(default: none)",
        metavar="SPEC",
    )
    search_epochs: float | None = setting(
        None,
        "epochs until the budget is met, may be fractional; methods without loss remove channels on the way, "
        "the others at the end (default: a quarter of all epochs with gates, half with most others; of a "
        "continued run what it began with)",
        type=float,
    )
    schedule: str | None = setting(
        None,
        "how the cost falls during the search: 'cubic' (fast at first), 'linear' or 'exponential' (by "
        "equal factors); 'steady' shrinks generated weights' latents by equal amounts, however it falls "
        "(default: the method's)",
        type=str,
        choices=[*SCHEDULES, STEADY],
    )
    prune_frozen: bool = setting(
        False,
        "remove channels of frozen layers (requires_grad off), too; not with generated weights "
        "(default: what a frozen layer makes or reads stays whole)",
    )
    sets: str = setting(
        EXACT,
        "which channels may go: 'exact' (removing them changes nothing) or 'approximate' (also those that "
        "the code mixes, by a mean over channels for example; the change is measured at the cut, printed and "
        "written into the spec) (default: %(default)s)",
        choices=SETS,
    )
    init_from: str = setting(
        "",
        "weights of a trained dense run to begin with instead of random ones: a file such as "
        "checkpoints/RUN/latest_net_G.pth (or .safetensors) or the run's folder; other networks' files "
        "beside it are taken too (default: none)",
        metavar="PATH",
    )
    qat: float = setting(
        0.0,
        "train the small generators for int8 in the last so many epochs, may be fractional: weights and "
        "activations of convolutions are rounded as an int8 file rounds them (default: 0, not at all)",
        metavar="EPOCHS",
    )
    multipliers: float = setting(
        0.0,
        "multiply the generators' steps during the search by numbers of this mean, as the method 'implicit' "
        "does, with another method, such as 5.4 with 'uniform' (default: 0, not at all)",
        metavar="MEAN",
    )
    average: float = setting(
        0.0,
        "also keep an exponential moving average of the generators' weights, such as 0.999 (about the "
        "last 1000 steps) or 0.99 for a short training; it is saved beside the weights, and used with "
        "--epoch latest_average when testing (default: 0, none)",
        metavar="DECAY",
    )
    lr_factor: float = setting(
        1.0,
        "multiply the learning rate of the generators, and of whatever else their optimizer trains, by "
        "this; discriminators keep --lr, and schedules work as ever (default: %(default)s)",
        metavar="FACTOR",
    )
    angle: float = setting(
        0.0,
        "make every step of a generator's layer so long, in units of its weight (both by their norms), such "
        "as 0.025, times --coronet_lr_factor; --lr then is for biases, norms and discriminators alone, and "
        "schedules work as ever (default: 0, as long as the optimizer makes it)",
        metavar="FRACTION",
    )
    watch: int = setting(
        2,
        "show what becomes of so many fixed pictures, the first of the test data, wherever the host "
        "shows its images while training; 0 for none (default: %(default)s)",
        metavar="PICTURES",
    )
    compare_to: str = setting(
        "",
        "name of a trained dense run in --checkpoints_dir whose outputs of the same pictures are shown "
        "beside them (default: none)",
        metavar="RUN",
    )
    on_nan: str = setting(
        STOP,
        "what to do when a loss or a weight is no finite number: 'stop', or 'rollback' to the last save "
        "and go on with other batches, at most three times in a row; what was saved is kept either way "
        "(default: %(default)s)",
        choices=ON_NAN,
    )
    config: Any = field(default=None)
    teaching: Teaching = field(default_factory=Teaching)
    speed: SpeedOptions = field(default_factory=SpeedOptions)

    @property
    def goal(self) -> str:
        """The cost that the generators are to have, in words."""
        if self.widths_from:
            return f"widths of {self.widths_from}"
        return f"{'shared ' * self.shared_budget}budget {self.budget} ({self.budget_kind})"

    @classmethod
    def of(cls, opt: Any) -> TrainingOptions:
        """Read and check the options.

        Raises:
            OptionError: a value is out of range, or the search would outlast the training.
            BudgetError: the budget cannot be read.
        """
        values, config = values_of(opt, settings_of(cls)), _config(opt)
        if opt.isTrain:
            Budget.parse(values["budget"], values["budget_kind"])
            epochs = host.total_epochs(opt)
            given = values["search_epochs"]
            share = registry.method_of(config).search_share(config)
            values["search_epochs"] = epochs * share if given is None else given
            _check_lengths(epochs, values["search_epochs"], values["qat"])
        if values["latency_table"] and values["budget_kind"] != LATENCY:
            raise OptionError("--coronet_latency_table is for --coronet_budget_kind latency; leave it out")
        if not 0 <= values["average"] < 1:
            raise OptionError(
                f"--coronet_average {values['average']:g} must be at least 0 and below 1, such as 0.999"
            )
        if not 0 < values["lr_factor"] < math.inf:
            raise OptionError(f"--coronet_lr_factor must be a number above 0, not {values['lr_factor']:g}")
        if not 0 <= values["angle"] * values["lr_factor"] < 1:
            raise OptionError(
                f"--coronet_angle {values['angle']:g} (times --coronet_lr_factor {values['lr_factor']:g}) "
                "must be at least 0 and below 1, such as 0.025"
            )
        if values["angle"] and registry.method_of(config).generates:
            raise OptionError(
                "--coronet_angle is for weights that the optimizer trains; leave it out, or choose a "
                "--coronet_method without generated weights"
            )
        if values["shared_budget"] and values["widths_from"]:
            raise OptionError("--coronet_widths_from leaves no budget to share; drop --coronet_shared_budget")
        teaching = Teaching(**values_of(opt, settings_of(Teaching)))
        return cls(**values, config=config, teaching=teaching, speed=SpeedOptions.of(opt))


def _check_lengths(epochs: int, search: float, qat: float) -> None:
    if not 0 < search <= epochs:
        raise OptionError(
            f"--coronet_search_epochs {search:g} must be above 0 and at most the {epochs} epochs of the "
            "training, or the generator never gets small"
        )
    if not 0 <= qat <= epochs - search:
        raise OptionError(
            f"--coronet_qat {qat:g} must be at least 0 and at most {epochs - search:g}, what "
            "is left of the training after the search: only small generators are trained for int8"
        )


def _config(opt: Any) -> Any:
    """The configuration of the method that the options name."""
    method, former = opt.coronet_method, opt.coronet_hypernetwork
    if former and method == registry.DEFAULT:
        method = former
    elif former and registry.find(former) is not registry.find(method):
        raise OptionError(
            f"--coronet_hypernetwork {former} and --coronet_method {method} name two methods; "
            "leave --coronet_hypernetwork out, it is the former name of the other"
        )
    given = [name for name in registry.settings() if hasattr(opt, PREFIX + name)]
    values = {name: getattr(opt, PREFIX + name) for name in given}
    if "task" in {each.name for each in settings_of(registry.find(method).Config)}:
        values.setdefault("task", PIX2PIX if data_set.is_paired(opt) else CYCLE_GAN)
    return registry.configure(method, **values)


def add_coronet_options(parser: argparse.ArgumentParser) -> None:
    """Add every ``--coronet_*`` option; each help text gives unit, default and effect."""
    group = parser.add_argument_group("coronet: compress the generators while they train")
    add_options(group, settings_of(TrainingOptions))
    add_options(group, settings_of(Teaching))
    add_options(group, settings_of(SpeedOptions))
    add_family_option(group)
    methods = "; ".join(f"'{name}': {registry.summary(name)}" for name in registry.names())
    group.add_argument(
        "--coronet_method",
        default=registry.DEFAULT,
        choices=registry.all_names(),
        metavar="METHOD",
        help=f"how channels are chosen, at the same budget: {methods} (default: "
        f"{registry.find(registry.DEFAULT).name})",
    )
    group.add_argument(
        "--coronet_hypernetwork",
        default="",
        choices=registry.all_names(),
        metavar="METHOD",
        help="former name of --coronet_method, for the methods that have or had a hypernetwork",
    )
    for each, owners in registry.settings().values():
        group.add_argument(
            each.option,
            type=each.type,
            default=argparse.SUPPRESS,
            choices=each.choices,
            metavar=each.metavar,
            help=f"{each.help} (methods: {', '.join(owners)}; default: {each.default})",
        )


def remember(opt: Any) -> dict[str, Any]:
    """The host options a spec keeps."""
    kept = {name: getattr(opt, name) for name in REMEMBERED if hasattr(opt, name)}
    return {"coronet_base": opt.coronet_base, **kept}


def saved_specs(parser: argparse.ArgumentParser) -> dict[str, Path]:
    """The specs of the generators of the run that is about to be tested, by name; none if it is dense."""
    known, _ = parser.parse_known_args()
    folder = Path(os.path.join(known.checkpoints_dir, known.name))
    if folder.is_dir():
        settle(folder)
    start = f"{host.epoch_name(known)}_net_"
    return {path.stem[len(start) :]: path for path in sorted(folder.glob(f"{start}G*.json"))}


def recall(parser: argparse.ArgumentParser, network: str = "") -> Spec | None:
    """The spec of the run that is about to be tested, if it has one: of ``network``, or its first."""
    for name, path in saved_specs(parser).items():
        if network in ("", name):
            try:
                return Spec.read(path)
            except UserError:  # said clearly when the weights are loaded
                return None
    return None


def for_testing(spec: Spec) -> dict[str, Any]:
    """Options of the host that a trained generator is tested with.

    As by the host's own defaults, pictures are scaled to the crop and no further: nothing is left for chance.
    """
    kept = {key: value for key, value in spec.options.items() if key in REMEMBERED}
    sides = (("load_size", "crop_size"), ("loadSize", "fineSize"))
    return {**kept, **{load: kept[crop] for load, crop in sides if crop in kept}}
