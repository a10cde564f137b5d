"""``coronet sample``: pictures of noise alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from coronet_plugin.command import Command, add_weights_options, needs_pillow, positive


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_or_file", metavar="RUN", help="a run by name or folder, a weight file, or a packed folder")
    add("--count", type=positive, default=64, help="how many pictures (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    add("--grid", action="store_true", help="write all in one picture, too, beside the folder")
    add("--steps", type=positive, default=50, help="of a diffusion model's DDIM loop (default: %(default)s)")
    add("--output", type=Path, metavar="FOLDER", help="where pictures go (default: samples/RUN)")
    add("--batch_size", type=positive, default=16, help="pictures at a time (default: %(default)s)")
    add("--network", default="", metavar="NAME", help="the generator of the run (default: its only one)")
    add_weights_options(parser)


def _run(options: argparse.Namespace) -> int:
    needs_pillow()
    from coronet_plugin.sampling.sample import open_generator, sample

    target = options.run_or_file
    stored = open_generator(target, options.checkpoints_dir, options.epoch, options.network)
    drawn = sample(
        stored,
        options.output or Path("samples") / Path(target).resolve().stem,
        count=options.count,
        seed=options.seed,
        grid=options.grid,
        batch_size=options.batch_size,
        steps=options.steps,
    )
    print(f"{len(drawn.pictures)} pictures: {drawn.pictures[0].parent}" + f" and {drawn.grid}" * options.grid)
    print(f"{drawn.seconds:.1f} s, {drawn.seconds / options.count:.3f} s a picture")
    return 0


COMMANDS = (Command("sample", "make pictures of noise alone with a generator", _options, _run),)
