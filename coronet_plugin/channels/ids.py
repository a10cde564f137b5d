"""Ids of channels: made by layers, merged where channels meet, pinned where they must stay (union-find)."""

from __future__ import annotations

import numpy as np

from coronet_plugin.channels.facts import IMAGE, NotUnderstood


class Ids:
    """One id per channel; ids that were merged live and die together."""

    def __init__(self) -> None:
        self._parents = [IMAGE]
        self._pins: list[tuple[int, str]] = []
        self.origins: list[str | None] = [None]
        """By id, the layer that makes the channel, where it is known."""

    def fresh(self, count: int, origin: str | None) -> np.ndarray:
        """``count`` new ids, produced by the layer ``origin``."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        self.origins.extend([origin] * count)
        return np.arange(start, start + count)

    def name_origin(self, ids: np.ndarray, origin: str) -> None:
        """Channels that were seen before their layer are made by it."""
        for index in ids.tolist():
            if index != IMAGE and self.origins[index] is None:
                self.origins[index] = origin

    def find(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index

    def merge(self, left: np.ndarray, right: np.ndarray) -> None:
        """Channel ``left[i]`` and channel ``right[i]`` live and die together."""
        if len(left) != len(right):
            raise NotUnderstood(f"{len(left)} channels meet {len(right)}")
        for a, b in zip(left.tolist(), right.tolist()):
            low, high = sorted((self.find(a), self.find(b)))
            self._parents[high] = low

    def merge_all(self, ids: np.ndarray) -> None:
        """All of ``ids`` live and die together."""
        self.merge(ids[1:], ids[:-1])

    def pin(self, ids: np.ndarray, reason: str) -> None:
        self._pins.extend((index, reason) for index in ids.tolist())

    def pinned(self) -> dict[int, str]:
        """Reason by root id, for every root that must never be removed."""
        reasons: dict[int, str] = {}
        for index, reason in self._pins:
            reasons.setdefault(self.find(index), reason)
        reasons.setdefault(self.find(IMAGE), "it meets the input image")
        return reasons
