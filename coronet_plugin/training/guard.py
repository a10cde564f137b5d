"""Watch over a model while it trains: signals, numbers that are not finite, generators that collapse.

The guard stands beside a host's model and is asked after every step and before every save. With
``--coronet_on_nan rollback`` it has the model go back to its last save.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from coronet_plugin.distributed import say, world_size
from coronet_plugin.errors import NumericsError
from coronet_plugin.interruption import Interruption
from coronet_plugin.training import host, numerics
from coronet_plugin.training.collapse import CollapseWatch
from coronet_plugin.training.host import HostModel
from coronet_plugin.training.place import Place

ROLLBACKS = 3
"""How often in a row, without a good step in between that was saved, a run goes back before it stops."""


class Guard:
    """Watches ``model``, which is at ``place``, while it trains; ``go_back`` takes it to its last save."""

    def __init__(self, model: HostModel, place: Place, on_nan: str, go_back: Callable[[], None]) -> None:
        self.model, self.place = model, place
        self._on_nan, self._go_back = on_nan, go_back
        self._saved = ""
        """The last completed save, in words."""
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
                    f"coronet: warning: net{name} makes {watch.found} ({self.place}), it has collapsed; "
                    "more --coronet_search_epochs, a larger --coronet_budget or a smaller --lr may prevent it"
                )
                watch.found = None
        if numerics.due(self.model, self.place.steps_this_epoch):
            problem = numerics.bad_loss(self.model)
            self._act_on(problem)
            self._good = problem is None
        self._leave_if_asked()

    def allows_saving(self) -> bool:
        """True if all weights are finite; if not, what is saved stays, and the run stops or goes back.

        Raises:
            NumericsError: as :meth:`after_step`.
        """
        problem = numerics.bad_weights(host.networks(self.model))
        self._act_on(problem)
        return problem is None

    def saved(self) -> None:
        """The latest checkpoint is now of this step."""
        self._saved = str(self.place)
        if self._good:
            self._rollbacks = 0

    # -- numbers ---------------------------------------------------------
    def _act_on(self, problem: str | None) -> None:
        if problem is None:
            return
        weights = numerics.bad_weights(host.networks(self.model))
        if weights != problem:
            problem += f"; {weights or 'all weights are finite'}"
        problem = f"{self.place}: {problem}"
        if not self._saved:
            raise NumericsError(f"{problem}; nothing was saved before; lower --lr")
        kept = f"the checkpoint of {self._saved} is kept"
        if self._on_nan == numerics.STOP or world_size() > 1:
            raise NumericsError(f"{problem}; {kept}; lower --lr, or go back by --coronet_on_nan rollback")
        if self._rollbacks == ROLLBACKS:
            raise NumericsError(f"{problem}; {kept}; going back {ROLLBACKS} times did not help; lower --lr")
        say(f"coronet: {problem}; going back to {self._saved}")
        self._rollbacks += 1
        self._go_back()

    def stop(self) -> None:
        """Listen to signals no longer."""
        if self._signals is not None:
            self._signals.__exit__()

    # -- signals ---------------------------------------------------------
    def _leave_if_asked(self) -> None:
        """Save and end the program after Ctrl-C or SIGTERM, in hosts that do not listen themselves.

        Not with several processes: some might be a step further, and wait for the others for ever.
        """
        if self._signals is None and world_size() == 1:
            self._signals = Interruption().__enter__()
            weakref.finalize(self.model, self._signals.__exit__)
        if self._signals is None:
            return
        if self._signals.requested:
            self.model.save_networks("latest")
            say("coronet: stopped and saved; to go on, give the same command with --continue_train")
            raise SystemExit(self._signals.code)
        if self.place.is_last_step(host.total_epochs(self.model.opt)):
            self.stop()  # what the host does after its last step is its own again
