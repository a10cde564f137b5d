"""``coronet inspect``: the table, the picture, and all it can be pointed at."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from matplotlib.text import Text
from run_helpers import ARCHITECTURE, SIZE, make_cycle_run, make_run
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coronet_plugin import Compression, cost_of, find_channels, load_generator
from coronet_plugin.checkpoint.spec import Spec
from coronet_plugin.checkpoint.upstream import recognise_generator
from coronet_plugin.cli import main
from coronet_plugin.generators.stock import build_generator
from coronet_plugin.inspection.facts import Inspection, inspect_generator
from coronet_plugin.inspection.figure import channel_figure, links
from coronet_plugin.inspection.names import layer_labels, short_name
from coronet_plugin.inspection.source import Choices, inspect_model
from coronet_plugin.inspection.table import text

STOCK = {
    "resnet_9blocks": Choices(size=(32, 32), architecture={"ngf": 32}),
    "unet_256": Choices(size=(256, 256), architecture={"ngf": 16}),
}


@pytest.fixture(scope="module")
def stock() -> dict[str, Inspection]:
    return {name: inspect_model(name, choices)[name] for name, choices in STOCK.items()}


@pytest.fixture(scope="module")
def slim_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slim")
    make_run(root, "small", budget=0.3, stems=())
    return root / "checkpoints" / "small" / "latest_net_G.pth"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The output of ``coronet inspect``, which must succeed."""
    code = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def flops(generator: nn.Module, *shape: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator.eval()(torch.zeros(shape))
    return counter.get_total_flops()


# -- the facts ---------------------------------------------------------------
@pytest.mark.parametrize(
    ("netG", "norm", "shape"), [("resnet_9blocks", "instance", (32, 48)), ("unet_256", "batch", (256, 256))]
)
def test_macs_of_the_sets_add_up_to_an_independent_count(netG, norm, shape, tmp_path, capsys):
    size = "x".join(map(str, shape))
    run(capsys, netG, "--ngf", 8, "--input_nc", 1, "--size", size, "--json", tmp_path / "all.json")
    (facts,) = json.loads((tmp_path / "all.json").read_text())["generators"].values()
    total = sum(s["macs"] for s in facts["sets"])
    assert total == facts["dense"]["macs"] == flops(build_generator(1, 3, 8, netG, norm), 1, 1, *shape) // 2
    assert total == sum(share["macs"] for layer in facts["layers"] for share in layer["shares"])
    assert facts["input_size"] == [[1, *shape]] and facts["products"] == [0, 0]


def test_the_printed_columns_add_up(stock):
    for inspection in stock.values():
        values = [quantity(line) for line in table(inspection)]
        assert sum(values[:-1]) == pytest.approx(values[-1], rel=1e-3)  # four digits are printed
        shares = [float(line.split()[-2]) for line in table(inspection)]
        assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=3)  # two digits


def table(inspection: Inspection) -> list[str]:
    """Rows of the printed table, the total last."""
    lines = text(inspection).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("set "))
    return lines[start + 1 : next(i for i, line in enumerate(lines) if line.startswith("total")) + 1]


def quantity(line: str) -> float:
    number, prefix = re.findall(r"([\d.]+) ([GMk])", line)[0]
    return float(number) * {"G": 1e9, "M": 1e6, "k": 1e3}[prefix]


def test_the_residual_stream_is_one_row_with_ten_makers(stock):
    inspection = stock["resnet_9blocks"]
    (stream,) = [s for s in inspection.sets if len(s.makers) > 1]
    assert stream.name == "model.7" and len(stream.makers) == 10 and len(stream.readers) == 10
    (row,) = [line for line in table(inspection) if "(+8 more)" in line]
    assert row.split()[:3] == ["model.7", "128", "model.10.conv_block.5"]
    written_out = text(inspection, full=True)
    assert all(f" {name} " in written_out for name in stream.makers[1:])


