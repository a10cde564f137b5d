"""Pictures of all kinds and sizes through generators of all kinds of files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DEVICES
from PIL import Image
from run_helpers import ARCHITECTURE, make_cycle_run, make_run

from coronet_plugin import cli
from coronet_plugin.export.normalisation import reference
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.pictures.lab import to_lab, to_rgb
from coronet_plugin.pictures.padding import cut, pad
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.translation.progress import Bar
from coronet_plugin.translation.translate import translate


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs ``slim`` and ``dense`` (G) and ``cycle`` (G_A and G_B), trained on 32x32."""
    root = tmp_path_factory.mktemp("runs")
    make_run(root, "slim", budget=0.3, stems=(), log=False)
    make_run(root, "dense", stems=(), log=False)
    make_cycle_run(root, "cycle")
    return root / "checkpoints"


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@torch.no_grad()
def by_hand(weights: Path, picture: Image.Image) -> np.ndarray:
    """What test.py shows of a picture in its own size: padded to multiples of 4, and cut back."""
    values = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).astype(np.float32))[None] / 127.5 - 1
    generator = reference(read_generator("G", weights).generator, "batch")
    output = cut(generator(pad(values, 4)), picture.height, picture.width)[0]
    return ((output + 1) * 127.5).round().numpy().transpose(1, 2, 0).astype(int)


def run(runs: Path, *words: object) -> int:
    return cli.main(["translate", *map(str, words), "--checkpoints_dir", str(runs), "--threads", "1"])


