"""A series scored as a live monitor would have: the score at t uses nothing after t."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alerts.detect.bands import Array, Bands, Direction, Floors, anomaly_score
from alerts.detect.model import Options, model

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores (R,) and bands (R,) each, in the order of the rows given; NaN while warming up. `why` tells the choice."""

    scores: Array
    yhat: Array
    lower: Array
    upper: Array
    why: str


@dataclass(frozen=True, slots=True)
class How:
    """How to score: the same settings as those of a monitor."""

    model: str = "auto"
    options: Options = field(default_factory=Options)
    floors: Floors = field(default_factory=Floors)
    direction: Direction = "both"
    data_range: tuple[float, float] | None = None
    fit_window: float = 14 * DAY
    fit_every: float = DAY
    min_history: float = 2 * DAY


def score_series(times: Array, values: Array, how: How) -> Scored:
    """Score one series: Unix times (R,) in any order, values (R,) with NaN where missing."""
    order = np.argsort(times, kind="stable")
    t, y = times[order], values[order]
    chosen = model(how.model)
    bands, why = (_online if chosen.online else _offline)(t, y, how)
    bands = bands.clipped(how.data_range)
    scores = anomaly_score(y[:, None], bands, how.floors, how.direction, how.data_range)[:, 0]
    back = np.empty(len(order), dtype=np.intp)
    back[order] = np.arange(len(order))
    yhat, lower, upper = (part[back, 0] for part in bands)
    return Scored(scores[back], yhat, lower, upper, why)


def _online(t: Array, y: Array, how: How) -> tuple[Bands, str]:
    step = typical_step(t)
    # The step is known of a live monitor; the point before the first tells it without telling a value.
    state = model(how.model).fit(np.array([t[0] - step]), np.array([[np.nan]]), how.options)
    if len(t) > 1:
        state = model(how.model).fit(np.array([t[0] - 2 * step, t[0] - step]), np.full((2, 1), np.nan), how.options)
    parts = []
    for row in range(len(t)):
        moment = t[row : row + 1]
        parts.append(state.forecast(moment))
        state = state.update(moment, y[row : row + 1, None])
    bands = Bands(*(np.concatenate(group) for group in zip(*parts, strict=True)))
    why = getattr(state, "why", None)
    return bands, why(0) if why is not None else how.model


def _offline(t: Array, y: Array, how: How) -> tuple[Bands, str]:
    bands = Bands(*(np.full((len(t), 1), np.nan) for _ in range(3)))
    moment = float(t[0]) + how.min_history
    while moment <= t[-1]:
        past = (t < moment) & (t >= moment - how.fit_window)
        ahead = (t >= moment) & (t < moment + how.fit_every)
        if np.count_nonzero(~np.isnan(y[past])) >= model(how.model).min_points and ahead.any():
            found = model(how.model).fit(t[past], y[past, None], how.options).forecast(t[ahead])
            for part, new in zip(bands, found, strict=True):
                part[ahead] = new
        moment += how.fit_every
    return bands, how.model


def typical_step(t: Array) -> float:
    """Seconds between two points, as a rule."""
    gaps = np.diff(t)
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 300.0
