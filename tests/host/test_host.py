"""train.py and test.py from end to end on a few tiny images."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import paired_folder, run_test, run_train, unpaired_folder

import models


def weights(tmp_path, name: str, net: str = "G", epoch: str = "latest") -> dict[str, torch.Tensor]:
    return torch.load(tmp_path / "checkpoints" / name / f"{epoch}_net_{net}.pth", weights_only=True)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def log(tmp_path, name: str) -> list[dict]:
    lines = (tmp_path / "checkpoints" / name / "loss_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_pix2pix(tmp_path, run, capsys):
    root = paired_folder(tmp_path)
    extra = ["--display_freq", 2, "--save_epoch_freq", 1, "--batch_size", 2]
    assert run_train(*run("p", root, "pix2pix"), *extra) == 0
    folder = tmp_path / "checkpoints" / "p"
    for file in ("1_net_G.pth", "2_net_D.pth", "latest_net_G.pth", "train_opt.txt", "loss_log.txt"):
        assert (folder / file).is_file()
    assert not list(folder.glob("*.tmp"))
    assert (folder / "web" / "images" / "epoch002_fake_B.png").is_file()
    assert (folder / "loss_plot.png").is_file()
    assert list(log(tmp_path, "p")[0]["losses"]) == ["G_GAN", "G_L1", "D_real", "D_fake"]
    # 3 images in batches of 2 are 2 steps an epoch; the rate falls after the first.
    assert [(r["epoch"], r["step"], r["images"], r["lr"]) for r in log(tmp_path, "p")] == [
        (1, 1, 2, 2e-4),
        (1, 2, 3, 2e-4),
        (2, 3, 5, 1e-4),
        (2, 4, 6, 1e-4),
    ]
    assert not same(weights(tmp_path, "p", epoch="1"), weights(tmp_path, "p", epoch="2"))
    assert same(weights(tmp_path, "p"), weights(tmp_path, "p", epoch="2"))
    capsys.readouterr()

    assert run_test(*run("p", root, "pix2pix", testing=True), "--num_test", 2) == 0
    results = tmp_path / "results" / "p" / "test_latest"
    assert sorted(file.name for file in (results / "images").iterdir()) == [
        f"{stem}_{label}.png" for stem in "01" for label in ("fake_B", "real_A", "real_B")
    ]
    assert "images/1_fake_B.png" in (results / "index.html").read_text()
    assert str(results / "index.html") in capsys.readouterr().out

    assert run_train(*run("p", root, "pix2pix"), "--continue_train", "--epoch_count", 2) == 0
    assert [r["epoch"] for r in log(tmp_path, "p")][:2] == [1, 1]
    assert log(tmp_path, "p")[-1]["epoch"] == 2
    assert run_train(*run("p", root, "pix2pix"), "--continue_train", "--epoch_count", 3) == 0
    assert "nothing to train" in capsys.readouterr().out


def test_cycle_gan_and_its_generators_one_by_one(tmp_path, run, capsys):
    root = unpaired_folder(tmp_path)
    assert run_train(*run("c", root, "cycle_gan"), "--display_freq", 3, "--pool_size", 2) == 0
    names = [f"{kind}_{side}" for side in "AB" for kind in ("D", "G", "cycle", "idt")]
    assert list(log(tmp_path, "c")[0]["losses"]) == names
    images = tmp_path / "checkpoints" / "c" / "web" / "images"
    assert {f.name[9:-4] for f in images.glob("epoch001_*")} == {
        *("real_A", "fake_B", "rec_A", "idt_B", "real_B", "fake_A", "rec_B", "idt_A"),
    }
    whole = ["--load_size", 32]  # no random crop
    assert run_test(*run("c", root, "cycle_gan", testing=True), *whole, "--num_test", 1) == 0
    both = tmp_path / "results" / "c" / "test_latest" / "images"
    assert {f.name for f in both.iterdir()} == {
        *("A0_real_A.png", "A0_fake_B.png", "A0_rec_A.png", "A0_real_B.png", "A0_fake_A.png", "A0_rec_B.png"),
    }
    capsys.readouterr()
    one = [*run("c", root / "testA", "test", testing=True), *whole]
    assert run_test(*one, "--model_suffix", "_A", "--results_dir", tmp_path / "one", "--no_dropout") == 0
    single = tmp_path / "one" / "c" / "test_latest" / "images"
    assert (single / "A0_fake.png").read_bytes() == (both / "A0_fake_B.png").read_bytes()
    assert "dropout" not in capsys.readouterr().out.split("End")[1]
    assert run_test(*one, "--model_suffix", "_A") == 0  # the net has dropout, the file has not
    assert "pass --no_dropout" in capsys.readouterr().out
    assert run_test(*one) == 2
    assert "latest_net_G.pth is not there" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["pix2pix", "cycle_gan"])
@pytest.mark.parametrize("gan_mode", ["wgangp", "lsgan", "vanilla"])
def test_every_adversarial_loss_trains(tmp_path, run, model, gan_mode):
    root = (paired_folder if model == "pix2pix" else unpaired_folder)(tmp_path, size=32)
    short = ["--n_epochs_decay", 0, "--no_html", "--max_dataset_size", 2]
    kind = ["--gan_mode", gan_mode, "--norm", "none", "--direction", "BtoA", "--netD", "pixel"]
    assert run_train(*run("g", root, model), *short, *kind) == 0
    losses = log(tmp_path, "g")[-1]["losses"]
    assert all(value == value and abs(value) < 1e4 for value in losses.values())


def test_the_gradient_penalty_is_part_of_both_models_discriminator_step(tmp_path, run, monkeypatch):
    calls = []

    def penalty(netD, real, fake, device):
        calls.append(real.shape)
        return sum((p**2).sum() for p in netD.parameters()) * 0 + 1000.0, None

    monkeypatch.setattr("models.networks.cal_gradient_penalty", penalty)
    common = ["--gan_mode", "wgangp", "--n_epochs_decay", 0, "--no_html", "--max_dataset_size", 1]
    assert run_train(*run("p", paired_folder(tmp_path), "pix2pix"), *common) == 0
    assert calls == [(1, 6, 32, 32)]
    assert run_train(*run("c", unpaired_folder(tmp_path), "cycle_gan"), *common) == 0
    assert calls[1:] == [(1, 3, 32, 32)] * 2
    losses = log(tmp_path, "c")[-1]["losses"]
    assert losses["D_A"] > 900 and losses["D_B"] > 900


def test_unet(tmp_path, run):
    root = paired_folder(tmp_path, images=1, size=128)
    big = ["--netG", "unet_128", "--load_size", 128, "--crop_size", 128, "--n_epochs_decay", 0, "--no_html"]
    assert run_train(*run("u", root, "pix2pix"), *big) == 0
    testing = run("u", root, "pix2pix", testing=True)
    for number, extra in enumerate(([], ["--eval"])):
        out = ["--results_dir", tmp_path / f"r{number}"]
        assert run_test(*testing, *big[:6], *out, *extra, "--seed", 1) == 0
    default, evaluated = (
        (tmp_path / f"r{n}" / "u" / "test_latest" / "images" / "0_fake_B.png").read_bytes() for n in (0, 1)
    )
    assert default != evaluated  # by default dropout and batch statistics are as in training


@pytest.mark.parametrize("threads", [0, 2])
def test_a_seed_repeats_bit_for_bit(tmp_path, run, threads):
    root = unpaired_folder(tmp_path)
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        same_but_name = [*run(name, root, "cycle_gan"), "--num_threads", threads, "--no_html"]
        assert run_train(*same_but_name, "--seed", seed, "--n_epochs_decay", 0, "--pool_size", 1) == 0
    for net in ("G_A", "G_B", "D_A", "D_B"):
        assert same(weights(tmp_path, "a", net), weights(tmp_path, "b", net))
    assert not same(weights(tmp_path, "a", "G_A"), weights(tmp_path, "c", "G_A"))
    assert [r["losses"] for r in log(tmp_path, "a")] == [r["losses"] for r in log(tmp_path, "b")]


def test_saving_by_iteration_and_testing_it(tmp_path, run):
    root = paired_folder(tmp_path)
    saving = ["--save_by_iter", "--save_latest_freq", 2, "--n_epochs_decay", 0, "--no_html"]
    assert run_train(*run("p", root, "pix2pix"), *saving) == 0
    assert not same(weights(tmp_path, "p", epoch="iter_2"), weights(tmp_path, "p"))
    assert run_test(*run("p", root, "pix2pix", testing=True), "--load_iter", 2, "--num_test", 1) == 0
    assert (tmp_path / "results" / "p" / "test_latest_iter2" / "index.html").is_file()


OWN_MODEL = """
import torch
from .base_model import BaseModel
from . import networks
from util.image_pool import ImagePool


