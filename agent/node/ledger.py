"""Totals that outlive the agent: energy is bought once, whatever restarts."""

from __future__ import annotations

import math
from pathlib import Path

from agent.base import statefile


class Ledger:
    """Named totals in one state file, and the last raw reading of each counter that feeds one.

    Raw readings hold for one boot: after another the counters behind them began anew.
    """

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        stored = statefile.load(path)
        self.totals = _numbers(stored.get("totals"))
        self._raw = _numbers(stored.get("raw")) if stored.get("boot_id") == boot_id else {}

    def add(self, name: str, step: float) -> float:
        """The total after a step; a negative or unreal one adds nothing."""
        if math.isfinite(step) and step > 0:
            self.totals[name] = self.totals.get(name, 0.0) + step
        return self.totals.get(name, 0.0)

    def step(self, name: str, raw: float, wrap: float = 0.0) -> float:
        """How far a counter went since its last reading: 0 at the first; past `wrap` it goes on from 0."""
        before = self._raw.get(name)
        self._raw[name] = raw
        if before is None:
            return 0.0
        return raw - before if raw >= before else max(0.0, wrap - before + raw) if wrap else 0.0

    def save(self) -> None:
        statefile.save(self._path, {"boot_id": self._boot_id, "totals": self.totals, "raw": self._raw}, sync=False)


def _numbers(stored: object) -> dict[str, float]:
    if not isinstance(stored, dict):
        return {}
    return {name: value for name, each in stored.items() if (value := statefile.number(each)) is not None}
