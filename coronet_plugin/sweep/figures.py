"""The figures of one run of a sweep: cost and quality, by generator."""

from __future__ import annotations

from typing import Any

from coronet_plugin.channels.find import cost_of, example_input
from coronet_plugin.comparison.measure import Measuring, evaluate_all
from coronet_plugin.evaluation.record import Evaluation, as_plain
from coronet_plugin.runs.run import Run, find_run
from coronet_plugin.sweep.plan import Plan, Trial
from coronet_plugin.training import provenance


def figures(plan: Plan, trial: Trial, measuring: Measuring) -> dict[str, Any]:
    """Figures by generator; what was not measured is None.

    Raises UserError where weights or pictures cannot be read.
    """
    run = find_run(trial.name, plan.checkpoints, plan.results, plan.phase, plan.epoch)
    quality = evaluate_all([run], measuring)
    spent = provenance.spent(run.folder)
    taken = {"training_seconds": spent.seconds, "training_memory": spent.gpu_memory or spent.memory}
    return {name: _cost(run, name) | _quality(quality.get((run.name, name))) | taken for name in run.weights}


def _cost(run: Run, generator: str) -> dict[str, Any]:
    """Of the slim generator, and as shares of the dense one; of a user's own class as its spec says."""
    spec = run.specs[generator]
    cost = dict(spec.slim)
    if run.can_rebuild(generator):
        net = run.load_generator(generator)
        cost = dict(cost_of(net, example_input(net, run.options.crop_size)).as_dict())
    shares = {f"{key}_share": cost[key] / spec.dense[key] for key in ("macs", "parameters")}
    return {**cost, **shares, "file_bytes": run.weights[generator].stat().st_size}


def _quality(evaluation: Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        return {}
    plain = as_plain(evaluation)
    paired, distance, floor = (plain[key] or {} for key in ("paired", "distance", "floor"))
    return {
        **{key: paired.get(key) for key in ("ssim", "psnr", "l1")},
        "lpips": plain["lpips"],
        **{key: distance.get(key) for key in ("fid", "kid", "kid_std")},
        **{f"floor_{key}": floor.get(key) for key in ("fid", "kid")},
        "protocol": plain["protocol"],
        "extractor": plain["extractor"],
    }