class MyBlurModel(BaseModel):
    @staticmethod
    def modify_commandline_options(parser, is_train=True):
        parser.set_defaults(dataset_mode='aligned', netG='resnet_6blocks')
        if is_train:
            parser.add_argument('--lambda_blur', type=float, default=2.0, help='weight of the loss')
        return parser

    def __init__(self, opt):
        BaseModel.__init__(self, opt)
        self.loss_names = ['G']
        self.visual_names = ['data_A', 'data_B', 'output']
        self.model_names = ['G']
        self.netG = networks.define_G(opt.input_nc, opt.output_nc, opt.ngf, opt.netG, gpu_ids=self.gpu_ids)
        if self.isTrain:
            self.pool = ImagePool(opt.pool_size)
            self.criterionLoss = torch.nn.L1Loss()
            self.optimizer = torch.optim.Adam(self.netG.parameters(), lr=opt.lr, betas=(opt.beta1, 0.999))
            self.optimizers = [self.optimizer]

    def set_input(self, input):
        AtoB = self.opt.direction == 'AtoB'
        self.data_A = input['A' if AtoB else 'B'].to(self.device)
        self.data_B = input['B' if AtoB else 'A'].to(self.device)
        self.image_paths = input['A_paths' if AtoB else 'B_paths']

    def forward(self):
        self.output = self.netG(self.data_A)

    def backward(self):
        self.loss_G = self.criterionLoss(self.output, self.pool.query(self.data_B)) * self.opt.lambda_blur
        self.loss_G.backward()

    def optimize_parameters(self):
        self.forward()
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()
"""


def test_a_users_own_model(tmp_path, run, monkeypatch):
    (tmp_path / "my_blur_model.py").write_text(OWN_MODEL)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    root = paired_folder(tmp_path)
    assert run_train(*run("own", root, "my_blur"), "--lambda_blur", 3, "--display_freq", 1) == 0
    assert list(log(tmp_path, "own")[0]["losses"]) == ["G"]
    assert run_test(*run("own", root, "my_blur", testing=True), "--num_test", 1) == 0
    assert (tmp_path / "results" / "own" / "test_latest" / "images" / "0_output.png").is_file()


def test_networks_of_old_versions_are_continued_and_tested(tmp_path, run):
    """A DataParallel file with running statistics of instance norm, as of 2018."""
    root = paired_folder(tmp_path)
    arguments = [*run("p", root, "pix2pix"), "--norm", "instance", "--n_epochs_decay", 0, "--no_html"]
    assert run_train(*arguments) == 0
    path = tmp_path / "checkpoints" / "p" / "latest_net_G.pth"
    new = torch.load(path, weights_only=True)
    old = {f"module.{key}": value for key, value in new.items()}
    old["module.model.2.running_mean"] = torch.zeros(4)
    torch.save(old, path)
    testing = [*run("p", root, "pix2pix", testing=True), "--norm", "instance", "--num_test", 1]
    assert run_test(*testing) == 0
    assert run_train(*arguments, "--continue_train", "--lr", 0) == 0
    assert same(weights(tmp_path, "p"), new)
