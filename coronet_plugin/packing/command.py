"""``coronet pack``: a run as a folder to share."""

from __future__ import annotations

import argparse
from pathlib import Path

from coronet_plugin.command import Command, add_norm_mode_option, add_run_options, say


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="name or folder of a trained run; a tested one, best")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="into a folder that is not empty")
    parser.add_argument("--network", default="", help="generator of the run, such as G_A (default: all)")
    add_run_options(parser)
    parser.add_argument("--dataroot", type=Path, help="where the data is, if not where test.py found it")
    parser.add_argument(
        "--no_onnx", action="store_true", help="leave out the ONNX file, which needs the extra onnx"
    )
    parser.add_argument(
        "--dtype", default="fp32", choices=("fp32", "fp16"), help="of the ONNX file (default: %(default)s)"
    )
    add_norm_mode_option(parser)
    _card_options(parser)


def _card_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title", default="", help="heading of the card (default: the name of the run)")
    parser.add_argument("--description", default="", help="a sentence or two: what it does")
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="of the weights, as model hubs name it, such as cc-by-sa-4.0 (default: %(default)s)",
    )
    parser.add_argument(
        "--data", default="", metavar="TEXT", help="what it was trained on, who made that, and its licence"
    )
    parser.add_argument("--dataset", default="", help="name of the data (default: the folder of --dataroot)")
    parser.add_argument(
        "--attribution",
        type=Path,
        metavar="FILE",
        help="more about the data, to be copied (default: ATTRIBUTION.md beside them, if there)",
    )
    parser.add_argument("--tag", action="append", default=[], help="a word for the hub; may be repeated")
    parser.add_argument(
        "--examples", type=int, default=4, help="test pictures to show, 0 for none (default: %(default)s)"
    )


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.packing.card import About
    from coronet_plugin.packing.pack import Choices, pack
    from coronet_plugin.runs.run import find_run, run_folder

    folder = run_folder(options.run_name, options.checkpoints_dir)
    run = find_run(folder.name, folder.parent, options.results_dir, options.phase, options.epoch)
    about = About(
        name="",
        title=options.title,
        description=options.description,
        license=options.license,
        data=options.data,
        dataset=options.dataset,
        tags=tuple(options.tag),
    )
    choices = Choices(
        onnx=not options.no_onnx,
        dtype=options.dtype,
        norm_mode=options.norm_mode,
        examples=options.examples,
        dataroot=options.dataroot,
        attribution=options.attribution,
        results_dir=options.results_dir,
        epoch=options.epoch,
        overwrite=options.overwrite,
        say=say,
    )
    for path in pack(run, options.output, about, choices, options.network):
        print(path)
    return 0


COMMANDS = (
    Command(
        "pack",
        "write a folder to share: safetensors weights, spec, ONNX file and a model card",
        _options,
        _run,
    ),
)
