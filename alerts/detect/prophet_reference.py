"""Prophet itself, series by series: the reference, and the choice for few series with odd shapes.

About a second of CPU for two weeks at five minutes, so not for a fleet: see `prophet_batched`.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from alerts.detect.bands import Array, Bands
from alerts.detect.design import Regressor
from alerts.detect.model import Options, nothing


@dataclass(frozen=True, slots=True)
class ProphetState:
    """The fitted Prophets, None for a series with too few points."""

    models: tuple[Any | None, ...]
    regressors: tuple[Regressor, ...] = ()

    def forecast(self, times: Array) -> Bands:
        import pandas as pd

        bands = nothing(len(times), len(self.models))
        future = pd.DataFrame({"ds": pd.to_datetime(times, unit="s")} | {r.name: r.at(times) for r in self.regressors})
        for column, fitted in enumerate(self.models):
            if fitted is None:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = fitted.predict(future)
            bands.yhat[:, column] = answer["yhat"]
            bands.lower[:, column] = answer["yhat_lower"]
            bands.upper[:, column] = answer["yhat_upper"]
        return bands

    def update(self, times: Array, values: Array) -> ProphetState:
        return self


class ProphetReference:
    """One Prophet a series, refitted from time to time."""

    name = "prophet"
    online = False
    min_points = 20

    def fit(self, times: Array, values: Array, options: Options) -> ProphetState:
        models: list[Any | None] = []
        for y in values.T:
            there = np.isfinite(y)
            enough = np.count_nonzero(there) >= self.min_points
            models.append(fit_one(times[there], y[there], options) if enough else None)
        return ProphetState(tuple(models), options.regressors)


def fit_one(times: Array, values: Array, options: Options, **stan: Any) -> Any:
    """A Prophet fitted to complete values (T,) at Unix times (T,); `stan` goes to CmdStan's optimize()."""
    logging.getLogger("prophet.plot").setLevel(logging.CRITICAL)  # plotly is not wanted here
    import pandas as pd
    from prophet import Prophet

    logging.getLogger("prophet").setLevel(logging.ERROR)
    cmdstan = logging.getLogger("cmdstanpy")
    cmdstan.addHandler(logging.NullHandler())  # else it adds one of its own, at level INFO
    cmdstan.setLevel(logging.ERROR)
    daily, weekly = options.cycles(times)
    fitted = Prophet(
        interval_width=options.interval,
        daily_seasonality=daily,
        weekly_seasonality=weekly,
        yearly_seasonality=options.yearly,
        growth=options.growth,
        n_changepoints=options.changepoints,
        changepoint_range=options.changepoint_range,
        changepoint_prior_scale=options.changepoint_prior,
        seasonality_mode="multiplicative" if options.multiplicative else "additive",
        holidays=_holidays(options),
    )
    past = {"ds": pd.to_datetime(times, unit="s"), "y": values}
    for known in options.regressors:
        fitted.add_regressor(known.name, prior_scale=known.prior)
        past[known.name] = known.at(times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(options.seed)  # Prophet draws its intervals from the global generator
        fitted.fit(pd.DataFrame(past), seed=options.seed, **stan)
    _clean_up(fitted)
    return fitted


def _holidays(options: Options) -> Any:
    """Events as Prophet's table of holidays."""
    import pandas as pd

    if not options.events:
        return None
    rows = [
        {"holiday": event.name, "ds": pd.Timestamp(day, unit="D"), "lower_window": -event.before,
         "upper_window": event.after}
        for event in options.events
        for day in event.days
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _clean_up(fitted: Any) -> None:
    """Remove CmdStan's temporary files: they fill the disk of a process that lives long."""
    backend = getattr(fitted, "stan_backend", None)
    if backend is not None and hasattr(backend, "cleanup"):
        backend.cleanup()