def test_what_is_pinned_says_why(stock, capsys):
    for inspection, last in ((stock["resnet_9blocks"], "model.26"), (stock["unet_256"], "model.model.3")):
        words = text(inspection)
        assert f"{last} [pinned 1]" in words
        assert f"[pinned 1] it is the generator's output: {last}" in words
        assert "15 prunable" in words or "14 prunable" in words
    out = run(capsys, "resnet_6blocks", "--ngf", 4, "--size", 32)
    assert "literature" in out and "100 % of the MACs" in out and "1 x 3 x 32 x 32" in out


def test_stock_tables_fit_the_page(stock):
    for inspection in stock.values():
        assert max(map(len, text(inspection).splitlines())) <= 110


class TwoSets(nn.Module):
    """``both`` makes 12 channels shared with ``one`` and 4 shared with ``two``."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 4, 1)
        self.both = nn.Conv2d(3, 16, 3, padding=1)
        self.tail = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(torch.cat([self.one(x), self.two(x)], 1) + self.both(x))


def test_a_layer_of_two_sets_counts_for_each_in_proportion():
    inspection = inspect_generator(TwoSets(), torch.zeros(1, 3, 8, 8))
    macs = {s.makers: s.macs for s in inspection.sets}
    one, two = (3 * width * (1 + 9) * 64 for width in (12, 4))
    assert macs == {("one", "both"): one, ("two", "both"): two, ("tail",): 16 * 3 * 64}
    (both,) = [layer for layer in inspection.layers if layer.name == "both"]
    assert [(share.set, share.channels) for share in both.shares] == [("one", 12), ("two", 4)]
    figure = channel_figure(inspection)
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert heights == [12, 4, 12, 4, 3]  # the bar of both is one on top of the other


def test_layers_that_cannot_be_followed_are_counted_too():
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.tail = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.tail(nn.functional.conv2d(self.head(x), torch.ones(4, 4, 1, 1)))

    inspection = inspect_generator(Computed(), torch.zeros(1, 3, 8, 8))
    assert sum(s.macs for s in inspection.sets) == inspection.dense.macs == (12 + 16 + 12) * 64
    assert all(s.pinned for s in inspection.sets) and "never removed" in text(inspection)


# -- checkpoints -------------------------------------------------------------
def test_a_slim_checkpoint_shows_kept_of_dense(slim_weights, tmp_path, capsys):
    out = run(capsys, slim_weights, "--json", tmp_path / "all.json")
    (facts,) = json.loads((tmp_path / "all.json").read_text())["generators"].values()
    small, dense = torch.load(slim_weights), build_generator(**ARCHITECTURE).state_dict()
    assert len(facts["layers"]) == 18
    for layer in facts["layers"]:
        weight = small[layer["name"] + ".weight"]
        axis = 1 if layer["name"] in ("model.16", "model.19") else 0  # transposed have (in, out, h, w)
        (share,) = layer["shares"]
        assert (share["kept"], share["channels"]) == (
            weight.shape[axis],
            dense[layer["name"] + ".weight"].shape[axis],
        )
    for entry in facts["sets"]:
        assert re.search(rf"{re.escape(entry['name'])} .*{entry['kept']} of {entry['channels']}", out)
    assert sum(entry["macs_kept"] for entry in facts["sets"]) == facts["now"]["macs"]
    assert facts["now"] == cost_of(load_generator(slim_weights), torch.zeros(1, 3, SIZE, SIZE)).as_dict()
    assert facts["now"] == Spec.read(slim_weights.with_suffix(".json")).slim
    assert facts["now"]["macs"] < 0.31 * facts["dense"]["macs"] and "budget 0.3 of the MACs" in out


def test_a_checkpoint_of_the_search_has_full_size(tmp_path, capsys):
    net = build_generator(**ARCHITECTURE)
    Compression(net, torch.zeros(1, 3, 32, 32), search_steps=9, budget=0.5, architecture=ARCHITECTURE).save(
        tmp_path / "latest_net_G.pth"
    )
    out = run(capsys, tmp_path / "latest_net_G.pth")
    assert "search at step 0 of 9" in out and " of 8 " not in out
    assert "11 prunable" in out


def test_a_slim_generator_of_ones_own_is_shown_from_its_spec(tmp_path, capsys):
    net = TwoSets()
    compression = Compression(net, torch.zeros(1, 3, 8, 8), budget=0.5, search_steps=3)
    compression.attach(torch.optim.Adam(net.parameters())).slim()
    compression.save(tmp_path / "mine_net_G.pth")
    out = run(capsys, tmp_path / "mine_net_G.pth", "--output", tmp_path / "mine.svg")
    spec = Spec.read(tmp_path / "mine_net_G.json")
    for entry in spec.sets:
        assert f"{len(entry['kept'])} of {entry['channels']}" in out
    assert (
        "from the spec alone" in out
        and "TwoSets" in out
        and "it is the generator's output" in out
        and "coverage" not in out
    )
    assert ElementTree.parse(tmp_path / "mine.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("netG", ["resnet_9blocks", "resnet_6blocks", "unet_256", "unet_128"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_architectures_are_deduced_from_dense_weights(netG, norm):
    wanted = {"netG": netG, "norm": norm, "ngf": 4, "input_nc": 1, "output_nc": 2, "use_dropout": True}
    state = build_generator(**wanted).state_dict()
    for found in (state, {f"module.{key}": value for key, value in state.items()}):
        family, config = recognise_generator(found, {})
        assert family.architecture(config) == wanted
    family, config = recognise_generator(state, {"use_dropout": "False"})
    assert config.use_dropout is ("resnet" in netG)  # U-Nets' tensors do not tell, options do


def test_a_run_shows_each_of_its_generators(tmp_path, capsys):
    make_cycle_run(tmp_path, "cycle")
    folder = tmp_path / "checkpoints"
    out = run(capsys, "cycle", "--checkpoints_dir", folder, "--output", tmp_path / "sets.svg")
    assert "cycle/latest_net_G_A.pth" in out and "cycle/latest_net_G_B.pth" in out
    assert out.count(f"1 x 3 x {SIZE} x {SIZE}") == 2  # the training crops
    assert [path.name for path in sorted(tmp_path.glob("*.svg"))] == ["sets_G_A.svg", "sets_G_B.svg"]
    assert run(capsys, folder / "cycle") == out.partition(str(tmp_path))[0]


# -- generators of the user's own --------------------------------------------
@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    (tmp_path / "own_layers.py").write_text(
        "from torch import nn\ndef conv(i, o): return nn.Conv2d(i, o, 3, padding=1)\n"
    )
    path = tmp_path / "own_net.py"
    path.write_text(
        "from torch import nn\n"
        "from own_layers import conv\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, width=8, inputs=3):\n"
        "        super().__init__(conv(inputs, width), nn.ReLU(), conv(width, 3))\n"
        "def wide(): return Net(32)\n"
        "def nothing(): return 3\n"
        "def demanding(width): return Net(width)\n"
        "def bare(): return nn.ReLU()\n"
    )
    return path


def test_a_class_a_function_and_a_module_of_ones_own(own_file, capsys, monkeypatch):
    assert "432 MACs" not in (out := run(capsys, f"{own_file}:Net", "--size", 8))
    assert re.search(r"^0 +8 +2 ", out, re.MULTILINE) and "1 x 3 x 8 x 8" in out
    assert re.search(r"^0 +32 +2 ", run(capsys, f"{own_file}:wide", "--size", 8), re.MULTILINE)
    out = run(capsys, f"{own_file}:Net", "--size", "8x16", "--kwargs", '{"width": 5, "inputs": 2}')
    assert re.search(r"^0 +5 +2 ", out, re.MULTILINE) and "1 x 2 x 8 x 16" in out
    monkeypatch.chdir(own_file.parent)
    assert re.search(r"^0 +8 +2 ", run(capsys, "own_net:Net", "--size", 8), re.MULTILINE)
    assert str(own_file.parent) not in sys.path


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error of ``coronet inspect``: one line, exit code 2, nothing else printed."""
    assert main(["inspect", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("coronet: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Gone", [], "has no class or function Gone; it has Net, wide, nothing"),
        ("nothing", [], "gives a int, expected a torch.nn.Module"),
        ("demanding", [], "TypeError.*'width'; give the arguments it needs as --kwargs"),
        ("Net", ["--kwargs", '{"depth": 2}'], r"Net\(depth=2\).*TypeError.*depth"),
        ("Net", ["--channels", "4"], "does not run.*4, 256, 256.*Set --size, --channels or --kwargs"),
        ("Net", ["--ngf", "4"], "--ngf is for names of families"),
        ("bare", [], "has no parameters"),
    ],
)
def test_what_is_wrong_with_ones_own_generator_is_said(own_file, name, options, message, capsys):
    assert re.search(message, failure(capsys, f"{own_file}:{name}", *options))


