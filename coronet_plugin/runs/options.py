"""The options of a run, as ``train.py`` wrote them down in text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coronet_plugin.errors import OptionError

OLD_NAMES = {"netG": ("which_model_netG",), "norm": ("normG",)}
"""Names that hosts other than today's have for options of generators."""
_DEFAULT_NOTE = re.compile(r"\s*\t\[default: (?P<default>.*)\]\s*$")
_NOT_OPTIONS = frozenset({"isTrain", "device", "suffix"})  # attributes; the suffix is in the name already


@dataclass(frozen=True)
class Options:
    """The options of a run as text, and the defaults of those that were changed."""

    values: Mapping[str, str]
    changed: Mapping[str, str]

    def text(self, key: str, default: str | None = None) -> str:
        """Raises OptionError when the option file lacks ``key`` and there is no default."""
        if key in self.values:
            return self.values[key]
        if default is None:
            raise OptionError(f"the option file does not say --{key}; was it written by train.py?")
        return default

    def integer(self, key: str, default: int | None = None) -> int:
        text = self.text(key, None if default is None else str(default))
        try:
            return int(text)
        except ValueError as error:
            raise OptionError(f"--{key} is {text!r} in the option file, expected a whole number") from error

    def flag(self, key: str) -> bool:
        return self.values.get(key, "False") == "True"

    def of_generators(self) -> dict[str, str]:
        """The options that say how generators are built, by the names that configs use (those of today)."""
        names = {old: new for new, olds in OLD_NAMES.items() for old in olds}
        found = {names.get(key, key): value for key, value in self.values.items()}
        if self.values:  # an option file of a checkout without the option means dropout
            found["use_dropout"] = str(not self.flag("no_dropout"))
        return found

    @property
    def crop_size(self) -> int:
        """Side of the training crops in pixels, by its name of today or until 2019."""
        return self.integer("crop_size", self.integer("fineSize", 256))

    def command(self) -> str:
        """A ``train.py`` command line that says what differs from the defaults."""
        words = ["python", "train.py"]
        for key in self.changed:
            value = self.values[key]
            if key in _NOT_OPTIONS or value in ("False", "None"):
                continue
            words += [f"--{key}"] if value == "True" else [f"--{key}", value]
        return shlex.join(words)


def read_options(folder: Path) -> Options:
    """The options of the run in ``folder``; none if it is no run."""
    for path in (folder / "train_opt.txt", folder / "opt.txt"):
        if path.is_file():
            return parse_options(path.read_text(encoding="utf-8"))
    return Options({}, {})


def parse_options(text: str) -> Options:
    """Read ``train_opt.txt``: lines ``key: value``, then a tab and ``[default: x]`` if it was changed."""
    values: dict[str, str] = {}
    changed: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        key = key.strip()
        if not colon or not key.isidentifier():  # the dashed header and footer
            continue
        note = _DEFAULT_NOTE.search(rest)
        values[key] = (rest[: note.start()] if note else rest).strip()
        if note:
            changed[key] = note["default"]
    return Options(values, changed)
