"""What is watched while a model trains: signals, numbers that are not finite, generators that collapse.

The guard stands beside a host's model and is asked after every step and before every save. With
``--coronet_on_nan rollback`` it takes the model back to its last save.
"""

from __future__ import annotations

import copy
from typing import Any

from coronet_plugin.distributed import say, world_size
from coronet_plugin.errors import NumericsError
from coronet_plugin.interruption import Interruption
from coronet_plugin.training import host, numerics
from coronet_plugin.training.collapse import CollapseWatch

ROLLBACKS = 3
"""How often in a row, without a good step in between that was saved, a run goes back before it stops."""


class Guard:
    """Watches ``model`` for as long as it trains."""

    def __init__(self, model: Any, on_nan: str) -> None:
        self.model = model
        self.rolling_back = False
        """Whether the model is just being built anew; it goes on with what the host knows then."""
        self._on_nan = on_nan
        self._saved = ""
        """What the last completed save holds, in words."""
        self._rollbacks = 0
        self._good = False
        """Whether a step since the last rollback was good."""
        self._signals: Interruption | None = None
        self._watches: dict[str, CollapseWatch] = {}

    def watch(self, generators: dict[str, Any]) -> None:
        """Notice if one of these collapses, from now until :meth:`searched`."""
        self.searched()
        self._watches = {name: CollapseWatch(network) for name, network in generators.items()}

    def searched(self) -> None:
        """The search is over."""
        for watch in self._watches.values():
            watch.stop()

    def after_step(self) -> None:
        """Act on what the step brought.

        Raises:
            NumericsError: a loss is not finite, and the run cannot or shall not go back.
            SystemExit: a signal came, in a host that does not listen itself; all is saved.
        """
        for name, watch in self._watches.items():
            if watch.found:
                say(
                    f"coronet: warning: net{name} makes {watch.found} ({self._where()}), it has collapsed; "
                    "more --coronet_search_epochs, a larger --coronet_budget or a smaller --lr may prevent it"
                )
                watch.found = None
        if numerics.due(self.model, self.model._steps_this_epoch):
            problem = numerics.bad_loss(self.model)
            self._act_on(problem)
            self._good = problem is None
        self._leave_if_asked()

    def allows_saving(self) -> bool:
        """Whether all weights are finite; if not, what is saved stays, and the run stops or goes back.

        Raises:
            NumericsError: as :meth:`after_step`.
        """
        problem = numerics.bad_weights(self._networks())
        self._act_on(problem)
        return problem is None

    def saved(self) -> None:
        """The latest checkpoint is now of this step."""
        self._saved = self._where()
        if self._good:
            self._rollbacks = 0

    def _where(self) -> str:
        return f"step {self.model._steps_this_epoch} of epoch {self.model._epochs_done + 1}"

    def _networks(self) -> dict[str, Any]:
        return {name: host.unwrap(getattr(self.model, "net" + name)) for name in self.model.model_names}

    # -- numbers ---------------------------------------------------------
    def _act_on(self, problem: str | None) -> None:
        if problem is None:
            return
        weights = numerics.bad_weights(self._networks())
        if weights != problem:
            problem += f"; {weights or 'all weights are finite'}"
        problem = f"{self._where()}: {problem}"
        if not self._saved:
            raise NumericsError(f"{problem}; nothing was saved before; lower --lr")
        kept = f"the checkpoint of {self._saved} is kept"
        if self._on_nan == numerics.STOP or world_size() > 1:
            raise NumericsError(f"{problem}; {kept}; lower --lr, or go back by --coronet_on_nan rollback")
        if self._rollbacks == ROLLBACKS:
            raise NumericsError(f"{problem}; {kept}; going back {ROLLBACKS} times did not help; lower --lr")
        say(f"coronet: {problem}; going back to {self._saved}")
        self._roll_back()

    def _roll_back(self) -> None:
        """Let the model become what the last save holds, and go on with other batches and random numbers.

        Networks may have had more channels then, so the model is built anew, in place: the host holds on
        to it. The epoch and the learning rate stay those the host is in.
        """
        model, self._rollbacks = self.model, self._rollbacks + 1
        place = {name: getattr(model, name) for name in ("opt", "_epochs_done", "_steps_this_epoch")}
        schedules = [(s.state_dict(), [g["lr"] for g in s.optimizer.param_groups]) for s in model.schedulers]
        for name in (*(f"loss_{loss}" for loss in model.loss_names), *model.visual_names):
            vars(model).pop(name, None)
        again = copy.copy(model.opt)
        again.continue_train = self.rolling_back = True
        with host.same_random_numbers():
            host.construct_(model, again)
            model.setup(again)
        self.rolling_back = False
        vars(model).update(place)
        for scheduler, (state, rates) in zip(model.schedulers, schedules):
            scheduler.load_state_dict(state)
            for group, rate in zip(scheduler.optimizer.param_groups, rates):
                group["lr"] = rate

    # -- signals ---------------------------------------------------------
    def _leave_if_asked(self) -> None:
        """Save and end the program after Ctrl-C or SIGTERM, in hosts that do not listen themselves.

        Not with several processes: some might be a step further, and wait for the others for ever.
        """
        if self._signals is None and world_size() == 1:
            self._signals = Interruption().__enter__()
        elif self._signals is not None and self._signals.requested:
            self.model.save_networks("latest")
            say("coronet: stopped and saved; to go on, give the same command with --continue_train")
            raise SystemExit(self._signals.code)
