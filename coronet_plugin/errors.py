"""The errors a user can mend.

Every message says what was found, what was expected and what to do about it.
``train.py``, ``test.py`` and the command line show a :class:`UserError` as one
line and leave with exit code 2; library callers catch the kind they care about.
"""

from __future__ import annotations


class UserError(Exception):
    """Something outside the program is wrong: an option, a file, a budget."""


class OptionError(UserError):
    """An option has a value that cannot work, or does not fit another option."""


class DataError(UserError):
    """A data set or an image cannot be read or does not have the expected form."""


class BudgetError(UserError):
    """A budget cannot be read, or no choice of channels reaches it."""


class PlanError(UserError):
    """A generator's channel sets cannot be found, or do not pass verification."""


class CheckpointError(UserError):
    """Weights or a spec are missing, damaged, or belong to another architecture."""
