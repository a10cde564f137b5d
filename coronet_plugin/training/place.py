"""Where a training is: the plug-in's own count of epochs and steps, in any host's loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Place:
    """Epochs done, steps made in the one that is under way, and how many an epoch has."""

    epochs_done: int = 0
    steps_this_epoch: int = 0
    steps_per_epoch: int = 1

    def next_step(self) -> None:
        """A step was made."""
        self.steps_this_epoch += 1

    def next_epoch(self) -> None:
        """The host is between two epochs; some are so before the first step, too."""
        if self.steps_this_epoch:
            self.epochs_done += 1
            self.steps_this_epoch = 0

    @property
    def epoch_is_whole(self) -> bool:
        """True if all steps of the epoch are made, in hosts that say so late."""
        return self.steps_this_epoch >= self.steps_per_epoch

    def is_last_step(self, epochs: int) -> bool:
        """True if the step just made is the last of ``epochs`` epochs."""
        return self.epochs_done + 1 >= epochs and self.epoch_is_whole

    def __str__(self) -> str:
        return f"step {self.steps_this_epoch} of epoch {self.epochs_done + 1}"
