"""Which runs a sweep consists of, and the command lines that make them.

All runs share the user's options of ``train.py`` and differ in method, budget and seed. The dense generator
is trained by the coronet model type too, with a budget of 1, which is the base model bit for bit: so it
can be continued exactly after an interruption, which hosts' own models cannot.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin.errors import OptionError
from coronet_plugin.methods import registry
from coronet_plugin.methods.implicit import PUBLISHED_MEAN
from coronet_plugin.runs.options import read_options
from coronet_plugin.settings import settings_of
from coronet_plugin.training.options import TrainingOptions
from coronet_plugin.training.speed import SpeedOptions
from coronet_plugin.training.teaching import Teaching

DENSE = "dense"
CHOICES = (DENSE, *registry.all_names())
MULTIPLIED = "implicit"
"""The method whose steps' multipliers others can have, too."""
KINDS = (TrainingOptions, Teaching, SpeedOptions)
"""Where settings that can be varied are said, besides those of methods."""
OWNED = (
    *("name", "seed", "checkpoints_dir", "results_dir", "continue_train"),
    *("coronet_budget", "coronet_method", "coronet_hypernetwork", "coronet_widths_from"),
)
"""Options of ``train.py`` that a sweep sets itself."""


@dataclass(frozen=True)
class Trial:
    """A run, by what it differs in. ``budget`` is for ``--coronet_budget``; the dense one has ``1.0``.

    ``method``: one of :data:`CHOICES`, or with ``+implicit`` behind it: with multipliers of its steps.
    ``values``: of settings that are varied, by name.
    """

    method: str
    budget: str
    seed: int
    values: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The run's name."""
        middle = "" if is_dense(self.method) else f"_{self.budget}"
        return f"{self.method}{middle}{''.join(f'_{n}{v}' for n, v in self.values)}_s{self.seed}"

    @property
    def row(self) -> str:
        """The method, with the values of what is varied."""
        return " ".join([self.method, *(f"{name} {value}" for name, value in self.values)])

    def options(self) -> list[str]:
        """The options of ``train.py`` that make it."""
        words = ["--coronet_budget", self.budget]
        method, plus, _ = self.method.partition("+")
        if method == DENSE and plus:
            words += ["--coronet_method", MULTIPLIED]
        elif method != DENSE:
            words += ["--coronet_method", method]
            words += ["--coronet_multipliers", f"{PUBLISHED_MEAN:g}"] if plus else []
        return [*words, *(word for name, value in self.values for word in (f"--coronet_{name}", value))]


def is_dense(method: str) -> bool:
    """True if it trains the dense generator, with or without multipliers of its steps."""
    return method.split("+")[0].split(" ")[0] == DENSE


def method_named(text: str) -> str:
    """``text`` if it is one of :data:`CHOICES`, or one with ``+implicit`` behind it. Raises ValueError."""
    method, plus, form = text.partition("+")
    if method not in CHOICES or (plus and form != MULTIPLIED):
        raise ValueError(text)
    if plus and method != DENSE and (method == MULTIPLIED or registry.find(method).generates):
        raise ValueError(text)
    return text


def axis(text: str) -> tuple[str, tuple[str, ...]]:
    """Read ``NAME=VALUE,VALUE``, of a setting of a method or of the training. Raises ValueError."""
    name, _, values = text.partition("=")
    known = {each.name: each for kind in KINDS for each in settings_of(kind)}
    known |= {name: each for name, (each, _) in registry.settings().items()}
    if name not in known:
        raise ValueError(f"there is no setting {name}")
    for value in values.split(","):
        known[name].parse(value)
    return name, tuple(values.split(","))


def trials(
    methods: Sequence[str],
    budgets: Sequence[str],
    seeds: Sequence[int],
    axes: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Trial, ...]:
    """Every combination once, all methods at one seed before the next; the dense generator has no budget.

    ``axes``: values by the name of a setting; a method's own settings vary for that method alone.
    """
    found: dict[Trial, None] = {}
    own = registry.settings()
    for seed in seeds:
        for budget in budgets:
            for method in methods:
                named = method.split("+")[0]
                of = registry.find(named).name if named != DENSE else DENSE
                varied = {n: v for n, v in (axes or {}).items() if n not in own or of in own[n][1]}
                for chosen in itertools.product(*varied.values()):
                    values = tuple(zip(varied, chosen))
                    found[Trial(method, "1.0" if is_dense(method) else budget, seed, values)] = None
    return tuple(found)