def fails(capsys, runs: Path, *words: object) -> str:
    """The one line of an error."""
    capsys.readouterr()
    assert run(runs, *words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("coronet: ") and "\n" not in said
    return said


# -- sizes -------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["slim", "dense"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_picture_in_its_own_size_is_padded_and_cut_back(tmp_path, runs, name, device, capsys):
    smooth(45, 30).save(tmp_path / "a.png")
    words = [name, tmp_path / "a.png", "--output", tmp_path / "out", "--size", "own", "--device", device]
    assert run(runs, *words) == 0
    expected = by_hand(runs / name / "latest_net_G.pth", smooth(45, 30))
    assert np.abs(pixels(tmp_path / "out" / "a.png") - expected).max() <= 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("1 picture in ") and "pictures per second" in last


@pytest.mark.parametrize(
    ("size", "expected"), [("trained", (48, 32)), ("64", (64, 64)), ("24x40", (40, 24)), ("own", (90, 60))]
)
def test_sizes(tmp_path, runs, size, expected):
    smooth(90, 60).save(tmp_path / "a.png")
    assert run(runs, "slim", tmp_path / "a.png", "--output", tmp_path / "out", "--size", size) == 0
    assert Image.open(tmp_path / "out" / "a.png").size == expected


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_batches_change_nothing(tmp_path, norm):
    torch.manual_seed(0)
    net = build_generator(**{**ARCHITECTURE, "norm": norm})
    torch.save(net.state_dict(), tmp_path / "some_net_G.pth")
    for number, width in enumerate((32, 32, 40, 32, 32, 32)):
        (tmp_path / "in").mkdir(exist_ok=True)
        smooth(width, 32, number).save(tmp_path / "in" / f"{number}.png")
    for batch_size in (1, 2):
        report = translate(
            tmp_path / "some_net_G.pth",
            tmp_path / "in",
            tmp_path / str(batch_size),
            size="own",
            batch_size=batch_size,
        )
        assert report.pictures == 6 and len(report.written) == 6
    for number in range(6):
        first, second = (pixels(tmp_path / str(size) / f"{number}.png") for size in (1, 2))
        assert np.abs(first - second).max() <= 1


def test_tiles_of_a_picture_that_is_no_larger_are_the_picture(tmp_path, runs):
    smooth(60, 40).save(tmp_path / "a.png")
    for folder, words in {"whole": (), "tiles": ("--tile", 40), "large": ("--tile", 100)}.items():
        place = ["slim", tmp_path / "a.png", "--output", tmp_path / folder, "--size", "own"]
        assert run(runs, *place, *words) == 0
    whole = pixels(tmp_path / "whole" / "a.png")
    assert np.array_equal(pixels(tmp_path / "large" / "a.png"), whole)
    assert 0 < np.abs(pixels(tmp_path / "tiles" / "a.png") - whole).mean() < 8


# -- kinds of pictures ---------------------------------------------------------------
def test_pictures_of_every_kind(tmp_path, runs):
    """Each becomes what the same picture in plain RGB becomes."""
    folder, picture = tmp_path / "in", smooth(40, 32)
    (folder / "sub").mkdir(parents=True)
    grey = picture.convert("L")
    kinds = {
        "grey.png": (grey, grey),
        "sub/cmyk.tif": (picture.convert("CMYK"), picture.convert("CMYK")),
        "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), grey),
        "palette.png": (picture.quantize(16), picture.quantize(16)),
    }
    layers = picture.convert("RGBA")
    layers.putalpha(grey)
    kinds["alpha.png"] = (layers, Image.alpha_composite(Image.new("RGBA", (40, 32), "white"), layers))
    for name, (kind, _) in kinds.items():
        kind.save(folder / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=turned)
    kinds["turned.png"] = (picture, picture)
    assert run(runs, "dense", folder, "--output", tmp_path / "out", "--format", "png", "--size", "own") == 0
    for name, (_, plain) in kinds.items():
        expected = by_hand(runs / "dense" / "latest_net_G.pth", plain.convert("RGB"))
        output = (tmp_path / "out" / name).with_suffix(".png")
        assert np.abs(pixels(output) - expected).max() <= 1, name


def test_transparency_and_the_original_beside_it(tmp_path, runs):
    layers = smooth(32, 32).convert("RGBA")
    layers.putalpha(smooth(32, 32, 1).convert("L"))
    layers.save(tmp_path / "a.png")
    assert run(runs, "slim", tmp_path / "a.png", "--output", tmp_path / "out", "--keep_alpha") == 0
    assert np.array_equal(pixels(tmp_path / "out" / "a.png")[..., 3], np.asarray(layers.getchannel("A")))
    words = ["--keep_alpha", "--format", "jpg"]  # which has none
    assert run(runs, "slim", tmp_path / "a.png", "--output", tmp_path / "out", *words) == 0
    assert Image.open(tmp_path / "out" / "a.jpg").mode == "RGB"
    smooth(40, 32).save(tmp_path / "b.png")
    assert run(runs, "slim", tmp_path / "b.png", "--output", tmp_path / "out", "--side_by_side") == 0
    both = pixels(tmp_path / "out" / "b.png")
    assert both.shape == (32, 80, 3) and np.array_equal(both[:, :40], np.asarray(smooth(40, 32)).astype(int))


@pytest.mark.parametrize("ending", ["jpg", "webp", "tif", "bmp", "ppm"])
def test_formats(tmp_path, runs, ending):
    smooth(32, 32).save(tmp_path / "a.png")
    assert run(runs, "slim", tmp_path / "a.png", "--output", tmp_path / "out", "--format", ending) == 0
    truth = by_hand(runs / "slim" / "latest_net_G.pth", smooth(32, 32))
    lost = {"jpg": 6, "webp": 25}.get(ending, 1)  # webp has colours of a quarter of the pixels
    assert np.abs(pixels(tmp_path / "out" / f"a.{ending}") - truth).mean() < lost


def test_a_generator_of_colours_gives_pictures(tmp_path):
    torch.manual_seed(0)
    net = build_generator(**{**ARCHITECTURE, "input_nc": 1, "output_nc": 2})
    torch.save(net.state_dict(), tmp_path / "latest_net_G.pth")
    smooth(33, 32).save(tmp_path / "a.png")
    translate(tmp_path / "latest_net_G.pth", tmp_path / "a.png", tmp_path / "out", size="own")
    lightness, _ = to_lab(smooth(33, 32))
    with torch.no_grad():
        colours = cut(net.eval()(pad(lightness[None], 4)), 32, 33)[0]
    assert np.abs(pixels(tmp_path / "out" / "a.png") - to_rgb(lightness, colours)).max() <= 1


# -- kinds of files ------------------------------------------------------------------
def exported(runs: Path, tmp_path: Path, target: str, *words: object) -> Path:
    place = ["--checkpoints_dir", runs, "--output", tmp_path / target]
    assert cli.main(["export", "slim", "--to", target, *map(str, (*place, *words))]) == 0
    return next(f for f in (tmp_path / target).iterdir() if f.suffix in (".pt", ".pt2", ".onnx", ".xml"))


@pytest.mark.parametrize("target", ["torchscript", "onnx", "openvino"])
def test_exported_files(tmp_path, runs, target, capsys):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}.get(target, "torch"))
    file = exported(runs, tmp_path, target)
    smooth(32, 32).save(tmp_path / "a.png")
    assert run(runs, file, tmp_path / "a.png", "--output", tmp_path / "out") == 0
    truth = by_hand(runs / "slim" / "latest_net_G.pth", smooth(32, 32))
    assert np.abs(pixels(tmp_path / "out" / "a.png") - truth).max() <= 1
    assert "no record" not in capsys.readouterr().err


