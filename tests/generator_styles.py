"""All generator styles: ``STYLES`` by name; one file a family in ``tests/styles``."""

from __future__ import annotations

from styles import (
    STYLES,
    Style,
    attentive,
    conditioned,
    diffusion,
    libraries,
    mobile,
    plain,
    shake,
    skips,
    unusual,
)

__all__ = [
    "STYLES",
    "Style",
    "attentive",
    "conditioned",
    "diffusion",
    "libraries",
    "mobile",
    "plain",
    "shake",
    "skips",
    "unusual",
]
