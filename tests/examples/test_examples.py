"""The examples at toy size: budget, exact cut, continuation, ONNX, samples, and that they stay short."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import ROOT, smooth_image
from example_helpers import example, killed_after
from PIL import Image
from run_helpers import assert_same_weights

from coronet_plugin import CheckpointError, DataError, OptionError, load_generator
from coronet_plugin.cli import main as coronet
from coronet_plugin.generators.registry import FAMILIES, family_named
from coronet_plugin.runs.opener import read_generator

WEIGHTS = "latest_net_G.pth"
COMMON = "--size 16 --steps 8 --search_steps 5 --batch_size 2 --save_every 2 --budget 0.3 --lr 0.001".split()
CASES = {
    "dcgan": ("dcgan", "--ngf 32 --ndf 4"),
    "vae": ("vae", "--width 32 --nz 8"),
    "decoder": ("vae", "--width 32 --nz 8 --part decoder"),
    "kl": ("vae", "--width 16 --size 8 --nz 2 --net kl --no_export"),
    "tiny": ("vae", "--width 16 --nz 2 --net tiny --part decoder"),
    "diffusion": ("diffusion", "--width 8 --size 8 --budget 0.5"),
}
"""By name: the file in examples/ and its options."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(20):
        smooth_image(number, 20, 20).save(folder / f"{number}.png")
    return folder


THOROUGH = ("dcgan", "vae", "diffusion")
"""Those that are also killed, sampled and exported by the commands, which takes seconds each."""
thoroughly = pytest.mark.parametrize("case", THOROUGH, indirect=True, scope="module")


@pytest.fixture(params=CASES, scope="module")
def case(request, data):
    """The module, and a function that trains into a folder."""
    file, words = CASES[request.param]
    if request.param in ("kl", "tiny", "diffusion"):
        pytest.importorskip("diffusers")
    with example(file) as module:

        def train(folder, *more):
            where = ["--data", data, "--checkpoints_dir", folder, "--name", "r"]
            return module.main([*COMMON, *words.split(), *map(str, [*where, *more])])

        yield module, train


