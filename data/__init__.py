"""Data sets: ``--dataset_mode NAME`` is the class NameDataset in ``data/NAME_dataset.py``.

To add one, put such a file here: subclass :class:`data.base_dataset.BaseDataset` and
return a dictionary of one sample from ``__getitem__``.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import default_collate

from coronet_plugin.errors import DataError, UserError
from data.base_dataset import BaseDataset
from util.find import find_class

Setter = Callable[[argparse.ArgumentParser, bool], argparse.ArgumentParser]


def find_dataset_using_name(dataset_name: str) -> type[BaseDataset]:
    """The data set class behind ``--dataset_mode dataset_name``.

    Raises:
        OptionError: there is no such file, or no such class in it; lists those that exist.
    """
    return find_class(dataset_name, __name__, "dataset", BaseDataset, "--dataset_mode")


def get_option_setter(dataset_name: str) -> Setter:
    """The function that adds the options of a data set to a parser."""
    return find_dataset_using_name(dataset_name).modify_commandline_options


def create_dataset(opt: argparse.Namespace) -> Loader:
    """The data set of ``opt.dataset_mode`` in batches; iterate over it once an epoch."""
    return Loader(opt)


class Loader:
    """Batches of a data set, shuffled unless ``--serial_batches``.

    ``len()`` is a number of images, at most ``--max_dataset_size``.
    """

    def __init__(self, opt: argparse.Namespace) -> None:
        self.opt = opt
        self.dataset = find_dataset_using_name(opt.dataset_mode)(opt)
        print(f"dataset [{type(self.dataset).__name__}] was created with {len(self)} images")
        self.dataloader = torch.utils.data.DataLoader(
            _Guarded(self.dataset),
            batch_size=opt.batch_size,
            shuffle=not opt.serial_batches,
            num_workers=min(int(opt.num_threads), _processors()),
            collate_fn=_collate,
        )

    def load_data(self) -> Loader:
        """The loader itself, as upstream's scripts expect."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Does nothing; scripts written for distributed training call it."""

    def __len__(self) -> int:
        return int(min(len(self.dataset), self.opt.max_dataset_size))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches of an epoch. Raises DataError when an image cannot be used."""
        batches = -(-len(self) // self.opt.batch_size)
        for batch in itertools.islice(self.dataloader, batches):
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _processors() -> int:
    """How many processors this process may use; more loaders than that only wait for each other."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Guarded(torch.utils.data.Dataset):
    """Hands user errors over as values: raised in a worker process they would arrive as a traceback."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def _collate(samples: list[Any]) -> Any:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    try:
        return default_collate(samples)
    except RuntimeError as error:
        return DataError(
            f"samples cannot be joined to a batch ({str(error).splitlines()[0]}); images of different sizes "
            "need --batch_size 1 or --preprocess resize_and_crop"
        )
