"""``coronet sweep``: methods, budgets and seeds, trained under the same options, in one table and plot."""

from __future__ import annotations

import argparse
from pathlib import Path

from coronet_plugin.command import Command, positive, say
from coronet_plugin.comparison.command import add_quality_options, extractor_of
from coronet_plugin.generators.extension import import_families


def _options(parser: argparse.ArgumentParser) -> None:
    from coronet_plugin.sweep.executors import LOCAL, NAMES, Setting
    from coronet_plugin.sweep.plan import CHOICES, axis, method_named

    parser.usage = "coronet sweep [OPTIONS] --output FOLDER -- OPTIONS OF TRAIN.PY"
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["dense", "uniform", "coronet"],
        type=method_named,
        metavar="METHOD",
        help=f"of {', '.join(CHOICES)}; with +implicit behind it (dense+implicit, uniform+implicit): with "
        "multipliers of its steps (default: dense uniform coronet)",
    )
    parser.add_argument(
        "--vary",
        nargs="+",
        default=[],
        type=axis,
        metavar="SETTING=VALUES",
        help="settings with the values to try, such as embedding=4,8 or lr_factor=1,2.5: any --coronet_ "
        "option; one of a method varies for that method alone",
    )
    parser.add_argument(
        "--budgets", nargs="+", default=["0.1"], help="as --coronet_budget takes them (default: 0.1)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default: 0)")
    parser.add_argument(
        "--output", type=Path, default=Path("sweep"), help="folder for everything (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        help="runs at a time (default: 1, with --gpus_per_run what the GPUs take, on a cluster up to 64)",
    )
    parser.add_argument(
        "--executor",
        default=LOCAL,
        choices=NAMES,
        help="who trains and tests: this machine, a Slurm cluster (by submitit) or a Ray cluster; its "
        "machines share the folders (default: %(default)s)",
    )
    parser.add_argument(
        "--executor_options",
        nargs="+",
        default=[],
        type=Setting.parse,
        metavar="NAME=VALUE",
        help="parameters of submitit's executor, such as slurm_partition=gpu timeout_min=600, or of "
        "ray.init, such as address=auto",
    )
    parser.add_argument(
        "--gpus_per_run",
        type=float,
        metavar="GPUS",
        help="GPUs that every run has for itself, the first of which it knows as 0; 0.5 for two runs on each "
        "(default: all see all; clusters are asked for none)",
    )
    parser.add_argument(
        "--script", type=Path, default=Path("train.py"), help="the host's script; test.py lies beside it"
    )
    parser.add_argument(
        "--num_test", type=positive, default=10**6, help="test pictures to translate (default: all)"
    )
    parser.add_argument("--phase", default="test", help="pictures to judge by (default: %(default)s)")
    parser.add_argument(
        "--epoch", default="latest", help="weights to judge, such as latest_average (default: %(default)s)"
    )
    add_quality_options(parser)
    parser.add_argument("options", nargs="*", metavar="OPTION", help="after --: what all trainings share")


def _run(options: argparse.Namespace) -> int:
    from coronet_plugin.budget.budget import Budget
    from coronet_plugin.comparison.measure import Measuring
    from coronet_plugin.drawing import new_figure
    from coronet_plugin.evaluation.perceptual import load_lpips
    from coronet_plugin.sweep import table
    from coronet_plugin.sweep.executors import executor_named
    from coronet_plugin.sweep.figures import figures
    from coronet_plugin.sweep.plan import Plan, given, trials
    from coronet_plugin.sweep.work import Work, begin, is_done, read_record

    new_figure(1, 1)  # what is missing to draw with is said now, not after the trainings
    import_families(*given(options.options, "coronet_family")[1:])
    plan = Plan.of(
        options.output, options.script, options.options, options.num_test, options.phase, options.epoch
    )
    for budget in options.budgets:  # and so is a slip
        Budget.parse(budget, (given(plan.options, "coronet_budget_kind") or ["macs"])[-1])
    wanted = trials(options.methods, options.budgets, options.seeds, dict(options.vary))
    extractor, missing = extractor_of(options)
    measuring = Measuring(
        protocol=options.protocol,
        extractor=extractor,
        lpips=load_lpips(options.lpips) if options.lpips else None,
        dataroot=options.dataroot,
        cache_dir=options.cache_dir,
    )
    for line in missing:
        say(line)
    if not plan.takes_seed and len(options.seeds) > 1:
        say("this host has no --seed: the seeds are repetitions")
    settings = {each.name: each.value for each in options.executor_options}
    executor = executor_named(options.executor, plan.folder, options.gpus_per_run, settings)
    begin(plan)
    work = Work(plan, lambda trial: figures(plan, trial, measuring), say, executor)
    failures = work.all(wanted, options.jobs or executor.jobs)
    done = {
        trial: {"figures": read_record(plan, trial)["figures"][plan.look]}
        for trial in wanted
        if is_done(plan, trial)
    }
    table.write(done, plan.folder)
    if done:
        print((plan.folder / "sweep.md").read_text(encoding="utf-8"))
    say(f"{len(done)} of {len(wanted)} runs are done, {len(failures)} failed: {plan.folder}")
    for trial, why in failures.items():
        say(f"{trial.name} failed: {why}")
    if work.stop.requested:
        say("stopped; the same command goes on")
        return work.stop.code
    return 1 if failures else 0


COMMANDS = (
    Command(
        "sweep",
        "train methods, budgets and seeds under the same options and put them into one table; goes on where "
        "it was stopped",
        _options,
        _run,
    ),
)
