"""Mistakes: each is one clear line that names what is wrong and what to do, exit code 2, and no traceback.

``CASES`` is the table: what is called, how, and words the line must have.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import paired_folder, run_train, smooth_image
from mistakes import (
    Failing,
    call,
    compress,
    compression,
    coronet,
    make_world,
    train,
    translate,
    translate_dense,
)
from PIL import Image

from coronet_plugin import UserError, find_channels, load_generator
from coronet_plugin.budget.budget import Budget


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(root)
    return root


RUNS = "{world}/checkpoints"
CASES = [
    # data
    (train, ["--dataroot", "nowhere"], "there is no folder nowhere", "--dataroot"),
    (train, ["--dataroot", "{world}/file"], "there is no folder", "--dataroot"),
    (train, ["--dataroot", "{world}/empty"], "empty has no subfolders", "--dataroot"),
    (train, ["--dataroot", "{world}/no_images"], "has no images", ".png"),
    (train, ["--phase", "val"], "there is no folder", "--phase"),
    (train, ["--dataroot", "{world}/unpaired"], "unpaired images need --dataset_mode unaligned"),
    (train, ["--model", "cycle_gan"], "pairs in one image need --dataset_mode aligned"),
    (train, ["--dataroot", "{world}/corrupt"], "a.png cannot be read as an image", "repair or remove"),
    (train, ["--dataroot", "{world}/truncated"], "a.jpg cannot be read as an image", "truncated"),
    (train, ["--dataroot", "{world}/zero_bytes"], "a.jpg cannot be read", "remove"),
    (train, ["--dataroot", "{world}/text"], "a.png cannot be read", "remove"),
    (train, ["--dataroot", "{world}/one_pixel"], "1x1 pixels", "two images side by side"),
    (train, ["--dataroot", "{world}/odd"], "63x32 pixels", "two images side by side"),
    (train, ["--dataroot", "{world}/float"], "a.tif has pixels from 0.5 to 0.5", "8 or 16 bits"),
    (train, ["--dataroot", "{world}/corrupt", "--num_threads", 2], "a.png cannot be read as an image"),
    (train, ["--dataroot", "{world}/sizes", "--preprocess", "none", "--batch_size", 2, "--no_flip"], "--batch_size 1"),
    (train, ["--preprocess", "scale_width_and_crop", "--load_size", 20, "--crop_size", 24], "at least 24 pixels", "--crop_size"),
    (train, ["--crop_size", 4, "--load_size", 4], "--netG resnet_6blocks takes images of at least 5 pixels"),
    (train, ["--netG", "unet_256"], "multiples of 256 pixels, and got 32x32", "--crop_size"),
    (train, ["--bit_depth", 7], "--bit_depth must be at least 8"),
    (train, ["--crop_size", 30], "multiples of 4 pixels", "--crop_size"),
    (train, ["--input_nc", 4], "--input_nc 4, but the images", "--input_nc 3"),
    (train, ["--output_nc", 2], "--output_nc 2, but the images", "--output_nc 3"),
    (train, ["--model", "cycle_gan", "--dataset_mode", "aligned", "--output_nc", 1], "--lambda_identity 0"),
    # names of things
    (train, ["--model", "pix3pix"], "--model pix3pix", "pix2pix"),
    (train, ["--model", "test"], "--model test is for test.py"),
    (train, ["--dataset_mode", "pairs"], "--dataset_mode pairs", "aligned"),
    (train, ["--netG", "resnet_7blocks"], "--netG resnet_7blocks", "resnet_6blocks"),
    (train, ["--netD", "deep"], "--netD deep", "basic"),
    (train, ["--norm", "layer"], "--norm layer", "batch"),
    (train, ["--init_type", "zero"], "--init_type zero", "xavier"),
    (train, ["--gan_mode", "hinge"], "--gan_mode hinge", "lsgan"),
    (train, ["--lr_policy", "warm"], "--lr_policy warm", "cosine"),
    (train, ["--preprocess", "stretch"], "--preprocess stretch", "resize_and_crop"),
    (train, ["--direction", "CtoD"], "--direction CtoD", "AtoB or BtoA"),
    (train, ["--name", "../x"], "--name '../x'"),
    (train, ["--epoch", "a/b"], "--epoch 'a/b'"),
    (train, ["--phase", "/"], "--phase '/'", "--dataroot"),
    (train, ["--suffix", "{nothing}"], "--suffix", "nothing"),
    (train, ["--gpu_ids", "first"], "--gpu_ids first"),
    (train, ["--gpu_ids", "\x85\x1b[2J"], "--gpu_ids", "\\x1b[2J is not a list of numbers"),
    (train, ["--n_epoch", 3], "unknown option --n_epoch", "did you mean --n_epochs"),
    (train, ["surprise"], "unexpected argument 'surprise'"),
    (train, ["--batch_size"], "--batch_size", "expected one argument"),
    # numbers
    (train, ["--ngf", "many"], "--ngf", "invalid int value: 'many'"),
    (train, ["--ngf", 0], "--ngf must be at least 1, not 0"),
    (train, ["--ngf", 10**9], "--ngf must be at most 4096"),
    (train, ["--ndf", -4], "--ndf must be"),
    (train, ["--batch_size", 0], "--batch_size must be at least 1, not 0"),
    (train, ["--crop_size", 10**7], "--crop_size must be at most 16384"),
    (train, ["--load_size", -1], "--load_size must be"),
    (train, ["--lr", "nan"], "--lr must be"),
    (train, ["--lr", -1], "--lr must be"),
    (train, ["--beta1", 2], "--beta1 must be"),
    (train, ["--n_epochs", -1], "--n_epochs must be"),
    (train, ["--num_threads", -1], "--num_threads must be"),
    (train, ["--max_dataset_size", 0], "--max_dataset_size must be at least 1"),
    (train, ["--lr_policy", "step", "--lr_decay_iters", 0], "--lr_decay_iters must be at least 1"),
    (train, ["--save_latest_freq", 0], "--save_latest_freq must be at least 1"),
    (train, ["--print_freq", 0], "--print_freq must be at least 1"),
    (train, ["--n_layers_D", 50, "--netD", "n_layers"], "--n_layers_D must be at most 8"),
    (train, ["--pool_size", -1], "--pool_size must be"),
    (train, ["--seed", 10**30], "--seed must be"),
    (train, ["--epoch_count", 0], "--epoch_count must be at least 1"),
    (train, ["--init_gain", "nan"], "--init_gain must be"),
    # earlier runs
    (train, ["--continue_train"], "latest_net_G.pth is not there"),
    (train, ["--name", "dense"], "holds a run with other options", "--overwrite", "--continue_train"),
    (train, ["--name", "discriminator", "--continue_train"], "does not fit netG"),
    # compressing
    (compress, ["--coronet_budget", 0], "budget '0' is not understood", "0.1"),
    (compress, ["--coronet_budget", -1], "budget"),
    (compress, ["--coronet_budget", "lots"], "budget 'lots' is not understood"),
    (compress, ["--coronet_budget", "1.7"], "at most 1", "350000"),
    (compress, ["--coronet_budget", "1.7", "--dataroot", "nowhere"], "budget '1.7'"),
    (compress, ["--coronet_budget", "1e-9"], "cannot be reached", "smallest possible"),
    (compress, ["--coronet_budget", "900G"], "more than the dense generator's", "ask for less"),
    (compress, ["--coronet_budget_kind", "watts"], "--coronet_budget_kind", "params"),
    (compress, ["--coronet_search_epochs", 99], "--coronet_search_epochs 99", "at most the 2 epochs"),
    (compress, ["--coronet_search_epochs", 0], "--coronet_search_epochs 0"),
    (compress, ["--coronet_search_epochs", "nan"], "--coronet_search_epochs nan"),
    (compress, ["--coronet_networks", "G_C"], "--coronet_networks G_C", "G, D"),
    (compress, ["--coronet_base", "nope"], "--coronet_base nope is not known; there are colorization, cycle_gan, pix2pix, template (--help"),
    (compress, ["--coronet_base", "coronet"], "itself; there are colorization, cycle_gan, pix2pix, template (--help"),
    (compress, ["--coronet_base", "test"], "only tests", "there are colorization, cycle_gan, pix2pix, template (--help"),
    (compress, ["--coronet_base", "../x"], "--coronet_base '../x'"),
    (compress, ["--coronet_method", "published", "--coronet_embedding", 0], "--coronet_embedding must be at least 1"),
    (compress, ["--coronet_round_to", 0], "round", "1"),
    (compress, ["--coronet_widths_from", "nowhere"], "nowhere", "cannot be read"),
    (compress, ["--coronet_widths_from", "{world}/checkpoints/slim", "--coronet_shared_budget"], "--coronet_shared_budget"),
    (compress, ["--coronet_init_from", "nowhere"], "--coronet_init_from nowhere", "not there"),
    (compress, ["--coronet_init_from", RUNS + "/discriminator"], "--coronet_init_from", "--netG"),
    (compress, ["--coronet_schedule", "sudden"], "--coronet_schedule", "cubic"),
    (compress, ["--coronet_method", "guess"], "--coronet_method", "uniform"),
    (compress, ["--coronet_hypernetwork", "deep"], "--coronet_hypernetwork", "folded"),
    (compress, ["--coronet_on_nan", "ignore"], "--coronet_on_nan", "rollback"),
    (compress, ["--continue_train"], "latest_coronet_state.pth is not there"),
    (compress, ["--name", "bad_state", "--continue_train"], "latest_coronet_state.pth does not fit this training"),
    (compress, ["--name", "list_state", "--continue_train"], "is not a training state"),
    (compress, ["--name", "cut_state", "--continue_train"], "latest_coronet_state.pth cannot be read"),
    # testing
    (translate, ["--name", "nobody"], "latest_net_G.pth is not there", "--name"),
    (translate, ["--name", "slim", "--epoch", 17], "17_net_G.pth is not there", "--epoch"),
    (translate, ["--name", "newer"], "version 99", "update the package"),
    (translate, ["--name", "absurd"], "not a sound spec", "model.1.weight"),
    (translate, ["--name", "no_json"], "latest_net_G.json", "not valid JSON"),
    (translate, ["--name", "half_weights"], "latest_net_G.pth", "damaged"),
    (translate, ["--name", "no_weights"], "latest_net_G.pth is not there"),
    (translate, ["--name", "list"], "no state_dict"),
    (translate, ["--name", "slim", "--netG", "unet_128"], "--netG"),
    (translate, ["--name", "slim", "--pad_to_multiple", -1], "--pad_to_multiple must be at least 0"),
    (translate, ["--name", "slim", "--num_test", 0], "--num_test must be at least 1"),
    (translate, ["--name", "slim", "--aspect_ratio", 0], "--aspect_ratio must be"),
    (translate_dense, ["--netG", "resnet_9blocks"], "6 blocks", "--netG"),
    (translate_dense, ["--norm", "batch"], "--norm"),
    (translate_dense, ["--ngf", 4], "--ngf 8"),
    (translate_dense, ["--input_nc", 1], "--input_nc 3"),
    (translate_dense, ["--phase", "night"], "there is no folder", "--phase"),
    # subcommands
    (coronet, [], "COMMAND", "required"),
    (coronet, ["compres"], "invalid choice: 'compres'"),
    (coronet, ["compare", "nobody", "--checkpoints_dir", RUNS], "no run 'nobody'", "there are"),
    (coronet, ["compare", "../x", "--checkpoints_dir", RUNS], "lies outside of"),
    (coronet, ["compare", "no_options", "--checkpoints_dir", RUNS], "train_opt.txt"),
    (coronet, ["compare", "slim", "--images", 0, "--checkpoints_dir", RUNS], "--images", "at least 1"),
    (coronet, ["inspect", "resnet_5blocks"], "resnet_5blocks"),
    (coronet, ["inspect", "resnet_6blocks", "--size", 0], "--size", "at least 1"),
    (coronet, ["inspect", "resnet_6blocks", "--ngf", -1], "--ngf", "at least 1"),
    (coronet, ["inspect", RUNS + "/half_weights/latest_net_G.pth"], "damaged"),
    (coronet, ["inspect", RUNS + "/absurd/latest_net_G.pth"], "not a sound spec"),
    (coronet, ["inspect", "{world}/none.py:Net"], "none.py"),
    (coronet, ["inspect", "{world}/own.py:Missing"], "Missing"),
    (coronet, ["inspect", "{world}/own.py:number"], "number"),
    (coronet, ["inspect", "{world}/syntax.py:broken"], "syntax.py"),
    (coronet, ["inspect", "{world}/own.py:broken", "--kwargs", "{"], "--kwargs", "JSON"),
    (coronet, ["export-upstream", "nobody", "--output", "out", "--checkpoints_dir", RUNS], "no run 'nobody'"),
    (coronet, ["export-upstream", RUNS + "/other_architecture/latest_net_G.pth", "--output", "out"], "MyGenerator"),
    (coronet, ["doctor", "{world}/nowhere"], "nowhere"),
    (coronet, ["install", "{world}/empty"], "empty"),
    # from Python
    (call, lambda world: compression(world, search_steps=0), "at least one step"),
    (call, lambda world: compression(world, budget="x"), "not understood"),
    (call, lambda world: compression(world, kind="watts"), "watts", "params"),
    (call, lambda world: compression(world, method="guess"), "guess", "uniform"),
    (call, lambda world: compression(world, schedule="sudden"), "sudden", "cubic"),
    (call, lambda world: compression(world).step(), "attach(optimizer) comes before step()"),
    (call, lambda world: compression(world).attach(torch.optim.SGD([torch.zeros(1)], 1.0)), "does not hold"),
    (call, lambda world: Budget.parse(float("nan")), "nan", "not understood"),
    (call, lambda world: load_generator(world / "nowhere.pth"), "nowhere.json", "cannot be read"),
    (call, lambda world: load_generator(world / "checkpoints/other_architecture/latest_net_G.pth"), "build="),
    (call, lambda world: find_channels(Failing(), (torch.zeros(1, 3, 8, 8),)), "channels"),
]  # fmt: skip


def name_of(case) -> str:
    how, words = case[:2]
    return f"{how.__name__} {' '.join(map(str, words)) if isinstance(words, list) else ', '.join(case[2:])}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_mistake_is_one_clear_line(world, tmp_path, monkeypatch, capsys, case):
    how, words, *said = case
    monkeypatch.chdir(tmp_path)
    shown = words if callable(words) else [str(word).replace("{world}", str(world)) for word in words]
    try:
        code = how(world, shown) if callable(shown) else how(world, *shown)
    except SystemExit as left:
        code = left.code
    errors = capsys.readouterr().err.strip()
    assert code == 2 and "Traceback" not in errors
    assert len(errors.splitlines()) == 1, errors
    assert all(word in errors for word in said), errors
    assert len(errors) < 1000


def test_there_are_at_least_sixty_different_cases():
    assert len({name_of(case) for case in CASES}) == len(CASES) >= 60


# -- extras that are not installed --------------------------------------------
@pytest.mark.parametrize(
    ("module", "extra", "how", "words"),
    [
        ("torch_pruning", "magnitude", compress, ["--coronet_method", "magnitude"]),
        (
            "matplotlib",
            "report",
            coronet,
            ["inspect", "resnet_6blocks", "--ngf", 8, "--size", 32, "--output", "a.svg"],
        ),
        (
            "dominate",
            "report",
            coronet,
            ["compare", "slim", "--checkpoints_dir", RUNS, "--results_dir", "{world}/results"],
        ),
    ],
)
def test_a_missing_extra_is_named(world, tmp_path, monkeypatch, capsys, module, extra, how, words):
    monkeypatch.chdir(tmp_path)
    for loaded in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    code = how(world, *(str(word).replace("{world}", str(world)) for word in words))
    errors = capsys.readouterr().err.strip()
    assert code == 2 and len(errors.splitlines()) == 1 and f"[{extra}]" in errors


# -- with --debug the error itself ---------------------------------------------
def test_debug_shows_where_an_error_comes_from(world, monkeypatch):
    with pytest.raises(UserError):
        train(world, "--dataroot", "nowhere", "--debug")
    with pytest.raises(UserError):
        coronet(world, "compare", "nobody", "--debug")
    monkeypatch.setenv("CORONET_DEBUG", "1")
    with pytest.raises(UserError):
        train(world, "--dataroot", "nowhere")
    with pytest.raises(UserError):
        coronet(world, "compare", "nobody")


# -- what can be converted is ---------------------------------------------------
@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "I;16"])
def test_other_kinds_of_images_are_trained_on(tmp_path, run, mode):
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    pair = smooth_image(0, 64, 32)
    if mode == "I;16":
        pair = Image.fromarray(np.asarray(pair.convert("L")).astype(np.uint16) * 257)
    else:
        pair = pair.quantize() if mode == "P" else pair.convert(mode)
    pair.save(folder / ("a.jpg" if mode == "CMYK" else "a.png"))
    assert run_train(*run("a", tmp_path / "data", "pix2pix"), "--n_epochs_decay", 0, "--no_html") == 0


def test_a_single_pixel_becomes_a_plain_image(tmp_path, run):
    folder = tmp_path / "data"
    for side in "AB":
        (folder / f"train{side}").mkdir(parents=True)
        Image.new("RGB", (1, 1), (200, 30, 30)).save(folder / f"train{side}" / "a.png")
    assert run_train(*run("a", folder, "cycle_gan"), "--n_epochs_decay", 0, "--no_html") == 0


# -- a run of that name ----------------------------------------------------------
def test_a_name_is_used_again_on_purpose_alone(tmp_path, run, capsys):
    arguments = [*run("a", paired_folder(tmp_path, 1), "pix2pix"), "--n_epochs_decay", 0, "--no_html"]
    assert run_train(*arguments) == 0
    options = tmp_path / "checkpoints" / "a" / "train_opt.txt"
    before = options.read_text()
    with pytest.raises(SystemExit) as left:
        run_train(*arguments, "--ngf", 6)
    assert left.value.code == 2 and "--ngf 4, not 6" in capsys.readouterr().err
    assert options.read_text() == before
    assert run_train(*arguments, "--print_freq", 1) == 0  # the same training, shown otherwise
    assert run_train(*arguments, "--ngf", 6, "--overwrite") == 0


def test_running_out_of_memory_is_one_line(tmp_path, run, monkeypatch, capsys):
    from models.pix2pix_model import Pix2PixModel

    def out_of_memory(self):
        torch.empty(2**60)

    monkeypatch.setattr(Pix2PixModel, "forward", out_of_memory)
    assert run_train(*run("a", paired_folder(tmp_path, 1), "pix2pix"), "--no_html") == 2
    assert "out of memory; lower --batch_size" in capsys.readouterr().err
