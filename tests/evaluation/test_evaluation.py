"""Runs evaluated by protocol, their records, the table and the command, with an extractor of six numbers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import paired_folder, run_test, run_train, smooth_image, unpaired_folder
from PIL import Image
from run_helpers import SIZE, make_run, option_line, picture

from coronet_plugin import cli
from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.evaluation.distances import distance
from coronet_plugin.evaluation.evaluate import Evaluation, evaluate_data, evaluate_folders, evaluate_run
from coronet_plugin.evaluation.features import HOW_TO_GET, MissingWeights
from coronet_plugin.evaluation.paired import paired_metrics
from coronet_plugin.evaluation.pictures import pictures_of
from coronet_plugin.evaluation.real import real_pictures
from coronet_plugin.evaluation.table import text
from coronet_plugin.runs.run import Run, find_run

STEMS = ("a", "b", "c", "d", "e")


class Colours:
    """Mean and deviation of each colour; counts the pictures it was given."""

    name, resize = "six colours", "none"

    def __init__(self, fingerprint: str = "colours") -> None:
        self.fingerprint, self.asked = fingerprint, 0

    def __call__(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        rows = [[*one.mean(axis=(0, 1)), *one.std(axis=(0, 1))] for one in pictures]
        self.asked += len(rows)
        return np.array(rows, np.float32)


def write_pairs(root: Path, test: int, train: int) -> Path:
    """An aligned data set of noise, 32 x 32 a side: ``a``, ``b``, ... for testing, ``train0``, ... ."""
    for phase, count in (("test", test), ("train", train)):
        (root / phase).mkdir(parents=True)
        for number in range(count):
            pair = np.concatenate(
                [picture(number + 50 * len(phase)), picture(number + 70 * len(phase))], axis=1
            )
            name = "abcdef"[number] if phase == "test" else f"train{number}"
            Image.fromarray(pair).save(root / phase / f"{name}.png")
    return root


def show_inputs(root: Path, name: str = "r", data: str = "data") -> None:
    """Beside the translated pictures of a run, those of ``data`` that they are made of, as test.py does."""
    for path in images(root, name).glob("*_fake_B.png"):
        stem = path.name[: -len("_fake_B.png")]
        pair = np.asarray(Image.open(root / data / "test" / f"{stem}.png"))
        for visual, half in (("real_A", pair[:, :SIZE]), ("real_B", pair[:, SIZE:])):
            Image.fromarray(half).save(images(root, name) / f"{stem}_{visual}.png")


def write_test_options(folder: Path, dataroot: Path, **changed: object) -> None:
    values = {"dataset_mode": "aligned", "direction": "AtoB", "preprocess": "resize_and_crop"}
    values |= {"load_size": SIZE, "crop_size": SIZE, "input_nc": 3, "output_nc": 3, "dataroot": dataroot}
    lines = (option_line(key, value) for key, value in {**values, **changed}.items())
    (folder / "test_opt.txt").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run ``r`` of five test pictures on a data set of six for testing and seven for training."""
    make_run(tmp_path, "r", stems=STEMS)
    write_test_options(tmp_path / "checkpoints" / "r", write_pairs(tmp_path / "data", test=6, train=7))
    show_inputs(tmp_path)
    return tmp_path


def found(root: Path, name: str = "r") -> Run:
    return find_run(name, root / "checkpoints", root / "results")


def evaluated(root: Path, extractor: Colours | None = None, name: str = "r", **options: object) -> Evaluation:
    options = {"cache_dir": root / "cache", **options}
    (one,) = evaluate_run(found(root, name), extractor=extractor, **options)  # type: ignore[arg-type]
    return one


def images(root: Path, name: str = "r") -> Path:
    return root / "results" / name / "test_latest" / "images"


def halves(root: Path, phase: str) -> np.ndarray:
    """Features of the right halves of the data set's pairs."""
    paths = sorted((root / "data" / phase).iterdir())
    return Colours()(np.asarray(Image.open(path))[:, SIZE:] for path in paths)


# Protocols


def test_test_against_test_with_equal_counts(root: Path) -> None:
    fakes = Colours()(pictures_of("", f"{images(root)}/*_fake_B.png"))
    test, train = halves(root, "test"), halves(root, "train")
    one = evaluated(root, Colours())
    assert one.distance == distance(fakes, test[[0, 1, 2, 4, 5]])  # np.round is to even: 5/4, 5/2, 15/4
    assert one.floor == distance(test[[0, 1, 2, 4, 5]], train[[0, 2, 3, 4, 6]])
    assert (one.distance.count, one.distance.reference) == (one.floor.count, one.floor.reference) == (5, 5)
    assert (one.run, one.output, one.protocol, one.size) == ("r", "fake_B", "test", "32 x 32")
    assert (one.extractor, one.resize) == ("six colours", "none")


