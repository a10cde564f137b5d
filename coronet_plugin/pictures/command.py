"""``coronet pairs``: aligned pictures from two folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from coronet_plugin.command import Command, say

LISTED = 20
"""Files without a partner that are named; the others are counted."""


def bit_depth(text: str) -> int:
    """An option's number of bits, 8 to 16."""
    value = int(text)
    if not 8 <= value <= 16:
        raise argparse.ArgumentTypeError(f"must be 8 to 16, not {value}")
    return value


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A_FOLDER", help="pictures to translate, the left halves")
    parser.add_argument("b", type=Path, metavar="B_FOLDER", help="what they shall become, of the same names")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the pairs, such as datasets/mine/train; subfolders stay as they are",
    )
    parser.add_argument(
        "--bit_depth",
        type=bit_depth,
        default=16,
        help="bits of the values in colour files of 16 bits (default: %(default)s)",
    )


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.pictures.pairs import find_pairs, write_pairs

    pairs = find_pairs(options.a, options.b)
    files = write_pairs(pairs, options.output, options.bit_depth)
    for path in pairs.single[:LISTED]:
        say(f"{path} has no partner and was left out", "note")
    if len(pairs.single) > LISTED:
        say(f"nor have {len(pairs.single) - LISTED} others", "note")
    print(f"{len(files)} pairs are in {options.output}; {len(pairs.single)} pictures have no partner")
    return 0


COMMANDS = (
    Command("pairs", "make aligned pictures, A beside B, from two folders of matching names", _options, _run),
)
