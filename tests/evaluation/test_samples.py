"""Pictures of noise alone against real ones: halves, floors, precision and recall, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from run_helpers import picture

from coronet_plugin import cli
from coronet_plugin.errors import DataError
from coronet_plugin.evaluation import features
from coronet_plugin.evaluation.distances import distance, overlap
from coronet_plugin.evaluation.evaluate import evaluate_samples


class Grey:
    """Mean and deviation; the pictures it was given."""

    name, resize, fingerprint = "two numbers", "none", "grey"

    def __init__(self):
        self.shapes = []

    def __call__(self, pictures):
        found = list(pictures)
        self.shapes += [each.shape for each in found]
        return np.array([[each.mean(), each.std()] for each in found], np.float32)


def write(folder, numbers, side=32):
    folder.mkdir()
    for number in numbers:
        Image.fromarray(picture(number)).resize((side, side)).save(folder / f"{number:03d}.png")
    return str(folder)


def evaluate(samples, real, tmp_path, **more):
    extractor = Grey()
    return evaluate_samples(samples, real, extractor=extractor, cache_dir=tmp_path / "cache", **more), extractor


# -- precision and recall --------------------------------------------------------
LINE = np.arange(10.0)[:, None]


def test_equal_sets_overlap_wholly():
    found = overlap(LINE, LINE)
    assert (found.precision, found.recall, found.neighbours) == (1.0, 1.0, 3)


def test_sets_far_apart_do_not_overlap():
    found = overlap(LINE, LINE + 100)
    assert (found.precision, found.recall) == (0.0, 0.0)


def test_samples_of_one_kind_are_precise_and_recall_little():
    """All in the middle, where real ones are: precision one; real ones are out of their small reach."""
    found = overlap(np.full((10, 1), 4.5) + 0.01 * LINE, LINE)
    assert found.precision == 1.0 and found.recall == 0.0
    swapped = overlap(LINE, np.full((10, 1), 4.5) + 0.01 * LINE)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


def test_the_radius_is_the_distance_to_the_third_nearest():
    """Of 0, 1, 2, 3 it is 3 at the ends and 2 between: 5.9 is within reach of 3, 6.1 of none."""
    real = np.arange(4.0)[:, None]
    assert overlap(np.array([[5.9], [6.1], [5.9], [6.1]]), real).precision == 0.5


def test_it_agrees_with_the_definition_written_out():
    random = np.random.default_rng(0)
    ours, real = random.normal(size=(40, 5)), random.normal(0.5, 1, size=(30, 5))

    def share_within(points, centres, k=3):
        radius = [sorted(np.linalg.norm(c - other) for other in centres)[k] for c in centres]
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radius)) for p in points])

    found = overlap(ours, real)
    assert 0 < found.precision < 1 and 0 < found.recall < 1
    assert found.precision == share_within(ours, real) and found.recall == share_within(real, ours)


def test_too_few_pictures_for_neighbours():
    with pytest.raises(DataError, match="more than 3 pictures on either side, found 3"):
        overlap(LINE[:3], LINE)


# -- samples against real pictures -----------------------------------------------------
def test_real_pictures_are_dealt_out_in_two_halves_of_equal_counts(tmp_path):
    samples, real = write(tmp_path / "s", range(100, 106)), write(tmp_path / "r", range(24))
    found, extractor = evaluate(samples, real, tmp_path, precision_recall=True)
    ours, even, odd = (
        extractor([picture(number) for number in numbers])
        for numbers in (range(100, 106), [0, 4, 8, 14, 18, 22], [1, 5, 9, 15, 19, 23])
    )
    assert found.distance.count == found.distance.reference == found.floor.count == 6
    assert found.distance == distance(ours, even) and found.floor == distance(odd, even)
    assert found.overlap == overlap(ours, even) and found.overlap_floor == overlap(odd, even)
    assert found.size == "32 x 32" and not found.notes


def test_few_real_pictures_thin_the_samples_and_a_note_says_so(tmp_path):
    samples, real = write(tmp_path / "s", range(100, 112)), write(tmp_path / "r", range(8))
    found, _ = evaluate(samples, real, tmp_path)
    assert found.distance.count == 4 and found.overlap is None
    assert found.notes == ("4 of 12 samples, as there are 8 real pictures",)


def test_real_pictures_are_resized_to_the_samples(tmp_path):
    samples, real = write(tmp_path / "s", range(100, 104), side=16), write(tmp_path / "r", range(8))
    found, extractor = evaluate(samples, real, tmp_path)
    assert set(extractor.shapes) == {(16, 16, 3)} and found.size == "16 x 16"


def test_samples_of_two_sizes_are_refused(tmp_path):
    samples = write(tmp_path / "s", range(4))
    Image.new("RGB", (8, 8)).save(tmp_path / "s" / "other.png")
    with pytest.raises(DataError, match="samples of one square size"):
        evaluate(samples, write(tmp_path / "r", range(8)), tmp_path)


def test_by_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(features, "load_extractor", lambda *_: Grey())
    samples, real = write(tmp_path / "s", range(100, 106)), write(tmp_path / "r", range(24))
    words = ["evaluate", "--samples", samples, "--real", real, "--cache_dir", str(tmp_path / "cache")]
    assert cli.main([*words, "--precision_recall"]) == 0
    out = capsys.readouterr().out
    assert out.count("precision") == 3 and "6 : 6" in out
    assert "floor: those real pictures against the rest" in out
    assert cli.main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert found["protocol"] == "samples" and found["overlap"] is None and found["floor"]["count"] == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--samples", "a"], "--samples FOLDER and --real FOLDER go together"),
        (["--real", "a", "run"], "--samples FOLDER and --real FOLDER go together"),
        (["--precision_recall", "run"], "--precision_recall is for --samples"),
        (["--samples", "a", "--real", "b", "run"], "name the runs to evaluate"),
    ],
)
def test_options_that_do_not_go_together(words, said, capsys):
    assert cli.main(["evaluate", *words]) == 2
    assert said in capsys.readouterr().err
