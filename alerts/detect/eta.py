"""When a training job will end, from its progress records alone.

A record is (wall time, step). Pace is the median time per step of the recent records, so that a checkpoint
or an evaluation does not move it; what those cost on average is added as stall. Time lost to restarts and
pauses counts in the finish, which is wall time, but not in the pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from alerts.detect.bands import Array

RECENT = 12
"""Records whose median is the pace."""
STALL_RECORDS = 400
SETTLED = 20
"""Records before an estimate is made at all."""
PAUSE = 10.0
"""A gap longer than this many expected intervals is a pause, unless it is under `PAUSE_SECONDS`."""
PAUSE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Eta:
    """Finish time as Unix time with an 80 % interval; `pace` and `stall` in seconds a step."""

    finish: float
    low: float
    high: float
    pace: float
    stall: float
    records: int
    stalled: bool


def step_seconds(times: Array, steps: Array) -> Array:
    """Seconds per step between consecutive records, without restarts and pauses.

    Args:
        times: Unix times (R,), ascending.
        steps: step numbers (R,); a step that goes back is a restart.
    """
    gained = np.diff(steps)
    spent = np.diff(times)
    good = (gained > 0) & (spent > 0)
    if not good.any():
        return np.empty(0)
    each = spent[good] / gained[good]
    usual = float(np.median(each))
    pause = np.maximum(PAUSE_SECONDS, PAUSE * usual * gained[good])
    return np.asarray(each[spent[good] <= pause], dtype=np.float64)


def estimate(times: Array, steps: Array, total: float, now: float) -> Eta | None:
    """The finish as expected at `now`; None while fewer than `SETTLED` records are known.

    A job that has gone silent keeps its pace, and its finish moves with the clock.
    """
    each = step_seconds(times, steps)
    if len(each) < SETTLED:
        return None
    pace = float(np.median(each[-RECENT:]))
    recent = each[-STALL_RECORDS:]
    usual = float(np.median(recent))
    stall = float(np.mean(np.maximum(recent - 1.5 * usual, 0.0)))
    left = max(total - float(steps[-1]), 0.0)
    if left == 0:
        end = float(times[-1])
        return Eta(end, end, end, pace, stall, len(each), False)
    interval = float(np.median(np.diff(steps)[np.diff(steps) > 0])) * (pace + stall)
    quiet = now - float(times[-1])
    stalled = quiet > max(PAUSE_SECONDS, PAUSE * interval)
    base = float(times[-1]) + max(quiet - interval, 0.0)
    middle = left * (pace + stall)
    # The mean of the steps to come varies as their deviation over the root of their number; that the pace
    # itself drifts is seen in how far blocks of records differ.
    blocks = recent[: len(recent) // 10 * 10].reshape(-1, 10).mean(axis=1) if len(recent) >= 40 else recent
    drift = float(np.std(blocks))
    z = NormalDist().inv_cdf(0.9)
    spread = z * left * drift
    return Eta(base + middle, max(base + middle - spread, now), base + middle + spread, pace, stall, len(each), stalled)
