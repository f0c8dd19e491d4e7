"""What a training loss says of its run: not a number, spikes, divergence, a plateau.

Feed the losses in order. Levels are medians, so that neither a spike nor one bad batch moves them; the noise is that
of the differences between neighbours, so that the slope of a healthy run is no noise.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Signal = Literal["nonfinite", "spike", "diverging", "plateau"]

WINDOW = 50
"""Losses whose median is the level now."""
DEVIATIONS = 8.0
LEAST = 0.10
"""A spike is at least this share above the level."""
WORSE = 0.10
"""A run diverges when its level is this share above the best it had, and beyond the noise."""
RECOVERED = 0.05
BETTER = 0.005
"""Improvement of the best level that counts, as a share."""
PATIENCE = 0.3
"""Share of all losses so far without improvement that is a plateau."""
PLATEAU_LEAST = 400


@dataclass(slots=True)
class LossWatch:
    """The state of one run's loss; `active` holds the signals in force."""

    active: set[Signal] = field(default_factory=set)
    count: int = 0
    best: float = math.inf
    best_at: int = 0
    _above: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=4 * WINDOW))

    def add(self, loss: float) -> set[Signal]:
        """Take the next loss; returns the signals in force now."""
        self._set("nonfinite", not math.isfinite(loss))
        if not math.isfinite(loss):
            return self.active
        self.count += 1
        level = float(np.median(self._recent)) if len(self._recent) == WINDOW else None
        noise = self._noise()
        if level is not None:
            edge = level + max(DEVIATIONS * noise, LEAST * abs(level))
            # One batch may be hard; a spike is two records in a row.
            self._above = self._above + 1 if loss > edge else 0
            self._set("spike", self._above >= 2)
        if self._recent:
            self._steps.append(loss - self._recent[-1])
        self._recent.append(loss)
        if len(self._recent) == WINDOW:
            self._judge(float(np.median(self._recent)), noise)
        return self.active

    def _judge(self, level: float, noise: float) -> None:
        if level < self.best - BETTER * abs(self.best) or math.isinf(self.best):
            self.best, self.best_at = level, self.count
        above = level - self.best
        # The median of a window varies by about 1.25 sigma / sqrt(WINDOW).
        beyond = above > DEVIATIONS * noise * 1.25 / math.sqrt(WINDOW)
        if "diverging" in self.active:
            self._set("diverging", above > RECOVERED * abs(self.best))
        else:
            self._set("diverging", beyond and above > WORSE * abs(self.best))
        waited = self.count - self.best_at
        self._set("plateau", waited >= max(PLATEAU_LEAST, PATIENCE * self.count) and "diverging" not in self.active)

    def _noise(self) -> float:
        """Deviation of a loss around its own trend: that of neighbours' differences over the root of two."""
        if len(self._steps) < WINDOW:
            return math.inf
        steps = np.array(self._steps)
        return 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2.0)

    def _set(self, signal: Signal, on: bool) -> None:
        if on:
            self.active.add(signal)
        else:
            self.active.discard(signal)