def test_a_file_that_cannot_be_imported_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import not_there_at_all\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(5)\n")
    error = failure(capsys, f"{tmp_path}/broken.py:Net")
    assert "broken.py cannot be imported: ModuleNotFoundError" in error and "not_there_at_all" in error
    assert "SyntaxError" in failure(capsys, f"{tmp_path}/wrong.py:Net")
    assert "SystemExit: 5" in failure(capsys, f"{tmp_path}/leaves.py:Net")
    assert "gone.py is not there" in failure(capsys, f"{tmp_path}/gone.py:Net")
    assert "ModuleNotFoundError" in failure(capsys, "not_there_at_all.models:Net")


# -- other errors ------------------------------------------------------------
def test_an_unknown_name_lists_the_choices(tmp_path, capsys):
    make_run(tmp_path, "facades", stems=())
    error = failure(capsys, "resnet_12blocks", "--checkpoints_dir", tmp_path / "checkpoints")
    assert "'resnet_12blocks' is not known" in error
    for choice in ("resnet_9blocks", "unet_128", ".pth", "facades", "path/to/file.py:Name"):
        assert choice in error


def test_options_and_sizes_that_cannot_work_are_refused(tmp_path, slim_weights, capsys):
    error = failure(capsys, "unet_128", "--size", 100)
    assert "sides of multiples of 128" in error and "100x100" in error and error.endswith(". Set --size.\n")
    assert "--norm group is not known" in failure(capsys, "unet_128", "--norm", "group")
    assert "--kwargs is for generators of your own" in failure(capsys, slim_weights, "--kwargs", '{"a": 1}')
    assert "width is none of what unet_128 is made by" in failure(
        capsys, "unet_128", "--kwargs", '{"width": 1}'
    )
    assert "--use_dropout is for names of families" in failure(capsys, slim_weights, "--no_dropout")
    assert "expected a name ending in .svg or .png" in failure(
        capsys, "unet_128", "--output", tmp_path / "a.jpg"
    )
    assert "there is no folder" in failure(capsys, "unet_128", "--output", tmp_path / "gone" / "a.svg")
    for wrong in (["--size", "0"], ["--size", "axb"], ["--kwargs", "[1]"], ["--kwargs", "{"]):
        with pytest.raises(SystemExit) as left:
            main(["inspect", "unet_128", *wrong])
        assert left.value.code == 2


