"""Prophet's model as a linear one: the columns of its design matrix and their priors.

The model (prophet.stan): y / max|y| ~ N(trend(t) + seasonality(t), sigma) with
k, m ~ N(0, 5), delta ~ Laplace(0, tau), beta ~ N(0, prior scale), sigma ~ half-N(0, 0.5), t in [0, 1] over the
history. With additive seasonality yhat = X theta, columns: t, 1, (t - changepoint)+ ..., sin, cos ... .
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
class Regressor:
    """A signal that all series of a batch share and that is known ahead: a planned load, a power limit.

    Attributes:
        since: Unix times, ascending.
        values: each holds from its time on; the first also before.
        prior: prior scale of its coefficient.
        mean, spread: what a value is brought to the scale of the priors by: (value - mean) / spread.
    """

    name: str
    since: tuple[float, ...]
    values: tuple[float, ...]
    prior: float = 10.0
    mean: float = 0.0
    spread: float = 1.0

    def at(self, times: Array) -> Array:
        """Its values (T,) at Unix times, as they are."""
        place = np.searchsorted(np.array(self.since), times, side="right") - 1
        return np.array(self.values, dtype=np.float64)[np.maximum(place, 0)]

    def standardised(self, times: Array) -> Regressor:
        """The same with mean 0 and spread 1 over a history (T,); if it is 0 or 1, or never changes, as it is."""
        values = self.at(times)
        if set(values.tolist()) <= {0.0, 1.0} or np.ptp(values) == 0:
            return self
        return replace(self, mean=float(values.mean()), spread=float(values.std(ddof=1)))


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build; the defaults are Prophet's.

    Attributes:
        growth: "linear", or "flat" (no slope, no changepoints).
        changepoints: most of them, spread over the first `changepoint_range` of the observed points.
        tau: changepoint_prior_scale.
        seasonalities: in the order of their columns.
        event_prior: prior scale of events.
        multiplicative: cycles and events scale the trend instead of adding to it.
        events, regressors: shared by the batch.
    """

    growth: str = "linear"
    changepoints: int = 25
    changepoint_range: float = 0.8
    tau: float = 0.05
    seasonalities: tuple[Seasonality, ...] = (WEEKLY, DAILY)
    event_prior: float = 10.0
    multiplicative: bool = False
    events: tuple[Event, ...] = ()
    regressors: tuple[Regressor, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the trends of N series lie in time; with a single row they all lie alike.

    The columns of theta: [slope], offset, changepoints, and then the cycles, events and regressors.

    Attributes:
        start, span: t = (time - start) / span, in seconds, (N,) or (1,).
        at: changepoints on the scale of t, (N, S) or (1, S).
    """

    recipe: Recipe
    start: Array
    span: Array
    at: Array

    @property
    def constant(self) -> int:
        """The column of the offset m."""
        return int(self.recipe.growth == "linear")

    @property
    def kinks(self) -> slice:
        """The columns with a Laplace prior."""
        return slice(self.constant + 1, self.constant + 1 + self.at.shape[1])

    def trend(self, theta: Array, times: Array) -> Array:
        """Trend (H, N) of the coefficients (N, P) at Unix times (H,)."""
        t = (times[:, None] - self.start) / self.span
        delta, offset = theta[:, self.kinks], theta[:, self.constant]
        if self.recipe.growth != "linear":
            return np.asarray(np.broadcast_to(offset, (len(t), len(offset))))
        if len(self.start) == 1:
            return np.asarray(t * theta[:, 0] + offset + np.maximum(t - self.at, 0.0) @ delta.T)
        if (t >= self.at.max(axis=1, initial=0.0)).all():  # as in every forecast: past the last bend it is a line
            return np.asarray(t * (theta[:, 0] + delta.sum(axis=1)) + (offset - (delta * self.at).sum(axis=1)))
        line: Array = t * theta[:, 0] + offset
        for j in range(delta.shape[1]):
            line += np.maximum(t - self.at[:, j], 0.0) * delta[:, j]
        return line


@dataclass(frozen=True, slots=True)
class Design:
    """Columns for one set of observed times.

    Attributes:
        frame: of a single row.
        x: (T, P): [t], 1, changepoints, seasonalities, events, regressors.
        precision: (P,) of the Gaussian priors; 0 where the prior is Laplace.
    """

    frame: Frame
    x: Array
    precision: Array


def cycles(recipe: Recipe, times: Array) -> Array:
    """Columns (T, C) shared by a batch: seasonalities, events and regressors."""
    parts = [fourier(times, season) for season in recipe.seasonalities]
    day = np.floor(times / DAY)
    for event in recipe.events:
        for offset in range(-event.before, event.after + 1):
            parts.append(np.isin(day, np.array(event.days) + offset)[:, None].astype(np.float64))
    for known in recipe.regressors:
        parts.append(((known.at(times) - known.mean) / known.spread)[:, None])
    return np.concatenate(parts, axis=1) if parts else np.empty((len(times), 0))


def build(recipe: Recipe, times: Array, cycles: Array) -> Design:
    """The design for observed Unix times (T,), ascending, T >= 2, and the recipe's `cycles` (T, C) at them."""
    start, span = times[:1], times[-1:] - times[:1]
    linear = recipe.growth == "linear"
    at = (times[None, changepoint_rows(len(times), recipe)] - start) / span
    frame = Frame(recipe, start, span, at)
    t = ((times - start) / span)[:, None]
    parts = [t, np.ones_like(t), np.maximum(t - at, 0.0)] if linear else [np.ones_like(t)]
    return Design(frame, np.concatenate([*parts, cycles], axis=1), precision(frame))


def precision(frame: Frame) -> Array:
    """Precisions (P,) of the Gaussian priors of all columns."""
    recipe = frame.recipe
    scales = [season.prior for season in recipe.seasonalities for _ in range(2 * season.order)]
    scales += [recipe.event_prior for event in recipe.events for _ in range(event.before + 1 + event.after)]
    scales += [known.prior for known in recipe.regressors]
    trend = [1 / 25.0] * (frame.constant + 1) + [0.0] * frame.at.shape[1]
    return np.array(trend + [1.0 / scale**2 for scale in scales])


def fourier(times: Array, season: Seasonality) -> Array:
    """Prophet's columns of a cycle, (T, 2 order): sin, cos of each order, days counted from the epoch."""
    turn = 2.0 * np.pi * (times / DAY)[:, None] / season.period
    angle = turn * np.arange(1, season.order + 1)
    return np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(len(times), -1)


def changepoint_rows(points: int, recipe: Recipe) -> npt.NDArray[np.intp]:
    """Which of that many observed points the trend may bend at (S,)."""
    within = int(np.floor(points * recipe.changepoint_range))
    number = min(recipe.changepoints, within - 1)
    if number < 1 or recipe.growth != "linear":
        return np.empty(0, dtype=np.intp)
    return np.asarray(np.linspace(0, within - 1, number + 1).round()[1:], dtype=np.intp)
