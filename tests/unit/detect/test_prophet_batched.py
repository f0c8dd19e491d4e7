"""The batched fit against Prophet itself: the same posterior, never a worse optimum, the same forecast."""

import logging
import warnings

import numpy as np
import pytest

from alerts.detect.design import Event, build, cycles
from alerts.detect.model import Options, model
from alerts.detect.prophet_batched import ProphetBatched, by_mask, problem, recipe
from alerts.detect.samples import KINDS, sample
from alerts.detect.trend_noise import half_width

START = 1_700_006_400.0
BOTH = Options(daily=True, weekly=True)


def grid(points, step=300.0):
    return START + step * np.arange(points)


@pytest.fixture(scope="module")
def prophet():
    logging.getLogger("prophet.plot").setLevel(logging.CRITICAL)
    import pandas as pd
    from prophet import Prophet

    cmdstan = logging.getLogger("cmdstanpy")
    cmdstan.addHandler(logging.NullHandler())
    cmdstan.setLevel(logging.ERROR)

    class Oracle:
        """A fitted Prophet, its parameters in our order and its forecast."""

        def __init__(self, times, values, growth="linear", draws=0):
            self.model = Prophet(
                daily_seasonality=True,
                weekly_seasonality=True,
                yearly_seasonality=False,
                growth=growth,
                interval_width=0.99,
                uncertainty_samples=draws,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.model.fit(pd.DataFrame({"ds": pd.to_datetime(times, unit="s"), "y": values}), seed=1)
            found = {name: np.ravel(self.model.params[name]) for name in ("k", "m", "delta", "beta", "sigma_obs")}
            trend = ["k", "m", "delta"] if growth == "linear" else ["m"]
            self.theta = np.concatenate([found[name] for name in [*trend, "beta"]])
            self.sigma = found["sigma_obs"][0]

        def forecast(self, times):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.model.predict(pd.DataFrame({"ds": pd.to_datetime(times, unit="s")}))

    return Oracle


def log_posterior(times, values, theta, sigma, options=BOTH):
    """Prophet's log-posterior of one complete series from its points, by the definition in prophet.stan."""
    how = recipe(times, options)
    design = build(how, times, cycles(how, times))
    y = values / np.abs(values).max()
    rest = y - design.x @ theta
    gauss = 0.5 * np.sum(theta**2 * design.precision)
    laplace = np.abs(theta[design.kinks]).sum() / how.tau
    return -len(y) * np.log(sigma) - rest @ rest / (2 * sigma**2) - gauss - laplace - 2 * sigma**2


def ours(times, values, options=BOTH):
    """Coefficients on Prophet's scale and noise of one complete series."""
    (group,) = ProphetBatched().fit(times, values[:, None], options).groups
    theta = group.theta[0].copy()
    theta[group.design.constant] += group.mean[0]
    return theta, group.sigma[0]


@pytest.mark.parametrize("kind", KINDS)
def test_never_a_worse_optimum_than_prophet(prophet, kind):
    times, values = grid(1500), sample(kind, 1512, seed=3)
    oracle = prophet(times, values[:1500])
    theta, sigma = ours(times, values[:1500])
    gain = log_posterior(times, values[:1500], theta, sigma) - log_posterior(
        times, values[:1500], oracle.theta, oracle.sigma
    )
    assert gain >= -0.01


def test_one_hour_ahead_agrees_with_prophet(prophet):
    points = 14 * 288
    times, values = grid(points + 12), np.stack([sample(kind, points, seed=5) for kind in KINDS], axis=1)
    bands = ProphetBatched().fit(times[:points], values, BOTH).forecast(times[points:])
    apart = [
        np.median(np.abs(prophet(times[:points], values[:, i]).forecast(times[points:])["yhat"] - bands.yhat[:, i]))
        / np.ptp(values[:, i])
        for i in range(len(KINDS))
    ]
    assert np.median(apart) < 0.001


@pytest.mark.parametrize("gap", ["middle", "start", "random", "flat growth"])
def test_gaps_and_flat_growth_agree_with_prophet(prophet, gap):
    growth = "flat" if gap == "flat growth" else "linear"
    times, values = grid(1500), sample("weekly", 1500, seed=8)
    missing = {
        "middle": slice(500, 900),
        "start": slice(0, 700),
        "random": np.random.default_rng(0).random(1500) < 0.1,
        "flat growth": slice(0, 0),
    }[gap]
    values[missing] = np.nan
    there = ~np.isnan(values)
    oracle = prophet(times, values, growth)
    options = Options(daily=True, weekly=True, growth=growth)
    theta, sigma = ours(times, values, options)
    known = times[there], values[there]
    gain = log_posterior(*known, theta, sigma, options) - log_posterior(*known, oracle.theta, oracle.sigma, options)
    assert gain >= -0.01


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e9])
def test_large_offsets_keep_their_digits(prophet, offset):
    times, values = grid(600), sample("daily", 600, seed=2) + offset
    oracle = prophet(times, values)
    theta, sigma = ours(times, values)
    gain = log_posterior(times, values, theta, sigma) - log_posterior(times, values, oracle.theta, oracle.sigma)
    assert gain >= -0.01


