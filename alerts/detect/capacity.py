"""When a resource will run out: clean-ups and one-off jumps are segmented first, then two methods must agree.

A single step, up or down, is taken out: it says nothing about the days to come. Clean-ups that recur make a sawtooth;
then what counts is whether its peaks rise. What remains is asked twice: Prophet's trend and cycles (whose interval
gives the dates), and a robust line through the daily peaks since the slope last changed. The peaks of a sawtooth are
held against the medians of its cycles.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alerts.detect.bands import Array
from alerts.detect.design import DAY
from alerts.detect.model import Options
from alerts.detect.prophet_batched import ProphetBatched

State = Literal["ok", "none", "disagree", "warming_up"]

MIN_DAYS = 2.0
MIN_POINTS = 24
FLOOR = 0.3
"""Share of the limit in use below which nothing is announced."""
STEP = 0.03
NOISE_STEPS = 8.0
"""A change between neighbours is a step when it is beyond this share of the limit and so many usual changes."""
AROUND = 6
NOISE_LEVELS = 5.0
"""The same for the medians of so many points before and after, which are nearer to Gaussian."""
RECURS = 2
"""Clean-ups that make a sawtooth."""
SLACK = 1.5
"""The second method may put the end this much later than the horizon and still agree."""
QUANTILES = (0.1, 0.5, 0.9)
CHECK_DAYS = 3.0
"""How far back the forecast is checked against what came."""


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """When the limit is reached.

    Attributes:
        state: "ok" when a date stands; "none" when no end is in sight within the horizon; "disagree" when one
            method alone sees an end; "warming_up" with too little history.
        low, expected, high: seconds from the last point (10 %, 50 %, 90 %); None beyond the horizon.
        rate_per_day: growth in shares of the limit a day, without steps.
        method: "trend" or "peaks" of a sawtooth.
        points: values used.
        last_cleanup: Unix time of the last drop, None if there was none.
        error: mean error of the forecast made `CHECK_DAYS` ago, in shares of the limit; None if too young.
    """

    state: State
    low: float | None = None
    expected: float | None = None
    high: float | None = None
    rate_per_day: float | None = None
    method: Literal["trend", "peaks"] = "trend"
    points: int = 0
    last_cleanup: float | None = None
    error: float | None = None


def exhaustion(times: Array, used: Array, limit: float, horizon: float, check: bool = True) -> Exhaustion:
    """When `used` reaches `limit`.

    Args:
        times: Unix times (T,), ascending, on one grid.
        used: values (T,), NaN where missing.
        limit: value at which the resource is exhausted.
        horizon: seconds ahead to look.
        check: compare a forecast made `CHECK_DAYS` ago with what came.
    """
    there = ~np.isnan(used)
    t, y = times[there], used[there] / limit
    if len(t) < MIN_POINTS or t[-1] - t[0] < MIN_DAYS * DAY:
        return Exhaustion("warming_up", points=len(t))
    steps = _steps(y)
    drops = [place for place in steps if _change(y, place) < 0]
    last = float(t[drops[-1]]) if drops else None
    sawtooth = len(drops) >= RECURS
    if sawtooth:
        line_t, line_y = _peaks(t, y, drops)
        if len(line_t) < RECURS + 1:
            return Exhaustion("none", method="peaks", points=len(t), last_cleanup=last)
        dates, rate = _by_peaks(line_t, line_y, float(t[-1]), horizon)
    else:
        flat = _without_steps(y, steps)
        dates, rate = _by_trend(t, flat, horizon)
    level = float(np.median(y[-6:]))
    method: Literal["trend", "peaks"] = "peaks" if sawtooth else "trend"
    error = _error(times, used, limit, horizon) if check else None
    common = {"rate_per_day": rate, "method": method, "points": len(t), "last_cleanup": last, "error": error}
    if level >= 1.0:
        return Exhaustion("ok", 0.0, 0.0, 0.0, **common)  # type: ignore[arg-type]
    if level < FLOOR or dates[1] is None:
        return Exhaustion("none", **common)  # type: ignore[arg-type]
    if not sawtooth:
        line_t, line_y = _daily_peaks(t, flat)
    elif len(drops) > 3:
        line_t, line_y = _cycles(t, y, drops)
    second = _second_opinion(line_t, line_y)
    if second <= 0 or (1.0 - level) / second * DAY > SLACK * horizon:
        return Exhaustion("disagree", **common)  # type: ignore[arg-type]
    return Exhaustion("ok", *dates, **common)  # type: ignore[arg-type]


def _steps(y: Array) -> list[int]:
    """Places of sudden changes: between neighbours, or, where noise hides them, between neighbouring medians."""
    change = np.diff(y)
    found = [int(place) + 1 for place in np.flatnonzero(np.abs(change) > max(NOISE_STEPS * _usual(change), STEP))]
    if len(y) < 4 * AROUND:
        return found
    level = np.median(np.lib.stride_tricks.sliding_window_view(y, AROUND), axis=1)
    change = level[AROUND:] - level[:-AROUND]  # at place k: the points from k + AROUND on against those before
    edge = max(NOISE_LEVELS * _usual(change), STEP)
    size = np.abs(change)
    for place in np.flatnonzero(size > edge).tolist():
        near = size[max(place - AROUND, 0) : place + AROUND + 1]
        at = place + AROUND
        if size[place] == near.max() and all(abs(at - known) > AROUND for known in found):
            found.append(at)
    return sorted(found)


def _usual(change: Array) -> float:
    """Deviation of most changes."""
    return 1.4826 * float(np.median(np.abs(change - np.median(change))))


def _without_steps(y: Array, steps: list[int]) -> Array:
    """The series with every step taken out, at the level that it has now."""
    flat: Array = y.copy()
    for place in steps:
        flat[:place] += _change(y, place)
    return flat


def _change(y: Array, place: int) -> float:
    """Level after `place` less that before."""
    return float(np.median(y[place : place + 3]) - np.median(y[max(place - 3, 0) : place]))


def _by_trend(t: Array, y: Array, horizon: float) -> tuple[list[float | None], float]:
    """First crossings of 1 by Prophet's 90 %, 50 % and 10 % forecast, and the growth a day."""
    step = float(np.median(np.diff(t)))
    ahead = t[-1] + step * np.arange(1, round(horizon / step) + 1)
    cycles = Options(interval=0.8, changepoint_prior=0.1, changepoint_range=0.95)
    fitted = ProphetBatched().fit(t, y[:, None], cycles)
    bands = fitted.forecast(ahead)
    # The forecast starts from where the series is, not from where the fit is.
    shift = float(np.median(y[-6:] - fitted.forecast(t[-6:]).yhat[:, 0]))
    dates: list[float | None] = []
    for band in (bands.upper, bands.yhat, bands.lower):
        over = np.flatnonzero(band[:, 0] + shift >= 1.0)
        dates.append(float(ahead[over[0]] - t[-1]) if len(over) else None)
    days = max(horizon / DAY, 1e-9)
    rate = float(np.mean(bands.yhat[-_day(step) :, 0]) - np.mean(bands.yhat[: _day(step), 0])) / max(days - 1, 1.0)
    return dates, rate


