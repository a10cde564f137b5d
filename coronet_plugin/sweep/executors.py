"""Who runs the programs of a sweep: this machine, a Slurm cluster (submitit), or a Ray cluster.

An executor is called from several threads, one a run, and gives a program's exit code. Machines share the
folders of the sweep, of the host's script and of the data, and have the same Python at the same place. A
program whose worker dies fails; the others go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from coronet_plugin.errors import OptionError, UserError
from coronet_plugin.sweep.programs import POLL_SECONDS, Failed, Program, forking

LOCAL, SLURM, RAY = "local", "slurm", "ray"
NAMES = (LOCAL, SLURM, RAY)
VISIBLE = "CUDA_VISIBLE_DEVICES"
Stopped = Callable[[], bool]
"""Whether the sweep was asked to stop."""


class Executor(ABC):
    """Runs programs somewhere. ``jobs``: how many at a time, if nobody says."""

    jobs = 1

    @abstractmethod
    def run(self, program: Program, stopped: Stopped) -> int:
        """The exit code of ``program``, which saves and ends when ``stopped``. Raises Failed if lost."""


def executor_named(
    name: str, folder: Path, gpus_per_run: float | None, settings: Mapping[str, Any]
) -> Executor:
    """The executor ``name``, one of :data:`NAMES`, which keeps what it needs in ``folder``.

    ``gpus_per_run``: GPUs that a run has for itself, such as 1, or 0.5 for two runs on each; None leaves
    them alone. ``settings``: of the library: parameters of submitit's executor, arguments of ``ray.init``.

    Raises:
        OptionError: the library is missing or refuses its settings, or there are no such parts of a GPU.
    """
    if gpus_per_run is not None and not 0 < gpus_per_run < float("inf"):
        raise OptionError(f"--gpus_per_run must be above 0, not {gpus_per_run:g}")
    if gpus_per_run is not None and gpus_per_run > 1 and gpus_per_run != int(gpus_per_run):
        raise OptionError(f"--gpus_per_run {gpus_per_run:g}: above one GPU only whole ones can be had")
    if name == LOCAL and settings:
        raise OptionError("--executor_options are for --executor slurm or ray; leave them out")
    if name == SLURM:
        return Slurm(folder, gpus_per_run, settings)
    return Ray(gpus_per_run, settings) if name == RAY else Local(gpus_per_run)


# -- this machine --------------------------------------------------------------
class Local(Executor):
    """Child processes; with ``gpus_per_run`` each sees its own GPUs, as numbers from 0."""

    def __init__(self, gpus_per_run: float | None = None) -> None:
        self._slots: queue.Queue[str] | None = None
        if gpus_per_run is not None:
            slots = slots_of(visible_gpus(), gpus_per_run)
            self.jobs, self._slots = len(slots), queue.Queue()
            for slot in slots:
                self._slots.put(slot)

    def run(self, program: Program, stopped: Stopped) -> int:
        if self._slots is None:
            return program(stopped)
        slot = self._slots.get()  # more threads than slots wait here
        try:
            return replace(program, environment={**program.environment, VISIBLE: slot})(stopped)
        finally:
            self._slots.put(slot)


def visible_gpus() -> list[str]:
    """GPUs of this machine, as :data:`VISIBLE` names them."""
    said = os.environ.get(VISIBLE)
    if said is not None:
        return [each.strip() for each in said.split(",") if each.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def slots_of(gpus: list[str], per_run: float) -> list[str]:
    """GPUs that each run at a time sees, of ``gpus``. Raises OptionError if there are too few for one."""
    if per_run < 1:
        found = gpus * int(1 / per_run + 1e-9)  # one on each GPU before the second
    else:
        size = int(per_run)
        found = [",".join(gpus[at : at + size]) for at in range(0, len(gpus) - size + 1, size)]
    if not found:
        raise OptionError(f"--gpus_per_run {per_run:g}: this machine shows {len(gpus)} GPUs to PyTorch")
    return found


# -- clusters ------------------------------------------------------------------
class Cluster(Executor):
    """Programs wait in a queue until there is a place for them.

    ``jobs``: as many as there are, and the cluster begins what fits.
    """

    jobs = 64

    def run(self, program: Program, stopped: Stopped) -> int:
        job = self._submit(program)
        while not self._ended(job):
            if stopped():
                program.give_up()
                if not program.is_at_work():  # it cannot begin now
                    self._cancel(job)
                    return 128 + signal.SIGINT
        found = self._result(job)
        if isinstance(found, str):
            raise Failed(found)
        return found

    @abstractmethod
    def _submit(self, program: Program) -> Any:
        """A job that calls :func:`_outcome`."""

    @abstractmethod
    def _ended(self, job: Any) -> bool:
        """Whether it has, after waiting a little."""

    @abstractmethod
    def _result(self, job: Any) -> int | str:
        """Of an ended one. Raises Failed if nobody will ever know."""

    @abstractmethod
    def _cancel(self, job: Any) -> None:
        """Take it out of the queue."""


class Slurm(Cluster):
    """Jobs of submitit. The setting ``cluster`` chooses where: ``slurm``, or ``local`` to try without one."""

    def __init__(self, folder: Path, gpus_per_run: float | None, settings: Mapping[str, Any]) -> None:
        submitit = _library("submitit", SLURM)
        if gpus_per_run is not None and gpus_per_run < 1:
            raise OptionError(f"--gpus_per_run {gpus_per_run:g}: Slurm gives whole GPUs; ask for 1")
        known = dict(settings)
        gpus = {} if gpus_per_run is None else {"gpus_per_node": int(gpus_per_run)}
        with _in_a_line(OptionError, f"--executor {SLURM} cannot begin"):
            self._submitit = submitit.AutoExecutor(folder / "slurm", cluster=known.pop("cluster", SLURM))
            self._submitit.update_parameters(**{"name": "coronet", "timeout_min": 24 * 60, **gpus, **known})
        self._lock = Lock()  # one thread at a time may ask it

    def _submit(self, program: Program) -> Any:
        with self._lock, forking, _in_a_line(Failed, "Slurm's job was lost"):  # local jobs are children
            return self._submitit.submit(_outcome, program)

    def _ended(self, job: Any) -> bool:
        time.sleep(POLL_SECONDS)
        with self._lock:
            return bool(job.done())

    def _result(self, job: Any) -> int | str:
        with _in_a_line(Failed, f"Slurm's job {job.job_id} was lost"):
            found: int | str = job.result()
        return found

    def _cancel(self, job: Any) -> None:
        with self._lock:
            job.cancel(check=False)


class Ray(Cluster):
    """Tasks of Ray, in the cluster of RAY_ADDRESS or of the setting ``address``, else in one of its own."""

    def __init__(self, gpus_per_run: float | None, settings: Mapping[str, Any]) -> None:
        self._ray = _library("ray", RAY)
        with _in_a_line(OptionError, f"--executor {RAY} cannot begin"):
            if not self._ray.is_initialized():
                self._ray.init(**{"log_to_driver": False, "include_dashboard": False, **settings})
        # Ray would try a killed task again, beside a training that may have outlived it
        self._remote = self._ray.remote(num_gpus=gpus_per_run or 0, max_retries=0)(_outcome)

    def _submit(self, program: Program) -> Any:
        return self._remote.remote(program)

    def _ended(self, job: Any) -> bool:
        return bool(self._ray.wait([job], timeout=POLL_SECONDS)[0])

    def _result(self, job: Any) -> int | str:
        with _in_a_line(Failed, "Ray's task was lost"):
            found: int | str = self._ray.get(job)
        return found

    def _cancel(self, job: Any) -> None:
        self._ray.cancel(job)


def _outcome(program: Program) -> int | str:
    """The exit code, or why there is none: libraries would make pages of an error."""
    try:
        return program()
    except (Failed, OSError) as error:
        return str(error)


@contextlib.contextmanager
def _in_a_line(kind: type[UserError], what: str) -> Iterator[None]:
    """All that a library raises inside, as a ``kind`` of error that begins with ``what``."""
    try:
        yield
    except Exception as error:
        raise kind(f"{what}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """The first line of an error, or the error that ends a traceback in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    return raised[-1] if raised else lines[0]


def _library(name: str, extra: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionError(
            f'--executor {extra} needs {name}, not installed here: pip install "coronet-plugin[{extra}]"'
        ) from error


# -- options -------------------------------------------------------------------
@dataclass(frozen=True)
class Setting:
    """``name=value`` for the library of an executor; the value as JSON has it, or else text."""

    name: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Raises ValueError without an equals sign."""
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(text)
        try:
            return cls(name, json.loads(value))
        except ValueError:
            return cls(name, value)
