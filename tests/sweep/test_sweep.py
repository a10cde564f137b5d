"""``coronet sweep``: which runs, which commands, and that it can be stopped anywhere and goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, paired_folder
from PIL import Image

from coronet_plugin import cli
from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.runs.run import find_run
from coronet_plugin.sweep import table
from coronet_plugin.sweep.plan import Plan, Trial, axis, given, method_named, trials
from coronet_plugin.sweep.programs import last_line, owned
from coronet_plugin.sweep.work import Work, begin, is_done, read_record

HOST = """
import argparse, pathlib, sys, time
parser = argparse.ArgumentParser()
for name in "name checkpoints_dir results_dir model num_test seed coronet_base coronet_budget coronet_method slow phase epoch".split():
    parser.add_argument("--" + name)
parser.add_argument("--continue_train", action="store_true")
options = parser.parse_args()
run = pathlib.Path(options.checkpoints_dir, options.name)
"""
TRAIN = (
    HOST
    + """
run.mkdir(parents=True, exist_ok=True)
with (run / "calls").open("a") as file:
    file.write(f"{options.coronet_budget} {options.coronet_method} {options.seed} {options.continue_train}\\n")
if options.coronet_method != "magnitude":
    (run / "latest_coronet_state.pth").write_text("")
if options.coronet_method == "random":
    sys.exit("one went wrong")
if options.slow and not options.continue_train:
    (run / "began").write_text("")
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (run / "saved").write_text("")
        sys.exit(130)
"""
)
TEST = (
    HOST
    + """
look = f"{options.phase or 'test'}_{options.epoch or 'latest'}"
images = pathlib.Path(options.results_dir, options.name, look, "images")
images.mkdir(parents=True, exist_ok=True)
(images / "a_fake_B.png").write_text(options.num_test)
"""
)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder with scripts that take notes instead of training."""
    folder = tmp_path / "host"
    (folder / "models").mkdir(parents=True)
    (folder / "options").mkdir()
    (folder / "models/coronet_model.py").touch()
    (folder / "options/base_options.py").write_text('add("--seed")')
    (folder / "train.py").write_text(TRAIN)
    (folder / "test.py").write_text(TEST)
    return folder / "train.py"


def calls(plan: Plan, name: str) -> list[str]:
    return (plan.checkpoints / name / "calls").read_text().splitlines()


def work(plan: Plan, said: list[str] | None = None, quality: float = 0.5) -> Work:
    measured = {"G": {"macs_share": 0.1, "parameters_share": 0.1, "ssim": quality}}
    return Work(plan, lambda setting: measured, (said if said is not None else []).append)


# -- which runs, which commands ------------------------------------------------
def test_every_combination_once_and_the_dense_one_without_budget() -> None:
    names = [setting.name for setting in trials(["coronet", "dense"], ["0.25", "0.1"], [0, 1])]
    assert names == [
        *("coronet_0.25_s0", "dense_s0", "coronet_0.1_s0"),
        *("coronet_0.25_s1", "dense_s1", "coronet_0.1_s1"),
    ]


def test_trainings_differ_in_method_budget_and_seed_alone(host: Path, tmp_path: Path) -> None:
    shared = ["--model", "pix2pix", "--ngf", "8", "--lr=0.1"]
    plan = Plan.of(tmp_path / "out", host, shared, 5)
    first, second = (plan.train(Trial(method, "0.1", 3)) for method in ("coronet", "uniform"))
    begin = [
        "python",
        "train.py",
        "--model",
        "coronet",
        "--coronet_base",
        "pix2pix",
        "--ngf",
        "8",
        "--lr=0.1",
    ]
    assert first[: len(begin)] == second[: len(begin)] == begin
    assert given(first, "coronet_budget") == given(second, "coronet_budget") == ["--coronet_budget", "0.1"]
    assert given(first, "seed")[1] == "3" and given(first, "coronet_method")[1] == "coronet"
    assert given(second, "coronet_method")[1] == "uniform"
    assert given(plan.train(Trial("published", "0.1", 3)), "coronet_method")[1] == "published"
    assert "--continue_train" not in first


@pytest.mark.parametrize(
    ("options", "base"),
    [
        ([], "cycle_gan"),
        (["--model", "pix2pix"], "pix2pix"),
        (["--model=pix2pix"], "pix2pix"),
        (["--model", "coronet", "--coronet_base", "pix2pix"], "pix2pix"),
        (["--model", "coronet"], "cycle_gan"),
    ],
)
def test_the_model_that_is_named_is_compressed(
    host: Path, tmp_path: Path, options: list[str], base: str
) -> None:
    assert Plan.of(tmp_path, host, options, 1).options == ("--model", "coronet", "--coronet_base", base)


