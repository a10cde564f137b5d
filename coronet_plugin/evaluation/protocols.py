"""Protocols by name: which translated pictures are held against which real ones, and what a floor is.

The *floor* is the distance between real and real pictures, test against training, with the counts of the
figure beside it: what a perfect generator would come to, for FID never 0. Where pictures have to be left out,
those that stay are spread evenly over the sorted names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coronet_plugin.errors import DataError, OptionError
from coronet_plugin.evaluation.cache import Say, default_folder, features_of
from coronet_plugin.evaluation.distances import Distance, distance
from coronet_plugin.evaluation.features import FeatureExtractor
from coronet_plugin.evaluation.perceptual import Perceptual
from coronet_plugin.evaluation.pictures import Pictures
from coronet_plugin.evaluation.real import RealPictures
from coronet_plugin.pictures.files import spread

TEST, ALL = "test", "all"
PROTOCOLS = {
    TEST: "translated test pictures against real test pictures, as many of either",
    ALL: "translated test pictures against all real training and test pictures",
}


def silent(_: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Tools:
    """The extractors that measure, the cache of their results, and who is told what takes long."""

    extractor: FeatureExtractor | None = None
    lpips: Perceptual | None = None
    cache_dir: Path = field(default_factory=default_folder)
    say: Say = silent

    def features(self, pictures: Pictures) -> np.ndarray:
        """(N, D); there must be an extractor."""
        assert self.extractor is not None
        return features_of(pictures, self.extractor, self.cache_dir, self.say)


def check(protocol: str) -> None:
    """Raises OptionError when there is no such protocol."""
    if protocol not in PROTOCOLS:
        raise OptionError(f"there is no protocol {protocol!r}; choose {' or '.join(PROTOCOLS)}")


def of_translated(made: Pictures, real: RealPictures, protocol: str, tools: Tools) -> Distance:
    """Of translated from real ones. Raises DataError for fewer than 2, or ``all`` without training data."""
    ours, test = tools.features(made), tools.features(real.test)
    if protocol == ALL:
        return distance(ours, np.concatenate([tools.features(_train(real)), test]))
    count = min(len(ours), len(test))
    return distance(_thin(ours, count), _thin(test, count))


def floor(real: RealPictures, count: int, protocol: str, tools: Tools) -> Distance | None:
    """Of ``count`` real test pictures from as many real training pictures, or from all of them.

    Fewer if there are not so many. None without training pictures.
    """
    if real.train is None:
        return None
    count = min(count, len(real.test), len(real.train))
    test = _thin(tools.features(real.test), count)
    return distance(test, tools.features(real.train if protocol == ALL else real.train.thinned(count)))


def _train(real: RealPictures) -> Pictures:
    if real.train is None:
        raise DataError(
            f"protocol {ALL!r} needs the real training pictures, which are not there; use {TEST!r}"
        )
    return real.train


def _thin(features: np.ndarray, count: int) -> np.ndarray:
    return features[spread(len(features), count)]
