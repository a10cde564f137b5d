"""The effect of each torch function on the channels: one rule per kind of function.

A rule gets the running :class:`~coronet_plugin.channels.propagation.Propagation` and a call,
merges, reorders or passes on channel ids, and returns the layouts of the results.
It raises :class:`~coronet_plugin.channels.propagation.NotUnderstood` rather than guess. Rules
know nothing of latents, budgets or hosts. To teach the plug-in a function, add a
rule to the module it belongs to.
"""

from __future__ import annotations

from coronet_plugin.channels.rules import layers, multihead, pointwise, products, shapes  # noqa: F401  (they register themselves)
from coronet_plugin.channels.rules.registry import RULES

__all__ = ["RULES"]
