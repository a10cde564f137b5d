"""Kinds of pictures: depth, transparency, pairs, sizes; read, looked over, padded and joined."""

from __future__ import annotations

import argparse
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import paired_folder, run_test, run_train, smooth_image, unpaired_folder
from PIL import Image
from torch import nn
from torch.nn import functional as F

from coronet_plugin import Spec, cli, load_generator
from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.pictures import Reading
from coronet_plugin.export.pictures import evenly, pictures_for, read_picture
from coronet_plugin.pictures.padding import cut, pad, pad_inputs_
from coronet_plugin.pictures.pairs import find_pairs, write_pairs
from coronet_plugin.pictures.reading import halves, open_picture
from coronet_plugin.pictures.survey import no_alpha, square_pairs, unused_range
from data.base_dataset import to_tensor

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's number for pictures of so many channels."""


def save_deep(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16 bits a channel; Pillow writes such files for gray alone."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def deep_values(channels: int, bits: int = 12, size: tuple[int, int] = (16, 32)) -> np.ndarray:
    values = np.random.default_rng(channels).integers(0, 2**bits - 31, (*size, channels), dtype=np.uint16)
    values[0, 0] = 2**bits - 32  # 4,064 of 4,095: what a scanner calls white
    return values


def saved(folder: Path, name: str, image: Image.Image) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name)
    return str(folder / name)


def words_for_test(run, name: str, root: Path, model: str) -> list[str]:
    """Arguments of test.py without those of small networks, which a compressed run remembers."""
    words = run(name, root, model, testing=True)
    return [*words[:8], *words[-2:]]


# -- depth ---------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_values_of_any_depth_become_their_upper_eight_bits(tmp_path, channels, bits):
    values = deep_values(channels, bits)
    path = save_deep(tmp_path / "a.png", values)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    found = np.asarray(open_picture(path, mode, bits)).reshape(values.shape)
    assert np.array_equal(found, values >> (bits - 8))
    assert np.array_equal(
        read_picture(path, channels, (16, 32), bit_depth=bits), to_tensor(Image.fromarray(found.squeeze()))
    )


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_files_of_twelve_bits(tmp_path, compression):
    values = deep_values(1)[..., 0]
    Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.tif", "L", 12)), values >> 4)


def test_depths_that_are_not_true_are_said(tmp_path):
    bright = save_deep(tmp_path / "bright.png", deep_values(3, 14))
    with pytest.raises(
        DataError, match=r"bright.png has values up to 16352, and 12 bits end with 4095; set --bit_depth 14"
    ):
        open_picture(bright, "RGB", 12)
    with pytest.raises(DataError, match="gray_alpha.png: only the upper 8 bits"):
        open_picture(save_deep(tmp_path / "gray_alpha.png", deep_values(2)), "RGB", 12)
    eight = saved(tmp_path, "eight.png", smooth_image(0, 8, 8))
    assert open_picture(eight, "RGB", 12).tobytes() == smooth_image(0, 8, 8).tobytes()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_small_part_of_the_range_is_noticed(tmp_path, channels):
    dark = [str(save_deep(tmp_path / f"{i}.png", deep_values(channels))) for i in range(3)]
    (remark,) = unused_range(dark)
    assert "no value above 4064 in the 3 looked at" in remark and "set --bit_depth 12" in remark
    assert not unused_range(dark, 12)
    assert not unused_range([str(save_deep(tmp_path / "full.png", deep_values(channels, 16)))])
    assert not unused_range([saved(tmp_path, "night.png", Image.new("RGB", (8, 8), (9, 9, 9)))])
    (tmp_path / "0.png").write_bytes(b"\x89PNG damaged")
    assert "in the 2 looked at" in unused_range(dark)[0]  # the damaged one is for the loader to name


def deep_pairs(root: Path, phases=("train", "test")) -> Path:
    for phase in phases:
        for i in range(2):
            smooth = np.asarray(smooth_image(i, 64, 32).convert("L")).astype(np.uint16) << 4
            save_deep(root / phase / f"{i}.png", smooth[..., None])
    return root


