"""Ways from all channels of a generator to those its budget allows.

:mod:`~coronet_plugin.methods.exact` is the default; :mod:`~coronet_plugin.methods.generated` holds the
published hypernetwork and its folded form; :mod:`~coronet_plugin.methods.baselines` what they are
measured against.
"""

from __future__ import annotations

from coronet_plugin.budget.goal import STEADY, Goal
from coronet_plugin.errors import OptionError
from coronet_plugin.methods.base import Search, Subject
from coronet_plugin.methods.baselines import MagnitudeSearch, RandomSearch, UniformSearch
from coronet_plugin.methods.exact import ExactSearch
from coronet_plugin.methods.generated import GeneratedSearch
from coronet_plugin.methods.hypernetwork import KERNELS

CORONET = "coronet"
EXACT = "exact"
BASELINES = {"uniform": UniformSearch, "random": RandomSearch, "magnitude": MagnitudeSearch}
METHODS = (CORONET, *BASELINES)
FORMS = (EXACT, *KERNELS)
"""Forms of the hypernetwork, for the method ``coronet``."""


def make_search(subject: Subject, goal: Goal, steps: int, method: str, form: str, embedding: int) -> Search:
    """The search by ``method`` (of :data:`METHODS`) and, for ``"coronet"``, form of its hypernetwork.

    Raises:
        OptionError: there is no such method or form.
    """
    if method not in METHODS:
        raise OptionError(f"method {method!r} does not exist; choose one of {', '.join(METHODS)}")
    if form not in FORMS:
        raise OptionError(f"hypernetwork {form!r} does not exist; choose one of {', '.join(FORMS)}")
    if goal.schedule == STEADY and (method, form in KERNELS) != (CORONET, True):
        raise OptionError("the schedule 'steady' is for the published and folded hypernetworks alone")
    if method in BASELINES:
        return BASELINES[method](subject, goal, steps)
    if form == EXACT:
        return ExactSearch(subject, goal, steps)
    return GeneratedSearch(subject, goal, steps, form, embedding)


def default_schedule(method: str, form: str) -> str:
    """The schedule of a search for which none was asked."""
    return STEADY if method == CORONET and form in KERNELS else "cubic"
