"""FID and KID against closed forms, and against torch-fidelity where it can be imported."""

from __future__ import annotations

import numpy as np
import pytest

from coronet_plugin.errors import DataError
from coronet_plugin.evaluation.distances import distance, frechet_distance, kernel_distance, squared_mmd


def normal(seed: int, count: int, width: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return shift + random.normal(size=(count, width)) @ random.normal(size=(width, width))


def along_the_axes(scales: list[float], mean: list[float]) -> np.ndarray:
    """2 D points whose sample mean is ``mean`` and whose sample covariance is diagonal, 2 s^2 / (2 D - 1)."""
    points = np.diag(scales)
    return np.concatenate([points, -points]) + mean


# FID


def test_fid_equals_the_formula_written_out() -> None:
    x, y = normal(0, 400, 6), normal(1, 300, 6, shift=0.5)
    s, t = np.cov(x.T), np.cov(y.T)
    root = np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)  # float64, other order of sums


def test_fid_of_known_means_and_variances() -> None:
    a, b = [1.0, 2.0, 3.0], [2.0, 2.0, 0.5]
    x, y = along_the_axes(a, [0.0, 0.0, 0.0]), along_the_axes(b, [1.0, 0.0, -2.0])
    expected = 5.0 + sum((first - second) ** 2 for first, second in zip(a, b)) * 2 / 5
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("count", "width"), [(7, 40), (200, 5)])
def test_fid_of_scaled_features_with_and_without_full_rank(count: int, width: int) -> None:
    """With T = c^2 S the trace of the root is c tr(S), whatever the rank."""
    x, c = normal(3, count, width), 1.7
    expected = (c - 1) ** 2 * (np.trace(np.cov(x.T)) + (x.mean(0) ** 2).sum())
    assert frechet_distance(x, c * x) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(x, x + 3.0) == pytest.approx(9.0 * width, rel=1e-10)


def test_a_set_is_at_no_distance_from_itself() -> None:
    x = normal(4, 9, 30)
    assert 0 <= frechet_distance(x, x) < 1e-9 * np.trace(np.cov(x.T))  # cancellation in float64


def test_the_order_of_pictures_does_not_matter() -> None:
    x, y = normal(5, 20, 8), normal(6, 25, 8)
    shuffled = np.random.default_rng(0).permutation(x)
    assert frechet_distance(shuffled, y) == pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert squared_mmd(shuffled, y) == pytest.approx(squared_mmd(x, y), rel=1e-12)


def test_float32_features_are_computed_with_in_float64() -> None:
    x, y = (1000 + normal(seed, 50, 4).astype(np.float32) for seed in (7, 8))
    exact = frechet_distance(x.astype(np.float64), y.astype(np.float64))
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-12)


# KID


def test_mmd_by_hand() -> None:
    """k(a, b) = (ab + 1)^3: within {0, 1} it is 1, within {2, 3} 343, across 1, 1, 27 and 64."""
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    assert squared_mmd(x, y) == pytest.approx(1 + 343 - 2 * 93 / 4)


def test_mmd_of_one_distribution_is_zero_on_average() -> None:
    """And would not be with the diagonals, whose bias the same test finds."""
    random = np.random.default_rng(9)
    draws = [(random.normal(size=(6, 3)), random.normal(size=(5, 3))) for _ in range(4000)]
    unbiased = np.array([squared_mmd(x, y) for x, y in draws])
    kernel = [[((a @ b.T / 3 + 1) ** 3).mean() for a, b in ((x, x), (y, y), (x, y))] for x, y in draws]
    biased = np.array([own + other - 2 * cross for own, other, cross in kernel])
    error = unbiased.std() / np.sqrt(len(draws))
    assert abs(unbiased.mean()) < 4 * error < biased.mean() / 4


def test_kid_of_whole_sets_is_the_estimate_itself() -> None:
    x, y = normal(10, 12, 4), normal(11, 12, 4)
    kid, deviation = kernel_distance(x, y, size=12, subsets=5)
    assert kid == pytest.approx(squared_mmd(x, y), rel=1e-12)
    assert deviation == pytest.approx(0, abs=1e-12 * abs(kid))


def test_kid_is_near_the_estimate_from_all_and_repeats() -> None:
    x, y = normal(12, 60, 4), normal(13, 80, 4, shift=1.0)
    found = distance(x, y)
    assert (found.count, found.reference, found.subset_size, found.subsets) == (60, 80, 30, 100)
    # a mean over 100 subsets, whose deviation is of one
    assert abs(found.kid - squared_mmd(x, y)) < 4 * found.kid_std / 10
    assert distance(x, y) == found


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="at least 2 pictures on either side, found 1"):
        distance(normal(0, 1, 4), normal(1, 9, 4))
    assert distance(normal(0, 2, 4), normal(1, 9, 4)).subset_size == 2


# torch-fidelity


def test_torch_fidelity_finds_the_same() -> None:
    torch = pytest.importorskip("torch")
    try:
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
        from torch_fidelity.metric_kid import kid_features_to_metric
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torch-fidelity cannot be imported: {error}")
    x, y = normal(14, 50, 16), normal(15, 70, 16, shift=0.2)
    first, second = torch.from_numpy(x), torch.from_numpy(y)
    found = distance(x, y)
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, (first, second)), verbose=False)
    kid = kid_features_to_metric(first, second, kid_subset_size=found.subset_size, verbose=False)
    # float64 on both sides, by eigenvalues there and singular values here
    assert found.fid == pytest.approx(fid["frechet_inception_distance"], rel=1e-9)
    assert found.kid == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-9)
    assert found.kid_std == pytest.approx(kid["kernel_inception_distance_std"], rel=1e-9)
