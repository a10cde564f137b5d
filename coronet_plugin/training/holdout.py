"""Training pictures that are not trained on, for methods that choose by trying (never those of the test).

The host's loader gives them like all others. Where one comes, another picture is trained on in its place, so
that a run has as many steps as one that holds nothing out, in the same order.
"""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from coronet_plugin.errors import DataError
from coronet_plugin.methods.base import Sample
from coronet_plugin.training import data_set, host
from coronet_plugin.training.watch import inputs_of, undisturbed, whole_pictures

MOST = 2048
"""Pictures at most that are held out of a set, as GAN Compression does of edges2shoes."""


class Holdout:
    """A fraction ``share`` of every list of pictures of the host's data set, evenly spread over it.

    Raises:
        DataError: there are too few, or the data set tells no paths.
    """

    def __init__(self, opt: Any, share: float) -> None:
        self._opt = opt
        self._dataset = data_set.make(opt)
        lists = _paths_of(self._dataset)
        if not lists:
            raise DataError(
                f"--dataset_mode {opt.dataset_mode}: the data set has no list of paths to hold pictures out "
                "of; choose another --coronet_method"
            )
        self.paths = {path for paths in lists for path in _some(paths, share)}
        """Of the pictures that are held out."""

    def without(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """``batch`` of the host's loader with others in place of samples that are held out."""
        count = max((len(value) for value in batch.values() if isinstance(value, (Tensor, list))), default=0)
        for i in range(count):
            paths = [text for value in batch.values() if _is_list(value) for text in _texts(value[i : i + 1])]
            if not self.paths.isdisjoint(paths):
                batch = _replaced(batch, i, count, self._instead_of(paths[0]))
        return batch

    def _holds(self, sample: Mapping[str, Any]) -> bool:
        return any(not self.paths.isdisjoint(_texts(value)) for value in sample.values())

    def _instead_of(self, path: str) -> Mapping[str, Any]:
        """A sample that is trained on, another one in every epoch; the random numbers stay what they were."""
        with host.same_random_numbers():
            random.seed(zlib.crc32(torch.get_rng_state().numpy().tobytes() + path.encode()))
            while True:
                sample = self._dataset[random.randrange(len(self._dataset))]
                if not self._holds(sample):
                    return dict(default_collate([sample]))

    def samples(self, model: Any, names: Sequence[str]) -> dict[str, list[Sample]]:
        """For each of the model's generators, pictures that are held out: its input, and its partner if any.

        Whole and not mirrored, ``(1, C, H, W)``.
        """
        found: dict[str, list[Sample]] = {name: [] for name in names}
        with undisturbed(model):
            for sample in self._all():
                pictures = {name: value for name, value in sample.items() if isinstance(value, Tensor)}
                for name, image in inputs_of(model, names, sample).items():
                    same = [key for key, x in pictures.items() if torch.equal(x.to(image.device), image)]
                    if same and self._holds({key: sample.get(f"{key}_paths", []) for key in same}):
                        others = [x.to(image.device) for key, x in pictures.items() if key not in same]
                        paired = data_set.is_paired(self._opt) and len(others) == 1
                        found[name].append(Sample((image,), others[0] if paired else None))
        return found

    def _all(self) -> Iterator[dict[str, Any]]:
        dataset = data_set.make(whole_pictures(self._opt))
        lists = _paths_of(dataset)
        for i in range(min(max(map(len, lists)), len(dataset))):
            if any(paths[i % len(paths)] in self.paths for paths in lists):
                yield dict(default_collate([dataset[i]]))


def _paths_of(dataset: Any) -> list[list[str]]:
    lists = [value for name, value in sorted(vars(dataset).items()) if name.endswith("_paths")]
    return [paths for paths in lists if isinstance(paths, list) and paths]


def _some(paths: list[str], share: float) -> list[str]:
    count = min(MOST, max(1, round(share * len(paths))))
    if count >= len(paths):
        raise DataError(
            f"{len(paths)} training pictures are too few to hold {count} of them out; add more, or lower "
            "--coronet_holdout"
        )
    ordered = sorted(set(paths))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _texts(value: Any) -> list[str]:
    values = value if _is_list(value) else [value]
    return [text for text in values if isinstance(text, str)]


def _replaced(batch: Mapping[str, Any], index: int, count: int, sample: Mapping[str, Any]) -> dict[str, Any]:
    if count == 1:  # pictures may have sizes of their own
        return dict(sample)
    found = dict(batch)
    for name, value in batch.items():
        if name not in sample:
            continue
        found[name] = value.clone() if isinstance(value, Tensor) else copy.copy(list(value))
        found[name][index] = sample[name][0]
    return found
