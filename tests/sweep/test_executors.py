"""Sweeps on other machines: Ray's local cluster, submitit's local jobs, and GPUs shared out on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coronet_plugin import cli
from coronet_plugin.errors import OptionError
from coronet_plugin.sweep.executors import Executor, Local, Ray, Setting, executor_named, slots_of
from coronet_plugin.sweep.plan import Plan, Trial
from coronet_plugin.sweep.programs import Failed, Program, owned
from coronet_plugin.sweep.work import Work, is_done

TRAIN = """
import os, pathlib, sys, time
options = dict(zip(sys.argv[1:], sys.argv[2:]))
run = pathlib.Path(options["--checkpoints_dir"], options["--name"])
run.mkdir(parents=True, exist_ok=True)
(run / "latest_coronet_state.pth").write_text("")
with (run / "began").open("a") as file:
    file.write(f"{os.getpid()} {os.getppid()} {'--continue_train' in sys.argv}\\n")
print(f"sees {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
if options["--name"].startswith("uniform") and "--continue_train" not in sys.argv:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (run / "saved").write_text("")
        sys.exit(130)
"""
TEST = """
import pathlib, sys
options = dict(zip(sys.argv[1:], sys.argv[2:]))
images = pathlib.Path(options["--results_dir"], options["--name"], "test_latest", "images")
images.mkdir(parents=True, exist_ok=True)
(images / "a_fake_B.png").write_text("")
"""
WAITS, ENDS = Trial("uniform", "0.1", 0), Trial("gates", "0.1", 0)
"""A training that waits to be stopped the first time, and one that ends."""
OTHERS = [Trial("uniform", "0.1", seed) for seed in (1, 2)]
"""That wait, too."""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Of a host whose scripts take notes instead of training."""
    folder = tmp_path / "host"
    (folder / "models").mkdir(parents=True)
    (folder / "models/coronet_model.py").touch()
    (folder / "train.py").write_text(TRAIN)
    (folder / "test.py").write_text(TEST)
    return Plan.of(tmp_path / "out", folder / "train.py", [], 7)


@pytest.fixture(scope="module")
def ray_cluster():
    """Two processors and two GPUs that are said to be there."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield executor_named("ray", Path(), None, {"num_cpus": 2, "num_gpus": 2})
        ray.shutdown()


@pytest.fixture
def submitit_jobs(tmp_path: Path, monkeypatch) -> Executor:
    core = pytest.importorskip("submitit.core.core")
    monkeypatch.setattr(core.Job, "_results_timeout_s", 1)  # for files of a dead job to arrive: 15 s
    return executor_named("slurm", tmp_path / "out", None, {"cluster": "local", "timeout_min": 5})


@pytest.fixture(params=["ray_cluster", "submitit_jobs"], ids=["ray", "submitit"])
def cluster(request) -> Executor:
    return request.getfixturevalue(request.param)


def working(plan: Plan, executor: Executor, said: list[str] | None = None) -> Work:
    return Work(plan, lambda trial: {"G": {}}, (said if said is not None else []).append, executor)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def began(plan: Plan, trial: Trial) -> list[list[str]]:
    path = plan.checkpoints / trial.name / "began"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def program_of(plan: Plan, run: str, offer: str = "1") -> Program:
    return Program(
        ("true",), plan.folder, plan.folder / "logs" / f"{run}.log", plan.folder / "runs" / f"{run}.{offer}.wanted"
    )


def saved(plan: Plan, trial: Trial) -> bool:
    return (plan.checkpoints / trial.name / "saved").exists()


def in_background(work: Work, *trials: Trial) -> tuple[threading.Thread, dict[Trial, str]]:
    failures: dict[Trial, str] = {}
    thread = threading.Thread(target=lambda: failures.update(work.all(trials, jobs=3)))
    thread.start()
    return thread, failures


def test_a_killed_worker_loses_one_run_and_the_same_sweep_goes_on_with_it(cluster, plan: Plan) -> None:
    thread, failures = in_background(working(plan, cluster), WAITS, ENDS)
    until(lambda: len(began(plan, WAITS)) == 1 and is_done(plan, ENDS))
    training, worker, _ = began(plan, WAITS)[0]
    os.kill(int(worker), signal.SIGKILL)
    thread.join(60)
    assert not thread.is_alive() and list(failures) == [WAITS] and "was lost: " in failures[WAITS]
    assert "\n" not in failures[WAITS]
    with pytest.raises(Failed, match="another process is working on uniform_0.1_s0"):  # it outlived its worker
        working(plan, Local()).run(WAITS)
    os.kill(int(training), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{training}").exists() or "Z" in _state(training))
    assert working(plan, cluster).all([WAITS, ENDS]) == {}
    assert is_done(plan, WAITS) and [words[2] for words in began(plan, WAITS)] == ["False", "True"]
    assert len(began(plan, ENDS)) == 1


def _state(process: str) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[-1].split()[0]
    except OSError:
        return "Z"


def test_a_stop_lets_trainings_elsewhere_save_and_takes_the_others_out_of_the_queue(cluster, plan) -> None:
    trials = [WAITS, *OTHERS] if isinstance(cluster, Ray) else [WAITS]  # it has two processors
    work = working(plan, cluster)
    thread, failures = in_background(work, *trials)
    at_work = min(2, len(trials))
    until(lambda: sum(len(began(plan, trial)) for trial in trials) == at_work)
    work.stop.requested = signal.SIGINT
    thread.join(60)
    assert not thread.is_alive() and failures == {}
    assert sum(saved(plan, trial) for trial in trials) == at_work and not is_done(plan, WAITS)
    assert sum(len(began(plan, trial)) for trial in trials) == at_work
    assert not list((plan.folder / "runs").glob("*.wanted"))
    first = next(trial for trial in trials if saved(plan, trial))
    assert working(plan, Local()).all([first]) == {} and is_done(plan, first)  # another executor goes on
    if isinstance(cluster, Ray):
        with pytest.raises(Failed, match=r"\Aits sweep does not want it any more.*\Z"):
            cluster.run(program_of(plan, "late"), lambda: False)


def test_ends_elsewhere_are_told_by_the_log_and_save_if_there_was_a_notice(cluster, plan: Plan) -> None:
    noticed = OTHERS[0]
    thread, failures = in_background(working(plan, cluster), WAITS, noticed)
    until(lambda: len(began(plan, WAITS)) == len(began(plan, noticed)) == 1)
    os.kill(int(began(plan, WAITS)[0][0]), signal.SIGKILL)
    os.kill(int(began(plan, noticed)[0][1]), signal.SIGUSR2)  # the job's time is over
    thread.join(60)
    assert "exit code -9" in failures[WAITS] and f"{WAITS.name}.log" in failures[WAITS]
    assert "exit code 130" in failures[noticed] and saved(plan, noticed)


def test_ray_gives_a_run_its_part_of_a_gpu(ray_cluster, plan: Plan) -> None:
    half = executor_named("ray", plan.folder, 0.5, {})
    assert working(plan, half).all([ENDS]) == {}
    assert (plan.folder / "logs" / f"{ENDS.name}.log").read_text().splitlines()[1] in ("sees 0", "sees 1")


@pytest.mark.parametrize(
    ("visible", "per_run", "slots"),
    [
        ("0,1", 0.5, ["0", "1", "0", "1"]),
        ("2,5", 1, ["2", "5"]),
        ("0,1,2,3,4", 2, ["0,1", "2,3"]),
        ("GPU-a", 0.3, ["GPU-a"] * 3),
    ],
)
def test_runs_are_spread_over_the_gpus_there_are(monkeypatch, visible, per_run, slots) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots_of(visible.split(","), per_run) == slots
    assert Local(per_run).jobs == len(slots)


def test_runs_at_a_time_see_different_gpus(monkeypatch, plan: Plan) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    executor = Local(1)
    work = working(plan, executor)
    thread, failures = in_background(work, WAITS, ENDS)
    until(lambda: is_done(plan, ENDS) and len(began(plan, WAITS)) == 1)
    work.stop.requested = signal.SIGINT
    thread.join(60)
    logs = [(plan.folder / "logs" / f"{trial.name}.log").read_text() for trial in (WAITS, ENDS)]
    assert {line for log in logs for line in log.splitlines() if line.startswith("sees")} == {"sees 3", "sees 7"}
    assert failures == {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpus_per_run", "0"], "must be above 0"),
        (["--gpus_per_run", "1.5"], "whole ones"),
        (["--gpus_per_run", "3"], "this machine shows 1 GPUs"),
        (["--executor_options", "a=1"], "are for --executor slurm or ray"),
        (["--executor", "slurm", "--gpus_per_run", "0.5"], "Slurm gives whole GPUs"),
        (["--executor", "slurm", "--executor_options", "cluster=moon"], "cannot begin"),
        (["--executor", "slurm", "--executor_options", "cluster=local", "speed=9"], "cannot begin.*speed"),
    ],
    ids=lambda value: "_".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_before_any_training(words, told, plan: Plan, monkeypatch) -> None:
    if "slurm" in words:
        pytest.importorskip("submitit")
        if "speed" in told and sys.version_info < (3, 10):
            pytest.skip("submitit finds no executors before Python 3.10")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    known = dict(name="local", gpus=None, settings={})
    if "--executor" in words:
        known["name"] = words[1]
    if "--gpus_per_run" in words:
        known["gpus"] = float(words[words.index("--gpus_per_run") + 1])
    if "--executor_options" in words:
        found = [Setting.parse(word) for word in words[words.index("--executor_options") + 1 :]]
        known["settings"] = {each.name: each.value for each in found}
    with pytest.raises(OptionError, match=told):
        executor_named(known["name"], plan.folder, known["gpus"], known["settings"])


def test_a_missing_library_is_one_line_that_names_its_extra(plan: Plan, monkeypatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    words = ["sweep", "--output", str(plan.folder), "--script", str(plan.script), "--no_fid"]
    assert cli.main([*words, "--executor", "slurm"]) == 2
    assert 'pip install "coronet-plugin[slurm]"' in capsys.readouterr().err
    assert not (plan.folder / "runs").exists()


def test_two_programs_of_one_run_exclude_each_other(plan: Plan) -> None:
    program = program_of(plan, "a")
    told = rf"is working on a \(process {os.getpid()} on .+\);"
    with program.offered():
        with owned(plan.folder / "logs" / "a.lock"), pytest.raises(Failed, match=told):
            program()
        assert program() == 0


def test_only_the_program_that_was_offered_last_begins(plan: Plan) -> None:
    first, second, other = (program_of(plan, name, token) for name, token in ("a1", "a2", "b1"))
    with other.offered(), first.offered(), second.offered():
        with pytest.raises(Failed, match="its sweep does not want it any more"):
            first()
        assert second() == other() == 0
    with pytest.raises(Failed, match="its sweep does not want it any more"):
        second()


def test_runs_that_begin_at_once_do_not_take_each_others_locks(tmp_path: Path) -> None:
    """A child has all locks of its parent until its program begins."""

    def one_after_another(name: str) -> list[int]:
        codes = []
        for number in range(5):
            wanted = tmp_path / "runs" / f"{name}.{number}.wanted"
            log = tmp_path / "logs" / f"{name}.log"
            program = Program((sys.executable, "-SEc", ""), tmp_path, log, wanted)
            with program.offered():
                codes.append(program())
        return codes

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one_after_another, "abcdefgh")) == [[0] * 5] * 8
