"""Parts of a comparison: memory, runtimes, distances with their floor, Pareto fronts, what runs were made of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import dominate
import pytest
import torch
from run_helpers import make_run
from torch import nn

from coronet_plugin import cli
from coronet_plugin.channels.cost import Cost
from coronet_plugin.comparison import numbers
from coronet_plugin.comparison.measure import Measurement, Measuring, in_order, is_full, measure_all
from coronet_plugin.comparison.pareto import Point, draw_points, front, pareto_figure, quality_of
from coronet_plugin.comparison.pictures import shown_pictures
from coronet_plugin.comparison.quantities import FID, KID, SSIM, quantities
from coronet_plugin.comparison.record import as_json
from coronet_plugin.comparison.report import write_comparison
from coronet_plugin.comparison.runtimes import Failure, Speed, choose, package_of, time_generators
from coronet_plugin.drawing import new_figure
from coronet_plugin.errors import ExportError, OptionError
from coronet_plugin.evaluation.distances import Distance
from coronet_plugin.evaluation.features import MissingWeights
from coronet_plugin.evaluation.paired import PairedMetrics
from coronet_plugin.evaluation.record import Evaluation
from coronet_plugin.export.normalisation import NORM_MODES
from coronet_plugin.export.request import Request
from coronet_plugin.export.targets import TARGETS, ArrayModel, Target
from coronet_plugin.measure.memory import FORGET_PEAK, peak_memory
from coronet_plugin.runs.run import Translation, find_run
from coronet_plugin.training import provenance

QUICK = Measuring(repeats=1, memory=False)
TRANSLATION = Translation("G", "real_A", "fake_B", "real_B")


def measurement(run: str, macs: int, kid: float | None = None, ssim: float = 0.5) -> Measurement:
    made = real = None
    if kid is not None:
        made = Distance(100 * kid, kid, 0.002, 10, 10, 5, 100, 2020)
        real = Distance(7.0, 0.001, 0.0005, 10, 10, 5, 100, 2020)
    evaluation = Evaluation(
        *(run, "G", "fake_B", "test", "8 x 8"),
        paired=PairedMetrics(ssim, 20.0, 0.1, 10),
        distance=made,
        floor=real,
        notes=("a note to be read",),
    )
    return Measurement(run, "G", Cost(macs, macs, macs), 1000, None, (), evaluation, None)


# -- memory --------------------------------------------------------------------
@pytest.mark.skipif(not FORGET_PEAK.exists(), reason="only Linux counts peaks anew")
def test_peak_memory_is_the_weights_and_what_is_alive_at_once() -> None:
    megabyte = 2**20
    one = nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2))  # 4 MB of input make 16 MB
    more = nn.Sequential(*one, *one, *one)  # the same, three times one after the other
    image = torch.zeros(1, 4, 512, 512)
    found, again = peak_memory(one, image), peak_memory(more, image)
    assert found is not None and again is not None and found.weights == again.weights == 0
    # 16 MB and the 4 MB made of them, as pages of 4 kB are counted; 1 MB for what else a process does
    assert found.rise == pytest.approx(20 * megabyte, abs=megabyte)
    assert again.rise == pytest.approx(found.rise, abs=megabyte)  # not the sum
    heavy = peak_memory(nn.Linear(1000, 500, bias=False), torch.zeros(1, 1000))
    assert heavy is not None and heavy.weights == 4 * 500_000 and heavy.total == heavy.weights + heavy.rise


def test_memory_that_cannot_be_measured_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(nn.Module):  # a class that no other process finds
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image

    assert peak_memory(Local(), torch.zeros(1)) is None
    monkeypatch.setattr("coronet_plugin.measure.memory.FORGET_PEAK", Path("/no/such/file"))
    assert peak_memory(nn.ReLU(), torch.zeros(1)) is None


# -- runtimes ------------------------------------------------------------------
def test_runtimes_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose([]) == choose(["torch"]) == ()
    with pytest.raises(OptionError, match="pytorhc is not known; choose from all, torch, onnxruntime"):
        choose(["pytorhc"])
    monkeypatch.setattr(
        "coronet_plugin.export.targets.is_installed", lambda name: name in ("onnx", "onnxruntime")
    )
    assert [package_of(target) for target in choose()] == ["onnxruntime"]
    assert choose(["onnx"]) == choose(["onnxruntime", "torch"]) == choose()
    with pytest.raises(OptionError, match="openvino.*pip install"):
        choose(["openvino"])


def test_onnxruntime_is_timed_with_its_circumstances() -> None:
    pytest.importorskip("onnxruntime")
    try:
        import onnx  # noqa: F401
    except Exception as error:  # a broken installation of protobuf
        pytest.skip(f"onnx cannot be imported: {error}")
    net, example = nn.Conv2d(3, 3, 3, padding=1), torch.rand(1, 3, 16, 16)
    found = time_generators(TARGETS["onnx"], {"a": net, "b": net}, example, threads=2, rounds=3)
    assert list(found) == ["a", "b"] and isinstance(found["b"], Speed)
    assert found["b"].runtime.startswith("onnxruntime ") and found["b"].timing.median_ms > 0
    assert (found["b"].threads, found["b"].timing.calls, found["b"].input_size) == (2, 3, (1, 3, 16, 16))


def test_no_time_is_told_of_an_export_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", exc_type=ImportError)
    pytest.importorskip("onnxruntime")
    load = Target.load

    def broken(self: Target, path: Path, threads: int = 1) -> ArrayModel:
        run = load(self, path, threads)
        return (lambda x: run(x) + 0.1) if path.name.startswith("1") else run  # the second generator's

    monkeypatch.setattr(Target, "load", broken)
    nets = {name: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()) for name in ("good", "bad")}
    found = time_generators(TARGETS["onnx"], nets, torch.rand(1, 3, 16, 16), rounds=1)
    assert isinstance(found["good"], Speed) and isinstance(found["bad"], Failure)
    assert "its output is wrong on this CPU" in found["bad"].reason


def test_generators_take_turns_in_every_runtime() -> None:
    calls = []

    class Noting(nn.Conv2d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            calls.append(self.padding[0])
            return super().forward(image)

    nets = {"a": Noting(3, 3, 3, padding=0), "b": Noting(3, 3, 3, padding=1)}
    time_generators(None, nets, torch.rand(1, 3, 8, 8), rounds=2)
    assert calls[-4:] in ([0, 1, 1, 0], [1, 0, 0, 1])


def test_norms_are_timed_as_test_py_shows_them_unless_asked_otherwise() -> None:
    seen = set()

    class Noting(nn.Sequential):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.add(type(self[0]))
            return super().forward(image)

    net, example = Noting(nn.BatchNorm2d(3)), torch.rand(1, 3, 8, 8)
    time_generators(None, {"a": net}, example, rounds=1)
    assert seen == {nn.InstanceNorm2d} and type(net[0]) is nn.BatchNorm2d
    seen.clear()
    time_generators(None, {"a": net}, example, rounds=1, norm_mode="running")
    assert seen == {nn.BatchNorm2d}


def test_one_default_for_norms_wherever_generators_are_measured(tmp_path: Path) -> None:
    parse = cli.parser().parse_args
    commands = {name: parse([name, "a"]).norm_mode for name in ("compare", "bench", "export")}
    assert set(commands.values()) == {Measuring().norm_mode} == {Request(TARGETS["onnx"]).norm_mode}
    make_run(tmp_path, "a")
    folders = ["--checkpoints_dir", str(tmp_path / "checkpoints"), "--results_dir", str(tmp_path / "results")]
    rest = ["--output", str(tmp_path / "page"), "--repeats", "1", "--no_memory", "--no_fid", "--runtimes"]
    for mode, choice in (("batch", []), ("running", ["--norm_mode", "running"])):
        assert cli.main(["compare", "a", *folders, *choice, *rest]) == 0
        assert f"--norm_mode {mode}: {NORM_MODES[mode]}" in (tmp_path / "page/index.html").read_text()
    assert cli.main(["compare", "a", *folders, "--norm_mode", "mean", *rest]) == 2


def test_a_runtime_that_cannot_run_a_generator_is_said_and_not_a_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise ExportError("it knows no such layer")

    monkeypatch.setattr("coronet_plugin.export.targets.Target.convert", refuse)
    monkeypatch.setattr("coronet_plugin.export.targets.Target.versions", lambda self: {package_of(self): "9"})
    found = time_generators(TARGETS["onnx"], {"a": nn.Conv2d(3, 3, 3)}, torch.rand(1, 3, 16, 16))["a"]
    assert found == Failure("onnxruntime 9", "it knows no such layer")
    column = dataclasses.replace(measurement("a", 5), speeds=(found,))
    (latency,) = [quantity for quantity in quantities([column]) if quantity.key == "latency_ms_onnxruntime"]
    assert latency.read(column) is None
    assert "a G was not timed in onnxruntime 9: it knows no such layer" in page_text([column])


# -- distances -----------------------------------------------------------------
def page_text(columns: list[Measurement]) -> str:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    document = dominate.document()
    with document:
        numbers.table([Named(column.run) for column in columns], {TRANSLATION: columns})
    return str(document.render(pretty=False))


def test_distances_come_with_floor_spread_and_protocol() -> None:
    columns = [measurement("dense", 100, 0.010), measurement("slim", 10, 0.0125)]
    text = page_text(columns)
    assert "floor 1.0" in text and "floor 7.0" in text and "subsets differ by 2.0" in text
    assert "<b>10.0</b>" in text and "+2.50" in text  # the best; a difference in thousandths, as the figure
    assert "as many of either, here 10 against 10 pictures of 8 x 8" in text and "a note to be read" in text
    values = as_json({TRANSLATION: columns})["generators"]["G"]["runs"]["slim"]
    assert values["kid"] == 0.0125 and values["differences"]["kid"] == pytest.approx(0.0025)
    assert values["evaluation"]["floor"]["fid"] == 7.0 and values["ratios"]["macs"] == 0.1


def test_without_distances_there_are_no_rows_for_them() -> None:
    columns = [measurement("dense", 100), measurement("slim", 10)]
    assert not {KID, FID} & set(quantities(columns)) and SSIM in quantities(columns)
    assert "KID" not in page_text(columns)
    assert as_json({TRANSLATION: columns})["generators"]["G"]["runs"]["slim"]["kid"] is None


def test_missing_weights_are_one_line_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise MissingWeights("install this and that")

    monkeypatch.setattr("coronet_plugin.evaluation.features.load_extractor", missing)
    make_run(tmp_path, "a")
    folders = ["--checkpoints_dir", str(tmp_path / "checkpoints"), "--results_dir", str(tmp_path / "results")]
    rest = ["--output", str(tmp_path / "page"), "--repeats", "1", "--no_memory", "--runtimes", "torch"]
    assert cli.main(["compare", "a", *folders, *rest]) == 0
    text = (tmp_path / "page/index.html").read_text()
    assert text.count("install this and that") == 1 and "Without FID and KID" in text
    assert cli.main(["compare", "a", *folders, *rest, "--no_fid"]) == 0
    assert "install this" not in (tmp_path / "page/index.html").read_text()


# -- Pareto --------------------------------------------------------------------
def points(*values: tuple[float, float]) -> list[Point]:
    return [Point(str(index), index, *value) for index, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "higher", "expected"),
    [
        ([(1, 5), (2, 4), (3, 3)], False, "012"),
        ([(1, 5), (2, 6), (3, 3)], False, "02"),
        ([(1, 5), (2, 6), (3, 3)], True, "01"),
        ([(2, 5), (2, 4)], False, "1"),  # of equal cost, the better one
        ([(2, 5), (1, 5)], False, "1"),  # of equal quality, the cheaper one
        ([(1, 1)], True, "0"),
    ],
)
def test_front(values: list[tuple[float, float]], higher: bool, expected: str) -> None:
    assert "".join(point.run for point in front(points(*values), higher)) == expected


def test_runs_are_ranked_by_kid_only_if_all_have_it() -> None:
    known, unknown = measurement("a", 1, 0.01), measurement("b", 2)
    assert quality_of([known, known]) is KID and quality_of([known, unknown]) is SSIM
    assert quality_of([dataclasses.replace(unknown, evaluation=None)]) is None


def test_plot_has_a_labelled_point_for_every_run() -> None:
    columns = [measurement("dense", 100, 0.010), measurement("slim", 10, 0.02), measurement("same", 10, 0.02)]
    figure = pareto_figure(columns)
    assert figure is not None
    (axes,) = figure.axes  # nothing was timed
    names = [text.get_text() for text in axes.texts]
    assert sorted(names) == ["dense", "floor", "same", "slim"]
    slim, same = (next(text for text in axes.texts if text.get_text() == name) for name in ("slim", "same"))
    assert slim.xyann != same.xyann  # equal points, readable names
    assert axes.get_ylabel().startswith("KID") and axes.get_ylim()[1] > 20
    assert pareto_figure(columns[:1]) is None


@pytest.mark.parametrize("log", [False, True])
def test_names_in_a_crowd_cover_none_of_the_others_and_stay_inside(log: bool) -> None:
    """Twelve of the worst quality at nearly one cost, and one far away."""
    crowd = [Point(f"a run of number {i}", i, 10 + i / 100, 20.0) for i in range(12)]
    figure = new_figure(6.8, 6)
    axes = figure.subplots()
    draw_points(axes, [*crowd, Point("far", 12, 300, 90.0)], KID, log=log)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    inside = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1 and box.x1 <= inside.x1
        assert not any(box.overlaps(other) for other in boxes[:i])


# -- runs ----------------------------------------------------------------------
def test_a_run_with_a_budget_of_one_stands_with_the_dense_ones(tmp_path: Path) -> None:
    make_run(tmp_path, "slim", budget=0.4)
    make_run(tmp_path, "full", budget=1.0)
    runs = [find_run(name, tmp_path / "checkpoints", tmp_path / "results") for name in ("slim", "full")]
    assert [is_full(run) for run in runs] == [False, True]
    assert [run.name for run in in_order(runs)] == ["full", "slim"]
    shown, worst = shown_pictures(runs, TRANSLATION, 2, worst=0)
    assert {picture.stem for picture in shown} == {"a", "c"} and worst == 0


def test_page_says_what_runs_were_made_of_and_warns_of_different_data(tmp_path: Path) -> None:
    import argparse

    for name, size in (("one", 3), ("two", 4)):
        make_run(tmp_path, name)
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train/a.png").write_bytes(bytes(size))
        where = {
            "checkpoints_dir": str(tmp_path / "checkpoints"),
            "name": name,
            "dataroot": str(tmp_path / name),
        }
        provenance.begin(argparse.Namespace(**where, phase="train", seed=40 + size, continue_train=False))
    runs = [find_run(name, tmp_path / "checkpoints", tmp_path / "results") for name in ("one", "two")]
    text = write_comparison(runs, tmp_path / "page", QUICK, command="coronet compare one two").read_text()
    assert "different training data" in text and "<td>43</td>" in text and "<td>44</td>" in text
    assert "coronet compare one two" in text
    again = write_comparison(runs[:1], tmp_path / "page", QUICK).read_text()
    assert "different training data" not in again


def test_evaluations_are_kept_beside_the_results(tmp_path: Path) -> None:
    make_run(tmp_path, "a")
    run = find_run("a", tmp_path / "checkpoints", tmp_path / "results")
    first = measure_all([run], QUICK)[TRANSLATION][0].quality
    record = tmp_path / "results/a/test_latest/evaluation.json"
    changed = json.loads(record.read_text())
    (entry,) = changed["protocols"]["test"]["translations"]
    entry["paired"]["ssim"] = 0.123
    record.write_text(json.dumps(changed))
    again = measure_all([run], QUICK)[TRANSLATION][0].quality
    assert first is not None and again is not None
    assert again.ssim == 0.123 and again.l1 == first.l1  # read, not measured anew