def test_twelve_bits_from_training_to_export(tmp_path, run, capsys):
    """Said when they are taken for 16, remembered by a compressed run, and read alike everywhere."""
    root = deep_pairs(tmp_path / "deep")
    quick = ["--n_epochs_decay", 0, "--no_html", "--input_nc", 1, "--output_nc", 1, "--ngf", 8]
    assert run_train(*run("dark", root, "pix2pix"), *quick) == 0
    assert capsys.readouterr().out.count("set --bit_depth 12") == 1
    coronet = ["--coronet_base", "pix2pix", "--coronet_budget", 0.5, "--bit_depth", 12]
    assert run_train(*run("a", root, "coronet"), *quick, *coronet) == 0
    assert run_test(*words_for_test(run, "a", root, "coronet"), "--preprocess", "none") == 0
    assert "set --bit_depth" not in capsys.readouterr().out
    shown = np.asarray(Image.open(tmp_path / "results/a/test_latest/images/0_real_A.png"))[..., 0]
    expected = np.asarray(smooth_image(0, 64, 32).convert("L"))[:, :32]
    assert np.array_equal(shown, expected)
    real = Reading("A", gray=True, preprocess="none", bit_depth=12)(root / "test" / "0.png")
    assert np.array_equal(real[..., 0], expected)
    weights = tmp_path / "checkpoints/a/latest_net_G.pth"
    given = pictures_for(weights, "G", 1, (32, 32), results_dir=tmp_path / "nowhere")
    assert (
        np.array_equal(given.values[0, 0], to_tensor(Image.fromarray(expected))[0]) and given.bit_depth == 12
    )


# -- transparency ---------------------------------------------------------------
def glass(seed: int, width: int, height: int) -> Image.Image:
    image = smooth_image(seed, width, height).convert("RGBA")
    image.putalpha(smooth_image(seed + 50, width, height).convert("L"))
    return image


def test_four_channels_are_read_trained_tested_and_saved(tmp_path, run, capsys):
    root = tmp_path / "glass"
    for phase in ("train", "test"):
        saved(root / phase, "a.png", glass(0, 64, 32))
        saved(root / phase, "opaque.png", smooth_image(1, 64, 32))  # an optimiser left its alpha out
    arguments = ["--input_nc", 4, "--output_nc", 4]
    assert run_train(*run("a", root, "pix2pix"), *arguments, "--n_epochs_decay", 0) == 0
    assert run_test(*run("a", root, "pix2pix", testing=True), *arguments, "--load_size", 32) == 0
    images = tmp_path / "results/a/test_latest/images"
    assert np.array_equal(
        np.asarray(Image.open(images / "a_real_A.png")), np.asarray(glass(0, 64, 32))[:, :32]
    )
    assert Image.open(images / "opaque_real_B.png").getextrema()[3] == (255, 255)
    assert Image.open(images / "a_fake_B.png").mode == "RGBA"
    weights = tmp_path / "checkpoints/a/latest_net_G.pth"
    given = pictures_for(weights, "G", 4, (32, 32), results_dir=tmp_path / "results")
    assert given.are_real and given.values.shape == (2, 4, 32, 32)


def test_one_side_with_alpha(tmp_path, run):
    root = tmp_path / "glass"
    saved(root / "train", "a.png", glass(0, 64, 32))
    for channels in (["--input_nc", 4], ["--output_nc", 4]):
        arguments = [*run("a", root, "pix2pix"), *channels, "--n_epochs_decay", 0, "--no_html", "--overwrite"]
        assert run_train(*arguments) == 0


def test_alpha_that_is_not_there(tmp_path, run, capsys):
    paths = [saved(tmp_path / "plain", f"{i}.png", smooth_image(i, 8, 8)) for i in range(2)]
    assert no_alpha(paths)
    assert not no_alpha([*paths, saved(tmp_path, "glass.png", glass(0, 8, 8))])
    palette = smooth_image(0, 8, 8).quantize(8)
    palette.info["transparency"] = 0
    assert not no_alpha([saved(tmp_path, "palette.png", palette)])
    root = unpaired_folder(tmp_path)
    assert run_train(*run("a", root, "cycle_gan"), "--output_nc", 4, "--direction", "BtoA") == 2
    assert "--output_nc 4, but the images of" in (error := capsys.readouterr().err) and "trainA" in error


