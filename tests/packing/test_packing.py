"""``coronet pack``: what is in the folder, that it computes the same, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_helpers import SIZE, make_cycle_run, make_run, option_line

from coronet_plugin import cli, cost_of, load_generator
from coronet_plugin.channels.cost import human
from coronet_plugin.errors import CheckpointError
from coronet_plugin.evaluation.paired import paired_metrics
from coronet_plugin.runs.opener import read_generator
from coronet_plugin.runs.run import find_weights

pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_run(root, "slim", budget=0.3)
    make_run(root, "dense")
    make_cycle_run(root, "cycle")
    return root


def pack(root: Path, name: str, output: Path, *more: str, onnx: bool = False) -> int:
    words = ["pack", name, "--output", str(output), *more, *([] if onnx else ["--no_onnx"])]
    folders = ["--checkpoints_dir", str(root / "checkpoints"), "--results_dir", str(root / "results")]
    return cli.main([*words, *folders])


@pytest.fixture(scope="module")
def packed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "small model"
    words = [
        "--license",
        "cc-by-sa-4.0",
        "--data",
        "pictures by Ada: CC BY-SA 4.0",
        "--tag",
        'a "quoted" tag',
    ]
    assert pack(root, "slim", folder, *words, "--title", "Colours", "--examples", "2") == 0
    return folder


def output_of(generator: torch.nn.Module) -> torch.Tensor:
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return generator.eval()(torch.rand(1, 3, SIZE, SIZE, generator=noise) * 2 - 1)


# -- the weights -------------------------------------------------------------------
def test_the_folder_computes_what_the_run_does(root: Path, packed: Path) -> None:
    original = output_of(load_generator(root / "checkpoints/slim/latest_net_G.pth"))
    assert torch.equal(output_of(load_generator(packed)), original)
    assert torch.equal(output_of(load_generator(packed / "G.safetensors")), original)


def test_commands_take_the_folder_and_the_file(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_weights(str(packed), "./checkpoints") == {"G": packed / "G.safetensors"}
    for target in (packed, packed / "G.safetensors"):
        assert cli.main(["inspect", str(target)]) == 0
        shown = capsys.readouterr().out
        assert shown.count("resnet_6blocks") and "budget 0.3" in shown
    quick = ["--runtimes", "torch", "--repeats", "1", "--warmup", "1", "--output", str(tmp_path)]
    assert cli.main(["bench", str(packed), *quick]) == 0
    assert human(read_generator("G", packed / "G.safetensors").slim["macs"]) in capsys.readouterr().out


def test_a_dense_run_has_a_spec_of_everything_kept(root: Path, tmp_path: Path) -> None:
    assert pack(root, "dense", tmp_path / "p") == 0
    original = read_generator("G", root / "checkpoints/dense/latest_net_G.pth")
    again = read_generator("G", tmp_path / "p/G.safetensors")
    assert torch.equal(output_of(again.generator), output_of(original.generator))
    assert again.slim == again.dense == dict(original.dense) and again.spec is not None
    assert all(len(entry["kept"]) == entry["channels"] for entry in again.spec.sets)
    assert "Compressed" not in (tmp_path / "p/README.md").read_text()


@pytest.mark.parametrize("budget", [None, 0.5], ids=["dense", "slim"])
def test_the_depth_of_its_pictures_is_remembered(tmp_path: Path, budget: float | None) -> None:
    """Of pictures with 12 bits, which a run's options say and a packed folder has not."""
    make_run(tmp_path, "deep", budget=budget)
    options = tmp_path / "checkpoints/deep/train_opt.txt"
    options.write_text(options.read_text() + option_line("bit_depth", 12, 16))
    spec = tmp_path / "checkpoints/deep/latest_net_G.json"
    if budget:  # as the model type writes it
        spec.write_text(spec.read_text().replace('"options": {}', '"options": {"bit_depth": 12}'))
    assert pack(tmp_path, "deep", tmp_path / "p", "--examples", "0") == 0
    assert read_generator("G", tmp_path / "p/G.safetensors").bit_depth == 12