@dataclass(frozen=True)
class Plan:
    """Where and how runs are made. ``script``: the host's ``train.py``; ``options``: the user's for it.

    ``takes_seed``: whether the host has ``--seed``. ``images``: how many pictures of ``phase`` ``test.py``
    translates, with the weights of ``epoch``.
    """

    folder: Path
    script: Path
    options: tuple[str, ...]
    takes_seed: bool
    images: int
    phase: str = "test"
    epoch: str = "latest"

    @classmethod
    def of(
        cls,
        folder: Path,
        script: Path,
        options: Sequence[str],
        images: int,
        phase: str = "test",
        epoch: str = "latest",
    ) -> Plan:
        """Raises OptionError for a script that is not there, or options that a sweep sets itself."""
        for name in ("", "test.py"):
            path = script.with_name(name) if name else script
            if not path.is_file():
                raise OptionError(f"no {path} here; go to the host's folder, or name it with --script")
        for word in options:
            if word.startswith("--") and word[2:].partition("=")[0] in OWNED:
                raise OptionError(f"{word} is for the sweep to set; leave it out of the options after --")
        shared = tuple(_with_model(options))
        return cls(folder.resolve(), script.resolve(), shared, _has_seed(script), images, phase, epoch)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def look(self) -> str:
        """Name of the folder of the pictures that runs are judged by: ``test_latest``."""
        return f"{self.phase}_{self.epoch}"

    def pictures(self, trial: Trial) -> Path:
        """Where the pictures of a tested run lie."""
        return self.results / trial.name / self.look / "images"

    def state(self, trial: Trial) -> Path:
        """Where the state lies that a saved run goes on from."""
        return self.checkpoints / trial.name / "latest_coronet_state.pth"

    def train(self, trial: Trial, interpreter: str = "python") -> list[str]:
        """The command that trains a run, or goes on with one that has all that takes."""
        words = [*self._begin(interpreter, self.script), *self.options, *self._where(trial)]
        words += trial.options()
        if self.takes_seed:
            words += ["--seed", str(trial.seed)]
        if self.state(trial).is_file():
            words.append("--continue_train")
        return words

    def test(self, trial: Trial, interpreter: str = "python") -> list[str]:
        """The command that translates the test pictures; the trained run knows its other options."""
        words = [*self._begin(interpreter, self.script.with_name("test.py")), "--model", "coronet"]
        words += [*self._where(trial), "--results_dir", str(self.results), "--num_test", str(self.images)]
        if self.look != "test_latest":
            epoch = "which_epoch" if "which_epoch" in self._values(trial) else "epoch"
            words += ["--phase", self.phase, f"--{epoch}", self.epoch]
        return words + self._data(trial)

    def _values(self, trial: Trial) -> Mapping[str, str]:
        return read_options(self.checkpoints / trial.name).values

    def _where(self, trial: Trial) -> list[str]:
        return ["--name", trial.name, "--checkpoints_dir", str(self.checkpoints)]

    def _data(self, trial: Trial) -> list[str]:
        """Data, machine, and pictures as large as the crops of the training, so that none is cropped."""
        names = ("dataroot", "gpu_ids", "num_threads", "coronet_family")
        words = [word for name in names for word in given(self.options, name)]
        values = self._values(trial)
        for crop, load in (("crop_size", "load_size"), ("fineSize", "loadSize")):
            if crop in values:
                words += [f"--{crop}", values[crop], f"--{load}", values[crop]]
        return words

    @staticmethod
    def _begin(interpreter: str, script: Path) -> list[str]:
        ready = (script.parent / "models" / "coronet_model.py").is_file()
        return [interpreter, *([] if ready else ["-m", "coronet_plugin"]), script.name]


def given(options: Sequence[str], name: str) -> list[str]:
    """``--name value`` as the options have it, the last one if it comes twice; nothing if they do not."""
    found: list[str] = []
    for word, following in zip(options, [*options[1:], ""]):
        key, equals, value = word.partition("=")
        if key == f"--{name}":
            found = [key, value if equals else following]
    return found


def _with_model(options: Sequence[str]) -> Iterator[str]:
    """The options with ``--model coronet`` and, as its base, the model that they name."""
    model, base = (given(options, name)[1:] for name in ("model", "coronet_base"))
    bases = base or [name for name in model if name != "coronet"] or ["cycle_gan"]
    yield from ("--model", "coronet", "--coronet_base", bases[0])
    words = iter(options)
    for word in words:
        if word in ("--model", "--coronet_base"):
            next(words, None)
        elif not word.startswith(("--model=", "--coronet_base=")):
            yield word


def _has_seed(script: Path) -> bool:
    """True if the host's options have ``--seed``, which upstream's have not."""
    files = (script.parent / "options").glob("*.py")
    return any('"--seed"' in file.read_text(encoding="utf-8", errors="replace") for file in files)
