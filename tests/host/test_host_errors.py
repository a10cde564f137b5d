"""Mistakes a user of train.py and test.py can mend: one clear line each."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT, paired_folder, run_test, run_train, smooth_image


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--model", "pix2pix", "--dataroot", "nowhere"], "nowhere"),
        (["--netG", "unet_128"], "multiples of 128 pixels, and got 32x32"),
        (["--crop_size", "30"], "multiples of 4 pixels, and got 30x30"),
        (["--netG", "resnet_7blocks"], "resnet_7blocks is not known"),
        (["--gan_mode", "hinge"], "--gan_mode hinge"),
        (["--lr_policy", "warm"], "--lr_policy warm"),
        (["--continue_train"], "latest_net_G.pth is not there"),
        (["--model", "cycle_gan", "--output_nc", "1", "--dataset_mode", "aligned"], "--lambda_identity 0"),
    ],
)
def test_errors_of_training_are_one_line_and_exit_code_2(tmp_path, run, capsys, extra, said):
    arguments = run("p", paired_folder(tmp_path), "pix2pix")
    assert run_train(*arguments, *extra) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("train.py: error: ") and said in line and "\n" not in line


def test_wrong_options_for_a_checkpoint(tmp_path, run, capsys):
    root = paired_folder(tmp_path)
    assert run_train(*run("p", root, "pix2pix"), "--n_epochs_decay", 0, "--no_html") == 0
    testing = run("p", root, "pix2pix", testing=True)
    capsys.readouterr()
    for extra, said in (
        (["--netG", "resnet_9blocks"], "--netG"),
        (["--norm", "instance"], "--norm"),
        (["--ngf", 8], "--ngf 4"),
        (["--epoch", 17], "17_net_G.pth is not there"),
    ):
        assert run_test(*testing, *extra) == 2
        line = capsys.readouterr().err.strip()
        assert line.startswith("test.py: error: ") and said in line and "\n" not in line


def test_debug_shows_the_traceback(tmp_path, run):
    from coronet_plugin.errors import DataError

    with pytest.raises(DataError):
        run_train(*run("p", tmp_path / "nowhere", "pix2pix"), "--debug")


def test_the_scripts_themselves(tmp_path):
    """In processes of their own, and from another folder."""

    def script(name, *args):
        command = [sys.executable, str(ROOT / name), *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    unknown = script("train.py", "--model", "nope", "--dataroot", ".")
    assert (
        unknown.returncode == 2
        and "colorization, coronet, cycle_gan, pix2pix, template, test" in unknown.stderr
    )
    shown = script("test.py", "--model", "test", "--help")
    assert shown.returncode == 0 and "--model_suffix" in shown.stdout
    smooth_image(0, 32, 32).save(tmp_path / "a.png")
    missing = script("test.py", "--model", "test", "--dataroot", tmp_path, "--ngf", 4)
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1 and "Traceback" not in missing.stderr
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "results").exists()
