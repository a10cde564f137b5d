"""The comparison page, its numbers and the command that writes it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import SIZE, make_cycle_run, make_run

from coronet_plugin import cli
from coronet_plugin.channels.find import cost_of
from coronet_plugin.comparison.figures import slimming_step, smooth, target_fraction
from coronet_plugin.comparison.measure import Measuring, in_order, measure_all
from coronet_plugin.comparison.quantities import COSTS, LIKENESS, TIME, duration
from coronet_plugin.comparison.report import summary, write_comparison
from coronet_plugin.comparison.sections import one_option_a_line
from coronet_plugin.errors import DataError
from coronet_plugin.runs.run import find_run

QUICK = Measuring(repeats=1, memory=False)
DENSE, SLIM = "dense", "slim <b>&amp;"  # a name that must not become markup


class Page(HTMLParser):
    """Collects what is asked about a page: addresses, texts, cells of the number table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self.best: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[key] or "" for key in ("src", "href") if key in values]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._open = tag
            self.rows[-1].append("")
            if values.get("class") == "best":
                self.best.append(self.rows[-1][0])

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open:
            self.rows[-1][-1] += " ".join(data.split())

    def row(self, label: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(label))


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_run(root, DENSE, stems=("a", "b", "c", "d", "e"), seed=1)
    make_run(root, SLIM, budget=0.3, stems=("b", "c", "d", "e", "f"), seed=2)
    return root


@pytest.fixture(scope="module")
def written(runs_root: Path) -> Path:
    return write_comparison(
        find_all(runs_root, SLIM, DENSE),
        runs_root / "page",
        Measuring(repeats=3, memory=False),
        images=3,
        worst=0,
    )


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def find_all(root: Path, *names: str) -> list:
    return [find_run(name, root / "checkpoints", root / "results") for name in names]


def test_everything_the_page_shows_lies_beside_it(written: Path, page: Page) -> None:
    assert page.addresses
    for address in page.addresses:
        assert "://" not in address and not address.startswith("/"), address
        assert (written.parent / address).is_file(), address
    assert "link" not in page.tags


def test_names_do_not_become_markup(written: Path, page: Page) -> None:
    assert SLIM in page.text
    assert "slim <b>" not in written.read_text(encoding="utf-8")


def test_dense_comes_first_and_columns_are_input_runs_truth(written: Path, runs_root: Path) -> None:
    results = runs_root / "results"
    found = re.findall(r'data-name="(.)"', written.read_text(encoding="utf-8"))
    assert sorted(found) == ["b", "d", "e"]  # evenly over what both have: b c d e
    for number, stem in enumerate(found):
        shown = [written.parent / f"images/G_{number:03d}_{column}.png" for column in range(4)]
        sources = [
            results / DENSE / f"test_latest/images/{stem}_real_A.png",
            results / DENSE / f"test_latest/images/{stem}_fake_B.png",
            results / SLIM / f"test_latest/images/{stem}_fake_B.png",
            results / DENSE / f"test_latest/images/{stem}_real_B.png",
        ]
        assert [path.read_bytes() for path in shown] == [path.read_bytes() for path in sources]


def test_ratios_and_values_are_those_of_the_networks(written: Path, runs_root: Path) -> None:
    import torch

    numbers = json.loads((written.parent / "comparison.json").read_text(encoding="utf-8"))
    columns = numbers["generators"]["G"]["runs"]
    assert list(columns) == [DENSE, SLIM]
    example = torch.zeros(1, 3, SIZE, SIZE)
    dense, slim = (cost_of(run.load_generator("G"), example) for run in find_all(runs_root, DENSE, SLIM))
    assert columns[SLIM]["macs"] == slim.macs and columns[DENSE]["macs_literature"] == dense.macs_literature
    assert columns[SLIM]["ratios"]["macs"] == pytest.approx(slim.macs / dense.macs)
    assert columns[SLIM]["ratios"]["macs"] <= 0.3
    ratios = columns[DENSE]["ratios"]
    assert ratios.pop("peak_memory") is None  # left out for speed
    assert ratios == dict.fromkeys(ratios, 1.0)
    file = runs_root / "checkpoints" / SLIM / "latest_net_G.pth"
    assert columns[SLIM]["file_bytes"] == file.stat().st_size
    assert columns[SLIM]["differences"]["ssim"] == columns[SLIM]["ssim"] - columns[DENSE]["ssim"]
    assert columns[SLIM]["training_seconds"] == 12.5 and columns[SLIM]["test_images"] == 5


