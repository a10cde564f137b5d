"""``coronet inspect``: the command line of the tables, pictures and data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from coronet_plugin.command import Command, height_width, keywords, positive
from coronet_plugin.errors import OptionError
from coronet_plugin.generators.extension import add_family_option
from coronet_plugin.generators.registry import FAMILIES

if TYPE_CHECKING:
    from coronet_plugin.inspection.facts import Inspection


ARCHITECTURE = ("ngf", "input_nc", "output_nc", "norm", "use_dropout")
"""Entries of a family's config that are options here."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"a family of generators ({', '.join(FAMILIES)}); a weight file (.pth or .safetensors); name or "
        "folder of a trained run; a packed folder; or a generator of your own as path/to/file.py:Name or "
        "package.module:Name, which is imported and called",
    )
    add_family_option(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw them to this .svg or .png file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all facts as data")
    parser.add_argument("--full", action="store_true", help="write out the names of all layers")
    parser.add_argument(
        "--size", type=height_width, help="input to count for: 256, or 256x512 (default: as trained, or 256)"
    )
    _network_options(parser.add_argument_group("for the name of a family (defaults as it has them)"))
    own = parser.add_argument_group("for a generator or a family of your own")
    own.add_argument("--kwargs", type=keywords, metavar="JSON", help="""arguments, as '{"ngf": 32}'""")
    own.add_argument("--channels", type=positive, help="of its input (default: as its first convolution)")
    run = parser.add_argument_group("for a run")
    run.add_argument("--checkpoints_dir", default="./checkpoints", help="folder of it (default: %(default)s)")
    run.add_argument("--epoch", default="latest", help="which saved weights (default: %(default)s)")


def _network_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--ngf", type=positive, help="channels of the first layer")
    group.add_argument("--input_nc", type=positive, help="channels of the input image")
    group.add_argument("--output_nc", type=positive, help="channels of the output image")
    group.add_argument("--norm", help="instance, batch or none")
    dropout = group.add_mutually_exclusive_group()
    dropout.add_argument("--use_dropout", action="store_true", default=None)
    dropout.add_argument("--no_dropout", action="store_false", dest="use_dropout")


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.inspection.figure import check_output
    from coronet_plugin.inspection.source import Choices, inspect_model
    from coronet_plugin.inspection.table import text

    if options.output is not None:
        check_output(options.output)
    choices = Choices(
        size=options.size,
        channels=options.channels,
        kwargs=options.kwargs or {},
        architecture={k: v for k, v in vars(options).items() if k in ARCHITECTURE and v is not None},
        checkpoints_dir=options.checkpoints_dir,
        epoch=options.epoch,
    )
    inspections = inspect_model(options.model, choices)
    print("\n\n".join(text(inspection, options.full) for inspection in inspections.values()))
    _write_inspections(inspections, options.json, options.output)
    return 0


def _write_inspections(inspections: dict[str, Inspection], data: Path | None, picture: Path | None) -> None:
    """Write all to one JSON file and each to a picture, and print the paths."""
    from coronet_plugin.inspection.facts import as_json
    from coronet_plugin.inspection.figure import save_picture

    if data is not None:
        try:
            data.write_text(json.dumps(as_json(inspections), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OptionError(f"--json {data} cannot be written: {error.strerror}") from error
        print(data)
    for name, inspection in inspections.items() if picture is not None else ():
        assert picture is not None
        path = picture.with_stem(f"{picture.stem}_{name}") if len(inspections) > 1 else picture
        print(save_picture(inspection, path))


COMMANDS = (
    Command(
        "inspect",
        "show a generator's channel sets: widths, who shares with whom, cost, what is pinned and why",
        _options,
        _run,
    ),
)