def test_weights_and_specs_that_do_not_fit_are_refused(tmp_path, slim_weights, capsys):
    alone = tmp_path / "latest_net_G.pth"
    alone.write_bytes(slim_weights.read_bytes())
    assert "there is no latest_net_G.json beside it" in failure(capsys, alone)
    torch.save(build_generator(**ARCHITECTURE).state_dict(), alone)
    alone.with_suffix(".json").write_text(slim_weights.with_suffix(".json").read_text())
    error = failure(capsys, alone)
    assert "do not belong together" in error and "model." in error
    assert "is not there" in failure(capsys, tmp_path / "gone_net_G.pth")


def test_a_reader_that_leaves_early_is_no_error(monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["inspect", "resnet_6blocks", "--ngf", "4", "--size", "32"]) == 0
    assert capsys.readouterr().err == ""


# -- the picture -------------------------------------------------------------
def test_pictures_are_written_and_the_same_each_time(tmp_path, capsys):
    pictures = []
    for name in ("one.svg", "two.svg"):
        out = run(capsys, "resnet_6blocks", "--ngf", 4, "--size", 32, "--output", tmp_path / name)
        assert out.splitlines()[-1] == str(tmp_path / name)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    root = ElementTree.fromstring(pictures[0])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    run(capsys, "resnet_6blocks", "--ngf", 4, "--size", 32, "--output", tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "coronet-plugin[report]" in failure(capsys, "unet_128", "--output", tmp_path / "a.svg")
    assert "total" in run(capsys, "resnet_6blocks", "--ngf", 4, "--size", 32)


def test_arcs_hop_over_residual_blocks_and_span_unet_levels(stock):
    hops = [(arc.first, arc.last, arc.kind) for arc in links(stock["resnet_9blocks"])]
    assert hops == [(2 * i, 2 * i + 2, "made") for i in range(1, 10)]
    skips = {(arc.first, arc.last, arc.kind) for arc in links(stock["unet_256"])}
    assert skips == {(i, 15 - i, "read") for i in range(7)}


@pytest.mark.parametrize("name", STOCK)
def test_no_two_texts_of_the_picture_overlap(stock, name, monkeypatch):
    figure = channel_figure(stock[name])
    figure.draw_without_rendering()  # lays it out
    drawn: list[Text] = []
    draw = Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, renderer: (drawn.append(self), draw(self, renderer))[1])
    figure.draw_without_rendering()
    boxes = [(t.get_text(), t.get_window_extent()) for t in drawn if t.get_text().strip() and t.get_visible()]
    assert len(boxes) > 2 * len(stock[name].layers)
    for (one, box), (other, second) in itertools.combinations(boxes, 2):
        assert not box.overlaps(second), (one, other)
    width, height = figure.get_size_inches() * figure.dpi
    assert all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= width + 1 and b.y1 <= height + 1 for _, b in boxes)