def test_table_marks_the_best_and_not_ties(page: Page) -> None:
    assert "MACs multiply-adds really done".replace(" ", "") in page.rows[1][0].replace(" ", "")
    best = {label.split()[0] for label in page.best}
    assert any(label.startswith("Parameters") for label in page.best) and "Training" not in best
    assert page.row("Training time")[1:] == ["12 s", "12 s100 %"]


def test_circumstances_of_the_latency_are_stated(page: Page) -> None:
    assert "1 x 3 x 32 x 32" in page.text and "1 thread" in page.text and "3 rounds" in page.text


def test_widths_of_every_set_are_listed(page: Page, runs_root: Path) -> None:
    (run,) = find_all(runs_root, SLIM)
    for entry in run.specs["G"].sets:
        kept, total = len(entry["kept"]), entry["channels"]
        assert [entry["name"], "", str(kept), str(total), f"{100 * kept / total:.0f} %"] in page.rows


def test_curves_are_drawn_with_target_and_slimming(written: Path, runs_root: Path) -> None:
    for name in ("budget", "losses"):
        assert ElementTree.parse(written.parent / "images" / f"{name}.svg").getroot().tag.endswith("svg")
    dense, slim = find_all(runs_root, DENSE, SLIM)
    assert slimming_step(slim) == 30 and slimming_step(dense) is None
    assert target_fraction(slim.specs["G"]) == pytest.approx(0.3, abs=1e-6)  # the target is whole MACs


def test_the_same_runs_give_the_same_pictures(written: Path, runs_root: Path, tmp_path: Path) -> None:
    again = write_comparison(find_all(runs_root, DENSE, SLIM), tmp_path, QUICK, images=3, worst=0)
    first, second = (
        {path.name: path.read_bytes() for path in (page.parent / "images").iterdir()}
        for page in (written, again)
    )
    assert first.pop("pareto_G.svg") and second.pop("pareto_G.svg")  # latencies were measured anew
    assert first == second


def test_a_run_without_log_is_honestly_unmeasured(runs_root: Path, tmp_path: Path) -> None:
    make_run(tmp_path, "silent", log=False, stems=("b", "c"))
    page = Page(write_comparison(find_all(tmp_path, "silent"), tmp_path / "page", QUICK).read_text("utf-8"))
    assert page.row("Training time")[1] == "not measured"
    assert "no run has a loss_log.jsonl" in page.text
    numbers = json.loads((tmp_path / "page/comparison.json").read_text(encoding="utf-8"))
    assert numbers["generators"]["G"]["runs"]["silent"]["training_seconds"] is None


def test_perfect_pictures_do_not_break_the_json(tmp_path: Path) -> None:
    make_run(tmp_path, "perfect", stems=("a",))
    images = tmp_path / "results/perfect/test_latest/images"
    shutil.copyfile(images / "a_real_B.png", images / "a_fake_B.png")
    write_comparison(find_all(tmp_path, "perfect"), tmp_path / "page", QUICK)
    numbers = json.loads((tmp_path / "page/comparison.json").read_text(encoding="utf-8"))
    values = numbers["generators"]["G"]["runs"]["perfect"]
    assert values["psnr"] == "inf" and values["differences"]["psnr"] is None


def test_cycle_gan_is_shown_by_generator_without_likeness(tmp_path: Path) -> None:
    make_cycle_run(tmp_path, "cycle")
    runs = find_all(tmp_path, "cycle")
    page = Page(write_comparison(runs, tmp_path / "page", QUICK).read_text("utf-8"))
    assert [row[1] for row in page.rows if row[0].startswith("SSIM")] == ["not measured"] * 2
    assert "G_B: real_B to fake_A" in page.text
    assert (tmp_path / "page/images/G_B_000_1.png").read_bytes() == (
        tmp_path / "results/cycle/test_latest/images/x_fake_A.png"
    ).read_bytes()
    assert not (tmp_path / "page/images/G_B_000_2.png").exists()  # no truth column