def test_an_exported_file_of_one_size(tmp_path, runs, capsys):
    file = exported(runs, tmp_path, "torchscript")
    smooth(64, 48).save(tmp_path / "a.png")
    place = [file, tmp_path / "a.png", "--output", tmp_path / "out"]
    assert run(runs, *place, "--batch_size", 3) == 0  # what it takes: no side is larger
    assert Image.open(tmp_path / "out" / "a.png").size == (32, 24)
    assert run(runs, *place, "--size", "own") == 1
    assert "the file takes 32x32 alone" in capsys.readouterr().err
    assert run(runs, *place, "--size", "own", "--tile", 32) == 0
    assert "norms of an exported file see one tile at a time" in capsys.readouterr().err
    assert Image.open(tmp_path / "out" / "a.png").size == (64, 48)
    file.with_name(file.name + ".json").unlink()
    assert "copy both files" in fails(capsys, runs, *place)


def test_an_exported_file_of_any_size(tmp_path, runs):
    file = exported(runs, tmp_path, "torchscript", "--dynamic")
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        smooth(45, 30, number).save(tmp_path / "in" / f"{number}.png")
    place = [file, tmp_path / "in", "--output", tmp_path / "out"]
    assert run(runs, *place, "--size", "own", "--batch_size", 2) == 0
    for number in range(3):
        expected = by_hand(runs / "slim" / "latest_net_G.pth", smooth(45, 30, number))
        assert np.abs(pixels(tmp_path / "out" / f"{number}.png") - expected).max() <= 1
    assert run(runs, *place) == 0
    assert Image.open(tmp_path / "out" / "0.png").size == (48, 32)  # it knows what it was trained on


def test_folders_and_files_of_weights(tmp_path, runs, capsys):
    smooth(32, 32).save(tmp_path / "a.png")
    shared = tmp_path / "shared"
    shared.mkdir()
    for name, new in (("latest_net_G.pth", "small.pth"), ("latest_net_G.json", "small.json")):
        shutil.copy(runs / "slim" / name, shared / new)
    expected = by_hand(runs / "slim" / "latest_net_G.pth", smooth(32, 32))
    for source in (shared, shared / "small.pth", runs / "slim", runs / "slim" / "latest_net_G.pth"):
        assert run(runs, source, tmp_path / "a.png", "--output", tmp_path / "out") == 0
        assert np.abs(pixels(tmp_path / "out" / "a.png") - expected).max() <= 1
    assert "there is no " in fails(
        capsys, runs, shared / "other.pth", tmp_path / "a.png", "--output", tmp_path
    )


def test_both_generators_of_a_cycle_gan(tmp_path, runs, capsys):
    smooth(32, 32).save(tmp_path / "a.png")
    place = ["cycle", tmp_path / "a.png", "--output", tmp_path / "out"]
    assert "cycle has G_A, G_B; say which with --networks G_A" in fails(capsys, runs, *place)
    assert "--networks G: cycle has G_A, G_B" in fails(capsys, runs, *place, "--networks", "G")
    assert run(runs, *place, "--networks", "G_B") == 0
    assert run(runs, *place, "--networks", "G_A,G_B") == 0
    for name in ("G_A", "G_B"):
        expected = by_hand(runs / "cycle" / f"latest_net_{name}.pth", smooth(32, 32))
        assert np.abs(pixels(tmp_path / "out" / name / "a.png") - expected).max() <= 1
    assert np.array_equal(pixels(tmp_path / "out" / "a.png"), pixels(tmp_path / "out" / "G_B" / "a.png"))