@pytest.mark.parametrize("kind", ["level_shift", "random_walk"])
def test_interval_agrees_with_many_draws_of_prophet(prophet, kind):
    times, values = grid(1500 + 96), sample(kind, 1500, seed=4)
    np.random.seed(7)
    oracle = prophet(times[:1500], values, draws=20_000)
    drawn = oracle.forecast(times[1500:])
    size = np.array([np.mean(np.abs(oracle.theta[2:27])) + 1e-8])
    half = half_width(np.array([oracle.sigma]), size, 25, 1 / 1499, np.arange(1.0, 97.0), 0.99)[:, 0]
    relative = 2 * half * oracle.model.y_scale / np.asarray(drawn["yhat_upper"] - drawn["yhat_lower"])
    # 20,000 draws and the table's 4,000 know a 0.5 % quantile to some per cent
    assert np.all(np.abs(relative - 1) < 0.10)
    assert abs(np.mean(relative) - 1) < 0.05


def test_series_that_miss_the_same_samples_are_grouped_and_nothing_is_filled_in():
    values = np.ones((50, 6))
    values[10:20, [1, 4]] = np.nan
    values[:, 5] = np.nan
    found = {tuple(columns): len(rows) for columns, rows in by_mask(values, 20)}
    assert found == {(0, 2, 3): 50, (1, 4): 40}


def test_multiplicative_cycles_agree_with_prophet_in_the_forecast():
    points = 14 * 288
    times = grid(points + 12)
    days = (times - START) / 86400
    options = Options(daily=True, weekly=True, multiplicative=True)
    rng, apart = np.random.default_rng(1), []
    for slope in (0.0, 2.0, 5.0):
        trend = 50 + slope * days
        values = trend * (1 + 0.3 * np.sin(2 * np.pi * days)) + rng.normal(size=len(days))
        known = values[:points, None]
        ours = ProphetBatched().fit(times[:points], known, options).forecast(times[points:]).yhat
        theirs = model("prophet").fit(times[:points], known, options).forecast(times[points:]).yhat
        apart.append(np.median(np.abs(ours - theirs)) / np.ptp(known))
    assert np.median(apart) < 0.001
    assert max(apart) < 0.005


def test_events_agree_with_prophets_holidays():
    points = 14 * 288
    times = grid(points + 288)
    day = (times // 86400).astype(int)
    event = Event("shutdown", (int(day[0]) + 4, int(day[0]) + 9, int(day[points])), after=1)
    options = Options(daily=True, weekly=False, events=(event,))
    values = sample("daily", len(times), seed=3)
    for start in event.days:
        values[(day == start) | (day == start + 1)] -= 30
    known = values[:points, None]
    ours = ProphetBatched().fit(times[:points], known, options).forecast(times[points:]).yhat[:, 0]
    theirs = model("prophet").fit(times[:points], known, options).forecast(times[points:]).yhat[:, 0]
    assert np.median(np.abs(ours - theirs)) / np.ptp(known) < 0.001
    assert np.median(np.abs(ours - values[points:])) < 5, "the event is foreseen"


def test_one_series_gets_the_same_as_in_a_crowd():
    times = grid(800)
    values = np.stack([sample(KINDS[i % len(KINDS)], 800, seed=i) for i in range(60)], axis=1)
    crowd = ProphetBatched().fit(times, values, BOTH).forecast(times[-1] + 300.0 * np.arange(1, 13))
    for column in (0, 17, 41):
        alone = ProphetBatched().fit(times, values[:, [column]], BOTH).forecast(times[-1] + 300.0 * np.arange(1, 13))
        np.testing.assert_allclose(alone.yhat[:, 0], crowd.yhat[:, column], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(alone.upper[:, 0], crowd.upper[:, column], rtol=1e-4, atol=1e-6)


def test_every_series_of_a_crowd_meets_the_conditions_of_the_optimum():
    times = grid(800)
    values = np.stack([sample(KINDS[i % len(KINDS)], 800, seed=i) for i in range(120)], axis=1)
    for group in ProphetBatched().fit(times, values, BOTH).groups:
        assert group.exact.all()


def test_no_random_perturbation_improves_the_posterior():
    times, values = grid(600), sample("level_shift", 600, seed=6)
    theta, sigma = ours(times, values)
    best = log_posterior(times, values, theta, sigma)
    rng = np.random.default_rng(0)
    for size in (1e-5, 1e-4, 1e-3):
        for _ in range(30):
            moved = theta + size * rng.normal(size=len(theta))
            assert log_posterior(times, values, moved, sigma * np.exp(size * rng.normal())) <= best + 1e-6


def test_a_problem_uses_the_raw_scale_and_prophets_prior_on_the_offset():
    times, values = grid(100), 5.0 + np.zeros((100, 1))
    values[::2] = 7.0
    how = recipe(times, BOTH)
    made, mean = problem(build(how, times, cycles(how, times)), values, np.array([7.0]))
    assert mean == pytest.approx(6 / 7)
    assert made.centre[0, 1] == pytest.approx(-6 / 7)


def test_model_is_known_by_name():
    assert model("prophet_batched").name == "prophet_batched"
