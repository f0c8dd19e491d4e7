"""The batched fit held against Prophet itself, by one measure for both: for tests and benches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from alerts.detect.bands import Array
from alerts.detect.design import build, cycles
from alerts.detect.model import Options
from alerts.detect.prophet_batched import ProphetBatch, recipe, standardised
from alerts.detect.prophet_reference import fit_one


class Point(NamedTuple):
    """Coefficients (P,), in the order of our design's columns, and noise, on the scale of y / max |y|."""

    theta: Array
    sigma: float


def log_posterior(times: Array, values: Array, options: Options, point: Point) -> float:
    """Prophet's log-posterior of complete values (T,), from every point, by the definition in prophet.stan.

    Up to the constants that Stan drops as well.
    """
    how = recipe(times, standardised(options, times))
    design = build(how, times, cycles(how, times))
    theta, sigma, width = point.theta, point.sigma, design.frame.kinks.stop
    if how.multiplicative:
        yhat = (design.x[:, :width] @ theta[:width]) * (1.0 + design.x[:, width:] @ theta[width:])
    else:
        yhat = design.x @ theta
    rest = values / np.abs(values).max() - yhat
    priors = 0.5 * theta**2 @ design.precision + np.abs(theta[design.frame.kinks]).sum() / how.tau
    return float(-len(values) * np.log(sigma) - rest @ rest / (2 * sigma**2) - priors - 2 * sigma**2)


def ours(fitted: ProphetBatch, column: int) -> Point:
    """What the batched fit found for one of its series that is not constant."""
    for group in fitted.groups:
        for place in np.flatnonzero(group.columns == column):
            theta = group.theta[place].copy()
            theta[group.frame.constant] += group.mean[place]
            return Point(theta, float(group.sigma[place]))
    raise ValueError(f"series {column} was constant, or too short to be fitted")


def theirs(fitted: Any) -> Point:
    """What Prophet found."""
    names = ["k", "m", "delta", "beta"] if fitted.growth == "linear" else ["m", "beta"]
    found = {name: np.ravel(fitted.params[name]) for name in (*names, "sigma_obs")}
    return Point(np.concatenate([found[name] for name in names]), float(found["sigma_obs"][0]))


def stan_from(times: Array, values: Array, options: Options, point: Point) -> Point:
    """Where Stan ends when it starts from a point: if that is the optimum, there. Linear growth only."""
    theta, how = point.theta, recipe(times, standardised(options, times))
    kinks = build(how, times, cycles(how, times)).frame.kinks.stop
    start = {"k": theta[0], "m": theta[1], "delta": theta[2:kinks], "beta": theta[kinks:], "sigma_obs": point.sigma}
    return theirs(fit_one(times, values, options, inits=start))


def predict(fitted: Any, times: Array, options: Options) -> Array:
    """Prophet's expected values (H,) at Unix times (H,), without the draws of its intervals."""
    fitted.uncertainty_samples = 0
    return np.asarray(_quietly(fitted.predict, times, options)["yhat"], dtype=np.float64)


def draws(fitted: Any, times: Array, options: Options, number: int) -> Array:
    """Draws (H, number) of Prophet's predictive distribution at Unix times (H,), the same for the same seed."""
    fitted.uncertainty_samples = number
    np.random.seed(options.seed)  # it draws from the global generator
    return np.asarray(_quietly(fitted.predictive_samples, times, options)["yhat"], dtype=np.float64)


def _quietly(ask: Callable[..., Any], times: Array, options: Options) -> Any:
    """Prophet's answer for a table of the times, without its libraries' warnings."""
    import pandas as pd

    future = {"ds": pd.to_datetime(times, unit="s")} | {known.name: known.at(times) for known in options.regressors}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ask(pd.DataFrame(future))