def test_a_checkout_without_the_model_type_is_started_by_the_plug_in(host: Path, tmp_path: Path) -> None:
    (host.parent / "models/coronet_model.py").unlink()
    (host.parent / "options/base_options.py").write_text("")
    plan = Plan.of(tmp_path, host, [], 1)
    words = plan.train(Trial("coronet", "0.1", 1))
    assert words[:4] == ["python", "-m", "coronet_plugin", "train.py"] and "--seed" not in words


def test_options_a_sweep_sets_itself_are_refused(host: Path, tmp_path: Path) -> None:
    for word in ("--name", "--seed=3", "--coronet_budget", "--continue_train"):
        with pytest.raises(OptionError, match="for the sweep to set"):
            Plan.of(tmp_path, host, ["--ngf", "8", word], 1)
    with pytest.raises(OptionError, match="no .*elsewhere.py"):
        Plan.of(tmp_path, host.with_name("elsewhere.py"), [], 1)


# -- doing it -------------------------------------------------------------------
def test_done_runs_are_skipped_and_one_failure_stops_nobody(host: Path, tmp_path: Path) -> None:
    plan, said = Plan.of(tmp_path / "out", host, [], 7), []
    wanted = trials(["random", "coronet", "uniform"], ["0.1"], [0])
    failures = work(plan, said).all(wanted, jobs=2)
    (why,) = failures.values()
    assert "one went wrong" in why and "exit code 1" in why
    assert [is_done(plan, setting) for setting in wanted] == [False, True, True]
    images = plan.results / "coronet_0.1_s0/test_latest/images"
    assert (images / "a_fake_B.png").read_text() == "7"
    again = work(plan, said).all(wanted)
    assert list(again) == list(failures) and said.count("coronet_0.1_s0: done before") == 1
    assert calls(plan, "coronet_0.1_s0") == ["0.1 coronet 0 False"]
    assert calls(plan, "random_0.1_s0") == ["0.1 random 0 False", "0.1 random 0 True"]


def test_a_training_that_saved_nothing_is_not_done(host: Path, tmp_path: Path) -> None:
    """Upstream saves every fifth epoch unless told otherwise."""
    plan, setting = Plan.of(tmp_path / "out", host, [], 7), Trial("magnitude", "0.1", 0)
    assert "--save_epoch_freq 1" in work(plan).all([setting])[setting]
    assert read_record(plan, setting) == {}


@pytest.mark.parametrize("lost", ["results", "record"])
def test_what_is_lost_is_made_again_and_no_more(host: Path, tmp_path: Path, lost: str) -> None:
    plan, setting = Plan.of(tmp_path / "out", host, [], 7), Trial("coronet", "0.1", 0)
    work(plan).run(setting)
    image = plan.results / "coronet_0.1_s0/test_latest/images/a_fake_B.png"
    image.unlink() if lost == "results" else (plan.folder / "runs/coronet_0.1_s0.json").unlink()
    assert not is_done(plan, setting)
    work(plan).run(setting)
    assert is_done(plan, setting) and image.exists()
    assert len(calls(plan, "coronet_0.1_s0")) == (1 if lost == "results" else 2)


def test_a_folder_keeps_to_its_options(host: Path, tmp_path: Path) -> None:
    begin(Plan.of(tmp_path / "out", host, ["--ngf", "8"], 1))
    begin(Plan.of(tmp_path / "out", host, ["--ngf", "8"], 1))
    with pytest.raises(DataError, match="--ngf 8.*another --output"):
        begin(Plan.of(tmp_path / "out", host, ["--ngf", "16"], 1))


@pytest.mark.skipif(os.name != "posix", reason="locks and signals of POSIX")
def test_two_sweeps_do_not_work_on_one_run(host: Path, tmp_path: Path) -> None:
    plan, setting = Plan.of(tmp_path / "out", host, [], 7), Trial("coronet", "0.1", 0)
    with owned(plan.folder / "runs" / f"{setting.name}.lock"):
        failures = work(plan).all([setting])
    assert "another process" in failures[setting] and not (plan.checkpoints / setting.name).exists()
    assert work(plan).all([setting]) == {}