def test_test_against_everything_real(root: Path) -> None:
    fakes = Colours()(pictures_of("", f"{images(root)}/*_fake_B.png"))
    test, train = halves(root, "test"), halves(root, "train")
    one = evaluated(root, Colours(), protocol="all")
    assert one.distance == distance(fakes, np.concatenate([train, test]))
    assert one.floor == distance(test[[0, 1, 2, 4, 5]], train)


def test_likeness_is_that_of_all_pairs(root: Path) -> None:
    one = evaluated(root)
    assert one.paired == paired_metrics(images(root)) and one.paired.count == 5
    assert one.distance is None and one.floor is None and one.extractor == ""


def test_the_other_direction_takes_the_other_half(root: Path) -> None:
    write_test_options(root / "checkpoints" / "r", root / "data", direction="BtoA")
    lefts = [np.asarray(Image.open(p))[:, :SIZE] for p in sorted((root / "data" / "test").iterdir())]
    run = found(root)
    real = real_pictures(run, run.translations[0])
    assert all(np.array_equal(one, left) for one, left in zip(real.test, lefts)) and len(real.test) == 6


def test_training_pictures_among_the_test_pictures_are_reported(root: Path) -> None:
    shutil.copyfile(root / "data/train/train3.png", root / "data/test/b.png")
    show_inputs(root)
    one = evaluated(root)
    assert one.duplicates.exact == (("b.png", "train3.png"),) and one.duplicates.near == ()
    assert "1 exact (b.png = train3.png), 0 near" in text([one])


def test_without_training_pictures_there_is_no_floor(root: Path) -> None:
    shutil.rmtree(root / "data" / "train")
    one = evaluated(root, Colours())
    assert one.distance is not None and one.floor is None and one.duplicates is None
    assert any("no floor" in note for note in one.notes)
    with pytest.raises(DataError, match="'all' needs the real training pictures"):
        evaluated(root, Colours(), protocol="all")


def test_data_that_has_moved_is_named_and_can_be_pointed_at(root: Path) -> None:
    (root / "data").rename(root / "elsewhere")
    one = evaluated(root, Colours())
    assert one.distance is None and one.paired is not None
    assert any("data/test" in note and "--dataroot" in note for note in one.notes)
    assert evaluated(root, Colours(), dataroot=root / "elsewhere").distance is not None


def test_a_run_of_another_kind_of_data_says_so(root: Path) -> None:
    write_test_options(root / "checkpoints" / "r", root / "data", dataset_mode="single")
    assert any("--dataset_mode single" in note for note in evaluated(root, Colours()).notes)


def test_pictures_that_were_not_translated_are_mentioned(root: Path) -> None:
    assert any(note.startswith("5 fake_B of 6 pictures") for note in evaluated(root).notes)
    (root / "data" / "test" / "f.png").unlink()
    assert not evaluated(root).notes


# The host's own runs


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_real_pictures_are_those_the_host_tested_on(tmp_path: Path, run: object, direction: str) -> None:
    data = paired_folder(tmp_path, images=2)
    short = ["--direction", direction, "--n_epochs_decay", 0, "--no_html"]
    assert run_train(*run("p", data, "pix2pix"), *short) == 0  # type: ignore[operator]
    tested = [*run("p", data, "pix2pix", testing=True), "--direction", direction]  # type: ignore[operator]
    assert run_test(*tested, "--load_size", 32, "--aspect_ratio", 1.5) == 0
    one = found(tmp_path, "p")
    real = real_pictures(one, one.translations[0])
    written = [np.asarray(Image.open(path)) for path in sorted(one.images_dir.glob("*_real_B.png"))]
    assert len(real.test) == len(written) == real.sources == 2
    assert all(np.array_equal(*pair) for pair in zip(real.test, written))