# -- pairs ----------------------------------------------------------------------
@pytest.mark.parametrize("size", [(128, 128), (400, 600), (2, 9)])
def test_any_even_width_is_halved(tmp_path, size):
    whole = smooth_image(0, *size)
    a, b = halves(whole, "pair.png")
    assert np.array_equal(np.concatenate([a, b], axis=1), whole) and a.size == b.size == (
        size[0] // 2,
        size[1],
    )
    path = tmp_path / "pair.png"
    whole.save(path)
    assert Reading("B")(path).shape == (size[1], size[0] // 2, 3)


def test_tall_pairs_are_trained_on(tmp_path, run):
    saved(tmp_path / "tall/train", "a.png", smooth_image(0, 128, 128))
    arguments = ["--preprocess", "none", "--no_flip", "--n_epochs_decay", 0, "--no_html"]
    assert run_train(*run("a", tmp_path / "tall", "pix2pix"), *arguments) == 0


def test_square_pictures_given_as_pairs_are_said_once(tmp_path, run, capsys):
    root = tmp_path / "photos"
    for phase in ("train", "test"):
        for i, size in enumerate([(64, 64), (64, 60), (128, 64)]):
            saved(root / phase, f"{i}.png", smooth_image(i, *size))
    coronet = ["--coronet_base", "pix2pix", "--coronet_budget", 0.6]
    assert run_train(*run("a", root, "coronet"), *coronet, "--no_html") == 0
    trained = capsys.readouterr().out
    assert run_test(*words_for_test(run, "a", root, "coronet")) == 0
    for said, phase in ((trained, "train"), (capsys.readouterr().out, "test")):
        (line,) = [line for line in said.splitlines() if "about square" in line]
        assert f"{phase} are about square (such as 0.png, 64x64)" in line
        assert "coronet pairs A_FOLDER B_FOLDER --output DIR" in line and "--dataset_mode unaligned" in line


def test_other_hosts_hear_of_square_pairs_too(tmp_path, monkeypatch):
    """Their data sets say nothing themselves; the bundled host's do."""
    from coronet_plugin.training import data_set

    saved(tmp_path / "test", "a.png", smooth_image(0, 64, 64))
    opt = argparse.Namespace(dataset_mode="aligned", dataroot=str(tmp_path), phase="test")
    assert not data_set.remarks(opt)
    monkeypatch.setattr("data.find_dataset_using_name", lambda name: object)
    assert "test are about square" in data_set.remarks(opt)[0]
    opt.dataset_mode = "unaligned"
    assert not data_set.remarks(opt)


def test_what_is_not_mostly_square_is_left_alone(tmp_path):
    wide = [saved(tmp_path, f"{i}.png", smooth_image(i, 64, 32)) for i in range(2)]
    square = [saved(tmp_path, f"s{i}.png", smooth_image(i, 64, 64)) for i in range(2)]
    assert not square_pairs([*wide, *square]) and square_pairs([wide[0], *square])
    assert not square_pairs([saved(tmp_path, "tall.png", smooth_image(0, 64, 96))])


# -- coronet pairs ----------------------------------------------------------------
@pytest.fixture
def sides(tmp_path) -> tuple[Path, Path]:
    """Two folders with partners ``1``, ``sub/2``; ``3`` only in A, ``4`` only in B."""
    a, b = tmp_path / "a", tmp_path / "b"
    for name, size in (("1.png", (20, 30)), ("3.png", (9, 9))):
        saved(a, name, smooth_image(1, *size))
    saved(a / "sub", "2.png", smooth_image(2, 16, 16))
    saved(b, "1.bmp", smooth_image(3, 20, 30))
    saved(b / "sub", "2.png", smooth_image(4, 16, 16).convert("L"))
    saved(b, "4.png", smooth_image(0, 9, 9))
    return a, b


def test_pairs_are_joined_and_what_has_no_partner_is_listed(sides, tmp_path, capsys):
    assert cli.main(["pairs", str(sides[0]), str(sides[1]), "--output", str(tmp_path / "o" / "train")]) == 0
    shown = capsys.readouterr()
    assert "2 pairs are in" in shown.out and "2 pictures have no partner" in shown.out
    assert "a/3.png has no partner" in shown.err and "b/4.png has no partner" in shown.err
    joined = Image.open(tmp_path / "o/train/1.png")
    assert joined.size == (40, 30)
    for half, seed in zip(halves(joined, ""), (1, 3)):
        assert half.tobytes() == smooth_image(seed, 20, 30).tobytes()
    gray = Image.open(tmp_path / "o/train/sub/2.png")
    assert gray.mode == "RGB" and np.array_equal(
        np.asarray(gray)[:, 16:, 0], smooth_image(4, 16, 16).convert("L")
    )


def test_pairs_can_be_trained_on(sides, tmp_path, run):
    write_pairs(find_pairs(*sides), tmp_path / "o" / "train")
    assert run_train(*run("a", tmp_path / "o", "pix2pix"), "--n_epochs_decay", 0, "--no_html") == 0


def test_pairs_keep_depth_and_alpha(tmp_path):
    for side in "ab":
        save_deep(tmp_path / side / "deep.png", deep_values(1))
        saved(tmp_path / side, "glass.png", glass(0, 8, 8) if side == "a" else smooth_image(0, 8, 8))
        save_deep(tmp_path / side / "colour.png", deep_values(3))
    write_pairs(find_pairs(tmp_path / "a", tmp_path / "b"), tmp_path / "o", 12)
    deep = np.asarray(Image.open(tmp_path / "o/deep.png"))
    assert np.array_equal(deep[:, :32], deep_values(1)[..., 0]) and deep.max() == 4064
    assert np.array_equal(np.asarray(Image.open(tmp_path / "o/glass.png"))[:, :8], glass(0, 8, 8))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "o/colour.png"))[:, 32:], deep_values(3) >> 4)


