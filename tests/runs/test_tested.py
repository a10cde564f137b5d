"""What made test pictures is known beside them, whatever is tested later, fails, or lies there from before."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from conftest import paired_folder, run_test, run_train, smooth_image, unpaired_folder
from PIL import Image
from run_helpers import make_run, write_results
from test_evaluation import Colours, evaluated, found, images, show_inputs, write_pairs, write_test_options

from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.evaluate import evaluate_run
from coronet_plugin.export.pictures import pictures_for
from coronet_plugin.runs import tested
from coronet_plugin.runs.run import find_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coronet run ``p`` on paired data ``paired``, also saved as iteration 3; another data set is ``other``."""
    from conftest import QUIET, TINY

    root = tmp_path_factory.mktemp("trained")
    data = paired_folder(root, images=3, size=32)
    (root / "other" / "test").mkdir(parents=True)
    for number in range(3):  # of the same names
        smooth_image(70 + number, 64, 32).save(root / "other" / "test" / f"{number}.png")
    words = ["--name", "p", "--dataroot", data, "--checkpoints_dir", root / "checkpoints", *TINY, *QUIET]
    words += [
        "--model",
        "coronet",
        "--coronet_base",
        "pix2pix",
        "--coronet_search_epochs",
        1,
        "--no_dropout",
        "--coronet_budget",
        0.6,
        "--no_html",
    ]
    assert run_train(*words, "--n_epochs_decay", 0, "--save_latest_freq", 3, "--save_by_iter") == 0
    return root


def translated(root: Path, data: str, results: Path, *extra: object) -> int:
    words = ["--name", "p", "--dataroot", root / data, "--checkpoints_dir", root / "checkpoints"]
    words += ["--model", "coronet", "--load_size", 32, "--crop_size", 32, "--results_dir", results]
    return run_test(*words, *extra)


def figures(root: Path, results: Path, *find: str) -> tuple[object, ...]:
    shutil.rmtree(results / "cache", ignore_errors=True)
    (results / "p" / "test_latest" / "evaluation.json").unlink(missing_ok=True)
    run = find_run("p", root / "checkpoints", results, *find)
    (one,) = evaluate_run(run, extractor=Colours(), cache_dir=results / "cache")
    return one.distance, one.floor, one.paired, one.notes


# -- the host's own test.py ----------------------------------------------
def test_figures_stay_whatever_is_tested_later(trained: Path, tmp_path: Path) -> None:
    assert translated(trained, "paired", tmp_path / "x") == 0
    first = figures(trained, tmp_path / "x")
    assert first[0] is not None and first[3] == ()
    assert translated(trained, "other", tmp_path / "y") == 0
    assert translated(trained, "nothing", tmp_path / "x") == 2
    assert translated(trained, "nothing", tmp_path / "z") == 2
    assert figures(trained, tmp_path / "x") == first
    assert figures(trained, tmp_path / "y")[0] not in (None, first[0])
    assert not list((trained / "checkpoints" / "p").glob("test_opt*"))


@pytest.mark.parametrize("before", [True, False])
def test_a_test_that_fails_half_way_leaves_nothing_behind(
    trained: Path, tmp_path: Path, before: bool
) -> None:
    if before:
        assert translated(trained, "paired", tmp_path / "x") == 0
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    broken = shutil.copytree(trained / "other", tmp_path / "broken")
    (broken / "test" / "2.png").write_bytes(b"no picture")
    assert translated(trained, str(broken), tmp_path / "x") == 2
    shutil.rmtree(broken)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert before or not list(tmp_path.iterdir())


