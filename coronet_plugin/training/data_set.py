"""The data set that a host trains on: made as the host makes it, counted, and looked over."""

from __future__ import annotations

import importlib
import inspect
import math
import os
from typing import Any

from coronet_plugin.distributed import world_size
from coronet_plugin.pictures.files import pictures_below
from coronet_plugin.training.host import option, same_random_numbers


def make(opt: Any) -> Any:
    """The data set of ``opt.dataset_mode``, as the host makes it."""
    kind = _data_set(opt)
    if "opt" in inspect.signature(kind.__init__).parameters:
        return kind(opt)
    dataset = kind()
    dataset.initialize(opt)
    return dataset


def is_paired(opt: Any) -> bool:
    """Whether every picture has a partner that shows what is to be made of it."""
    return option(opt, "dataset_mode") == "aligned"


def steps_per_epoch(opt: Any) -> int:
    """Optimizer steps in one epoch, from the size of the data set.

    Hosts never pass it, so the data set is built once more to be counted. Several
    processes share an epoch.
    """
    with same_random_numbers():
        dataset = make(opt)
    images = min(len(dataset), option(opt, "max_dataset_size", default=math.inf))
    batch = int(option(opt, "batch_size", "batchSize", default=1)) * world_size()
    return max(1, math.ceil(images / batch))


def remarks(opt: Any) -> list[str]:
    """Remarks on odd pictures of the data set, where the host does not make them itself."""
    if not is_paired(opt) or hasattr(_data_set(opt), "remarks"):
        return []
    from coronet_plugin.pictures.survey import square_pairs

    return square_pairs(pictures_below(os.path.join(opt.dataroot, opt.phase)))


def _data_set(opt: Any) -> type[Any]:
    data = importlib.import_module("data")
    return data.find_dataset_using_name(opt.dataset_mode)  # type: ignore[no-any-return]
