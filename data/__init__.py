"""Data sets: ``--dataset_mode NAME`` is the class NameDataset in ``data/NAME_dataset.py``.

To add one, put such a file here: subclass :class:`data.base_dataset.BaseDataset` and
return a dictionary of one sample from ``__getitem__``.
"""

from __future__ import annotations

import argparse
import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import FrameType
from typing import Any

import torch
from torch.utils.data import default_collate

from coronet_plugin.distributed import agreed, world_size
from coronet_plugin.errors import DataError, UserError
from coronet_plugin.interruption import SIGNALS
from coronet_plugin.training.host import same_random_numbers
from data.base_dataset import BaseDataset
from data.share import Share
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
    """Batches of a data set, shuffled unless ``--serial_batches``; of several processes each gets a share.

    ``len()`` is a number of images, at most ``--max_dataset_size``, of all processes.
    """

    def __init__(self, opt: argparse.Namespace) -> None:
        self.opt = opt
        self.dataset = find_dataset_using_name(opt.dataset_mode)(opt)
        print(f"dataset [{type(self.dataset).__name__}] was created with {len(self)} images")
        for remark in self.dataset.remarks():
            print(f"note: {remark}")
        self._guarded = _Guarded(self.dataset)
        self._share = Share(len(self), shuffled=not opt.serial_batches) if world_size() > 1 else None
        self.dataloader = torch.utils.data.DataLoader(
            self._guarded,
            batch_size=opt.batch_size,
            shuffle=not opt.serial_batches and self._share is None,
            sampler=self._share,
            generator=self._share and self._share.of_loaders,
            num_workers=min(int(opt.num_threads), _processors()),
            collate_fn=_collate,
            pin_memory=bool(opt.gpu_ids),  # so that copies to a GPU go on while the step before it runs
            worker_init_fn=partial(_leave_signals_to_the_main_process, _leaving()),
        )
        self._begun: torch.Tensor | None = None
        self._taken = 0
        self._resumed: Mapping[str, Any] | None = None

    def load_data(self) -> Loader:
        """The loader itself, as upstream's scripts expect."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Does nothing; scripts written for distributed training call it."""

    def sizes(self) -> dict[tuple[int, int], str]:
        """Sizes (width, height) that images can have, each with a file; empty if that is not known."""
        return self.dataset.sizes()

    def __len__(self) -> int:
        return int(min(len(self.dataset), self.opt.max_dataset_size))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches of an epoch, or of the rest of one after :meth:`load_state_dict`.

        Raises:
            DataError: an image cannot be used, or a process that loads images died.
        """
        batches = -(-len(self) // (self.opt.batch_size * world_size()))
        iterator = self._rest_of_epoch() if self._resumed else self._new_epoch()
        try:
            while self._taken < batches:
                batch = _next(iterator)
                if isinstance(batch, UserError):
                    raise batch
                self._taken += 1
                yield batch
        finally:
            del iterator  # which ends loading processes: left to garbage collection, they do not hear of it

    def _new_epoch(self) -> Iterator[Any]:
        self._begun, self._taken = torch.get_rng_state(), 0
        if self._share is not None:
            self._share.seed_(agreed(int(torch.randint(2**62, ()))))
        return iter(self.dataloader)

    def _rest_of_epoch(self) -> Iterator[Any]:
        """The epoch that was begun with other random numbers, after the batches it has given already.

        In this process the images of those need not be loaded again; loading processes draw their own
        random numbers for every image, so there they are.
        """
        saved, self._resumed = self._resumed, None
        assert saved is not None
        with same_random_numbers():
            torch.set_rng_state(saved["begun"])
            iterator = self._new_epoch()
            self._guarded.skipping = self.dataloader.num_workers == 0
            while self._taken < int(saved["taken"]):
                _next(iterator)
                self._taken += 1
            self._guarded.skipping = False
        return iterator

    def state_dict(self) -> dict[str, Any]:
        """Where in its epoch the loader is: the random state it began with, and the batches taken."""
        assert self._begun is not None, "the epoch has not begun"
        return {"begun": self._begun, "taken": self._taken, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on in the middle of an epoch: the next iteration gives the rest of it, in the same order.

        Where another number of images or other options make that impossible, it says so and returns False.
        """
        state = {"processes": 1, **state}
        changed = [name for name, value in self._order().items() if state[name] != value]
        if changed:
            names = ", ".join(f"--{name}" if hasattr(self.opt, name) else name for name in changed)
            print(f"note: {names} changed, so the interrupted epoch begins anew")
            return False
        self._resumed = state
        return True

    def _order(self) -> dict[str, Any]:
        """Give what decides, besides random numbers, which batches an epoch has."""
        return {
            "images": len(self),
            "batch_size": self.opt.batch_size,
            "serial_batches": self.opt.serial_batches,
            "num_threads": self.dataloader.num_workers,
            "processes": world_size(),
        }


def _next(iterator: Iterator[Any]) -> Any:
    try:
        return next(iterator)
    except ConnectionError as error:  # it died while it handed a batch over
        raise _death() from error
    except RuntimeError as error:
        raise loading_error(error) from error


def loading_error(error: RuntimeError) -> Exception:
    """``error`` itself, or a DataError in its place if torch says with it that a loading process died.

    Torch may raise it at any moment of the main process, in the middle of a file that then cannot be ended.
    """
    said: BaseException | None = error
    while said is not None and "DataLoader worker" not in str(said):
        said = said.__cause__ or said.__context__
    if said is None:
        return error
    return _death()


def _death() -> DataError:
    return DataError(
        "a process that loads images died; often the memory was full, so try a smaller --num_threads, or 0 "
        "to see its own error"
    )


@cache
def _leaving() -> Any:
    """A flag shared with loading processes, set when this process ends.

    Then it waits for those that are left, and ends them by SIGTERM.
    """
    flag = multiprocessing.Value("b", 0, lock=False)
    atexit.register(setattr, flag, "value", 1)
    return flag


def _leave_signals_to_the_main_process(leaving: Any, _: int) -> None:
    """Ctrl-C reaches all processes of a terminal; only the main one knows when the step is over."""

    def unless_leaving(number: int, _: FrameType | None) -> None:
        if leaving.value:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in SIGNALS:
        signal.signal(number, unless_leaving)


def _processors() -> int:
    """Count the processors this process may use; more loaders than that only wait for each other."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Guarded(torch.utils.data.Dataset):
    """Hands user errors over as values: raised in a worker process they would arrive as a traceback."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset
        self.skipping = False
        """Whether samples are only counted, not loaded."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if self.skipping:
            return index
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
