"""Which runs a sweep consists of, and the command lines that make them.

All runs share the user's options of ``train.py`` and differ in method, budget and seed. The dense generator
is trained by the coronet model type too, with a budget of 1, which is the base model bit for bit: so it
can be continued exactly after an interruption, which hosts' own models cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin.errors import OptionError
from coronet_plugin.methods import CORONET, FORMS, METHODS
from coronet_plugin.runs.run import read_options

DENSE = "dense"
CHOICES = (DENSE, *METHODS, *(form for form in FORMS if form != "exact"))
OWNED = (
    *("name", "seed", "checkpoints_dir", "results_dir", "continue_train"),
    *("coronet_budget", "coronet_method", "coronet_hypernetwork", "coronet_widths_from"),
)
"""Options of ``train.py`` that a sweep sets itself."""


@dataclass(frozen=True)
class Setting:
    """What a run differs in. ``budget`` is what ``--coronet_budget`` takes; the dense one has ``1.0``."""

    method: str
    budget: str
    seed: int

    @property
    def name(self) -> str:
        """The run's name."""
        middle = "" if self.method == DENSE else f"_{self.budget}"
        return f"{self.method}{middle}_s{self.seed}"

    def options(self) -> list[str]:
        """The options of ``train.py`` that make it."""
        words = ["--coronet_budget", self.budget]
        if self.method in METHODS and self.method != CORONET:
            words += ["--coronet_method", self.method]
        if self.method in FORMS:
            words += ["--coronet_hypernetwork", self.method]
        return words


def settings(methods: Sequence[str], budgets: Sequence[str], seeds: Sequence[int]) -> tuple[Setting, ...]:
    """Every combination once, all methods at one seed before the next; the dense generator has no budget."""
    found: dict[Setting, None] = {}
    for seed in seeds:
        for budget in budgets:
            for method in methods:
                found[Setting(method, "1.0" if method == DENSE else budget, seed)] = None
    return tuple(found)


@dataclass(frozen=True)
class Plan:
    """Where and how runs are made. ``script``: the host's ``train.py``; ``options``: the user's for it.

    ``takes_seed``: whether the host has ``--seed``. ``images``: how many pictures ``test.py`` translates.
    """

    folder: Path
    script: Path
    options: tuple[str, ...]
    takes_seed: bool
    images: int

    @classmethod
    def of(cls, folder: Path, script: Path, options: Sequence[str], images: int) -> Plan:
        """Raises OptionError for a script that is not there, or options that a sweep sets itself."""
        for name in ("", "test.py"):
            path = script.with_name(name) if name else script
            if not path.is_file():
                raise OptionError(f"no {path} here; go to the host's folder, or name it with --script")
        for word in options:
            if word.startswith("--") and word[2:].partition("=")[0] in OWNED:
                raise OptionError(f"{word} is for the sweep to set; leave it out of the options after --")
        return cls(folder.resolve(), script.resolve(), tuple(_with_model(options)), _has_seed(script), images)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def state(self, setting: Setting) -> Path:
        """What a run that has been saved can go on from."""
        return self.checkpoints / setting.name / "latest_coronet_state.pth"

    def train(self, setting: Setting, interpreter: str = "python") -> list[str]:
        """The command that trains a run, or goes on with one that has all that takes."""
        words = [*self._begin(interpreter, self.script), *self.options, *self._where(setting)]
        words += setting.options()
        if self.takes_seed:
            words += ["--seed", str(setting.seed)]
        if self.state(setting).is_file():
            words.append("--continue_train")
        return words

    def test(self, setting: Setting, interpreter: str = "python") -> list[str]:
        """The command that translates the test pictures; the trained run knows its other options."""
        words = [*self._begin(interpreter, self.script.with_name("test.py")), "--model", "coronet"]
        words += [*self._where(setting), "--results_dir", str(self.results), "--num_test", str(self.images)]
        return words + self._data(setting)

    def _where(self, setting: Setting) -> list[str]:
        return ["--name", setting.name, "--checkpoints_dir", str(self.checkpoints)]

    def _data(self, setting: Setting) -> list[str]:
        """Data, machine, and pictures as large as the crops of the training, so that none is cropped."""
        words = [
            word for name in ("dataroot", "gpu_ids", "num_threads") for word in given(self.options, name)
        ]
        values = read_options(self.checkpoints / setting.name).values
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
    """Whether the host's options have ``--seed``, which upstream's have not."""
    files = (script.parent / "options").glob("*.py")
    return any('"--seed"' in file.read_text(encoding="utf-8", errors="replace") for file in files)
