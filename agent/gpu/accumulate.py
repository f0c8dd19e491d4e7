"""Counters that never jump: totals of the non-negative steps of a source that may restart.

A driver's counters begin again at its reload, fall back when an overlay is lifted, and some wrap.
A step down adds nothing; the next step up counts from there. Totals and last readings are kept
across restarts of the agent, so that neither a restart nor what happened meanwhile is lost.
"""

from __future__ import annotations

from typing import Any

from agent.base.statefile import number


class Accumulator:
    """Totals by key. A key's first reading is its first total, so lifetime counts keep their size."""

    def __init__(self, stored: Any = None) -> None:
        self._state: dict[str, tuple[float, float]] = {}
        for key, pair in stored.items() if isinstance(stored, dict) else ():
            if isinstance(pair, list) and len(pair) == 2:
                last, total = map(number, pair)
                if last is not None and total is not None:
                    self._state[key] = (last, total)

    def add(self, key: str, reading: float) -> float:
        """The total after this reading of the source."""
        last, total = self._state.get(key, (0.0, 0.0))
        total += max(0.0, reading - last)
        self._state[key] = (reading, total)
        return total

    def rebase(self, prefix: str) -> None:
        """The sources whose key begins so have restarted from 0 unseen (a reboot): their next reading is a step."""
        for key, (_, total) in self._state.items():
            if key.startswith(prefix):
                self._state[key] = (0.0, total)

    def dump(self) -> dict[str, list[float]]:
        return {key: list(pair) for key, pair in list(self._state.items())}
