"""``tested.jsonl`` beside the pictures of a test: the options that made them, and which pictures they are.

A run is tested more than once, on other data and into other folders, and results of earlier tests stay. What
is known of pictures therefore lies where they lie. The first line holds the options; each further one
is the name of a test picture without its ending, as upstream names files after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coronet_plugin.errors import DataError
from coronet_plugin.files import write_text

FILE = "tested.jsonl"
FORMAT, VERSION = "coronet-tested", 1


@dataclass(frozen=True)
class Tested:
    """``options`` of a test as text, and the names of the pictures it was given."""

    options: Mapping[str, str]
    names: frozenset[str]


def name_of(picture: str) -> str:
    """Name that files made of ``picture`` begin with."""
    return Path(picture).stem


def write(folder: Path, opt: Any, pictures: Iterable[str]) -> None:
    """Note beside the results in ``folder`` that a test with ``opt`` made them of ``pictures`` (paths)."""
    options = {key: str(value) for key, value in sorted(vars(opt).items())}
    lines = [{"format": FORMAT, "version": VERSION, "options": options}, *map(name_of, pictures)]
    write_text(folder / FILE, "".join(json.dumps(line) + "\n" for line in lines))


def add(folder: Path, pictures: Iterable[str]) -> None:
    """Note that the test made results of these ``pictures`` too."""
    with open(folder / FILE, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(name_of(picture)) + "\n" for picture in pictures)


def read(folder: Path) -> Tested | None:
    """Read what made the results in ``folder``; None if it was not noted.

    Raises DataError if the note is damaged; a last line cut short by an interruption is left out.
    """
    path = folder / FILE
    try:
        head, *lines = path.read_text(encoding="utf-8").split("\n")
        about = json.loads(head)
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is {about['format']} {about['version']}")
        options = {str(key): str(value) for key, value in about["options"].items()}
        return Tested(options, frozenset(str(json.loads(line)) for line in lines[:-1]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not say what made the pictures ({error}); run test.py again") from error
