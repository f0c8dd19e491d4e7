"""The one interface of all models, and their names.

A model learns from the past of N series on one time grid and says what comes next. Offline models are
fitted again from time to time and keep their forecast; online models take every new point.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from agent.base.errors import ConfigError
from alerts.detect.bands import Array, Bands, Direction, Floors, anomaly_score, ranged
from alerts.detect.design import Event, Regressor


@dataclass(frozen=True, slots=True)
class Options:
    """What a monitor may ask of its model.

    Attributes:
        interval: share of healthy values inside the bands (0.99).
        daily, weekly: model these cycles; None means "where the history holds two of them".
        yearly: model the year; only with years of history.
        growth: "linear" or "flat".
        changepoints, changepoint_prior: how many places the trend may bend at, and how readily.
        changepoint_range: share of the history in which it may.
        multiplicative: cycles scale the trend instead of adding to it.
        events: days on which all series may differ.
        regressors: signals known ahead that move all series, each by a share of its own.
        span: points over which online models forget.
        seed: every draw is reproducible.
        groups: which series are peers, one number each (N); None: all of them.
    """

    interval: float = 0.99
    daily: bool | None = None
    weekly: bool | None = None
    yearly: bool = False
    growth: Literal["linear", "flat"] = "linear"
    changepoints: int = 25
    changepoint_prior: float = 0.05
    changepoint_range: float = 0.8
    multiplicative: bool = False
    events: tuple[Event, ...] = ()
    regressors: tuple[Regressor, ...] = ()
    span: int = 288
    seed: int = 1
    groups: tuple[int, ...] | None = None

    def cycles(self, times: Array) -> tuple[bool, bool]:
        """Whether to model the daily and the weekly cycle, given the times of the history (T,)."""
        length = float(times[-1] - times[0]) + float(times[1] - times[0]) if len(times) > 1 else 0.0
        daily = length >= 2 * 86400 if self.daily is None else self.daily
        weekly = length >= 2 * 7 * 86400 if self.weekly is None else self.weekly
        return daily, weekly


class Fitted(Protocol):
    """A model that has learnt. All arrays have one column a series, in the order of the fit."""

    def forecast(self, times: Array) -> Bands:
        """Bands at the Unix times (H,), all after the points learnt so far."""

    def update(self, times: Array, values: Array) -> Fitted:
        """The model after the points (K,), (K, N) as well; an offline model stays as it is."""


def judge(
    fitted: Fitted,
    times: Array,
    values: Array,
    floors: Floors,
    direction: Direction,
    data_range: tuple[float, float] | None = None,
) -> tuple[Bands, Array]:
    """Bands and scores (1, N) of the values (1, N) at one moment (1,), before they are learnt.

    A model with a `judge` of its own may look at the moment itself; where it gives no score the bands do.
    """
    own = getattr(fitted, "judge", None)
    bands, scores = own(times, values, floors, direction) if own is not None else (fitted.forecast(times), None)
    bands = bands.clipped(data_range)
    if scores is None:
        return bands, anomaly_score(values, bands, floors, direction, data_range)
    return bands, ranged(scores, values, data_range)


class Model(Protocol):
    """A way to learn. `online` models are to be updated with each point before the next is scored."""

    name: str
    online: bool
    min_points: int

    def fit(self, times: Array, values: Array, options: Options) -> Fitted:
        """Learn from Unix times (T,) and values (T, N); NaN is missing."""


_WHERE = {
    "level_shift": "alerts.detect.shape:Shift",
    "peers": "alerts.detect.shape:Peers",
    "rolling_quantile": "alerts.detect.quantiles:RollingQuantile",
    "seasonal_quantile": "alerts.detect.quantiles:SeasonalQuantile",
    "stuck": "alerts.detect.shape:Stuck",
    "auto": "alerts.detect.auto:Auto",
    "ewma": "alerts.detect.ewma:Ewma",
    "prophet": "alerts.detect.prophet_reference:ProphetReference",
    "prophet_batched": "alerts.detect.prophet_batched:ProphetBatched",
    "robust": "alerts.detect.robust:Robust",
}
"""Model names and where each lives; a model is imported only when used (Prophet costs 150 MB)."""

NAMES = tuple(sorted(_WHERE))


def model(name: str) -> Model:
    """The model of that name.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    if name not in _WHERE:
        raise ConfigError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    module, _, attribute = _WHERE[name].partition(":")
    found: Model = getattr(importlib.import_module(module), attribute)()
    return found


def nothing(points: int, series: int) -> Bands:
    """Bands that say nothing: NaN throughout."""
    empty = np.full((points, series), np.nan)
    return Bands(empty, empty.copy(), empty.copy())