def test_pairs_that_do_not_fit_are_refused_before_anything_is_written(sides, tmp_path, capsys):
    def refused(*words: object) -> str:
        assert cli.main(["pairs", *map(str, words), "--output", str(tmp_path / "o")]) == 2
        assert not (tmp_path / "o").exists()
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    a, b = sides
    saved(a, "4.png", smooth_image(0, 9, 8))
    assert "sizes differ in 1 of 3 pairs" in (line := refused(a, b)) and "(9x8)" in line and "(9x9)" in line
    saved(a, "1.jpg", smooth_image(0, 20, 30))
    assert "have the same name" in refused(a, b)
    (a / "1.jpg").unlink()
    assert "there is no folder" in refused(a, tmp_path / "nowhere")
    saved(tmp_path / "other", "x.png", smooth_image(0, 8, 8))
    assert "no picture of" in (line := refused(tmp_path / "other", b)) and "x.png" in line
    (a / "4.png").unlink()
    saved(tmp_path / "o", "old.png", smooth_image(0, 8, 8))
    assert cli.main(["pairs", str(a), str(b), "--output", str(tmp_path / "o")]) == 2
    assert "has pictures already" in capsys.readouterr().err


# -- sizes ------------------------------------------------------------------------
def test_padding_mirrors_and_is_cut_back():
    image = torch.rand(1, 3, 37, 53)
    padded = pad(image, 32)
    assert torch.equal(padded, F.pad(image, (5, 6, 13, 14), mode="reflect"))
    assert torch.equal(cut(padded, 37, 53), image)
    assert pad(image[..., :32, :32], 32).data_ptr() == image.data_ptr()
    for multiple in (0, 1):
        assert torch.equal(pad(image, multiple), image)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_padding_goes_back_and_forth_where_one_mirror_is_too_small(side):
    image = torch.arange(side * side).float().view(1, 1, side, side)
    padded = pad(image, 16)
    assert padded.shape == (1, 1, 16, 16) and torch.equal(cut(padded, side, side), image)
    assert np.array_equal(
        padded[0, 0], np.pad(image[0, 0], [((16 - side) // 2, (17 - side) // 2)] * 2, "reflect")
    )


def test_a_padded_network_gives_every_size_back():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(8), nn.Upsample(scale_factor=8))
    image = torch.rand(1, 3, 21, 9)
    whole = network(F.pad(image, (3, 4, 1, 2), mode="reflect"))
    pad_inputs_(network, 8)
    assert torch.equal(network(image), whole[..., 1:22, 3:12])


SIZES = [(53, 37), (128, 128), (90, 200), (20, 20)]


@pytest.mark.parametrize("netG", ["unet_128", "resnet_6blocks"])
def test_every_picture_comes_out_at_its_own_size(tmp_path, run, netG):
    """Also of the compressed and of the single generator; the values are those of the padded generator."""
    root = paired_folder(tmp_path, 1, 128)
    network = ["--netG", netG, "--ngf", 8, "--norm", "instance", "--no_dropout"]
    size = ["--load_size", 128, "--crop_size", 128]
    coronet = ["--coronet_base", "pix2pix", "--coronet_budget", 0.5]
    assert (
        run_train(*run("a", root, "coronet"), *network, *size, *coronet, "--n_epochs_decay", 0, "--no_html")
        == 0
    )
    folder = tmp_path / "pictures"
    for i, (width, height) in enumerate(SIZES):
        saved(folder / "test", f"{i}.png", smooth_image(i, 2 * width, height))
    assert run_test(*words_for_test(run, "a", folder, "coronet"), "--preprocess", "none") == 0
    images = tmp_path / "results/a/test_latest/images"
    generator = load_generator(tmp_path / "checkpoints/a/latest_net_G.pth")
    pad_inputs_(generator, 128 if netG == "unet_128" else 4)
    for i, wanted in enumerate(SIZES):
        assert [Image.open(images / f"{i}_{kind}.png").size for kind in ("real_A", "fake_B")] == [wanted] * 2
        with torch.no_grad():
            expected = generator(
                to_tensor(smooth_image(i, 2 * wanted[0], wanted[1]).crop((0, 0, *wanted)))[None]
            )
        shown = to_tensor(Image.open(images / f"{i}_fake_B.png"))
        assert torch.allclose(shown, expected[0], atol=1.1 / 127.5)  # half a level of rounding and some
    reading = Reading("B", preprocess="none", padded=True)
    assert reading(folder / "test" / "0.png").shape == (37, 53, 3)


def test_padding_can_be_switched_off(tmp_path, run, capsys):
    network = ["--netG", "unet_128", "--load_size", 128, "--crop_size", 128, "--ngf", 4]
    assert (
        run_train(
            *run("a", paired_folder(tmp_path, 1, 128), "pix2pix"),
            *network,
            "--n_epochs_decay",
            0,
            "--no_html",
        )
        == 0
    )
    saved(tmp_path / "one", "a.png", smooth_image(0, 100, 130))
    model = ["--preprocess", "none", "--norm", "batch"]
    words = [*run("a", tmp_path / "one", "test", testing=True), *network, *model]
    for multiple, said in ((0, "got 100x128"), (64, "got 128x192")):
        assert run_test(*words, "--pad_to_multiple", multiple) == 2
        assert said in capsys.readouterr().err
    assert run_test(*words) == 0
    assert Image.open(tmp_path / "results/a/test_latest/images/a_fake.png").size == (100, 130)


@pytest.mark.parametrize(
    ("size", "options", "nearest"),
    [
        (
            (286, 286),
            ["--load_size", 286, "--crop_size", 286],
            "got 286x286; the nearest that work: 256x256 or 384x384",
        ),
        (
            (640, 480),
            ["--preprocess", "none"],
            "got 640x480; the nearest that work: 640x384 or 640x512 .*odd.png",
        ),
        ((900, 900), ["--preprocess", "none"], "got 900x900; the nearest that work: 896x896 or 1024x1024"),
        (
            (100, 60),
            ["--preprocess", "scale_width", "--load_size", 128, "--crop_size", 16],
            "got 128x76; .*128x128",
        ),
    ],
)
def test_a_wrong_size_is_one_message_before_training(tmp_path, run, capsys, size, options, nearest):
    """Of pix2pix and coronet the same, though only one picture of several has it."""
    root = tmp_path / "data"
    for i in range(3):
        saved(root / "train", f"{i}.png", smooth_image(i, 512, 256))
    saved(root / "train", "odd.png", smooth_image(0, 2 * size[0], size[1]))
    said = []
    for model, more in (("pix2pix", []), ("coronet", ["--coronet_base", "pix2pix", "--coronet_budget", 0.5])):
        crop = [] if "--crop_size" in options else ["--crop_size", 128]
        words = [
            *run(model, root, model),
            "--netG",
            "unet_128",
            "--ngf",
            8,
            *crop,
            *options,
            *more,
            "--no_flip",
        ]
        assert run_train(*words) == 2
        said.append(capsys.readouterr().err)
        assert not (tmp_path / "checkpoints" / model / "loss_log.jsonl").exists()  # not one step was made
    assert said[0] == said[1] and len(said[0].splitlines()) == 1
    assert re.search(nearest, said[0])


# -- few pictures --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "images", "batch", "steps"),
    [("pix2pix", 5, 2, 3), ("pix2pix", 1, 1, 1), ("pix2pix", 3, 8, 1), ("cycle_gan", 3, 2, 2)],
)
def test_few_pictures_and_a_small_last_batch(tmp_path, run, model, images, batch, steps):
    """With batch norm, dense and compressed: as many steps as batches, and the budget is met."""
    root = paired_folder(tmp_path, images) if model == "pix2pix" else unpaired_folder(tmp_path, (images, 1))
    arguments = ["--norm", "batch", "--batch_size", batch, "--no_html", "--ngf", 8, "--print_freq", 1]
    assert run_train(*run("dense", root, model), *arguments) == 0
    coronet = ["--coronet_base", model, "--coronet_budget", 0.5]
    assert run_train(*run("slim", root, "coronet"), *arguments, *coronet) == 0
    for name in ("dense", "slim"):
        lines = (tmp_path / "checkpoints" / name / "loss_log.jsonl").read_text().splitlines()
        assert f'"step": {2 * steps},' in lines[-1]
    for spec in (tmp_path / "checkpoints/slim").glob("latest_net_G*.json"):
        facts = Spec.read(spec)
        assert facts.slim["macs"] <= 0.5 * facts.dense["macs"]


NARROW = '''
import torch
from torch import nn
from models.pix2pix_model import Pix2PixModel

class Narrow(nn.Module):
    """Its bottleneck is one pixel, under batch norm."""
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 16, 8), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 4), nn.Tanh())
    def forward(self, x):
        return self.up(self.down(x))

class NarrowModel(Pix2PixModel):
    def __init__(self, opt):
        super().__init__(opt)
        self.netG = Narrow()
        if self.isTrain:
            self.optimizer_G = torch.optim.Adam(self.netG.parameters(), lr=opt.lr)
            self.optimizers[0] = self.optimizer_G
'''


@pytest.mark.parametrize("model", ["narrow", "coronet"])
def test_a_norm_of_a_single_value_is_one_line(tmp_path, run, capsys, monkeypatch, model):
    import models

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "narrow_model.py").write_text(NARROW)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "more")])
    monkeypatch.delitem(sys.modules, "models.narrow_model", raising=False)
    coronet = ["--coronet_base", "narrow", "--coronet_budget", 0.5] if model == "coronet" else []
    arguments = [*run("a", paired_folder(tmp_path, 3), model), *coronet, "--batch_size", 2, "--no_html"]
    assert run_train(*arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "one value per channel" in error and "--batch_size" in error
    assert run_train(*arguments, "--max_dataset_size", 2, "--overwrite") == 0
    words = [*run("a", tmp_path / "paired", model, testing=True), *coronet[:2]]
    capsys.readouterr()
    assert run_test(*words) == 2 and "use --eval" in capsys.readouterr().err
    assert run_test(*words, "--eval") == 0


# -- which of them ---------------------------------------------------------------------
def test_pictures_to_compare_with_are_spread_over_all():
    files = [Path(f"{i}.png") for i in range(15)]
    assert evenly(files, 8) == files[::2]
    assert evenly(files, 15) == evenly(files, 99) == files