def test_pictures_of_an_earlier_data_set_are_told_apart(trained: Path, tmp_path: Path) -> None:
    assert translated(trained, "paired", tmp_path / "x") == 0
    first = figures(trained, tmp_path / "x")
    more = tmp_path / "more"
    shutil.copytree(trained / "other" / "test", more / "test")
    for path in (more / "test").iterdir():
        path.rename(path.with_name(f"more{path.name}"))
    assert translated(trained, str(more), tmp_path / "both") == 0
    assert translated(trained, "paired", tmp_path / "both") == 0
    both = figures(trained, tmp_path / "both")
    assert both[:3] == first[:3]
    assert any(note.startswith("3 fake_B beside them are of an earlier test") for note in both[3])
    weights = trained / "checkpoints" / "p" / "latest_net_G.pth"
    shown = pictures_for(weights, "G", 3, (32, 32), results_dir=tmp_path / "both")
    assert len(shown.values) == len(shown.truths) == 3


def test_a_run_tested_at_an_iteration_is_found_as_test_py_took_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from coronet_plugin import cli

    assert translated(trained, "paired", tmp_path / "x", "--load_iter", 3) == 0
    monkeypatch.setattr("coronet_plugin.evaluation.features.load_extractor", lambda *_: Colours())
    words = ["evaluate", "p", "--checkpoints_dir", trained / "checkpoints", "--results_dir", tmp_path / "x"]
    for iteration in (["--load_iter", 3], ["--epoch", "iter_3"]):
        assert cli.main([str(word) for word in (*words, *iteration, "--cache_dir", tmp_path / "c")]) == 0
        assert "3 : 3" in capsys.readouterr().out