def test_unpaired_sides_are_those_the_host_tested_on(tmp_path: Path, run: object) -> None:
    data = unpaired_folder(tmp_path, images=(3, 3))
    short = ["--direction", "BtoA", "--n_epochs_decay", 0, "--no_html"]
    assert run_train(*run("c", data, "cycle_gan"), *short) == 0  # type: ignore[operator]
    tested = [*run("c", data, "cycle_gan", testing=True), "--direction", "BtoA"]  # type: ignore[operator]
    assert run_test(*tested, "--load_size", 32) == 0
    one = found(tmp_path, "c")
    for translation, visual in zip(one.translations, ("real_B", "real_A")):
        written = [np.asarray(Image.open(path)) for path in sorted(one.images_dir.glob(f"*_{visual}.png"))]
        real = real_pictures(one, translation)
        assert len(written) == 3 and all(np.array_equal(*pair) for pair in zip(real.test, written))
    both = evaluate_run(one, extractor=Colours(), cache_dir=tmp_path / "cache")
    assert [e.output for e in both] == ["fake_B", "fake_A"] and all(e.distance and e.floor for e in both)


# Records


def test_a_finished_evaluation_is_read_again(root: Path) -> None:
    shutil.copyfile(root / "data/train/train3.png", root / "data/test/b.png")  # a duplicate
    show_inputs(root)
    shutil.copyfile(images(root) / "a_real_B.png", images(root) / "a_fake_B.png")  # an infinite PSNR
    first = evaluated(root, Colours())
    assert math.isinf(first.paired.psnr) and first.duplicates.exact and first.notes
    shutil.rmtree(root / "cache")
    extractor = Colours()
    assert evaluated(root, extractor) == first and extractor.asked == 0
    assert not (root / "cache").exists()
    record = json.loads((images(root).parent / "evaluation.json").read_text(encoding="utf-8"))
    entry = record["protocols"]["test"]
    assert entry["translations"][0]["paired"]["psnr"] == "inf" and entry["versions"]["coronet_plugin"]
    assert entry["inputs"]["extractor"] == "colours"


@pytest.mark.parametrize("changed", ["results/r/test_latest/images/b_fake_B.png", "data/train/train0.png"])
def test_a_changed_picture_makes_the_record_void(root: Path, changed: str) -> None:
    first = evaluated(root, Colours())
    with Image.open(root / changed) as image:
        size = image.size
    smooth_image(3, *size).save(root / changed)
    second = evaluated(root, Colours())
    assert (second.distance, second.floor) != (first.distance, first.floor)


def test_real_features_serve_the_next_run(root: Path) -> None:
    make_run(root, "s", stems=STEMS[:4], seed=2)
    write_test_options(root / "checkpoints" / "s", root / "data")
    show_inputs(root, "s")
    extractor = Colours()
    evaluated(root, extractor)
    before = extractor.asked
    evaluated(root, extractor, name="s")
    assert (
        extractor.asked == before + 4 + 4
    )  # its own pictures, and another choice of real ones for the floor


def test_protocols_and_extractors_do_not_get_mixed_up(root: Path) -> None:
    plain = evaluated(root)
    test = evaluated(root, Colours())
    assert evaluated(root, Colours(), protocol="all") != test != plain
    assert evaluated(root) == test  # what is known is kept where nothing less was asked for
    extractor = Colours("another")
    evaluated(root, extractor)
    assert extractor.asked > 0
    record = json.loads((images(root).parent / "evaluation.json").read_text(encoding="utf-8"))
    assert set(record["protocols"]) == {"test", "all"}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"format": "coronet-evaluation", "version": 1, "protocols": {"test": 3}}']
)
def test_a_damaged_record_is_made_again(root: Path, content: str) -> None:
    path = images(root).parent / "evaluation.json"
    first = evaluated(root, Colours())
    path.write_text(content, encoding="utf-8")
    assert evaluated(root, Colours()) == first
    assert json.loads(path.read_text(encoding="utf-8"))["protocols"]["test"]["translations"]


def test_a_record_that_cannot_be_written_costs_a_line(root: Path) -> None:
    (images(root).parent / "evaluation.json").mkdir()
    said: list[str] = []
    assert evaluated(root, say=said.append).paired is not None
    assert len(said) == 1 and said[0].startswith("not kept for the next time")


# What is refused


