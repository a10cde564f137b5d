"""Give the model type its lasting address: what ``models/coronet_model.py`` in people's checkouts imports."""

from __future__ import annotations

from coronet_plugin.training.model_type import coronet_model
from coronet_plugin.training.testing import test_model

__all__ = ["coronet_model", "test_model"]
