"""``coronet evaluate``: quality of translated pictures in figures, by a named protocol."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from coronet_plugin.command import Command, add_run_options, positive, say
from coronet_plugin.errors import OptionError

if TYPE_CHECKING:
    from coronet_plugin.evaluation.features import FeatureExtractor
    from coronet_plugin.evaluation.record import Evaluation


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="name of a trained and tested run (--name)")
    parser.add_argument(
        "--folders",
        nargs=2,
        metavar=("A", "B"),
        help="instead of runs: FID and KID between two folders, or patterns such as 'images/*_fake_B.png'",
    )
    parser.add_argument(
        "--samples",
        metavar="FOLDER",
        help="instead of runs: pictures of noise alone (coronet sample) against those of --real",
    )
    parser.add_argument("--real", metavar="FOLDER", help="real pictures for --samples, resized if need be")
    parser.add_argument(
        "--precision_recall", action="store_true", help="of --samples: improved precision and recall, too"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DATAROOT", help="instead of runs: floor and duplicates of a data set"
    )
    parser.add_argument("--size", type=positive, default=256, help="of --data, pixels (default: %(default)s)")
    parser.add_argument(
        "--protocol",
        default="test",
        metavar="test|all",
        help="hold translated test pictures against real test pictures, as many of either (test), or against "
        "all real training and test pictures (all) (default: %(default)s)",
    )
    add_run_options(parser)
    parser.add_argument("--dataroot", type=Path, help="where the data is, if not where test.py found it")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="pt_inception-2015-12-05-6726825d.pth (default: those installed)",
    )
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="AlexNet or VGG-16 weights, for LPIPS")
    parser.add_argument("--device", default="cpu", help="of the features: cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--cache_dir", type=Path, help="where features are kept (default: coronet-plugin in the user's cache)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as data")


def _run(options: argparse.Namespace) -> int:
    evaluations = _evaluations(options)
    if options.json:
        from coronet_plugin.evaluation.record import LIBRARIES, as_plain
        from coronet_plugin.versions import versions

        found = [as_plain(evaluation) for evaluation in evaluations]
        print(json.dumps({"versions": versions(*LIBRARIES), "evaluations": found}, indent=1))
    else:
        from coronet_plugin.evaluation.table import text

        print(text(evaluations))
    return 0


def _evaluations(options: argparse.Namespace) -> list[Evaluation]:
    if sum(map(bool, (options.runs, options.folders, options.samples, options.data))) != 1:
        raise OptionError(
            "name the runs to evaluate, or two folders with --folders A B, or samples with --samples, or a "
            "data set with --data"
        )
    if bool(options.samples) != bool(options.real):
        raise OptionError("--samples FOLDER and --real FOLDER go together; give both")
    if options.precision_recall and not options.samples:
        raise OptionError("--precision_recall is for --samples; leave it out")
    return _runs(options) if options.runs else _without_runs(options)


def _without_runs(options: argparse.Namespace) -> list[Evaluation]:
    from coronet_plugin.evaluation.evaluate import evaluate_data, evaluate_folders, evaluate_samples
    from coronet_plugin.evaluation.features import load_extractor

    extractor, cache = load_extractor(options.weights, options.device), options.cache_dir
    if options.folders:
        return [evaluate_folders(*options.folders, extractor=extractor, cache_dir=cache, say=say)]
    if options.samples:
        found = evaluate_samples(
            options.samples,
            options.real,
            extractor=extractor,
            precision_recall=options.precision_recall,
            cache_dir=cache,
            say=say,
        )
        return [found]
    protocol, size = options.protocol, options.size
    return list(
        evaluate_data(
            options.data, extractor=extractor, protocol=protocol, size=size, cache_dir=cache, say=say
        )
    )


def _runs(options: argparse.Namespace) -> list[Evaluation]:
    from coronet_plugin.evaluation.evaluate import evaluate_run
    from coronet_plugin.runs.run import find_run

    folders = (options.checkpoints_dir, options.results_dir, options.phase, options.epoch)
    runs = [find_run(name, *folders) for name in options.runs]
    extractor, lpips = _extractor(options), None
    if options.lpips is not None:
        from coronet_plugin.evaluation.perceptual import load_lpips

        lpips = load_lpips(options.lpips)
    return [
        evaluation
        for run in runs
        for evaluation in evaluate_run(
            run,
            protocol=options.protocol,
            extractor=extractor,
            lpips=lpips,
            cache_dir=options.cache_dir,
            dataroot=options.dataroot,
            say=say,
        )
    ]


def _extractor(options: argparse.Namespace) -> FeatureExtractor | None:
    """None, and a line on how to get them, where no Inception weights are installed."""
    from coronet_plugin.evaluation.features import MissingWeights, load_extractor

    try:
        return load_extractor(options.weights, options.device)
    except MissingWeights as missing:
        say(str(missing))
        return None


COMMANDS = (
    Command(
        "evaluate",
        "measure how good translated test pictures are: FID, KID, SSIM, PSNR, L1, LPIPS, by a named protocol",
        _options,
        _run,
    ),
)
