"""Make a compression of every network that is to get smaller, from the options of a training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from coronet_plugin.budget.goal import Share
from coronet_plugin.budget.shared import shared_goal
from coronet_plugin.checkpoint.spec import Spec, spec_path, widths_of
from coronet_plugin.compression import COMPILED, Compression
from coronet_plugin.errors import OptionError
from coronet_plugin.methods import Events, Method, Sample, registry
from coronet_plugin.methods.angular import AngularSteps
from coronet_plugin.methods.implicit import Rates, StepMultipliers
from coronet_plugin.methods.registry import method_of
from coronet_plugin.training import data_set, host, projector
from coronet_plugin.training.average import Average
from coronet_plugin.training.holdout import Holdout
from coronet_plugin.training.options import TrainingOptions
from coronet_plugin.training.place import Place
from coronet_plugin.training.qat import Rounding
from coronet_plugin.training.teaching import folder_of, teacher_of


class Build:
    """The compressions of a model that is about to be trained.

    ``networks``: what the model owns and the options choose, by name; discriminators among them are pruned
    with their generators. Of ``place`` the steps per epoch are set.

    Raises:
        OptionError: a choice cannot be.
    """

    def __init__(
        self, model: Any, options: TrainingOptions, place: Place, networks: dict[str, nn.Module]
    ) -> None:
        self.model, self.options, self.networks = model, options, networks
        self.generators = [name for name in networks if not host.discriminators([name])]
        self.holdout: Holdout | None = None
        """Training pictures that are kept from the training, if the method asks for some."""
        self.steps_per_epoch = place.steps_per_epoch = data_set.steps_per_epoch(model.opt)
        self.optimizers = {name: host.optimizer_of(model, network) for name, network in networks.items()}
        host.scale_learning_rates_(self.optimizers.values(), options.lr_factor)

    def compressions(self) -> dict[str, Compression]:
        """One for each network; nothing is trained in them before :meth:`attach_`."""
        examples = {name: self._example(name) for name in self.networks}
        for name, example in examples.items():
            projector.make_readers_(self.model, name, example)
        shares = self._shares(examples) if self.options.shared_budget else {}
        held_out, search_steps = self._hold_out(), self._search_steps()
        made = {
            name: self._compression(name, example, search_steps, shares.get(name))
            for name, example in examples.items()
        }
        for name, compression in made.items():
            compression.method.held_out = held_out.get(name, ())
        for name in self.generators:
            self._give_others(name, made)
        return made

    def attach_(self, compressions: dict[str, Compression]) -> None:
        """Let the search of each begin, in step with the model's optimizers.

        Raises:
            OptionError: DataParallel would run copies of the generator at once that cannot be.
        """
        for name, compression in compressions.items():
            compression.attach(self.optimizers[name], readers=self.model.optimizers)
            names = " and ".join(compression.in_runs)
            if len(getattr(self.model, "gpu_ids", ())) > 1 and names:
                raise OptionError(
                    f"--gpu_ids: several divide each run of the generator, in which {names} "
                    "take part; give one, or start a process for each by torchrun"
                )

    def _compression(self, name: str, example: Any, search_steps: int, share: Share | None) -> Compression:
        options, network = self.options, self.networks[name]
        compression = Compression(
            network,
            example,
            search_steps=search_steps,
            budget=options.budget,
            kind=options.budget_kind,
            runtime=options.latency_runtime,
            table=options.latency_table,
            goal=share,
            round_to=options.round_to,
            widths=widths_of(options.widths_from, name) if options.widths_from else None,
            schedule=options.schedule or "",
            gradual=True,
            method=options.config,
            companions=self._companions(name) if name in self.generators else (),
            prune_frozen=options.prune_frozen,
            sets=options.sets,
            run=projector.runner(self.model, name),
            readers=projector.readers(self.model, name),
            architecture=host.architecture(network, self.model.opt),
        )
        if options.speed.compile:
            compression.worthwhile = COMPILED
        return compression

    def _example(self, name: str) -> Any:
        """Give an input to run a network on: the model's own ``coronet_example(name)``, or its family's."""
        own = getattr(self.model, "coronet_example", None)
        return own(name) if own else host.example(self.networks[name], self.model.opt)

    def _search_steps(self) -> int:
        """Optimizer steps of the search; a run that is continued keeps its own if nothing else is asked."""
        opt = self.model.opt
        if opt.continue_train and host.option(opt, "coronet_search_epochs") is None:
            beside = spec_path(Path(self.model.save_dir) / f"latest_net_{self.generators[0]}.pth")
            known = int(Spec.read(beside).search["of"]) if beside.exists() else 0
            if known:  # uniform width searches for no step
                return known
        return self._steps(self.options.search_epochs or 0.0)

    def _steps(self, epochs: float) -> int:
        return max(1, round(epochs * self.steps_per_epoch) // self.options.speed.accumulate)

    def _shares(self, examples: dict[str, Any]) -> dict[str, Share]:
        """Each generator's part of one budget."""
        options = self.options
        goal = shared_goal(
            list(self.networks.values()),
            list(examples.values()),
            options.budget,
            options.budget_kind,
            options.latency_runtime,
            options.schedule or method_of(options.config).schedule,
            options.round_to,
            options.prune_frozen,
            [projector.runner(self.model, name) for name in self.networks],
            options.sets,
            options.latency_table,
            [projector.readers(self.model, name) for name in self.networks],
        )
        return dict(zip(self.networks, goal.shares))

    # -- who takes part --------------------------------------------------
    def _companions(self, name: str) -> Sequence[Events]:
        """Who takes part in the training of generator ``name`` besides the method."""
        options, opt = self.options, self.model.opt
        found: list[Events] = []
        if options.teaching.distill:
            found.append(options.teaching.companion(name, self.networks[name], opt))
        if options.multipliers:
            found.append(StepMultipliers(self._search_steps(), Rates(rate=options.multipliers)))
        if options.angle:
            found.append(AngularSteps(options.angle * options.lr_factor))
        if options.average:
            found.append(Average(options.average))
        if options.qat:
            steps = self._steps(options.qat)
            found.append(Rounding(self._steps(host.total_epochs(opt)) - steps + 1, steps, name))
        return found

    def _hold_out(self) -> dict[str, list[Sample]]:
        """Training pictures that are not trained on, by generator, for a method that asks for some."""
        share = getattr(self.options.config, "holdout", 0.0)
        if not share:
            return {}
        holdout = Holdout(self.model.opt, share)
        samples = holdout.samples(self.model, self.generators)
        self.holdout = holdout
        return samples

    def _give_others(self, name: str, compressions: dict[str, Compression]) -> None:
        """Give the method of generator ``name`` its discriminator, and its teacher, if it asks for them."""
        method: Method = compressions[name].method
        judge = host.discriminator_of(self.model, name)
        if method.discriminators and judge:
            pruned = compressions.get(judge)
            method.judged_by(host.networks(self.model)[judge], pruned.method if pruned else None)  # type: ignore[arg-type]
        run = getattr(self.options.config, "teacher", "")
        if run:
            method.teacher = teacher_of(run, name, method.generator, self.model.opt, "teacher", alike=False)


def check_networks(model: Any, options: TrainingOptions, names: Iterable[str]) -> None:
    """Raises OptionError if discriminators are to be pruned by a method for generators alone."""
    judges, method = host.discriminators(names), method_of(options.config)
    if judges and not method.discriminators:
        able = ", ".join(name for name in registry.names() if registry.find(name).discriminators)
        raise OptionError(
            f"--coronet_networks {judges[0]}: the method {method.name} prunes generators alone; leave it "
            f"out, or choose --coronet_method {able}"
        )
    if judges and not {*judges} <= {host.discriminator_of(model, name) for name in names}:
        raise OptionError(
            f"--coronet_networks {judges[0]}: a discriminator is pruned together with its generator; "
            "name that too"
        )


def teacher_folder(opt: Any, options: TrainingOptions) -> Path | None:
    """The folder of the run that the method learns from, if it does."""
    run = getattr(options.config, "teacher", "")
    return folder_of(run, opt) if run else None