# -- other hosts -----------------------------------------------------------
class Checkout:
    """Upstream's test.py in what the plug-in sees of it: the page's folder is made, pictures follow."""

    def __init__(self, root: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.results, self.patch = root, results, monkeypatch

    def test(self, data: str, fails_at: int | None = None) -> None:
        from data import create_dataset
        from models import create_model
        from models.base_model import BaseModel
        from options.test_options import TestOptions
        from util.html import HTML
        from util.visualizer import save_images

        self.patch.setattr(BaseModel, "notes_tests", False)
        words = [
            "--name",
            "p",
            "--dataroot",
            self.root / data,
            "--checkpoints_dir",
            self.root / "checkpoints",
        ]
        words += ["--model", "coronet", "--load_size", 32, "--crop_size", 32, "--results_dir", self.results]
        opt = TestOptions().parse([str(word) for word in words])
        opt.num_threads, opt.batch_size, opt.serial_batches, opt.no_flip = 0, 1, True, True
        dataset, model = create_dataset(opt), create_model(opt)
        model.setup(opt)
        page = HTML(str(self.results / "p" / "test_latest"), "")
        for number, batch in enumerate(dataset):
            if number == fails_at:
                raise OSError
            model.set_input(batch)
            model.test()
            save_images(page, model.get_current_visuals(), model.get_image_paths())


def test_the_model_type_notes_what_a_checkout_tests(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translated(trained, "paired", tmp_path / "reference")
    checkout = Checkout(trained, tmp_path / "x", monkeypatch)
    checkout.test("paired")
    first = figures(trained, tmp_path / "x")
    assert first == figures(trained, tmp_path / "reference")
    Checkout(trained, tmp_path / "y", monkeypatch).test("other")
    write_test_options(trained / "checkpoints" / "p", trained / "other", results_dir=tmp_path / "y")
    try:
        assert figures(trained, tmp_path / "x") == first
    finally:
        (trained / "checkpoints" / "p" / "test_opt.txt").unlink()
    with pytest.raises(OSError):
        checkout.test("other", fails_at=2)
    distance, _, _, notes = figures(trained, tmp_path / "x")
    assert distance.count == 2 and any("1 fake_B beside them" in note for note in notes)


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A run ``r`` tested on ``data`` in a checkout that notes nothing but the options of its last test."""
    make_run(tmp_path, "r", stems=("a", "b", "c", "d"))
    write_test_options(tmp_path / "checkpoints" / "r", write_pairs(tmp_path / "data", test=4, train=4))
    show_inputs(tmp_path)
    return tmp_path


def test_options_of_a_later_test_are_refused_where_the_pictures_say_otherwise(dense: Path) -> None:
    assert evaluated(dense, Colours()).distance
    shutil.copytree(dense / "data", dense / "other")
    for path in (dense / "other" / "test").iterdir():
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    write_test_options(dense / "checkpoints" / "r", dense / "other", results_dir=dense / "later")
    with pytest.raises(DataError, match="a_real_A.png is another picture than .*other/test/a.png"):
        evaluated(dense, Colours())
    assert evaluated(dense, Colours(), dataroot=dense / "data").distance
    write_test_options(dense / "checkpoints" / "r", dense / "data", direction="BtoA")
    with pytest.raises(DataError, match="another picture"):
        evaluated(dense, Colours())
    for copy in images(dense).glob("*_real_A.png"):
        copy.unlink()
    write_test_options(
        dense / "checkpoints" / "r", dense / "data", preprocess="crop", load_size=64, results_dir="later"
    )
    with pytest.raises(DataError, match="the only known test of r did not write to"):
        evaluated(dense, Colours())


def test_truths_that_changed_are_refused_too(dense: Path) -> None:
    for path in (dense / "data" / "test").iterdir():
        pair = np.asarray(Image.open(path)).copy()
        pair[:, 32:] = pair[::-1, 32:]
        Image.fromarray(pair).save(path)
    with pytest.raises(DataError, match="a_real_B.png is another picture than"):
        evaluated(dense, Colours())


def test_pictures_named_after_other_data_are_left_out_or_refused(dense: Path) -> None:
    first = evaluated(dense, Colours())
    write_results(images(dense), ["x", "y"], ("real_A", "fake_B", "real_B"))
    second = evaluated(dense, Colours())
    assert second.distance == first.distance and second.paired == first.paired
    assert [note for note in second.notes if note not in first.notes] == [
        "2 fake_B beside them are of an earlier test or of other data, and left out"
    ]
    for path in images(dense).glob("[abcd]_*"):
        path.unlink()
    with pytest.raises(DataError, match=r"no \*_fake_B.png in .* is named after a picture in .*data/test"):
        evaluated(dense, Colours())


def test_both_sides_of_unpaired_data_are_named_after_the_first(tmp_path: Path, run: object) -> None:
    data = unpaired_folder(tmp_path, images=(2, 3), size=32)
    assert run_train(*run("c", data, "cycle_gan"), "--n_epochs_decay", 0, "--no_html") == 0  # type: ignore[operator]
    assert run_test(*run("c", data, "cycle_gan", testing=True), "--load_size", 32) == 0  # type: ignore[operator]
    one = found(tmp_path, "c")
    both = evaluate_run(one, extractor=Colours(), cache_dir=tmp_path / "cache")
    assert [e.distance.count for e in both] == [2, 2]
    smooth_image(1, 32, 32).save(data / "testA" / "A0.png")
    with pytest.raises(DataError, match="A0_real_A.png is another picture"):
        evaluate_run(one, extractor=Colours(), cache_dir=tmp_path / "cache")


# -- the note --------------------------------------------------------------
def test_what_was_noted_is_read_back(tmp_path: Path) -> None:
    assert tested.read(tmp_path) is None
    opt = Namespace(dataroot="data/é", load_size=32, gpu_ids=[0])
    tested.write(tmp_path, opt, ["data/a.b.png"])
    tested.add(tmp_path, ["x/ü.jpg"])
    expected = tested.Tested(
        {"dataroot": "data/é", "load_size": "32", "gpu_ids": "[0]"}, frozenset({"a.b", "ü"})
    )
    assert tested.read(tmp_path) == expected
    with open(tmp_path / tested.FILE, "a") as file:
        file.write('"cut sho')
    assert tested.read(tmp_path) == expected


@pytest.mark.parametrize("text", ["", "[]\n", '{"format": "coronet-tested", "version": 2}\n', "{", "\0"])
def test_a_damaged_note_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / tested.FILE).write_text(text)
    with pytest.raises(
        DataError, match="tested.jsonl does not say what made the pictures .*run test.py again"
    ):
        tested.read(tmp_path)