# -- names and mistakes --------------------------------------------------------------
def test_names_are_kept_and_what_cannot_be_read_is_listed(tmp_path, runs, capsys):
    folder = tmp_path / "in"
    (folder / "x" / "y").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "x/b.PNG", "x/y/c.webp"):
        smooth(32, 32).save(folder / name)
    (folder / "x" / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture either")
    assert run(runs, "slim", folder, "--output", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "left out" in said.err and "broken.png cannot be read" in said.err and "4 files" in said.out
    written = {
        f.relative_to(tmp_path / "out").as_posix() for f in (tmp_path / "out").rglob("*") if f.is_file()
    }
    assert written == {"a.png", "a.jpg", "x/b.PNG", "x/y/c.webp"}
    run(runs, "slim", folder, "--output", tmp_path / "png", "--format", "png")
    written = {
        f.relative_to(tmp_path / "png").as_posix() for f in (tmp_path / "png").rglob("*") if f.is_file()
    }
    assert written == {"a.png.png", "a.jpg.png", "x/b.png", "x/y/c.png"}


def test_mistakes_are_one_line(tmp_path, runs, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "in").mkdir()
    smooth(32, 32).save(tmp_path / "in" / "a.png")
    (tmp_path / "text.txt").write_text("")
    good, out = tmp_path / "in", tmp_path / "out"
    for words, said in {
        ("nope", good, "--output", out): "no run 'nope'",
        ("slim", tmp_path / "nope", "--output", out): "there is no",
        ("slim", tmp_path / "empty", "--output", out): "has no pictures",
        ("slim", tmp_path / "text.txt", "--output", out): "is no picture",
        ("slim", good, "--output", good): "lies in",
        ("slim", good, "--output", good / "deeper"): "lies in",
        ("slim", good / "a.png", "--output", good): "would replace",
        ("slim", good, tmp_path / "in" / "a.png", tmp_path / "in2", "--output", out): "there is no",
        ("slim", good, "--output", out, "--device", "cuda:7"): "--device cuda:7",
        ("slim", good, "--output", out, "--device", "toaster"): "--device toaster",
        ("slim", good, "--output", out, "--format", "gif"): "--format gif",
        ("slim", good, "--output", out, "--tile", "16", "--overlap", "16"): "--overlap 16",
        ("slim", good, "--output", out, "--norm_mode", "odd"): "--norm_mode odd",
        ("slim", good, "--output", out, "--epoch", "7"): "7_net_G",
    }.items():
        assert said in fails(capsys, runs, *words)
    (tmp_path / "in2").mkdir()
    smooth(32, 32).save(tmp_path / "in2" / "a.png")
    assert "would both become" in fails(capsys, runs, "slim", good, tmp_path / "in2", "--output", out)
    assert not out.exists()


def test_channels_that_no_picture_has(tmp_path, runs, capsys):
    net = build_generator(**{**ARCHITECTURE, "input_nc": 5})
    torch.save(net.state_dict(), tmp_path / "latest_net_G.pth")
    smooth(32, 32).save(tmp_path / "a.png")
    place = [tmp_path / "latest_net_G.pth", tmp_path / "a.png", "--output", tmp_path / "out"]
    assert "takes 5 channels, and pictures have 1 (L), 3 (RGB)" in fails(capsys, runs, *place)


def test_a_damaged_record(tmp_path, runs, capsys):
    file = exported(runs, tmp_path, "torchscript")
    record = file.with_name(file.name + ".json")
    facts = json.loads(record.read_text())
    smooth(32, 32).save(tmp_path / "a.png")
    place = [file, tmp_path / "a.png", "--output", tmp_path / "out"]
    for changed, said in (
        ("{", "is not the record"),
        (json.dumps({**facts, "format": "x"}), "its format is x"),
        (json.dumps({**facts, "input": {"shape": [1]}}), "is damaged"),
        (json.dumps({k: v for k, v in facts.items() if k != "input"}), "several inputs"),
    ):
        record.write_text(changed)
        assert said in fails(capsys, runs, *place)


def test_the_bar():
    bar = Bar(40, "files")
    bar.advance(10)
    assert bar.line(5.0) == f"[{'#' * 7}{'.' * 23}] 10/40 files, 2.0/s, 15 s left"
    endless = Bar(0, "frames")
    endless.advance(3)
    assert endless.line(2.0) == "3 frames, 1.5/s"