def _by_peaks(t: Array, y: Array, now: float, horizon: float) -> tuple[list[float | None], float]:
    """When the line through a sawtooth's peaks crosses 1: by the quantiles of its pairwise slopes."""
    slopes = _pair_slopes(t, y)
    centre = float(np.median(y)), float(np.median(t))
    dates: list[float | None] = []
    for slope in np.quantile(slopes, (0.9, 0.5, 0.1)):
        date = centre[1] + (1.0 - centre[0]) / slope * DAY - now if slope > 0 else np.inf
        dates.append(max(float(date), 0.0) if date <= horizon else None)
    return dates, float(np.median(slopes))


def _second_opinion(t: Array, y: Array) -> float:
    """Growth a day by a robust line through peaks, since the slope last changed."""
    if len(t) < 3:
        return 0.0
    start = _last_bend(t, y)
    return float(np.median(_pair_slopes(t[start:], y[start:])))


def _last_bend(t: Array, y: Array) -> int:
    """Index from which a line fits best, if a bend there beats one line for all by far."""
    whole = _rest(t, y)
    best, place = whole, 0
    for bend in range(3, len(t) - 2):
        both = _rest(t[:bend], y[:bend]) + _rest(t[bend - 1 :], y[bend - 1 :])
        if both < best:
            best, place = both, bend - 1
    points = len(t)
    # As by the Bayesian information criterion: two more parameters must pay for themselves.
    floor = 1e-12
    gain = points * (np.log(whole + floor) - np.log(best + floor))
    return place if gain > 3 * np.log(points) else 0


def _rest(t: Array, y: Array) -> float:
    """Squared residuals of the best line."""
    x = (t - t.mean()) / DAY
    spread = float(x @ x)
    slope = float(x @ y) / spread if spread > 0 else 0.0
    off = y - y.mean() - slope * x
    return float(off @ off)


def _pair_slopes(t: Array, y: Array) -> Array:
    """Slopes a day between all pairs of points."""
    first, second = np.triu_indices(len(t), 1)
    return np.asarray((y[second] - y[first]) / ((t[second] - t[first]) / DAY), dtype=np.float64)


def _peaks(t: Array, y: Array, drops: list[int]) -> tuple[Array, Array]:
    """The last value before each drop, and the highest since the last one if it is above the peak before it."""
    # A peak is the highest of the points before a drop: noise may have put the drop a little late.
    places = [place - 1 - int(np.argmax(y[max(place - 3, 0) : place][::-1])) for place in drops]
    rest = drops[-1] + int(np.argmax(y[drops[-1] :]))
    if y[rest] > y[places[-1]]:
        places.append(rest)
    # The first cycle may have begun before the history did, its peak is one all the same.
    places = sorted(set(places))
    return t[places], y[places]


def _cycles(t: Array, y: Array, drops: list[int]) -> tuple[Array, Array]:
    """The middle and the median of each whole cycle."""
    found = [(t[a:b].mean(), np.median(y[a:b])) for a, b in itertools.pairwise(drops) if b > a]
    at, level = np.array(found).reshape(-1, 2).T
    return at, level


def _daily_peaks(t: Array, y: Array) -> tuple[Array, Array]:
    """The highest value of each whole day before now (the last one ends now)."""
    day = np.floor((t - t[-1]) / DAY + 1e-9).astype(np.int64)
    found = [(t[day == number].mean(), y[day == number].max()) for number in np.unique(day)[:-1]]
    at, top = np.array(found).T
    return at, top


def _error(times: Array, used: Array, limit: float, horizon: float) -> float | None:
    """Mean error of the growth foreseen `CHECK_DAYS` ago against that which came, in shares of the limit."""
    past = times <= times[-1] - CHECK_DAYS * DAY
    before = exhaustion(times[past], used[past], limit, horizon, check=False)
    if before.rate_per_day is None:
        return None
    came = used[~past & ~np.isnan(used)] / limit
    start = used[past & ~np.isnan(used)]
    if not len(came) or not len(start):
        return None
    growth = float(np.median(came[-6:]) - np.median(start[-6:]) / limit)
    return abs(growth - before.rate_per_day * CHECK_DAYS)


def _day(step: float) -> int:
    return max(round(DAY / step), 1)
