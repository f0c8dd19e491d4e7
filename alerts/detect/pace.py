"""The pace of a run from its blocks of records: what is steady, what interrupts, and how it drifts.

Step cost often grows like the logarithm of the step (attention windows and sequences that lengthen), so a slope on
ln(work) is fitted since the pace last changed suddenly, and drawn towards 0 by its own uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alerts.detect.bands import Array

CUT = 1.5
"""Medians beyond which a record holds an interruption."""
SHIFT = 0.08
"""A change of the pace between neighbouring blocks beyond this share starts the slope afresh."""
SHIFT_BLOCKS = 6
DAMPING = 4.0
"""The slope counts by t^2 / (t^2 + DAMPING), t = slope / standard error."""
MOST_DRIFT = 0.25


@dataclass(slots=True)
class Block:
    """Neighbouring records, and what was known at the last of them.

    Attributes:
        at: mean work done; `end`: work done after the last record; `gained`: work made, repeated work included.
        spent: seconds that took, without pauses.
        pace: steady seconds per unit of work in the block.
        slope: slope of the pace on ln(work).
        stall: what interruptions had added to a unit of work on average, since the first block.
    """

    at: float
    end: float
    gained: float
    spent: float
    pace: float
    slope: float = 0.0
    stall: float = 0.0


@dataclass(slots=True)
class Interruptions:
    """What checkpoints, evaluations and hiccups have cost so far."""

    work: float = 0.0
    """Work of the records looked at."""
    count: int = 0
    lost: float = 0.0
    squares: float = 0.0
    """Seconds lost, and the sum of their squares."""

    def add(self, excess: Array, work: float) -> None:
        """Take the seconds that each record lost; most of them 0."""
        self.work += work
        self.count += int(np.count_nonzero(excess))
        self.lost += float(excess.sum())
        self.squares += float(excess @ excess)

    @property
    def stall(self) -> float:
        """Seconds per unit of work."""
        return self.lost / self.work if self.work else 0.0

    def one_more(self, left: float) -> float:
        """Seconds of one more than is due, as far as one is to be expected in the work left."""
        if not self.count:
            return 0.0
        expected = left * self.count / self.work
        return float(np.sqrt(min(expected, 1.0) * self.squares / self.count))


def steady(each: Array) -> Array:
    """Times per work without what interrupted them: beyond `CUT` medians the median stands instead."""
    usual = np.median(each)
    return np.asarray(np.where(each > CUT * usual, usual, each))


def drift(slope: float, pace: float, measured: float, begin: float, end: float) -> float:
    """Mean of the pace over the work from `begin` to `end`, relative to that measured at `measured`, minus 1."""
    if not slope or pace <= 0 or begin >= end:
        return 0.0
    mean = (end * np.log(end) - (begin * np.log(begin) if begin > 0 else 0.0)) / (end - begin) - 1.0
    return float(np.clip(slope * (mean - np.log(measured)) / pace, -MOST_DRIFT, MOST_DRIFT))


def damped_slope(at: Array, paces: Array) -> float:
    """Slope of the pace on ln(work) since its last sudden change, drawn towards 0 by its own uncertainty."""
    if len(paces) < 2 * SHIFT_BLOCKS:  # a sudden change cannot be told from a drift yet
        return 0.0
    start = after_last_shift(paces)
    at, paces = at[start:], paces[start:]
    if len(paces) < SHIFT_BLOCKS:
        return 0.0
    x = np.log(at) - np.log(at).mean()
    spread = float(x @ x)
    slope = float(x @ paces) / spread if spread > 0 else 0.0
    if slope == 0.0:
        return 0.0
    rest = paces - paces.mean() - slope * x
    # Neighbouring blocks are alike: twice the usual standard error.
    error = 2.0 * float(np.sqrt(rest @ rest / max(len(x) - 2, 1) / spread))
    return slope * slope**2 / (slope**2 + DAMPING * error**2)


def after_last_shift(paces: Array) -> int:
    """Index of the first block after the last sudden change of the pace; `paces` are at least 2 * SHIFT_BLOCKS."""
    level = np.median(np.lib.stride_tricks.sliding_window_view(paces, SHIFT_BLOCKS), axis=1)
    change = np.abs(level[SHIFT_BLOCKS:] / level[:-SHIFT_BLOCKS] - 1.0)
    sudden = np.flatnonzero(change > SHIFT)
    return int(sudden[-1]) + SHIFT_BLOCKS + 1 if len(sudden) else 0
