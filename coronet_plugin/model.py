"""The ``coronet`` model type: the user's own model class, with its generators compressed.

``--model coronet --coronet_base pix2pix`` builds the host's pix2pix model and
attaches a :class:`~coronet_plugin.compression.Compression` to each generator.
Losses, visuals, pages, discriminators and schedules remain the base's. This
module knows the order in which hosts call a model; what differs between hosts
is in :mod:`coronet_plugin.host`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from coronet_plugin import host, provenance, tested, training_state
from coronet_plugin.checkpoint import load_into, save_generator, save_tensors
from coronet_plugin.comparison.watch import Watch
from coronet_plugin.compression import Compression, share_budget
from coronet_plugin.cost import human
from coronet_plugin.distributed import is_main, say
from coronet_plugin.errors import CheckpointError, shown_in_one_line
from coronet_plugin.files import settle, together
from coronet_plugin.guard import Guard
from coronet_plugin.options import REMEMBERED, Settings, add_options, recall, remember
from coronet_plugin.planning import example_input
from coronet_plugin.qat import LateRounding
from coronet_plugin.spec import COMPACT, Spec, spec_path, widths_of
from coronet_plugin.start import start_from


class CompressedModel:
    """Mixed in front of a host's model class; see the module's text."""

    compressions: dict[str, Compression]
    # what every host's model class has
    opt: Any
    isTrain: bool
    save_dir: str
    model_names: list[str]
    loss_names: list[str]
    visual_names: list[str]
    image_paths: list[str]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if args:
            self._begin(args[0])

    def initialize(self, opt: Any) -> None:
        """What hosts of 2018 call instead of passing options to the constructor."""
        super().initialize(opt)  # type: ignore[misc]
        self._begin(opt)

    def _begin(self, opt: Any) -> None:
        self._settings = Settings.of(opt)
        self._epochs_done = 0
        self._steps_this_epoch = 0
        self._guard = vars(self).get("_guard") or Guard(self, self._settings.on_nan)
        self._rounding = LateRounding(self, self._settings.qat_epochs)
        self.compressions = {}
        self._tested = False
        networks = host.generators(self, self._settings.networks)
        self._compressed = tuple(networks)
        for network in networks.values():
            host.forget_statistics_(network)
        if self.isTrain:
            self._compress(networks)

    def _compress(self, networks: dict[str, torch.nn.Module]) -> None:
        settings = self._settings
        self._steps_per_epoch = host.steps_per_epoch(self.opt)
        steps = max(1, round(settings.search_epochs * self._steps_per_epoch))
        for name, network in networks.items():
            compression = Compression(
                network,
                self._example(name, network),
                search_steps=steps,
                budget=1.0 if settings.shared_budget else settings.budget,
                kind=settings.kind,
                runtime=settings.runtime,
                round_to=settings.round_to,
                widths=widths_of(settings.widths_from, name) if settings.widths_from else None,
                schedule=settings.schedule,
                gradual=True,
                method=settings.method,
                hypernetwork=settings.hypernetwork,
                embedding=settings.embedding,
                run=host.runner(self, name),
                architecture=host.architecture(network, self.opt),
            )
            self.compressions[name] = compression.attach(host.optimizer_of(self, network))
            if not self.opt.continue_train:
                self._announce(name)
        self._guard.watch(networks)
        if settings.shared_budget:
            share_budget(list(self.compressions.values()), settings.budget, settings.kind, settings.round_to)
        self.loss_names = [*self.loss_names, *(f"{kind}_{n}" for n in networks for kind in ("macs", "width"))]
        self._slim_if_finished()
        self._report()

    def _announce(self, name: str) -> None:
        """Say what a generator costs, and what is ahead of it or behind it."""
        compression = self.compressions[name]
        dense, slim, steps = compression.plan.cost(), compression.cost(), compression.steps
        if compression.phase == COMPACT:
            goal = f"it is slim since step {steps}, with {slim.macs / dense.macs:.2%} of its MACs"
        else:
            goal = f"{self._settings.goal} after {compression.search.steps} steps"
            goal += f", {steps} of which are made" if steps else ""
        say(
            f"coronet: net{name} has {human(dense.macs)} MACs ({human(dense.macs_literature)} in the "
            f"literature's convention) and {human(dense.parameters)} parameters in "
            f"{len(compression.plan.prunable)} channel sets; {goal}"
        )

    def _example(self, name: str, network: torch.nn.Module) -> Any:
        """What ``network`` is run on once: the model's own ``coronet_example(name)``, or one image."""
        own = getattr(self, "coronet_example", None)
        return own(name) if own else example_input(network, host.crop_size(self.opt))

    # -- training --------------------------------------------------------
    def optimize_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """One training step of the base model, then hypernetwork and proximal step."""
        self._rounding.before_step()
        result = super().optimize_parameters(*args, **kwargs)  # type: ignore[misc]
        self._steps_this_epoch += 1
        for name, compression in self.compressions.items():
            compression.step()
            if compression.resized:
                host.rewrap_(self, name)
        self._slim_if_finished()
        self._report()
        self._guard.after_step()
        return result

    def _slim_if_finished(self) -> None:
        """Once all generators are ready, and all at once: a shared budget is met by all together."""
        if not self.compressions or not all(c.finished for c in self.compressions.values()):
            return
        for name, compression in self.compressions.items():
            compression.slim()
            host.rewrap_(self, name)
            if self.opt.continue_train and not compression.steps:
                continue  # it was so before the run was continued, which is said when its state is read
            dense, slim = compression.plan.cost(), compression.cost()
            say(
                f"coronet: net{name} is slim after {compression.steps} steps: {human(slim.macs)} of "
                f"{human(dense.macs)} MACs ({slim.macs / dense.macs:.2%}), {human(slim.parameters)} of "
                f"{human(dense.parameters)} parameters ({slim.parameters / dense.parameters:.2%}); "
                "training goes on with the small generator"
            )
        self._guard.searched()

    def _report(self) -> None:
        """Keep the budget's curves up to date: fractions of MACs and of channels that are left."""
        for name, compression in self.compressions.items():
            setattr(self, f"loss_macs_{name}", compression.cost().macs / compression.plan.cost().macs)
            setattr(self, f"loss_width_{name}", compression.width)

    def update_learning_rate(self, *args: Any, **kwargs: Any) -> Any:
        """Called by hosts between epochs, by some also before the first step."""
        if self._steps_this_epoch:
            self._epochs_done += 1
            self._steps_this_epoch = 0
        return super().update_learning_rate(*args, **kwargs)  # type: ignore[misc]

    # -- saving and loading ----------------------------------------------
    def setup(self, opt: Any, *args: Any, **kwargs: Any) -> Any:
        """Schedulers and wrappers as the base makes them; loading is the plug-in's own in every host.

        A continued run goes on exactly. Some hosts initialise networks again in here.
        """
        resuming = self.isTrain and opt.continue_train
        state = self._read_state(opt) if resuming else None
        with host.without_loading(self, opt):
            result = super().setup(opt, *args, **kwargs)  # type: ignore[misc]
        if resuming or not self.isTrain:
            self.load_networks(self._epoch_name(opt))
        elif self._settings.init_from:
            start_from(self, self._settings.init_from)
        if state is not None:
            with training_state.sound(self._state_path(self._epoch_name(opt))):
                training_state.restore_(self, state)
            if not self._guard.rolling_back:
                self._guard.saved()
        for compression in self.compressions.values():
            compression.refresh_()
        self._report()
        if self.isTrain and not self._guard.rolling_back:
            provenance.begin(opt)
        if self.isTrain:
            self._watch = Watch(self, self._compressed, opt.coronet_watch, opt.coronet_compare_to)
        return result

    def get_current_losses(self) -> Any:
        """The base's losses and the budget's curves; a loss that was not computed yet is zero."""
        for name in self.loss_names:
            if not hasattr(self, "loss_" + name):
                setattr(self, "loss_" + name, 0.0)
        return super().get_current_losses()  # type: ignore[misc]

    def get_current_visuals(self) -> Any:
        """The base's images, and those to watch while training; one that was not computed is left out."""
        wanted = self.visual_names
        self.visual_names = [name for name in wanted if hasattr(self, name)]
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

    def _read_state(self, opt: Any) -> dict[str, Any]:
        path = self._state_path(self._epoch_name(opt))
        state = training_state.read(path)
        with training_state.sound(path):
            self._take_up(state, path, opt)
        return state

    def _take_up(self, state: dict[str, Any], path: Path, opt: Any) -> None:
        for name, compression in self.compressions.items():
            if name not in state["compressions"]:
                raise CheckpointError(
                    f"{path} knows no network {name}; continue with the same --coronet_base"
                )
            compression.load_state_dict(state["compressions"][name])
            if not self._guard.rolling_back:
                self._announce(name)
        self._epochs_done = int(state["epochs_done"])
        if opt.epoch_count == 1 and self._epochs_done and not self._guard.rolling_back:
            opt.epoch_count = self._epochs_done + 1
            say(f"coronet: continuing with epoch {opt.epoch_count}")

    @staticmethod
    def _epoch_name(opt: Any) -> str:
        iteration = int(host.option(opt, "load_iter", default=0))
        return f"iter_{iteration}" if iteration else str(host.option(opt, "epoch", "which_epoch"))

    def save_networks(self, epoch: Any) -> None:
        """Write every network as a plain state_dict, a spec beside each compressed one; all files or none.

        The state that continues a run exactly (latents, optimizers, random state)
        is written beside ``latest`` only: the search's is many times the networks' size.
        """
        if not is_main() or not self._guard.allows_saving():
            return
        with together():
            for name in self.model_names:
                network = host.unwrap(getattr(self, "net" + name))
                path = self._path(f"{epoch}_net_{name}.pth")
                if name in self.compressions:
                    with self._rounding.in_files(name) as facts:
                        spec = self.compressions[name].spec(remember(self.opt))
                        save_generator(network, path, dataclasses.replace(spec, quantization=facts))
                else:
                    save_tensors({k: v.detach().cpu() for k, v in network.state_dict().items()}, path)
            if str(epoch) == "latest":
                save_tensors(training_state.collect(self), self._state_path("latest"))
        if str(epoch) == "latest":
            self._guard.saved()

    def load_networks(self, epoch: Any) -> None:
        """Load every network; a compact generator is made small first."""
        settle(self.save_dir)
        for name in self.model_names:
            network = host.unwrap(getattr(self, "net" + name))
            path = self._path(f"{epoch}_net_{name}.pth")
            resized = bool(self.compressions)  # while training, the training state has made it small
            beside = spec_path(path)
            spec = Spec.read(beside) if not resized and name in self._compressed and beside.exists() else None
            load_into(network, path, spec)

    def _state_path(self, epoch: str) -> Path:
        return self._path(f"{epoch}_coronet_state.pth")

    def _path(self, file: str) -> Path:
        return Path(os.path.join(self.save_dir, file))


