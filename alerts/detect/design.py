"""Prophet's model as a linear one: the columns of its design matrix and their priors.

The model (prophet.stan): y / max|y| ~ N(trend(t) + seasonality(t), sigma) with
k, m ~ N(0, 5), delta ~ Laplace(0, tau), beta ~ N(0, prior scale), sigma ~ half-N(0, 0.5), t in [0, 1] over the
history. With additive seasonality yhat = X theta, columns: t, 1, (t - changepoint)+ ..., sin, cos ... .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Seasonality:
    """A cycle of `period` days as `order` pairs of sine and cosine."""

    period: float
    order: int
    prior: float = 10.0


YEARLY = Seasonality(365.25, 10)
WEEKLY = Seasonality(7.0, 3)
DAILY = Seasonality(1.0, 4)


@dataclass(frozen=True, slots=True)
class Event:
    """Days on which all series of a batch may differ: a holiday, a planned shutdown.

    Attributes:
        days: each as days since the epoch (UTC).
        before, after: so many days around each count as well; every offset has a coefficient of its own.
    """

    name: str
    days: tuple[int, ...]
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build; the defaults are Prophet's.

    Attributes:
        growth: "linear", or "flat" (no slope, no changepoints).
        changepoints: most of them, spread over the first `changepoint_range` of the observed points.
        tau: changepoint_prior_scale.
        seasonalities: in the order of their columns.
        event_prior: prior scale of events and of further columns.
        multiplicative: cycles and events scale the trend instead of adding to it.
        events: shared by the batch.
    """

    growth: str = "linear"
    changepoints: int = 25
    changepoint_range: float = 0.8
    tau: float = 0.05
    seasonalities: tuple[Seasonality, ...] = (WEEKLY, DAILY)
    event_prior: float = 10.0
    multiplicative: bool = False
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Design:
    """Columns for one set of observed times.

    Attributes:
        x: (T, P): [t], 1, changepoints, seasonalities, events.
        precision: (P,) of the Gaussian priors; 0 where the prior is Laplace.
        constant: the column of the offset m.
        kinks: the columns with a Laplace prior.
        start, scale: t = (time - start) / scale, in seconds.
        at: (S,) changepoints on the scale of t.
    """

    recipe: Recipe
    x: Array
    precision: Array
    constant: int
    kinks: slice
    start: float
    scale: float
    at: Array

    @property
    def trend(self) -> int:
        """Number of trend columns; all others are cycles and events."""
        return int(self.kinks.stop)

    def rows(self, times: Array, cycles: Array) -> Array:
        """The same columns (H, P) at other Unix times; `cycles` (H, C) as in `build`."""
        return _columns(self.recipe, times, self.start, self.scale, self.at, cycles)


def cycles(recipe: Recipe, times: Array, further: Array | None = None) -> Array:
    """Columns (T, C) shared by a batch: seasonalities, events and `further` ones (T, E), such as regressors."""
    parts = [fourier(times, season) for season in recipe.seasonalities]
    day = np.floor(times / DAY)
    for event in recipe.events:
        for offset in range(-event.before, event.after + 1):
            parts.append(np.isin(day, np.array(event.days) + offset)[:, None].astype(np.float64))
    if further is not None:
        parts.append(further)
    return np.concatenate(parts, axis=1) if parts else np.empty((len(times), 0))


def build(recipe: Recipe, times: Array, cycles: Array) -> Design:
    """The design for observed Unix times (T,), ascending, T >= 2, and their `cycles` (T, C).

    Columns of `cycles` past the recipe's seasonalities have the prior of events.
    """
    start, scale = float(times[0]), float(times[-1] - times[0])
    linear = recipe.growth == "linear"
    at = (times[_changepoint_rows(len(times), recipe)] - start) / scale if linear else np.empty(0)
    precision = [1 / 25.0] * (1 + linear) + [0.0] * len(at)
    for season in recipe.seasonalities:
        precision += [1.0 / season.prior**2] * (2 * season.order)
    first = 1 + linear
    events = first + len(at) + cycles.shape[1] - len(precision)
    precision += [1.0 / recipe.event_prior**2] * events
    return Design(
        recipe,
        _columns(recipe, times, start, scale, at, cycles),
        np.array(precision),
        first - 1,
        slice(first, first + len(at)),
        start,
        scale,
        at,
    )


def fourier(times: Array, season: Seasonality) -> Array:
    """Prophet's columns of a cycle, (T, 2 order): sin, cos of each order, days counted from the epoch."""
    turn = 2.0 * np.pi * (times / DAY)[:, None] / season.period
    angle = turn * np.arange(1, season.order + 1)
    return np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(len(times), -1)


def _changepoint_rows(points: int, recipe: Recipe) -> npt.NDArray[np.intp]:
    within = int(np.floor(points * recipe.changepoint_range))
    number = min(recipe.changepoints, within - 1)
    if number < 1:
        return np.empty(0, dtype=np.intp)
    return np.asarray(np.linspace(0, within - 1, number + 1).round()[1:], dtype=np.intp)


def _columns(recipe: Recipe, times: Array, start: float, scale: float, at: Array, cycles: Array) -> Array:
    t = (times - start) / scale
    parts = [np.ones((len(t), 1))]
    if recipe.growth == "linear":
        parts = [t[:, None], *parts, np.maximum(t[:, None] - at, 0.0)]
    return np.concatenate([*parts, cycles], axis=1)
