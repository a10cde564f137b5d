"""Distances between two sets of pictures, from their features: FID, KID, precision and recall.

Both ask whether two sets look drawn from one distribution; 0 is best. FID is biased: fewer pictures give a
greater figure, so only figures of equal counts can be compared. KID is not, and says how far it can be
trusted. The draws of KID's subsets are those of torch-fidelity, so both give the same figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coronet_plugin.errors import DataError

SUBSETS = 100
LARGEST_SUBSET = 1000
SEED = 2020
NEIGHBOURS = 3
"""Of precision and recall, as published."""


@dataclass(frozen=True)
class Distance:
    """Of ``count`` pictures from ``reference`` others.

    ``kid`` and ``kid_std``: mean and standard deviation over ``subsets`` random subsets of ``subset_size``
    pictures a side, drawn with ``seed``. The deviation says how much single subsets differ.
    """

    fid: float
    kid: float
    kid_std: float
    count: int
    reference: int
    subset_size: int
    subsets: int
    seed: int


def distance(features: np.ndarray, reference: np.ndarray) -> Distance:
    """Both distances between features (N, D) and (M, D).

    KID's subsets are half as large as the smaller set, and at most 1000. Raises DataError for fewer than two
    pictures a side.
    """
    smaller = min(len(features), len(reference))
    if smaller < 2:
        raise DataError(f"FID and KID need at least 2 pictures on either side, found {smaller}")
    size = max(2, min(smaller // 2, LARGEST_SUBSET))
    kid, kid_std = kernel_distance(features, reference, size)
    return Distance(
        fid=frechet_distance(features, reference),
        kid=kid,
        kid_std=kid_std,
        count=len(features),
        reference=len(reference),
        subset_size=size,
        subsets=SUBSETS,
        seed=SEED,
    )


@dataclass(frozen=True)
class Overlap:
    """Precision: share of pictures near some reference picture; recall: the share of those near a picture.

    *Near*: no further than that picture's ``neighbours``-th nearest of its own set.
    """

    precision: float
    recall: float
    neighbours: int


def overlap(features: np.ndarray, reference: np.ndarray, neighbours: int = NEIGHBOURS) -> Overlap:
    """How far two sets (N, D) and (M, D) lie where the other does.

    Improved precision and recall, Kynkaanniemi et al. 2019, arXiv 1904.06991, section 2. Both grow with the
    counts of pictures, so only figures of equal counts can be compared.

    Raises:
        DataError: a set has no more pictures than ``neighbours``.
    """
    smaller = min(len(features), len(reference))
    if smaller <= neighbours:
        raise DataError(
            f"precision and recall need more than {neighbours} pictures on either side, found {smaller}"
        )
    between = _squared_distances(features, reference)
    near = between <= _radii(reference, neighbours)
    near_ours = between <= _radii(features, neighbours)[:, None]
    return Overlap(float(near.any(1).mean()), float(near_ours.any(0).mean()), neighbours)


def _radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distance of every row to its ``neighbours``-th nearest, itself not counted: (N,)."""
    own = _squared_distances(features, features)
    np.fill_diagonal(own, -1.0)
    return np.asarray(np.partition(own, neighbours, axis=1)[:, neighbours])


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N, M) of (N, D) and (M, D), float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.asarray((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T)


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Between the Gaussians of the rows, (N, D) and (M, D) (Heusel et al. 2017, arXiv 1706.08500, eq. (6)).

    The trace of the root of ``S T`` is the sum of the singular values of ``X Y^T``, where ``S = X^T X``:
    exact where the covariances of few pictures have no full rank, and quick, as ``X`` has few rows then.
    """
    x, y = _root_of_covariance(features), _root_of_covariance(reference)
    means = features.mean(0, dtype=np.float64) - reference.mean(0, dtype=np.float64)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return max(0.0, float(means @ means + (x**2).sum() + (y**2).sum() - 2 * cross))


def kernel_distance(
    features: np.ndarray, reference: np.ndarray, size: int, subsets: int = SUBSETS, seed: int = SEED
) -> tuple[float, float]:
    """KID of (N, D) and (M, D): mean and standard deviation of the unbiased squared MMD of random subsets.

    Binkowski et al. 2018, arXiv 1801.01401, section 4; a subset has ``size`` pictures of either side.
    """
    random = np.random.RandomState(seed)
    x, y = features.astype(np.float64), reference.astype(np.float64)

    def subset(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows[random.choice(len(rows), size, replace=False)])

    found = [squared_mmd(subset(x), subset(y)) for _ in range(subsets)]
    return float(np.mean(found)), float(np.std(found))


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased estimate from float64 (N, D) and (M, D), kernel ``(x.y / D + 1)^3``; it may be negative."""
    own = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (_kernel(x, x), _kernel(y, y))]
    return float(own[0] + own[1] - 2 * _kernel(x, y).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _root_of_covariance(features: np.ndarray) -> np.ndarray:
    """``X`` with ``X^T X`` the sample covariance of the rows, at most (D, D)."""
    x = features - features.mean(0, dtype=np.float64)
    x /= np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x