@pytest.fixture(scope="module")
def trained(case, tmp_path_factory):
    """A run, and the record of its training."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("trained")
    return folder / "r", case[1](folder)


def test_it_meets_the_budget_is_cut_exactly_and_exported(trained):
    run, record = trained
    budget = record["options"]["budget"]
    assert budget - 0.005 <= record["macs"] / record["macs_dense"] <= budget
    assert record["change_at_cut"] < 1e-5
    if record["options"].get("net") != "kl":  # which exports as well, but takes the exporter ten seconds
        assert record["onnx"]["max_difference"] < 1e-4 and (run / record["onnx"]["file"]).is_file()
    assert json.loads((run / "record.json").read_text()) == record


@thoroughly
@pytest.mark.parametrize("step", [3, 7])
def test_killed_and_continued_it_is_the_training_that_was_never_killed(case, trained, tmp_path, step):
    """During the search, and after the cut."""
    with killed_after(step):
        case[1](tmp_path, "--no_export")
    case[1](tmp_path, "--no_export")
    assert_same_weights(trained[0], tmp_path / "r", [WEIGHTS])


@thoroughly
def test_a_run_of_other_options_is_not_continued(case, trained):
    with pytest.raises(CheckpointError, match="other options .--lr.; choose another --name"):
        case[1](trained[0].parent, "--lr", 0.1)


def test_its_family_rebuilds_and_recognises_it(case, trained):
    stored = read_generator("G", trained[0] / WEIGHTS)
    dense = stored.family.build(stored.config)
    deduced = asdict(stored.family.deduce(dense.state_dict()))
    assert {**asdict(stored.config), **{name: deduced[name] for name in deduced if name not in stored.family.untold}} == asdict(stored.config)
    assert stored.family.inputs == len(stored.example()) and stored.family.draws
    again = load_generator(trained[0] / WEIGHTS).eval()
    with torch.no_grad():
        for a, b in zip(again(*stored.example()), stored.generator.eval()(*stored.example())):
            assert torch.equal(a, b)


@thoroughly
def test_it_is_sampled_by_the_command(case, trained, tmp_path, capsys):
    words = ["sample", str(trained[0]), "--seed", "3", "--steps", "2", "--output"]
    assert coronet([*words, str(tmp_path / "a"), "--count", "5", "--grid"]) == 0
    assert coronet([*words, str(tmp_path / "b"), "--count", "3", "--batch_size", "2"]) == 0
    assert "3 pictures" in capsys.readouterr().out
    a, b = (sorted((tmp_path / name).iterdir()) for name in "ab")
    assert [path.name for path in a] == [f"{number:05d}.png" for number in range(5)] and len(b) == 3
    side = json.loads((trained[0] / "record.json").read_text())["options"]["size"]
    pictures = [np.asarray(Image.open(path), dtype=int) for path in (*a, *b)]
    assert all(picture.shape == (side, side, 3) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    assert max(abs(one - other).max() for one, other in zip(pictures, pictures[5:])) <= 1  # rounding of batches
    assert Image.open(tmp_path / "a.png").size == (3 * (side + 2) + 2, 2 * (side + 2) + 2)
    assert coronet([*words, str(tmp_path / "a"), "--count", "2"]) == 0
    assert len(list((tmp_path / "a").iterdir())) == 2


@thoroughly
def test_the_command_says_which_module_a_run_needs(case, trained, monkeypatch, capsys):
    spec = json.loads((trained[0] / "latest_net_G.json").read_text())
    monkeypatch.delitem(FAMILIES, spec["architecture"]["netG"])
    assert coronet(["sample", str(trained[0])]) == 2
    assert f"--coronet_family examples/{case[0].__name__.split('_')[-1]}.py" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["dcgan", "vae"], indirect=True, scope="module")
def test_its_file_goes_through_coronet_export(case, trained, tmp_path):
    assert coronet(["export", str(trained[0]), "--to", "onnx", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "G_fp32.onnx").is_file()


def test_a_generator_of_pictures_is_refused():
    stock = family_named("resnet_6blocks")
    assert not stock.draws
    with pytest.raises(Exception, match="make pictures of pictures, not of noise; coronet translate"):
        stock.sample(None, None, 1, torch.Generator(), 1)


def test_examples_are_short():
    for path in (ROOT / "examples").glob("*.py"):
        if path.name != "common.py":
            assert len(path.read_text().splitlines()) <= 200, path.name


def test_a_folder_of_diffusers_is_pruned_into_one_that_loads_again(data, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    with example("diffusion") as module:
        torch.manual_seed(0)
        entries = json.loads(module.layout(8))
        unet = diffusers.UNet2DModel(sample_size=8, **entries)
        scheduler = diffusers.DDPMScheduler(num_train_timesteps=20, beta_schedule="squaredcos_cap_v2")
        diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "dense")
        config, read = module.read_pretrained(tmp_path / "dense", 32)
        x, steps = torch.randn(2, 3, 8, 8), torch.tensor([3, 17])
        assert config.size == 8 and torch.equal(read(x, steps), unet.eval()(x, steps).sample)

        words = f"--data {data} --checkpoints_dir {tmp_path} --name r --steps 4 --batch_size 2 --no_export"
        how = f"--pretrained {tmp_path / 'dense'} --method diff_pruning --budget 0.5"
        record = module.main([*words.split(), *how.split()])
        assert record["macs"] <= 0.5 * record["macs_dense"]
        pruned = module.load_pruned(tmp_path / "r" / "pruned").eval()
        spec = json.loads((tmp_path / "r" / "latest_net_G.json").read_text())
        assert sum(p.numel() for p in pruned.parameters()) == spec["slim"]["parameters"] == record["parameters"]
        trained = load_generator(tmp_path / "r" / WEIGHTS).eval()
        assert torch.equal(pruned(x, steps), trained(x, steps))
        with pytest.raises((ValueError, RuntimeError)):  # as the documentation says
            diffusers.UNet2DModel.from_pretrained(tmp_path / "r" / "pruned" / "unet")
        kept = diffusers.DDPMScheduler.from_pretrained(tmp_path / "r" / "pruned" / "scheduler").config
        assert (kept.num_train_timesteps, kept.beta_schedule) == (20, "squaredcos_cap_v2")


def test_a_folder_without_a_model_is_refused_in_a_line(tmp_path):
    pytest.importorskip("diffusers")
    with example("diffusion") as module, pytest.raises(DataError, match="holds no UNet2DModel of diffusers"):
        module.read_pretrained(tmp_path, 32)


@pytest.mark.parametrize(
    "entries", [{"unet": "["}, {"unet": "[]"}, {"schedule": "[]"}, {"unet": '{"layers_per_block": 99}'}, {"size": 1}]
)
def test_a_config_of_a_stranger_is_checked(entries):
    pytest.importorskip("diffusers")
    with example("diffusion") as module, pytest.raises(OptionError, match="no diffusion model has this config"):
        module.Config(**entries)


def test_the_ddim_loop_finds_the_picture_that_a_perfect_denoiser_knows():
    diffusers = pytest.importorskip("diffusers")
    with example("diffusion") as module:
        known = torch.rand(3, 8, 8) * 1.8 - 0.9
        levels = diffusers.DDPMScheduler().alphas_cumprod

        class Perfect(torch.nn.Module):
            def forward(self, x, steps):
                level = levels[steps].view(-1, 1, 1, 1)
                return (x - level.sqrt() * known) / (1 - level).sqrt()

        noise = torch.Generator().manual_seed(0)
        made = family_named("unet2d").sample(Perfect(), module.Config(size=8), 2, noise, 20)
        assert torch.allclose(made, known.expand(2, -1, -1, -1), atol=1e-3)


def test_diff_pruning_gets_the_noisy_pictures_that_the_scheduler_makes():
    diffusers = pytest.importorskip("diffusers")
    with example("diffusion") as module:
        pictures, scheduler = torch.rand(2, 3, 8, 8), diffusers.DDPMScheduler(num_train_timesteps=50)
        steps = module.TimeSteps(pictures, scheduler)
        (first, when), truth = steps[40]
        level = scheduler.alphas_cumprod[40]
        assert len(steps) == 50 and when.tolist() == [40, 40]
        assert torch.allclose(first, level.sqrt() * pictures + (1 - level).sqrt() * truth, atol=1e-6)
        assert torch.equal(truth, steps[3].truth) and 0.8 < truth.std() < 1.2