def test_short_names_say_how_often_a_part_comes():
    assert short_name("model.model.1.model.3.model.3.model.3.model.1") == "model.model.1.[model.3 x3].model.1"
    assert short_name("model.10.conv_block.1") == "model.10.conv_block.1"
    assert layer_labels(["model.1", "model.4.0"]) == ["1", "4.0"]
    assert layer_labels(["head"]) == ["head"]


def test_inspecting_changes_nothing():
    generator = TwoSets()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    plan = find_channels(generator, torch.zeros(1, 3, 8, 8))
    inspection = inspect_generator(generator, torch.zeros(1, 3, 8, 8))
    assert inspection.now == inspection.dense == plan.cost()
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("macs", "budget 0.5 of the MACs"),
        ("params", "budget 0.5 of the parameters"),
        ("latency", "budget 0.5 (latency)"),
        ("watts", "budget 0.5 (watts)"),
    ],
)
def test_the_budget_is_said_in_its_own_kind(tmp_path, capsys, kind, said):
    path = tmp_path / "latest_net_G.pth"
    net = build_generator(**ARCHITECTURE)
    Compression(net, torch.zeros(1, 3, 32, 32), search_steps=9, budget=0.5, architecture=ARCHITECTURE).save(
        path
    )
    spec = path.with_suffix(".json")
    spec.write_text(spec.read_text().replace('{"kind": "macs"', f'{{"kind": "{kind}"'))
    assert said in run(capsys, path)