def test_every_generator_of_a_run_or_one(root: Path, tmp_path: Path) -> None:
    assert pack(root, "cycle", tmp_path / "both") == 0
    with pytest.raises(CheckpointError, match="has G_A.safetensors, G_B.safetensors; name the weight file"):
        load_generator(tmp_path / "both")
    assert load_generator(tmp_path / "both/G_B.safetensors")
    card = (tmp_path / "both/README.md").read_text()
    assert "## G_A: " in card and "## G_B: " in card and '"both/G_A.safetensors"' in card
    assert pack(root, "cycle", tmp_path / "one", "--network", "G_B") == 0
    assert sorted(path.name for path in (tmp_path / "one").glob("*.safetensors")) == ["G_B.safetensors"]


# -- the card ----------------------------------------------------------------------
def header(card: str) -> list[str]:
    """The lines of the YAML header."""
    begin, text, _ = card.split("---\n", 2)
    assert begin == ""
    return text.splitlines()


def test_header_is_what_hubs_read(packed: Path) -> None:
    yaml = pytest.importorskip("yaml")
    lines = header((packed / "README.md").read_text())
    said = yaml.safe_load("\n".join(lines))
    assert said["license"] == "cc-by-sa-4.0" and said["pipeline_tag"] == "image-to-image"
    assert said["library_name"] == "coronet-plugin"
    assert {'a "quoted" tag', "pix2pix", "resnet_6blocks", "safetensors"} <= set(said["tags"])
    metrics = said["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["ssim", "psnr", "l1"]


def test_the_hubs_own_library_reads_it(packed: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(packed / "README.md").data
    assert data.license == "cc-by-sa-4.0" and data.pipeline_tag == "image-to-image"
    assert [found.metric_type for found in data.eval_results] == ["ssim", "psnr", "l1"]


def test_figures_are_those_of_the_network_and_of_its_pictures(root: Path, packed: Path) -> None:
    card = (packed / "README.md").read_text()
    example = torch.zeros(1, 3, SIZE, SIZE)
    slim, dense = (
        cost_of(load_generator(packed), example),
        read_generator("G", root / "checkpoints/dense/latest_net_G.pth").dense,
    )
    for key, value in slim.as_dict().items():
        assert f"| {human(dense[key])} | {human(value)} | {100 * value / dense[key]:.3g} % |" in card
    found = paired_metrics(root / "results/slim/test_latest/images")
    assert f"SSIM {found.ssim:.3f}" in card and f"L1 {found.l1:.4f}" in card and "3 test pictures" in card


def test_the_lines_that_load_it_run(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed.parent)
    code = re.search(r"```python\n(.*?)```", (packed / "README.md").read_text(), re.S)
    assert code is not None and len([line for line in code[1].splitlines() if line]) == 3
    image = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    names: dict[str, object] = {"image": image}
    exec(code[1], names)
    assert names["output"].shape == image.shape  # type: ignore[attr-defined]


def test_example_pictures_are_a_row_each(root: Path, packed: Path) -> None:
    sheet = Image.open(packed / "examples_G.png").convert("RGB")
    assert sheet.size == (3 * SIZE + 2 * 4, 2 * SIZE + 4)
    middle = sheet.crop((SIZE + 4, 0, 2 * SIZE + 4, SIZE))
    shown = Image.open(root / "results/slim/test_latest/images/a_fake_B.png").convert("RGB")
    assert middle.tobytes() == shown.tobytes()
    assert "From left to right: input, output, truth" in (packed / "README.md").read_text()


def test_a_run_without_test_is_honestly_unmeasured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "new", budget=0.5, stems=())
    assert pack(tmp_path, "new", tmp_path / "p") == 0
    card = (tmp_path / "p/README.md").read_text()
    assert "was not measured" in card and "SSIM" not in card and not list((tmp_path / "p").glob("*.png"))
    assert "run test.py first" in capsys.readouterr().err
    assert "licence of these weights was not given" in card and 'license: "unknown"' in card


def test_what_is_known_of_the_data_goes_with_it(root: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("by Ada")
    assert pack(root, "slim", tmp_path / "p", "--attribution", str(note)) == 0
    assert (tmp_path / "p/ATTRIBUTION.md").read_text() == "by Ada"
    assert "(ATTRIBUTION.md)" in (tmp_path / "p/README.md").read_text()


def test_the_card_has_no_places_of_this_machine(root: Path, packed: Path) -> None:
    for file in (*packed.glob("*.md"), *packed.glob("*.json")):
        assert str(root) not in file.read_text() and str(packed.parent) not in file.read_text()


# -- ONNX --------------------------------------------------------------------------
def test_the_onnx_file_is_checked_and_computes_the_same(root: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    assert pack(root, "slim", tmp_path / "p", onnx=True) == 0
    record = json.loads((tmp_path / "p/G_fp32.onnx.json").read_text())
    assert record["check"]["accepted"] and record["check"]["pictures_from"] == "test pictures of the run slim"
    session = onnxruntime.InferenceSession(str(tmp_path / "p/G_fp32.onnx"))
    noise = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    (found,) = session.run(None, {session.get_inputs()[0].name: noise.numpy()})
    with torch.no_grad():
        expected = load_generator(tmp_path / "p").eval()(noise)
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)  # two runtimes, fp32
    assert "`G_fp32.onnx` was run beside torch" in (tmp_path / "p/README.md").read_text()


def test_an_onnx_file_that_is_wrong_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("coronet_plugin.export.verify.Difference.within", lambda *_: False)
    assert pack(root, "slim", tmp_path / "p", onnx=True) == 2
    error = capsys.readouterr().err
    assert "does not compute the same" in error and "--no_onnx" in error and not (tmp_path / "p").exists()


# -- what is refused ---------------------------------------------------------------
def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("coronet: ") and error.count("\n") == 1
    return error


def test_a_folder_with_something_in_it(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert pack(root, "slim", tmp_path) == 2
    assert "is not empty; name another folder, or say --overwrite" in refused(capsys)
    assert pack(root, "slim", tmp_path, "--overwrite") == 0
    assert (tmp_path / "mine.txt").read_text() == "keep me" and (tmp_path / "G.safetensors").is_file()
    assert pack(root, "slim", tmp_path, "--overwrite") == 0
    capsys.readouterr()
    assert (
        pack(root, "cycle", tmp_path, "--overwrite") == 2
    )  # of which load_generator would take the wrong one
    assert "also holds G.safetensors of another pack" in refused(capsys)
    assert pack(root, "slim", tmp_path / "mine.txt") == 2
    assert "is a file; name a folder" in refused(capsys)


def test_a_run_by_its_folder(root: Path, tmp_path: Path) -> None:
    assert (
        cli.main(["pack", str(root / "checkpoints/slim"), "--output", str(tmp_path / "p"), "--no_onnx"]) == 0
    )
    assert load_generator(tmp_path / "p")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["nothing"], "no run 'nothing'"),
        (["slim", "--network", "G_A"], "--network G_A: slim has G"),
        (["slim", "--attribution", "no/such.md"], "--attribution no/such.md is no file"),
        (["slim", "--norm_mode", "mean"], "--norm_mode mean is not known"),
        (["slim", "--epoch", "7"], "has no 7_net_G"),
    ],
)
def test_slips(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], match: str
) -> None:
    assert pack(root, words[0], tmp_path / "p", *words[1:]) == 2
    assert match in refused(capsys) and not (tmp_path / "p").exists()


def test_a_run_that_is_damaged(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(root / "checkpoints/slim", tmp_path / "checkpoints/slim")
    (tmp_path / "checkpoints/slim/latest_net_G.pth").write_bytes(b"PK nothing")
    assert pack(tmp_path, "slim", tmp_path / "p") == 2
    assert "damaged or not a weight file" in refused(capsys) and not (tmp_path / "p").exists()