def test_runs_that_do_not_fit_together_are_refused(runs_root: Path, tmp_path: Path) -> None:
    (dense,) = find_all(runs_root, DENSE)
    with pytest.raises(DataError, match="named twice"):
        in_order([dense, dense])
    make_cycle_run(tmp_path, "cycle")
    with pytest.raises(DataError, match="cannot be compared"):
        in_order([dense, *find_all(tmp_path, "cycle")])
    make_run(tmp_path, "untested", stems=())
    with pytest.raises(DataError, match="run test.py --name untested"):
        write_comparison(find_all(tmp_path, "untested"), tmp_path / "page")
    assert not (tmp_path / "page").exists()
    make_run(tmp_path, "elsewhere", stems=("z",))
    with pytest.raises(DataError, match="common to dense, elsewhere"):
        write_comparison([dense, *find_all(tmp_path, "elsewhere")], tmp_path / "page", QUICK)


def test_summary_is_set_against_the_first_run(runs_root: Path) -> None:
    runs = in_order(find_all(runs_root, SLIM, DENSE))
    measurements = measure_all(runs, QUICK)
    (columns,) = measurements.values()
    (line,) = summary(measurements)
    assert line.startswith(f"{SLIM}: {100 * columns[1].cost.macs / columns[0].cost.macs:.3g} % of the MACs")
    assert line.endswith("(set against dense).")


# The small parts


def quantity(key: str) -> object:
    return next(quantity for quantity in (*COSTS, *LIKENESS, TIME) if quantity.key == key)


@pytest.mark.parametrize(
    ("key", "values", "best"),
    [
        ("macs", [10.0, 1.0, 3.0], {1}),
        ("ssim", [0.5, 0.9, None], {1}),
        ("ssim", [0.9, 0.9, 0.1], {0, 1}),
        ("psnr", [20.0, float("inf")], {1}),
        ("l1", [0.2, 0.1], {1}),
        ("macs", [1.0, None], set()),
        ("macs", [2.0, 2.0], set()),
        ("training_seconds", [122.4, 121.6], set()),  # both are shown as 2 min 02 s
    ],
)
def test_best(key: str, values: list[float | None], best: set[int]) -> None:
    assert quantity(key).best(values) == best


def test_against_is_a_ratio_for_cost_and_a_difference_for_likeness() -> None:
    assert quantity("macs").against(1.0, 10.0) == 0.1
    assert quantity("psnr").against(18.0, 20.0) == -2.0
    assert quantity("macs").against(None, 1.0) is None
    assert quantity("training_seconds").against(1.0, 0.0) is None


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (9.6, 75, 3725)] == ["10 s", "1 min 15 s", "1 h 02 min"]


def test_smoothing_keeps_constants_and_the_mean_of_the_window() -> None:
    assert smooth(np.full(30, 7.0)) == pytest.approx(7.0)
    values = np.arange(40.0)
    found = smooth(values)
    assert found[20] == pytest.approx(20) and found[0] == pytest.approx(values[:3].mean())


def test_shown_commands_mean_the_same() -> None:
    command = "python train.py --name 'a --b c' --no_dropout --lr -1"
    shown = one_option_a_line(command)
    assert shown.splitlines()[1:] == ["    --name 'a --b c' \\", "    --no_dropout \\", "    --lr -1"]
    assert shlex.split(shown.replace("\\\n", "")) == shlex.split(command)
    for untouched in ("make it\nthen --that", "broken 'quote --x", "cd x && python train.py --y"):
        assert one_option_a_line(untouched) == untouched


# The command


def arguments(root: Path, *names: str) -> list[str]:
    folders = ["--checkpoints_dir", str(root / "checkpoints"), "--results_dir", str(root / "results")]
    return ["compare", *names, *folders]


def test_command_prints_the_page(runs_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output", str(tmp_path / "page"), "--images", "2", "--repeats", "2", "--threads", "2"]
    options += ["--no_fid", "--no_memory", "--runtimes"]
    assert cli.main([*arguments(runs_root, DENSE, SLIM), *options]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "page/index.html" and "2 threads" in path.read_text(encoding="utf-8")
    with Image.open(tmp_path / "page/images/G_001_3.png") as image:
        assert image.size == (SIZE, SIZE)


def test_an_error_is_one_line_and_exit_code_2(runs_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments(runs_root, "nothing")) == 2
    error = capsys.readouterr().err
    assert error.startswith("coronet: no run 'nothing'") and error.count("\n") == 1
    with pytest.raises(Exception, match="no run 'nothing'"):
        cli.main([*arguments(runs_root, "nothing"), "--debug"])


def test_bad_usage_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ([], ["compare"], ["compare", "a", "--images", "0"]):
        with pytest.raises(SystemExit) as left:
            cli.main(wrong)
        assert left.value.code == 2
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out.startswith("coronet-plugin ")