class CoronetOptions:
    """The option setter hosts ask a model class for."""

    @staticmethod
    def modify_commandline_options(parser: argparse.ArgumentParser, is_train: bool = True) -> Any:
        """Add the coronet options, then those of the base model class; returns the parser."""
        shown_in_one_line()
        add_options(parser)
        spec = None if is_train else recall(parser)
        if spec is not None:
            parser.set_defaults(coronet_base=str(spec.options.get("coronet_base", "cycle_gan")))
        known, _ = parser.parse_known_args()
        parser = host.base_class(known.coronet_base).modify_commandline_options(parser, is_train)
        if spec is not None and spec.options.get("coronet_base") == known.coronet_base:
            parser.set_defaults(**{k: v for k, v in spec.options.items() if k in REMEMBERED})
        return parser


def coronet_model(base_model: type) -> type:
    """The class a host finds as ``models.coronet_model.CoronetModel``.

    It is a ``BaseModel`` by name only: on construction the object becomes an
    instance of ``--coronet_base``'s class with :class:`CompressedModel` in front.
    """

    begin = host.constructor(base_model)

    def become_base(self: Any, opt: Any) -> None:
        base = host.base_class(opt.coronet_base)
        self.__class__ = type("CoronetModel", (CompressedModel, base), {})
        getattr(self, begin)(opt)

    members = {begin: become_base, "__doc__": CompressedModel.__doc__}
    built = type("CoronetModel", (CoronetOptions, base_model), members)
    built.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    return built
