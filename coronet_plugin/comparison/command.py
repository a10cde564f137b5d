"""``coronet compare``: runs side by side on one page."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coronet_plugin.command import Command, add_norm_mode_option, add_run_options, positive, say

if TYPE_CHECKING:
    from coronet_plugin.comparison.measure import Measuring
    from coronet_plugin.evaluation.features import FeatureExtractor


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name of a trained and tested run (--name)")
    add_run_options(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("comparison"), help="folder of the page (default: %(default)s)"
    )
    parser.add_argument(
        "--images", type=positive, default=12, help="test pictures to show (default: %(default)s)"
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=8,
        help="how many of them are those that differ most between the runs; the others are spread evenly "
        "(default: %(default)s)",
    )
    parser.add_argument("--title", default="", help="heading of the page (default: the names of the runs)")
    add_speed_options(parser)
    add_quality_options(parser)


def add_speed_options(parser: argparse.ArgumentParser) -> None:
    """Add options of how latency and memory are measured."""
    parser.add_argument(
        "--threads", type=positive, default=1, help="CPU threads for the latency (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=positive, default=30, help="timed inferences (default: %(default)s)"
    )
    parser.add_argument(
        "--runtimes",
        nargs="*",
        default=["all"],
        metavar="RUNTIME",
        help="what to time in beside PyTorch: all that are installed, or torch for none, or names such as "
        "onnxruntime or openvino (default: all)",
    )
    add_norm_mode_option(parser)
    parser.add_argument("--no_memory", action="store_true", help="do not measure the peak memory")


def add_quality_options(parser: argparse.ArgumentParser) -> None:
    """Add options of how quality is measured; more of it with ``coronet evaluate``."""
    parser.add_argument(
        "--no_fid", action="store_true", help="do not measure FID and KID, which takes minutes on a CPU"
    )
    parser.add_argument(
        "--protocol",
        default="test",
        metavar="test|all",
        help="what FID and KID hold translated test pictures against: real test pictures, as many of either, "
        "or all real pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="Inception weights (default: those installed)"
    )
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="AlexNet or VGG-16 weights, for LPIPS")
    parser.add_argument("--dataroot", type=Path, help="where the data is, if not where test.py found it")
    parser.add_argument("--device", default="cpu", help="for FID and KID: cpu or cuda (default: %(default)s)")
    parser.add_argument("--cache_dir", type=Path, help="where features are kept (default: the user's cache)")


def extractor_of(options: argparse.Namespace) -> tuple[FeatureExtractor | None, list[str]]:
    """The extractor that measures FID and KID, and the line on how to get it where it is missing."""
    from coronet_plugin.evaluation.features import MissingWeights, load_extractor

    if options.no_fid:
        return None, []
    try:
        return load_extractor(options.weights, options.device), []
    except MissingWeights as missing:
        return None, [f"Without FID and KID: {missing}"]


def _measuring(options: argparse.Namespace, extractor: FeatureExtractor | None) -> Measuring:
    from coronet_plugin.comparison.measure import Measuring
    from coronet_plugin.comparison.runtimes import choose
    from coronet_plugin.evaluation.perceptual import load_lpips
    from coronet_plugin.export.normalisation import check_norm_mode

    check_norm_mode(options.norm_mode)
    return Measuring(
        threads=options.threads,
        repeats=options.repeats,
        runtimes=choose(options.runtimes),
        norm_mode=options.norm_mode,
        memory=not options.no_memory,
        protocol=options.protocol,
        extractor=extractor,
        lpips=load_lpips(options.lpips) if options.lpips else None,
        dataroot=options.dataroot,
        cache_dir=options.cache_dir,
        say=say,
    )


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.comparison.report import write_comparison
    from coronet_plugin.runs.run import find_run
    from coronet_plugin.training.provenance import without_home

    runs = [
        find_run(name, options.checkpoints_dir, options.results_dir, options.phase, options.epoch)
        for name in options.runs
    ]
    extractor, remarks = extractor_of(options)
    page = write_comparison(
        runs,
        options.output,
        _measuring(options, extractor),
        images=options.images,
        worst=max(0, options.worst),
        title=options.title,
        remarks=remarks,
        command=without_home(shlex.join(["coronet", *sys.argv[1:]])),
    )
    print(page)
    return 0


COMMANDS = (
    Command(
        "compare",
        "write one HTML page that shows runs side by side: pictures, cost, speed, quality, curves",
        _options,
        _run,
    ),
)
