"""When a resource will run out: segment first (clean-ups, one-off jumps), then two methods must agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from alerts.detect.bands import Array

State = Literal["ok", "none", "warming_up", "disagree"]

MIN_POINTS = 24
FLOOR = 0.3
"""Share of the limit in use below which nothing is announced."""


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """Seconds from the last point until the limit: earliest (10 %), median, latest (90 %).

    `state` is "ok" when a date stands, "none" when no end is in sight within the horizon (then all three
    are None), "warming_up" with too little history, "disagree" when only one method sees an end.
    A later quantile that lies past the horizon is None as well.
    """

    state: State
    q10: float | None = None
    q50: float | None = None
    q90: float | None = None
    rate_per_day: float | None = None
    points: int = 0


def exhaustion(times: Array, used: Array, limit: float, horizon: float) -> Exhaustion:
    """When `used` (T,) reaches `limit`, at Unix times (T,); NaN is missing; horizon in seconds."""
    there = ~np.isnan(used)
    t, y = times[there], used[there] / limit
    if len(t) < MIN_POINTS:
        return Exhaustion("warming_up", points=len(t))
    hours = (t - t[-1]) / 3600.0
    start = _last_break(y)
    if len(y) - start < MIN_POINTS:
        return Exhaustion("none", points=len(t))
    h, v = hours[start:], y[start:]
    slopes = _pair_slopes(h, v)
    trend = np.quantile(slopes, (0.9, 0.5, 0.1))
    level = float(np.median(v[-6:]))
    line = float(np.polyfit(h, v, 1)[0])
    rate = float(trend[1])
    dates = [(1.0 - level) / slope * 3600.0 if slope > 0 else np.inf for slope in trend]
    soon, middle, late = (float(date) if date <= horizon else None for date in dates)
    if level < FLOOR or middle is None:
        return Exhaustion("none", rate_per_day=rate * 24, points=len(t))
    if line <= 0 or (1.0 - level) / line * 3600.0 > 2 * horizon:
        return Exhaustion("disagree", rate_per_day=rate * 24, points=len(t))
    return Exhaustion("ok", soon, middle, late, rate_per_day=rate * 24, points=len(t))


def _last_break(y: Array) -> int:
    """Index after the last step (a clean-up or a one-off jump) that stands out of the usual changes."""
    change = np.diff(y)
    usual = 1.4826 * float(np.median(np.abs(change - np.median(change))))
    big = np.flatnonzero(np.abs(change) > max(8 * usual, 0.03))
    return int(big[-1]) + 1 if len(big) else 0


def _pair_slopes(h: Array, v: Array) -> Array:
    """Slopes between points half the segment apart: Theil-Sen with pairs that carry information."""
    half = len(h) // 2
    return np.asarray((v[half:] - v[: len(v) - half]) / (h[half:] - h[: len(h) - half]), dtype=np.float64)