@pytest.mark.skipif(os.name != "posix", reason="locks and signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_lets_its_training_save_and_goes_on_later(
    host: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = [sys.executable, "-m", "coronet_plugin", "sweep", "--methods", "coronet", "uniform", "--no_fid"]
    words += ["--output", str(tmp_path / "out"), "--script", str(host), "--", "--slow", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "out/checkpoints/coronet_0.1_s0"
    deadline = time.monotonic() + 60  # far more than starting Python takes
    while not (run / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 128 + number and "the same command goes on" in said
    assert (run / "saved").exists() and not (tmp_path / "out/checkpoints/uniform_0.1_s0").exists()
    plan = Plan.of(tmp_path / "out", host, ["--slow", "1"], 10**6)
    assert read_record(plan, Trial("coronet", "0.1", 0)) == {}
    work(plan).run(Trial("coronet", "0.1", 0))
    assert calls(plan, "coronet_0.1_s0") == ["0.1 coronet 0 False", "0.1 coronet 0 True"]


def test_the_reason_of_a_failure_is_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo\n\n")
    assert last_line(tmp_path / "log") == "two"


def test_a_run_is_judged_by_other_pictures_and_weights_without_training_again(
    host: Path, tmp_path: Path
) -> None:
    setting, measured = Trial("uniform", "0.1", 0), {"test_latest": 0.5, "val_latest_average": 0.7}
    for look, quality in measured.items():
        phase, _, epoch = look.partition("_")
        plan = Plan.of(tmp_path / "out", host, [], 5, phase, epoch)
        assert not is_done(plan, setting)
        work(plan, quality=quality).run(setting)
        assert is_done(plan, setting) and (plan.pictures(setting) / "a_fake_B.png").is_file()
    found = read_record(plan, setting)["figures"]
    assert {look: figures["G"]["ssim"] for look, figures in found.items()} == measured
    assert len(calls(plan, setting.name)) == 1


def test_a_method_goes_with_a_form_of_the_hypernetwork(host: Path, tmp_path: Path) -> None:
    plan = Plan.of(tmp_path / "out", host, [], 5)
    dense, narrow = trials([method_named("dense+implicit"), method_named("uniform+implicit")], ["0.1"], [0])
    assert (dense.name, narrow.name) == ("dense+implicit_s0", "uniform+implicit_0.1_s0")
    words = [plan.train(setting) for setting in (dense, narrow)]
    assert [given(w, "coronet_budget")[1] for w in words] == ["1.0", "0.1"]
    assert [given(w, "coronet_method")[1] for w in words] == ["implicit", "uniform"]
    assert [given(w, "coronet_multipliers")[1:] for w in words] == [[], ["5.41"]]


def test_settings_are_varied_where_a_method_has_them() -> None:
    varied = dict([axis("embedding=4,8"), axis("lr_factor=2.5")])
    runs = trials(["published", "uniform"], ["0.1"], [0], varied)
    assert [run.name for run in runs] == [
        *("published_0.1_embedding4_lr_factor2.5_s0", "published_0.1_embedding8_lr_factor2.5_s0"),
        "uniform_0.1_lr_factor2.5_s0",
    ]
    assert given(runs[0].options(), "coronet_embedding")[1] == "4"
    assert given(runs[2].options(), "coronet_embedding") == []
    for text in ("embeding=4", "embedding=four", "schedule=sudden"):
        with pytest.raises(ValueError):
            axis(text)


@pytest.mark.parametrize("text", ["dens", "uniform+", "uniform+dense", "published+implicit"])
def test_a_method_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["sweep", "--methods", text, "--"])
    assert "--methods" in capsys.readouterr().err


# -- the table -------------------------------------------------------------------
def records() -> dict[Trial, dict]:
    def figures(macs: float, kid: float, ssim: float) -> dict:
        quality = {"kid": kid, "ssim": ssim, "fid": None, "floor_kid": 0.001}
        return {"figures": {"G": {"macs_share": macs, "parameters_share": macs, **quality}}}

    return {
        Trial("dense", "1.0", 0): figures(1.0, 0.05, 0.9),
        Trial("coronet", "0.1", 0): figures(0.1, 0.10, 0.6),
        Trial("coronet", "0.1", 1): figures(0.1, 0.14, 0.8),
        Trial("uniform", "0.1", 0): figures(0.09, 0.20, 0.7),
        Trial("uniform", "0.1", 1): figures(0.09, 0.20, 0.7),
    }


def test_a_method_that_is_not_what_inspired_it_says_so() -> None:
    figures = {"figures": {"G": {"macs_share": 0.1, "parameters_share": 0.1}}}
    text = table.markdown(
        table.groups({Trial("manifold", "0.1", 0): figures, Trial("coronet", "0.1", 0): figures})
    )
    assert (
        "| manifold (agent gates, inspired by MGGC, equations ours) | 0.1 |" in text and "| coronet |" in text
    )


def test_seeds_are_put_together(tmp_path: Path) -> None:
    text = table.markdown(table.groups(records()), {("G", "kid"): 0.001})
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    assert rows[0] == ["method", "budget", "seeds", "MACs, %", "parameters, %", "KID x 1000", "SSIM"]
    assert rows[2] == ["dense", "1.0", "1", "100.00", "100.00", "50.0", "0.900"]
    # the standard deviation of 100 and 140 is 28.3; SSIM is a tie of means, so that none is best
    assert rows[3] == [
        *("coronet", "0.1", "2", "10.00 ± 0.00", "10.00 ± 0.00"),
        "**120.0 ± 28.3**",
        "0.700 ± 0.141",
    ]
    assert rows[4][:3] == ["uniform", "0.1", "2"] and rows[4][5] == "200.0 ± 0.0"
    assert "KID x 1000 1.0" in text.splitlines()[-1]


def test_a_figure_that_one_seed_lacks_is_left_out() -> None:
    found = records()
    found[Trial("coronet", "0.1", 1)]["figures"]["G"]["kid"] = None
    groups = {group.method: group for group in table.groups(found)}
    assert "kid" not in groups["coronet"].values and groups["uniform"].mean("kid") == 0.2


def test_files(tmp_path: Path) -> None:
    table.write({}, tmp_path)
    assert not list(tmp_path.iterdir())
    table.write(records(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"sweep.{end}" for end in ("json", "csv", "md", "png")
    }
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [setting.name for setting in records()]
    assert float(rows[1]["kid"]) == 0.1 and len(json.loads((tmp_path / "sweep.json").read_text())) == 5
    with Image.open(tmp_path / "sweep.png") as image:
        assert min(image.size) > 100


# -- for real ---------------------------------------------------------------------
def test_a_sweep_of_the_bundled_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = paired_folder(tmp_path, images=2, size=32)
    shared = (
        "--model pix2pix --netG resnet_6blocks --norm instance --ngf 8 --ndf 4 --load_size 36 --crop_size 32"
    )
    shared += f" --n_epochs 1 --n_epochs_decay 1 --display_id -1 --no_html --num_threads 0 --dataroot {root}"
    begin = ["sweep", "--methods", "dense", "coronet", "--budgets", "0.4", "--no_fid", "--jobs", "2"]
    where = ["--output", str(tmp_path / "out"), "--script", str(ROOT / "train.py")]
    assert cli.main([*begin, *where, "--", *shared.split()]) == 0
    said = capsys.readouterr()
    rows = json.loads((tmp_path / "out/sweep.json").read_text())
    dense, slim = rows
    assert (dense["name"], slim["name"]) == ("dense_s0", "coronet_0.4_s0")
    assert dense["macs_share"] == 1 and 0.3 < slim["macs_share"] <= 0.4
    assert slim["macs"] / dense["macs"] == slim["macs_share"]
    assert all(row["training_seconds"] > 0 and row["training_memory"] > 50 * 2**20 for row in rows)
    assert "| training, s | training memory, MB |" in said.out
    assert "| coronet | 0.4 | 1 |" in said.out and "2 of 2 runs are done, 0 failed" in said.err
    run = find_run("coronet_0.4_s0", tmp_path / "out/checkpoints", tmp_path / "out/results")
    assert run.images_dir is not None
    with Image.open(run.images_dir / "0_fake_B.png") as image:
        assert image.size == (32, 32)  # not a crop of a larger picture


def test_a_slip_in_a_budget_is_said_before_any_training(host: Path, tmp_path: Path, capsys) -> None:
    words = ["sweep", "--methods", "dense", "coronet", "--budgets", "0.4", "1.7", "--no_fid"]
    words += ["--output", tmp_path / "out", "--script", host, "--", "--dataroot", "x"]
    assert cli.main([str(word) for word in words]) == 2
    assert "budget '1.7' is neither a fraction" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
