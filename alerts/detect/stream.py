"""Series scored as a live monitor would have: the score at t uses nothing after t."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from alerts.detect.bands import Array, Bands, Direction, Floors, anomaly_score
from alerts.detect.model import Model, Options, judge, model, nothing

DAY = 86400.0

FIRST = 20
"""Gaps that tell the step."""

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class How:
    """How to score: the same settings as those of a monitor; times in seconds."""

    model: str = "auto"
    options: Options = field(default_factory=Options)
    floors: Floors = field(default_factory=Floors)
    direction: Direction = "both"
    data_range: tuple[float, float] | None = None
    fit_window: float = 14 * DAY
    fit_every: float = DAY
    min_history: float = 2 * DAY


class Replayed(NamedTuple):
    """Bands and scores (T, N) of a replay, and why each series' model was used (N)."""

    bands: Bands
    scores: Array
    why: tuple[str, ...]


class Scored(NamedTuple):
    """Scores (R,) of one series in the order of its rows, NaN while warming up, and why its model was used."""

    scores: Array
    why: str


def score_series(times: Array, values: Array, how: How) -> Scored:
    """Score one series: Unix times (R,) in any order, values (R,) with NaN where missing."""
    if not len(times):
        return Scored(np.empty(0), "no rows")
    order = np.argsort(times, kind="stable")
    found = replay(times[order], values[order, None], how)
    back = np.empty(len(order), dtype=np.intp)
    back[order] = np.arange(len(order))
    return Scored(found.scores[back, 0], found.why[0])


def replay(times: Array, values: Array, how: How, progress: Progress = lambda share: None) -> Replayed:
    """Score series on one grid: Unix times (T,) ascending, values (T, N) with NaN where missing.

    An offline model is fitted every `fit_every` to what came before, an online one learns each row after it is scored.
    """
    if model(how.model).online:
        return online(model(how.model), times, values, how, progress)
    bands = _offline(times, values, how, progress).clipped(how.data_range)
    scores = anomaly_score(values, bands, how.floors, how.direction, how.data_range)
    return Replayed(bands, scores, (how.model,) * values.shape[1])


def online(which: Model, times: Array, values: Array, how: How, progress: Progress = lambda share: None) -> Replayed:
    """Score series on one grid by an online model, which learns each row after it is scored."""
    step, series = typical_step(times), values.shape[1]
    # A live monitor knows the step of its grid: two moments before the first tell it, and no value.
    before = np.array([times[0] - 2 * step, times[0] - step])
    state = which.fit(before, np.full((2, series), np.nan), how.options)
    bands, scores = nothing(*values.shape), np.empty(values.shape)
    for row in range(len(times)):
        moment, point = times[row : row + 1], values[row : row + 1]
        found, scores[row : row + 1] = judge(state, moment, point, how.floors, how.direction, how.data_range)
        for whole, part in zip(bands, found, strict=True):
            whole[row : row + 1] = part
        state = state.update(moment, point)
        if row % 100 == 0:
            progress(row / len(times))
    tell = getattr(state, "why", lambda column: how.model)
    return Replayed(bands, scores, tuple(map(tell, range(series))))


def _offline(times: Array, values: Array, how: How, progress: Progress) -> Bands:
    bands = Bands(*(np.full(values.shape, np.nan) for _ in range(3)))
    moment = float(times[0]) + how.min_history
    while moment <= times[-1]:
        past = (times < moment) & (times >= moment - how.fit_window)
        ahead = (times >= moment) & (times < moment + how.fit_every)
        if ahead.any() and np.count_nonzero(past) >= model(how.model).min_points:
            found = model(how.model).fit(times[past], values[past], how.options).forecast(times[ahead])
            for part, new in zip(bands, found, strict=True):
                part[ahead] = new
        moment += how.fit_every
        progress((moment - times[0]) / max(times[-1] - times[0], 1.0))
    return bands


def typical_step(times: Array) -> float:
    """Seconds between two points of Unix times (T,), ascending, as a rule.

    The first gaps alone tell it: nothing is scored before them, so that no score depends on how the series goes on.
    """
    gaps = np.diff(times)
    gaps = gaps[gaps > 0][:FIRST]
    return float(np.median(gaps)) if len(gaps) else 300.0
