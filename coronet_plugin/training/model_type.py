"""The ``coronet`` model type: the user's own model class, with its generators compressed.

``--model coronet --coronet_base pix2pix`` builds the host's pix2pix model and
attaches a :class:`~coronet_plugin.compression.Compression` to each generator.
Losses, visuals, pages, discriminators and schedules remain the base's. This
module knows the order in which hosts call a model; what differs between hosts
is in :mod:`coronet_plugin.training.host`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from coronet_plugin.budget.budget import Budget
from coronet_plugin.channels.cost import human
from coronet_plugin.channels.find import FROZEN
from coronet_plugin.checkpoint.spec import COMPACT, SEARCH, Spec, spec_path
from coronet_plugin.checkpoint.storage import load_into, save_tensors
from coronet_plugin.checkpoint.tensors import weight_file
from coronet_plugin.compression import Compression
from coronet_plugin.distributed import is_main, say
from coronet_plugin.errors import CheckpointError
from coronet_plugin.files import settle, together
from coronet_plugin.runs import tested
from coronet_plugin.training import data_set, host, provenance, testing
from coronet_plugin.training import state as training_state
from coronet_plugin.training.average import AVERAGE
from coronet_plugin.training.build import Build, check_networks, teacher_folder
from coronet_plugin.training.guard import Guard
from coronet_plugin.training.holdout import Holdout
from coronet_plugin.training.options import (
    TrainingOptions,
    add_coronet_options,
    for_testing,
    recall,
    remember,
)
from coronet_plugin.training.place import Place
from coronet_plugin.training.speed import Speed
from coronet_plugin.training.start import others_from, start_from
from coronet_plugin.training.watch import Watch

if TYPE_CHECKING:
    _Base = host.HostModel  # of every host's; an ancestor in earnest would hide the host's own methods
else:
    _Base = object


class CompressedModel(_Base):
    """Mixed in front of a host's model class, :class:`~coronet_plugin.training.host.HostModel`."""

    compressions: dict[str, Compression]
    _holdout: Holdout | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if args:
            self._begin(args[0])

    def initialize(self, opt: Any) -> None:
        """Take the options, as hosts of 2018 give them instead of passing them to the constructor."""
        super().initialize(opt)  # type: ignore[misc]
        self._begin(opt)

    def _begin(self, opt: Any) -> None:
        self._options = TrainingOptions.of(opt)
        self.place = Place()
        self.guard = Guard(self, self.place, self._options.on_nan, self._go_back)
        self._is_slim = self._tested = False
        self.compressions = {}
        networks = host.generators(self, self._options.networks)
        check_networks(self, self._options, networks)
        self._compressed = tuple(name for name in networks if not host.discriminators([name]))
        for network in networks.values():
            host.forget_statistics_(network)
        self.speed = Speed(self, self._options.speed)
        for remark in data_set.remarks(opt):
            say(f"coronet: note: {remark}")
        if self.isTrain:
            self._compress(networks)
            self.speed.prepare_()  # before hosts wrap networks

    def _compress(self, networks: dict[str, nn.Module]) -> None:
        build = Build(self, self._options, self.place, networks)
        self.compressions = build.compressions()
        if not self.opt.continue_train:
            for name in networks:
                self._announce(name)
        build.attach_(self.compressions)
        self._holdout = build.holdout
        self.guard.watch({name: networks[name] for name in self._compressed})
        curves = [f"{kind}_{name}" for name in networks for kind in ("macs", "width")]
        curves += ["graphs"] if self._options.speed.compile else []
        self.loss_names: list[str] = [*self.loss_names, *curves]
        self._slim_if_finished()

    def _announce(self, name: str) -> None:
        """Say what a generator costs, and what is ahead of it or behind it."""
        compression = self.compressions[name]
        dense, slim, steps = compression.dense, compression.cost(), compression.steps
        frozen = sum(s.pinned == FROZEN for s in compression.plan.sets)
        if compression.phase == COMPACT:
            goal = f"it is slim since step {compression.method.steps}, "
            goal += f"with {slim.macs / dense.macs:.2%} of its MACs"
        else:
            goal = f"{self._options.goal} after {compression.method.steps} steps"
            goal += f", {steps} of which are made" if steps else ""
        say(
            f"coronet: net{name} has {human(dense.macs)} MACs ({human(dense.macs_literature)} in the "
            f"literature's convention) and {human(dense.parameters)} parameters in "
            f"{len(compression.plan.prunable)} channel sets"
            f"{f' ({frozen} more stay whole for frozen layers)' if frozen else ''}; {goal}"
        )

    # -- training --------------------------------------------------------
    def set_input(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """Take a batch; other pictures stand in for those that are held out."""
        if self._holdout is not None:
            input = self._holdout.without(input)
        return super().set_input(input, *args, **kwargs)  # type: ignore[safe-super]

    def optimize_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """Make one training step of the base model, then that of the methods."""
        one_way = any(c.method.one_way(c.steps + 1) for c in self.compressions.values())
        with host.one_line_of_norms(training=True), host.one_way(self.opt, one_way), self.speed.step():
            result = super().optimize_parameters(*args, **kwargs)  # type: ignore[safe-super]
        self.place.next_step()
        for name, compression in self.compressions.items():
            compression.step(skipped=self.speed.skipped(compression.optimizer))
            if compression.resized:
                host.rewrap_(self, name, compression.generator)
                self.speed.prepare_()
        self._slim_if_finished()
        self.guard.after_step()
        return result

    def _slim_if_finished(self) -> None:
        """Cut once all generators are ready, and all at once: a shared budget is met by all together."""
        unready = any(c.phase == SEARCH and not c.finished for c in self.compressions.values())
        if unready or self._is_slim or not self.compressions:
            return
        for name, compression in self.compressions.items():
            compression.slim()
            host.rewrap_(self, name, compression.generator)
            if self.opt.continue_train and not compression.steps:
                continue  # it was so before the run was continued, which is said when its state is read
            dense, slim = compression.dense, compression.cost()
            say(
                f"coronet: net{name} is slim after {compression.steps} steps: {human(slim.macs)} of "
                f"{human(dense.macs)} MACs ({slim.macs / dense.macs:.2%}), {human(slim.parameters)} of "
                f"{human(dense.parameters)} parameters ({slim.parameters / dense.parameters:.2%}); "
                "training goes on with the small generator"
            )
        self._is_slim = True
        self.speed.prepare_()
        self.guard.searched()

    def _report(self) -> None:
        """Bring the budget's curves up to date: fractions of MACs and of channels that are left."""
        for name, compression in self.compressions.items():
            setattr(self, f"loss_macs_{name}", compression.cost().macs / compression.dense.macs)
            setattr(self, f"loss_width_{name}", compression.width)
        self.loss_graphs = float(self.speed.graphs)

    def update_learning_rate(self, *args: Any, **kwargs: Any) -> Any:
        """Note the end of an epoch; hosts call this between epochs, some also before the first step."""
        self.place.next_epoch()
        return super().update_learning_rate(*args, **kwargs)  # type: ignore[misc]

    # -- saving and loading ----------------------------------------------
    def setup(self, opt: Any, *args: Any, **kwargs: Any) -> Any:
        """Schedulers and wrappers as the base makes them; loading is the plug-in's own in every host.

        A continued run goes on exactly. Some hosts initialise networks again in here.
        """
        resuming = self.isTrain and opt.continue_train
        path = self._state_path(host.epoch_name(opt))
        state = training_state.read(path) if resuming else None
        if state is not None:
            with training_state.explain_misfit(path):
                self.take_up_(state, path)
            for name in self.compressions:
                self._announce(name)
            self._continue_after(int(state["epochs_done"]), opt)
        teacher = teacher_folder(opt, self._options) if self.isTrain else None
        with host.without_loading(self, opt):
            result = super().setup(opt, *args, **kwargs)  # type: ignore[misc]
        if resuming or not self.isTrain:
            self.load_networks(host.epoch_name(opt))
        elif self._options.init_from:
            start_from(self, self.compressions, self._options.init_from)
        elif teacher is not None:
            others_from(self, self._compressed, teacher)
        if state is not None:
            with training_state.explain_misfit(path):
                training_state.restore_(self, self.place, state)
                self.speed.load_state_dict(state.get("speed", {}))
            self.guard.saved()
        for compression in self.compressions.values():
            compression.refresh_()
        self.speed.prepare_()
        self._report()
        if self.isTrain:
            self._began = time.monotonic()
            provenance.begin(opt, teacher or self._options.teaching.folder(opt))
            self._watch = Watch(self, self._compressed, self._options.watch, self._options.compare_to)
        return result

    def get_current_losses(self) -> Any:
        """The base's losses and the budget's curves; a loss that was not computed yet is zero."""
        self._report()
        for name in self.loss_names:
            if not hasattr(self, "loss_" + name):
                setattr(self, "loss_" + name, 0.0)
        return super().get_current_losses()  # type: ignore[misc]

    def get_current_visuals(self) -> Any:
        """The base's images, and those to watch while training; one that was not computed is left out."""
        wanted = self.visual_names
        self.visual_names: list[str] = [name for name in wanted if hasattr(self, name)]
        try:
            visuals = super().get_current_visuals()  # type: ignore[misc]
        finally:
            self.visual_names = wanted
        if self.isTrain:
            return self._watch.added(self, visuals)
        self._note_test()
        return visuals

    def _note_test(self) -> None:
        """Beside the results of a host's test.py, of which picture it is about to write the next ones."""
        folder = None if host.notes_tests(self) else host.results_folder(self.opt)
        if folder is None:
            return
        if not self._tested:
            tested.write(folder, self.opt, ())
        self._tested = True
        tested.add(folder, self.image_paths)

    def take_up_(self, state: Mapping[str, Any], path: Path) -> None:
        """Give the generators the widths and the methods the state that were saved."""
        for name, compression in self.compressions.items():
            if name not in state["compressions"]:
                raise CheckpointError(
                    f"{path} knows no network {name}; continue with the same --coronet_base"
                )
            compression.load_state_dict(state["compressions"][name])
            host.rewrap_(self, name, compression.generator)
        self._is_slim = all(c.phase == COMPACT for c in self.compressions.values())

    def _continue_after(self, epochs: int, opt: Any) -> None:
        self.place.epochs_done = epochs
        if opt.epoch_count == 1 and epochs:
            opt.epoch_count = epochs + 1
            say(f"coronet: continuing with epoch {opt.epoch_count}")

    def _go_back(self) -> None:
        """Become what the last save holds, and go on with other batches and random numbers.

        The epoch and the learning rates stay those the host is in.
        """
        path = self._state_path("latest")
        state = training_state.read(path)
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        for name in (*(f"loss_{loss}" for loss in self.loss_names), *self.visual_names):
            if hasattr(self, name):
                delattr(self, name)
        with training_state.explain_misfit(path), host.same_random_numbers():
            self.take_up_(state, path)
            self.load_networks("latest")
            training_state.restore_optimizers_(self, state)
            training_state.restore_pools_(self, state)
            self.speed.load_state_dict(state.get("speed", {}))
        for optimizer, before in zip(self.optimizers, rates):
            for group, rate in zip(optimizer.param_groups, before):
                group["lr"] = rate
        for compression in self.compressions.values():
            compression.refresh_()
        if not self._is_slim:
            self.guard.watch({name: self.compressions[name].generator for name in self._compressed})

    def save_networks(self, epoch: Any) -> None:
        """Write every network as a plain state_dict, a spec beside each compressed one; all files or none.

        The state that continues a run exactly (latents, optimizers, random state)
        is written beside ``latest`` only: the search's is many times the networks' size.
        """
        if not is_main() or not self.guard.allows_saving():
            return
        with together():
            for name, network in host.networks(self).items():
                path = self._path(f"{epoch}_net_{name}.pth")
                if name in self.compressions:
                    self.compressions[name].save(path, remember(self.opt))
                else:
                    save_tensors({k: v.detach().cpu() for k, v in network.state_dict().items()}, path)
            if str(epoch) == "latest":
                state = training_state.collect(self, self.place, self.compressions)
                save_tensors({**state, "speed": self.speed.state_dict()}, self._state_path("latest"))
        if str(epoch) == "latest":
            provenance.note(self.opt, time.monotonic() - self._began)
            self.guard.saved()

    def load_networks(self, epoch: Any) -> None:
        """Load every network; a compact generator is made small first.

        Networks that are not compressed have no averaged weights: of those the others are loaded.
        """
        settle(self.save_dir)
        for name, network in host.networks(self).items():
            path = self._weights_path(str(epoch), name)
            resized = bool(self.compressions)  # while training, the training state has made it small
            beside = spec_path(path)
            spec = Spec.read(beside) if not resized and name in self._compressed and beside.exists() else None
            load_into(network, path, spec)

    def _weights_path(self, epoch: str, name: str) -> Path:
        path, ending = weight_file(self._path(f"{epoch}_net_{name}.pth")), f"_{AVERAGE}"
        if not path.exists() and epoch.endswith(ending) and any(path.parent.glob(f"{epoch}_net_*.pth")):
            return self._path(f"{epoch[: -len(ending)]}_net_{name}.pth")
        return path

    def _state_path(self, epoch: str) -> Path:
        return self._path(f"{epoch}_coronet_state.pth")

    def _path(self, file: str) -> Path:
        return Path(os.path.join(self.save_dir, file))


class CoronetOptions:
    """The option setter hosts ask a model class for."""

    @staticmethod
    def modify_commandline_options(parser: argparse.ArgumentParser, is_train: bool = True) -> Any:
        """Add the coronet options, then those of the base model class; returns the parser."""
        add_coronet_options(parser)
        spec = None if is_train else recall(parser)
        if spec is not None:
            parser.set_defaults(coronet_base=str(spec.options.get("coronet_base", "cycle_gan")))
        singles = spec is not None and testing.take_singles(parser, spec)
        known, _ = parser.parse_known_args()
        Budget.parse(known.coronet_budget, known.coronet_budget_kind)  # a slip is said before data are read
        parser = host.base_class(known.coronet_base, is_train).modify_commandline_options(parser, is_train)
        if singles:
            testing.name_the_first(parser)
        if known.coronet_base == host.TEST:
            testing.recall_one(parser)
        elif spec is not None and spec.options.get("coronet_base") == known.coronet_base:
            parser.set_defaults(**for_testing(spec))
        return parser


def coronet_model(base_model: type) -> type:
    """The class a host finds as ``models.coronet_model.CoronetModel``.

    It is a ``BaseModel`` by name only: on construction the object becomes an
    instance of ``--coronet_base``'s class with :class:`CompressedModel` in front.
    """

    begin = host.constructor(base_model)

    def become_base(self: Any, opt: Any) -> None:
        base = host.base_class(opt.coronet_base, opt.isTrain)
        self.__class__ = type("CoronetModel", (CompressedModel, base), {})
        getattr(self, begin)(opt)

    members = {begin: become_base, "__doc__": CompressedModel.__doc__}
    built = type("CoronetModel", (CoronetOptions, base_model), members)
    built.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    return built