def test_bad_input_is_refused_in_one_line(root: Path) -> None:
    with pytest.raises(OptionError, match="no protocol 'best'; choose test or all"):
        evaluated(root, protocol="best")
    (images(root) / "b_fake_B.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="b_fake_B.png cannot be read"):
        evaluated(root, Colours())
    for path in images(root).glob("[b-e]_*"):
        path.unlink()
    with pytest.raises(DataError, match="at least 2 pictures on either side, found 1"):
        evaluated(root, Colours())
    (images(root) / "a_fake_B.png").unlink()
    with pytest.raises(DataError, match=r"no pictures named \*_fake_B.png .* run test.py --name r first"):
        evaluated(root, Colours())
    shutil.rmtree(root / "results")
    with pytest.raises(DataError, match="run r has no test pictures; run test.py --name r first"):
        evaluated(root, Colours())


def test_pictures_of_another_size_than_the_real_ones_are_refused(root: Path) -> None:
    write_test_options(root / "checkpoints" / "r", root / "data", load_size=48, crop_size=48)
    with pytest.raises(DataError, match="fake_B of r are 32 x 32, .* real pictures 48 x 48"):
        evaluated(root, Colours())


# Data sets and folders


def test_the_floor_of_a_data_set(root: Path) -> None:
    left, right = evaluate_data(root / "data", extractor=Colours(), size=SIZE, cache_dir=root / "cache")
    assert right.floor == distance(halves(root, "test"), halves(root, "train")[[0, 1, 2, 4, 5, 6]])
    assert (left.output, right.output) == ("A", "B") and left.floor != right.floor
    with pytest.raises(DataError, match="there is no folder"):
        evaluate_data(root / "checkpoints", extractor=Colours(), cache_dir=root / "cache")


def test_two_folders_as_they_are(root: Path) -> None:
    for seed in range(3):
        Image.fromarray(picture(seed, 20)).save(root / f"{seed}.png")
    real = f"{images(root)}/*_real_B.png"
    one = evaluate_folders(f"{root}/*.png", real, extractor=Colours(), cache_dir=root / "cache")
    first, second = (Colours()(pictures_of("", source)) for source in (f"{root}/*.png", real))
    assert one.distance == distance(first, second) and one.floor is None
    assert one.notes == ("the sizes differ: 20 x 20 and 32 x 32",)


# The table and the command


def test_the_table_states_the_circumstances(root: Path) -> None:
    one = evaluated(root, Colours())
    shown = text([one])
    assert f"{one.distance.fid:.2f}" in shown and f"{one.floor.fid:.2f}" in shown
    assert f"{1000 * one.distance.kid:.2f} ± {1000 * one.distance.kid_std:.2f}" in shown
    for part in (
        "5 : 5",
        "32 x 32",
        "six colours",
        "resize: none",
        "100 subsets of 2",
        "seed 2020",
        "protocol test",
    ):
        assert part in shown


def test_figures_of_different_counts_are_called_incomparable(root: Path) -> None:
    make_run(root, "s", stems=STEMS[:3], seed=2)
    write_test_options(root / "checkpoints" / "s", root / "data")
    show_inputs(root, "s")
    assert "cannot be compared" not in text([evaluated(root, Colours())] * 2)
    both = [evaluated(root, Colours(), name=name) for name in "rs"]
    assert "fake_B: FID of 3 : 3 and 5 : 5 pictures cannot be compared" in text(both)


def call(root: Path, *words: object) -> int:
    folders = ["--checkpoints_dir", root / "checkpoints", "--results_dir", root / "results"]
    return cli.main(["evaluate", *map(str, [*words, *folders, "--cache_dir", root / "cache"])])


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coronet_plugin.evaluation.features.load_extractor", lambda *_: Colours())
    assert call(root, "r", "--json") == 0
    (values,) = json.loads(capsys.readouterr().out)["evaluations"]
    one = evaluated(root, Colours())
    assert values["distance"]["fid"] == one.distance.fid and values["paired"]["ssim"] == one.paired.ssim
    assert call(root, "r", "--protocol", "all") == 0 and "5 : 13" in capsys.readouterr().out
    assert call(root, "--folders", root / "data/test", root / "data/train") == 0
    assert "6 : 7" in capsys.readouterr().out
    assert call(root, "--data", root / "data", "--size", SIZE) == 0 and "6 : 6" in capsys.readouterr().out


def test_without_weights_the_command_measures_likeness(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise MissingWeights(HOW_TO_GET)

    monkeypatch.setattr("coronet_plugin.evaluation.features.load_extractor", none)
    assert call(root, "r") == 0
    printed = capsys.readouterr()
    assert printed.err == f"coronet: {HOW_TO_GET}\n" and "SSIM" in printed.out and "FID" not in printed.out
    assert call(root, "--folders", root / "data/test", root / "data/train") == 2
    assert capsys.readouterr().err == f"coronet: {HOW_TO_GET}\n"


def test_bad_usage_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        [],
        ["r", "--data", "data"],
        ["nothing"],
        ["r", "--protocol", "x"],
        ["r", "--lpips", "no.pth"],
    ):
        assert call(root, *words) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("coronet: ") and "Traceback" not in error
